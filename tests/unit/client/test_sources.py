"""What a user wants built, as the request for it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.client.sources import LARGEST_FILE, Wanted, request_for
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.builder import BuildRequest, BuildSource, BuildSourceReference
from imgbuilder.pb.contentservice import CloneTargetMode, GitAuthMethod

URL = "https://git.test/a.git"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fault_of(wanted: Wanted) -> str:
    """Why *wanted* can't be asked for."""
    with pytest.raises(InvalidOptionError) as caught:
        request_for(wanted)
    return str(caught.value)


def test_an_image() -> None:
    """As it was written: the service knows its normal form."""
    assert request_for(Wanted(ref="ubuntu")).source == BuildSource(ref=BuildSourceReference(ref="ubuntu"))


@pytest.mark.parametrize(
    ("revision", "mode"),
    [
        ("", CloneTargetMode.REMOTE_HEAD),
        (COMMIT, CloneTargetMode.REMOTE_COMMIT),
        (COMMIT[:7], CloneTargetMode.REMOTE_COMMIT),
        ("main", CloneTargetMode.REMOTE_BRANCH),
        ("v1.2", CloneTargetMode.REMOTE_BRANCH),
    ],
)
def test_a_repository(revision: str, mode: CloneTargetMode) -> None:
    """A commit is fetched as one; the revision tells this Dockerfile from earlier ones."""
    source = request_for(Wanted(git=URL, revision=revision)).source
    assert source is not None
    assert source.file is not None
    assert (source.file.dockerfile_path, source.file.context_path) == ("Dockerfile", "")
    assert source.file.dockerfile_version == revision
    assert source.file.source is not None
    git = source.file.source.git
    assert git is not None
    assert (git.remote_uri, git.clone_taget, git.target_mode, git.config) == (URL, revision, mode, None)


def test_everything_of_a_repository() -> None:
    """Its Dockerfile, context and version, and a login for it."""
    login = Secret("me:pass:word")
    wanted = Wanted(git=URL, dockerfile="a/Dockerfile", context="a", dockerfile_version="7", login=login)
    source = request_for(wanted).source
    assert source is not None
    file = source.file
    assert file is not None
    assert (file.dockerfile_path, file.context_path, file.dockerfile_version) == ("a/Dockerfile", "a", "7")
    assert file.source is not None
    assert file.source.git is not None
    config = file.source.git.config
    assert config is not None
    assert (config.authentication, config.auth_user, config.auth_password) == (
        GitAuthMethod.BASIC_AUTH,
        "me",
        "pass:word",
    )


def test_a_repository_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder becomes an address that services may allow."""
    (tmp_path / "re po").mkdir()
    monkeypatch.chdir(tmp_path)
    source = request_for(Wanted(git="re po")).source
    assert source is not None
    assert source.file is not None
    assert source.file.source is not None
    assert source.file.source.git is not None
    assert source.file.source.git.remote_uri == (tmp_path / "re po").as_uri()


@pytest.mark.parametrize(
    "document",
    [
        {"ref": {"ref": "ubuntu"}},
        {"source": {"ref": {"ref": "ubuntu"}}, "forceRebuild": True, "triggered_by": "me"},
    ],
)
def test_a_file(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a source, or with a whole request; also from the standard input."""
    file = tmp_path / "source.json"
    file.write_text(json.dumps(document))
    whole = "source" in document
    expected = BuildRequest(
        source=BuildSource(ref=BuildSourceReference(ref="ubuntu")),
        force_rebuild=whole,
        triggered_by="me" if whole else "",
    )
    assert request_for(Wanted(file=str(file))) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert request_for(Wanted(file="-")) == expected


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        (Wanted(), "source: say what to build: --ref IMAGE, --git URL, or a file with a source in JSON"),
        (Wanted(ref="a", git="b"), "--ref and --git: give one of them"),
        (Wanted(ref="a", file="b"), "--ref and a file: give one of them"),
        (Wanted(ref="a", revision="b"), "--revision: goes with --git only"),
        (Wanted(file="a", login=Secret("b")), "--git-auth: goes with --git only"),
        (Wanted(ref="A"), "--ref: cannot parse image reference 'A'"),
        (
            Wanted(git="https://me:hunter2@git.test/a"),
            "--git: take the password out of the address, and give it with --git-auth",
        ),
        (Wanted(file="/no/such"), "/no/such: cannot be read: No such file or directory"),
        (Wanted(file="/etc"), "/etc: cannot be read: Is a directory"),
    ],
)
def test_what_can_not_be_asked_for(wanted: Wanted, fault: str) -> None:
    """Names the option, and never shows a password."""
    assert fault_of(wanted).startswith(fault)
    assert "hunter2" not in fault_of(wanted)


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        ("{", "is not JSON: Expecting property name enclosed in double quotes in line 1, column 2"),
        ('{"ref": {"reff": "a"}}', "ref.reff: there is no such field; those there are: ref"),
        ("{}", 'has no source: a source has "ref", or "file" with "source" in it'),
        ('{"forceRebuild": true}', 'has no source: a source has "ref", or "file" with "source" in it'),
        (" " * (LARGEST_FILE + 1), "is larger than 4 MiB"),
        (
            '{"file": {"source": ' + '{"composite": {"initializer": [' * 300 + "]}}" * 300 + "}}",
            "is nested too deeply",
        ),
    ],
)
def test_a_file_that_can_not_be_used(contents: str, fault: str, tmp_path: Path) -> None:
    """Names the file and the field."""
    file = tmp_path / "source.json"
    file.write_text(contents)
    assert fault_of(Wanted(file=str(file))) == f"{file}: {fault}"
