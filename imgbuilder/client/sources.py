"""What to build: from an image, from a git repository, or as a file in JSON says; as the request for it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.client.protojson import has_field, parse_json, read_message
from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.references import InvalidReferenceError, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.builder import BuildRequest, BuildSource, BuildSourceDockerfile, BuildSourceReference
from imgbuilder.pb.contentservice import (
    CloneTargetMode,
    GitAuthMethod,
    GitConfig,
    GitInitializer,
    WorkspaceInitializer,
)

LARGEST_FILE: Final = 4 << 20
"""In bytes; no service takes more."""

_COMMIT: Final = re.compile(r"[0-9a-f]{7,40}|[0-9a-f]{64}")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_USERINFO: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/@]*:[^/@]*@", re.IGNORECASE)
NO_SOURCE: Final = "say what to build: --ref IMAGE, --git URL, or a file with a source in JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user wants built, as written; what was not given is empty.

    :ivar file: with a source in JSON; ``-`` for the standard input.
    :ivar login: ``user:password`` for the repository.
    """

    ref: str = ""
    git: str = ""
    revision: str = ""
    dockerfile: str = ""
    context: str = ""
    dockerfile_version: str = ""
    file: str = ""
    login: Secret | None = None


def request_for(wanted: Wanted) -> BuildRequest:
    """The request for what is *wanted*, with its source; of a file that has a whole request, all of that.

    :raises InvalidOptionError: if an option, a file, or a field of one can't be used.
    """
    given = [
        name
        for name, value in (("--ref", wanted.ref), ("--git", wanted.git), ("a file", wanted.file))
        if value
    ]
    if len(given) > 1:
        raise InvalidOptionError(" and ".join(given), "give one of them")
    if not given:
        raise InvalidOptionError("source", NO_SOURCE)
    if not wanted.git:
        _refuse_git_options(wanted)
    if wanted.ref:
        return BuildRequest(source=reference_source(wanted.ref))
    return BuildRequest(source=_git_source(wanted)) if wanted.git else _from_file(wanted.file)


def reference_source(ref: str, option: str = "--ref") -> BuildSource:
    """A source that is an image.

    :param option: what names it, for errors.
    :raises InvalidOptionError: if *ref* is no reference: then no service needs to be asked.
    """
    try:
        parse_reference(ref)
    except InvalidReferenceError as error:
        raise InvalidOptionError(option, str(error)) from error
    return BuildSource(ref=BuildSourceReference(ref=ref))


def is_commit(revision: str) -> bool:
    """Whether *revision* names a commit, not a branch or tag, which may name another one tomorrow."""
    return _COMMIT.fullmatch(revision) is not None


def _refuse_git_options(wanted: Wanted) -> None:
    options = {
        "--revision": wanted.revision,
        "--dockerfile": wanted.dockerfile,
        "--context": wanted.context,
        "--dockerfile-version": wanted.dockerfile_version,
        "--git-auth": wanted.login,
    }
    for name, value in options.items():
        if value:
            raise InvalidOptionError(name, "goes with --git only")


def _git_source(wanted: Wanted) -> BuildSource:
    mode = CloneTargetMode.REMOTE_HEAD
    if wanted.revision:
        mode = CloneTargetMode.REMOTE_COMMIT if is_commit(wanted.revision) else CloneTargetMode.REMOTE_BRANCH
    git = GitInitializer(
        remote_uri=_remote(wanted.git),
        clone_taget=wanted.revision,
        target_mode=mode,
        config=_git_config(wanted.login) if wanted.login else None,
    )
    return BuildSource(
        file=BuildSourceDockerfile(
            source=WorkspaceInitializer(git=git),
            dockerfile_version=wanted.dockerfile_version or wanted.revision,
            dockerfile_path=wanted.dockerfile or "Dockerfile",
            context_path=wanted.context,
        )
    )


def _remote(text: str) -> str:
    """The address to clone; a folder of this machine as ``file://``, which a service has to allow."""
    if _USERINFO.match(text):
        raise InvalidOptionError("--git", "take the password out of the address, and give it with --git-auth")
    if not _SCHEME.match(text) and Path(text).is_dir():
        return Path(text).resolve().as_uri()
    return text


def _git_config(login: Secret) -> GitConfig:
    user, _, password = login.reveal().partition(":")
    return GitConfig(authentication=GitAuthMethod.BASIC_AUTH, auth_user=user, auth_password=password)


def _from_file(name: str) -> BuildRequest:
    document = parse_source_file(name)
    shown = "the standard input" if name == "-" else name
    try:
        if _is_request(document):
            request = read_message(BuildRequest, document)
        else:
            request = BuildRequest(source=read_message(BuildSource, document))
    except InvalidInputError as error:
        raise InvalidOptionError(shown, str(error)) from error
    except RecursionError:
        raise InvalidOptionError(shown, "is nested too deeply") from None
    if request.source is None or (request.source.ref is None and request.source.file is None):
        raise InvalidOptionError(shown, 'has no source: a source has "ref", or "file" with "source" in it')
    return request


def parse_source_file(name: str) -> Any:
    """The JSON document in the file *name*; ``-`` is the standard input.

    :raises InvalidOptionError: if there is none.
    """
    shown = "the standard input" if name == "-" else name
    try:
        if name == "-":
            contents = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with Path(name).open("rb") as file:
                contents = file.read(LARGEST_FILE + 1)
        if len(contents) > LARGEST_FILE:
            raise InvalidOptionError(shown, f"is larger than {LARGEST_FILE >> 20} MiB")
        return parse_json(contents, shown)
    except OSError as error:
        raise InvalidOptionError(shown, f"cannot be read: {error.strerror}") from error
    except InvalidInputError as error:
        raise InvalidOptionError(shown, error.fault) from error


def _is_request(document: Any) -> bool:
    """Whether *document* is a whole request rather than a source: it has a field that only a request has."""
    if not isinstance(document, dict):
        return False
    return any(has_field(BuildRequest, key) and not has_field(BuildSource, key) for key in document)
