"""A clone of a git repository: the commands that make it, one after the other.

Shallow unless asked otherwise; no submodules, no files of git LFS, no hooks. Credentials reach git through the
environment of its processes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import anyio

from imgbuilder.pb.contentservice import CloneTargetMode, GitInitializer
from imgbuilder.standalone.git.addresses import Address, parse_address, without_credentials
from imgbuilder.standalone.git.configuration import git_environment, is_harmless
from imgbuilder.standalone.git.errors import ContentError, UnknownRevisionError, clone_error
from imgbuilder.standalone.git.secrets import find_login
from imgbuilder.standalone.git.settings import ContentSettings
from imgbuilder.standalone.processes import Command, ProgramNotFoundError, Tail, Take, run

_FULL_HASH: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BRANCHES: Final = "+refs/heads/*:refs/remotes/origin/*"


async def clone(
    initializer: GitInitializer, workspace: Path, output: Take, settings: ContentSettings
) -> None:
    """Make the clone that *initializer* asks for, in *workspace* or below it.

    :raises ContentError: if it can't be made.
    """
    address = parse_address(initializer.remote_uri, allow_file_urls=settings.allow_file_urls)
    target = clone_target(workspace, initializer.checkout_location)
    revision = _revision(initializer)
    config = initializer.config
    login = await find_login(config, address, limit=settings.secret_limit)
    await anyio.Path(target).mkdir(parents=True, exist_ok=True)
    git = _Git(
        env=git_environment(
            workspace,
            origin=address.origin,
            login=login,
            custom=dict(_custom_settings(initializer, output)),
            allow_file_urls=settings.allow_file_urls,
        ),
        address=address,
        target=target,
        revision=revision,
        output=output,
    )
    output(f"cloning {address.text}\n".encode())
    if initializer.target_mode == CloneTargetMode.REMOTE_COMMIT:
        await _clone_commit(git, full=initializer.full_clone)
    else:
        await _clone_branch(git, initializer)
    upstream = without_credentials(initializer.upstream_Remote_uri)
    if upstream and not upstream.startswith("-"):
        await git.run("remote", "add", "upstream", upstream)


def clone_target(workspace: Path, location: str) -> Path:
    """The folder that the checkout location *location* names, in *workspace* or below it.

    :raises ContentError: if it leads out of it.
    """
    path = PurePosixPath(location.lstrip("/"))
    if ".." in path.parts or not location.isprintable():
        raise ContentError(f"checkout location {location!r}: leads out of the workspace")
    return workspace.joinpath(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Git:
    """Runs git for one clone.

    :ivar revision: what is asked for, for errors.
    """

    env: dict[str, str]
    address: Address
    target: Path
    revision: str
    output: Take

    async def run(self, *arguments: str) -> None:
        """Run git in the clone.

        :raises CloneError: if it fails.
        """
        said = Tail(self.output)
        if not await self._ends_well(arguments, said):
            raise clone_error(self.address.text, self.revision, said.text())

    async def has_revision(self) -> bool:
        """Whether what is asked for is there."""
        return await self._ends_well(
            ("rev-parse", "--quiet", "--verify", f"{self.revision}^{{commit}}"), Tail()
        )

    async def _ends_well(self, arguments: tuple[str, ...], said: Tail) -> bool:
        command = Command(argv=("git", "-C", str(self.target), *arguments), env=self.env)
        try:
            return (await run(command, said)).ok
        except ProgramNotFoundError as error:
            raise ContentError("cannot clone: git is not installed") from error


async def _clone_branch(git: _Git, initializer: GitInitializer) -> None:
    """Clone a branch of the repository, its default one unless another is named."""
    remote = initializer.target_mode == CloneTargetMode.REMOTE_BRANCH
    await git.run(
        *("clone", "--quiet", "--progress", "--template="),
        *(() if initializer.full_clone else ("--depth=1",)),
        *(("--branch", git.revision) if remote else ()),
        *("--", git.address.text, "."),
    )
    if initializer.target_mode == CloneTargetMode.LOCAL_BRANCH:
        await git.run("checkout", "--quiet", "-B", git.revision)


async def _clone_commit(git: _Git, *, full: bool) -> None:
    """Clone up to a commit: only that where the server hands it out, else all branches and tags."""
    by_hash = _FULL_HASH.fullmatch(git.revision) is not None
    await git.run("init", "--quiet", "--template=")
    await git.run("remote", "add", "origin", git.address.text)
    fetches = [
        *([("--depth=1", "origin", git.revision)] if by_hash and not full else []),
        ("--tags", "origin", _BRANCHES),
        *([("origin", git.revision)] if by_hash and full else []),  # on no branch, e.g. of a pull request
    ]
    for fetch in fetches:
        with suppress(UnknownRevisionError):  # the next one may find it
            await git.run("fetch", "--quiet", "--progress", *fetch)
        if await git.has_revision():
            await git.run("checkout", "--quiet", "--detach", git.revision)
            return
    raise UnknownRevisionError(git.address.text, f"unknown revision {git.revision!r}")


def _revision(initializer: GitInitializer) -> str:
    """The branch or commit asked for; empty for the default branch.

    :raises ContentError: if there should be one, or it can't be one.
    """
    revision = initializer.clone_taget
    if initializer.target_mode == CloneTargetMode.REMOTE_HEAD:
        return ""
    if not revision:
        raise ContentError("cannot clone: no branch or commit is named")
    if revision.startswith("-") or not revision.isprintable() or " " in revision:
        raise ContentError(f"cannot clone: {revision!r} is no branch or commit")
    return revision


def _custom_settings(initializer: GitInitializer, output: Take) -> Iterator[tuple[str, str]]:
    """The settings of the request that are used; *output* is told of the others."""
    custom = initializer.config.custom_config if initializer.config is not None else {}
    for name, value in sorted(custom.items()):
        if is_harmless(name) and "\0" not in value and name.isprintable():
            yield name, value
        else:
            output(f"the git setting {name!r} is not used here\n".encode())
