"""Clones from a real server with the real git: what is checked out, and who sees the credentials."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from imgbuilder.pb.contentservice import (
    CloneTargetMode,
    GitAuthMethod,
    GitConfig,
    GitInitializer,
    WorkspaceInitializer,
)
from imgbuilder.standalone.content import ContentError, ContentSettings, prepare_content
from imgbuilder.standalone.git.configuration import is_harmless
from imgbuilder.standalone.processes import Tail, find_marked
from tests.unit.standalone.running import nothing_runs
from tests.world.git import GitServer, Repository, Rules
from tests.world.registries.httpd import Respond, Seen

USER, PASSWORD = "someone", "s3cret-of-someone"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with two commits on main and one on feature."""
    repository = Repository(tmp_path / "served" / "project")
    repository.commit("first", Dockerfile="FROM first", docs__readme="read me")
    repository.git("branch", "feature")
    repository.commit("second", Dockerfile="FROM second")
    repository.git("checkout", "--quiet", "feature")
    repository.commit("on feature", Dockerfile="FROM feature")
    repository.git("checkout", "--quiet", "main")
    return repository


@pytest.fixture
async def server(repository: Repository) -> AsyncIterator[GitServer]:
    """Serves it to anybody."""
    async with GitServer(repository.path.parent) as server:
        yield server


@pytest.fixture
async def private(repository: Repository) -> AsyncIterator[GitServer]:
    """Serves it to one user."""
    async with GitServer(repository.path.parent, Rules(users={USER: PASSWORD}), secret=PASSWORD) as server:
        yield server


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Where a clone goes."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


class Cloning:
    """Clones into a workspace, and keeps what was said."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.said = Tail(limit=1 << 20)

    async def clone(self, initializer: GitInitializer, settings: ContentSettings | None = None) -> Repository:
        """Make the clone that *initializer* asks for."""
        initializer_of_all = WorkspaceInitializer(git=initializer)
        with anyio.fail_after(30):
            await prepare_content(
                initializer_of_all, self.workspace, self.said, settings=settings or ContentSettings()
            )
        return Repository(self.workspace / initializer.checkout_location.lstrip("/"))

    async def fails(self, initializer: GitInitializer, settings: ContentSettings | None = None) -> str:
        """What is said when that fails."""
        with pytest.raises(ContentError) as failed:
            await self.clone(initializer, settings)
        return str(failed.value)


@pytest.fixture
def cloning(workspace: Path) -> Cloning:
    """Clones into the workspace."""
    return Cloning(workspace)


def address(server: GitServer, name: str = "project") -> str:
    """Where a repository is."""
    return f"{server.url}/{name}"


def basic_auth(user: str = USER, password: str = PASSWORD) -> GitConfig:
    """The configuration with a user and a password."""
    return GitConfig(authentication=GitAuthMethod.BASIC_AUTH, auth_user=user, auth_password=password)


# --- what is checked out ---


async def test_the_default_branch_is_cloned_shallowly(
    cloning: Cloning, server: GitServer, repository: Repository
) -> None:
    """REMOTE_HEAD is the newest commit of the default branch, and none before it."""
    clone = await cloning.clone(GitInitializer(remote_uri=address(server)))
    assert (clone.path / "Dockerfile").read_text() == "FROM second"
    assert clone.git("rev-parse", "HEAD") == repository.git("rev-parse", "main")
    assert clone.git("rev-list", "--count", "HEAD") == "1"
    assert clone.git("branch", "--show-current") == "main"
    assert f"cloning {address(server)}\n" in cloning.said.text()


async def test_a_full_clone_has_all_commits(cloning: Cloning, server: GitServer) -> None:
    """Where it is asked for."""
    clone = await cloning.clone(GitInitializer(remote_uri=address(server), full_clone=True))
    assert clone.git("rev-list", "--count", "HEAD") == "2"
    assert "origin/feature" in clone.git("branch", "--remotes")


@pytest.mark.parametrize("full", [False, True])
async def test_a_remote_branch_is_checked_out(cloning: Cloning, server: GitServer, full: bool) -> None:
    """REMOTE_BRANCH is the newest commit of that branch."""
    clone = await cloning.clone(
        GitInitializer(
            remote_uri=address(server),
            target_mode=CloneTargetMode.REMOTE_BRANCH,
            clone_taget="feature",
            full_clone=full,
        ),
    )
    assert (clone.path / "Dockerfile").read_text() == "FROM feature"
    assert clone.git("branch", "--show-current") == "feature"


async def test_a_local_branch_is_made(cloning: Cloning, server: GitServer) -> None:
    """LOCAL_BRANCH begins where the default branch is."""
    clone = await cloning.clone(
        GitInitializer(
            remote_uri=address(server), target_mode=CloneTargetMode.LOCAL_BRANCH, clone_taget="my/work"
        ),
    )
    assert (clone.path / "Dockerfile").read_text() == "FROM second"
    assert clone.git("branch", "--show-current") == "my/work"


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("length", [40, 10])
async def test_a_commit_is_checked_out(
    cloning: Cloning, server: GitServer, repository: Repository, full: bool, length: int
) -> None:
    """REMOTE_COMMIT is any commit; only that one where its whole hash is given."""
    commit = repository.git("rev-parse", "main~1")
    clone = await cloning.clone(
        GitInitializer(
            remote_uri=address(server),
            target_mode=CloneTargetMode.REMOTE_COMMIT,
            clone_taget=commit[:length],
            full_clone=full,
        ),
    )
    assert clone.git("rev-parse", "HEAD") == commit
    assert (clone.path / "Dockerfile").read_text() == "FROM first"
    shallow = clone.git("rev-parse", "--is-shallow-repository") == "true"
    assert shallow == (length == 40 and not full)


@pytest.mark.parametrize("full", [False, True])
async def test_a_server_need_not_hand_out_single_commits(
    cloning: Cloning, repository: Repository, full: bool
) -> None:
    """Old ones do not: then all branches are fetched."""
    commit = repository.git("rev-parse", "main~1")
    # version 2 of the protocol hands out what it has; this one does not
    rules = Rules(config={"uploadpack.allowAnySHA1InWant": "false", "protocol.version": "0"})
    config = GitConfig(custom_config={"http.version": "HTTP/1.1"})
    async with OldServer(repository.path.parent, rules) as server:
        clone = await cloning.clone(
            GitInitializer(
                remote_uri=address(server),
                target_mode=CloneTargetMode.REMOTE_COMMIT,
                clone_taget=commit,
                config=config,
                full_clone=full,
            ),
        )
    assert clone.git("rev-parse", "HEAD") == commit
    assert clone.git("rev-parse", "--is-shallow-repository") == "false"


class OldServer(GitServer):
    """Speaks the first version of the protocol only."""

    async def respond(self, request: Seen) -> Respond:
        """Answer as if nothing newer had been asked for."""
        headers = {name: value for name, value in request.headers.items() if name != "git-protocol"}
        return await super().respond(dataclasses.replace(request, headers=headers))


async def test_a_commit_that_is_on_no_branch_is_found(
    cloning: Cloning, server: GitServer, repository: Repository
) -> None:
    """Like that of a pull request, by its hash; also by a full clone."""
    repository.git("checkout", "--quiet", "--detach")
    commit = repository.commit("of a pull request", Dockerfile="FROM pull request")
    repository.git("update-ref", "refs/pull/1/head", commit)
    repository.git("checkout", "--quiet", "main")
    clone = await cloning.clone(
        GitInitializer(
            remote_uri=address(server),
            target_mode=CloneTargetMode.REMOTE_COMMIT,
            clone_taget=commit,
            full_clone=True,
        ),
    )
    assert clone.git("rev-parse", "HEAD") == commit


async def test_checks_out_below_the_workspace(cloning: Cloning, server: GitServer) -> None:
    """At the checkout location; the remote called upstream is known there."""
    clone = await cloning.clone(
        GitInitializer(
            remote_uri=address(server),
            checkout_location="/src/project",
            upstream_Remote_uri="https://me:secret@example.com/original",
        ),
    )
    assert clone.path == cloning.workspace / "src" / "project"
    assert (clone.path / "Dockerfile").exists()
    assert clone.git("remote", "get-url", "upstream") == "https://example.com/original"


@pytest.mark.parametrize("location", ["../elsewhere", "a/../../b", "/..", "a\nb"])
async def test_does_not_leave_the_workspace(cloning: Cloning, server: GitServer, location: str) -> None:
    """A checkout location outside is refused before anything is fetched."""
    initializer = GitInitializer(remote_uri=address(server), checkout_location=location)
    assert "leads out of the workspace" in await cloning.fails(initializer)
    assert server.requests == []


async def test_hooks_filters_and_submodules_do_nothing(
    cloning: Cloning, server: GitServer, repository: Repository, tmp_path: Path
) -> None:
    """What a repository contains is data: cloning it runs nothing."""
    proof = tmp_path / "proof"
    repository.commit(
        **{
            ".gitattributes": "* filter=evil\n",
            ".gitmodules": f'[submodule "x"]\n\tpath = x\n\turl = {address(server)}\n',
            ".gitconfig": f'[filter "evil"]\n\tsmudge = touch {proof}\n',
        },
    )
    hook = repository.path / ".git" / "hooks" / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {proof}\n")
    hook.chmod(0o755)
    clone = await cloning.clone(GitInitializer(remote_uri=address(server)))
    assert not proof.exists()
    assert not (clone.path / ".git" / "hooks").exists()
    assert not (clone.path / "x").exists()


# --- credentials ---


@pytest.mark.parametrize(
    ("in_address", "config"),
    [
        ("", basic_auth()),
        (f"{USER}:{PASSWORD}@", None),
        ("someone:wrong@", basic_auth()),
    ],
)
async def test_credentials_are_shown_to_the_server_only(
    cloning: Cloning, private: GitServer, in_address: str, config: GitConfig | None
) -> None:
    """Not on a command line, in the output, or in the clone; those of the settings count first."""
    lines: set[bytes] = set()
    done = anyio.Event()

    async def watch() -> None:
        while not done.is_set():
            lines.update(command_lines())
            await anyio.sleep(0.002)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        clone = await cloning.clone(
            GitInitializer(remote_uri=f"http://{in_address}{private.host}/project", config=config),
        )
        done.set()
    assert (clone.path / "Dockerfile").exists()
    assert any(b"git" in line and private.host.encode() in line for line in lines)
    places = [*lines, cloning.said.text().encode(), *all_contents(clone.path / ".git")]
    assert not [place for place in places if PASSWORD.encode() in place]
    assert clone.git("remote", "get-url", "origin") == address(private)


def command_lines() -> Iterator[bytes]:
    """The command line of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield (folder / "cmdline").read_bytes()


def all_contents(folder: Path) -> Iterator[bytes]:
    """What the files in a folder contain."""
    return (file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("user", "secret"), [(USER, PASSWORD), ("", f"{USER}:{PASSWORD}")])
async def test_a_one_time_secret_is_asked_for_once(
    cloning: Cloning, repository: Repository, user: str, secret: str
) -> None:
    """However many requests the clone takes. It may bring the user's name along."""
    async with GitServer(repository.path.parent, Rules(users={USER: PASSWORD}), secret=secret) as server:
        config = GitConfig(
            authentication=GitAuthMethod.BASIC_AUTH_OTS, auth_user=user, auth_ots=server.secret_address
        )
        clone = await cloning.clone(GitInitializer(remote_uri=address(server), config=config))
        assert server.told.asked == 1
    assert (clone.path / "Dockerfile").exists()


async def test_a_secret_that_was_told_before_fails_the_clone(cloning: Cloning, private: GitServer) -> None:
    """The address, a secret itself, is not repeated."""
    private.told.asked = 1
    config = GitConfig(authentication=GitAuthMethod.BASIC_AUTH_OTS, auth_ots=private.secret_address)
    said = await cloning.fails(GitInitializer(remote_uri=address(private), config=config))
    assert said == "the git password can't be fetched: the answer is 404"


@pytest.mark.parametrize(
    ("ots", "fault"),
    [
        ("ftp://example.com/secret-address", "its address is not an http address"),
        ("http://127.0.0.1:1/secret-address", "ConnectError"),
        ("http://host:port/secret-address", "InvalidURL"),
    ],
)
async def test_a_secret_that_cant_be_had_fails_the_clone(
    cloning: Cloning, server: GitServer, ots: str, fault: str
) -> None:
    """With the reason, and without the address."""
    config = GitConfig(authentication=GitAuthMethod.BASIC_AUTH_OTS, auth_ots=ots)
    said = await cloning.fails(GitInitializer(remote_uri=address(server), config=config))
    assert said == f"the git password can't be fetched: {fault}"


async def test_credentials_are_not_sent_on_to_another_server(
    cloning: Cloning, private: GitServer, repository: Repository
) -> None:
    """A redirect leads there; the password stays."""
    async with GitServer(repository.path.parent, Rules(redirect=private.url)) as first:
        said = await cloning.fails(GitInitializer(remote_uri=address(first), config=basic_auth()))
    assert "it asks for credentials" in said
    assert not [request for request in private.requests if request.authorization]


@pytest.mark.parametrize("password", ["with\nline break", "with\0zero"])
async def test_credentials_that_cant_be_sent_are_refused(
    cloning: Cloning, private: GitServer, password: str
) -> None:
    """A line break would be another answer to git."""
    initializer = GitInitializer(remote_uri=address(private), config=basic_auth(password=password))
    assert await cloning.fails(initializer) == "the git credentials contain characters that can't be sent"


# --- what can go wrong ---


async def test_says_whether_credentials_are_missing_or_wrong(cloning: Cloning, private: GitServer) -> None:
    """Two different things to do about it."""
    said = await cloning.fails(GitInitializer(remote_uri=address(private)))
    assert said == f"cannot clone {address(private)}: it asks for credentials, and none were given"
    config = basic_auth(password="wrong")
    said = await cloning.fails(GitInitializer(remote_uri=address(private), config=config))
    assert said == f"cannot clone {address(private)}: the credentials were refused"


@pytest.mark.parametrize("mode", [CloneTargetMode.REMOTE_BRANCH, CloneTargetMode.REMOTE_COMMIT])
@pytest.mark.parametrize("revision", ["nowhere", "0" * 40])
async def test_an_unknown_revision_is_named(
    cloning: Cloning, server: GitServer, mode: CloneTargetMode, revision: str
) -> None:
    """Branch or commit."""
    initializer = GitInitializer(remote_uri=address(server), target_mode=mode, clone_taget=revision)
    said = await cloning.fails(initializer)
    assert said == f"cannot clone {address(server)}: unknown revision {revision!r}"


@pytest.mark.parametrize("revision", ["", "--upload-pack=evil", "a b", "a\nb"])
async def test_what_can_be_no_revision_is_refused(cloning: Cloning, server: GitServer, revision: str) -> None:
    """Before git could take it for an option."""
    initializer = GitInitializer(
        remote_uri=address(server), target_mode=CloneTargetMode.REMOTE_BRANCH, clone_taget=revision
    )
    assert (await cloning.fails(initializer)).startswith("cannot clone: ")
    assert server.requests == []


async def test_an_unknown_repository_is_named(cloning: Cloning, server: GitServer) -> None:
    """Without guessing why."""
    said = await cloning.fails(GitInitializer(remote_uri=address(server, "nowhere")))
    assert said == f"cannot clone {address(server, 'nowhere')}: repository not found"


async def test_a_server_that_cant_be_reached_is_named(cloning: Cloning) -> None:
    """Nobody listens there."""
    said = await cloning.fails(GitInitializer(remote_uri="http://127.0.0.1:1/project"))
    assert said == "cannot clone http://127.0.0.1:1/project: its host can't be reached"


@pytest.mark.parametrize(
    "remote",
    [
        "ext::sh -c 'touch /tmp/evil'",
        "ssh://git@example.com/project",
        "git@example.com:project",
        "/etc",
        "file:///etc",
        "--upload-pack=evil",
        "http://",
        "http://example.com:port/",
        "",
    ],
)
async def test_other_addresses_are_refused(cloning: Cloning, remote: str) -> None:
    """Those that run programs, use this user's keys, or read this machine."""
    said = await cloning.fails(GitInitializer(remote_uri=remote))
    how = ", unless with --allow-file-urls" if remote.startswith("file:") else ""
    assert said.endswith(f"only https and http addresses can be cloned{how}")


async def test_files_of_this_machine_are_cloned_where_allowed(
    cloning: Cloning, repository: Repository
) -> None:
    """For the demo, which has no server."""
    initializer = GitInitializer(remote_uri=f"file://{repository.path}")
    clone = await cloning.clone(initializer, ContentSettings(allow_file_urls=True))
    assert (clone.path / "Dockerfile").read_text() == "FROM second"


async def test_cancelling_ends_git(cloning: Cloning) -> None:
    """A server that does not answer holds nothing up."""
    async with SilentServer(Path("/nonexistent")) as server:
        async with anyio.create_task_group() as group:
            group.start_soon(cloning.clone, GitInitializer(remote_uri=address(server)))
            await server.requested(1)
            assert find_marked(cloning.workspace)
            group.cancel_scope.cancel()
        await nothing_runs(cloning.workspace)


class SilentServer(GitServer):
    """Takes requests, and answers none."""

    async def respond(self, request: Seen) -> Respond:
        """Answer nothing, ever."""
        await anyio.sleep_forever()
        raise AssertionError(request)


# --- settings ---


async def test_harmless_settings_of_the_request_are_used(cloning: Cloning, server: GitServer) -> None:
    """They reach git; none is left in the clone, as they may be secrets."""
    custom = {"http.extraHeader": "X-Token: abc", "alias.co": "!touch /tmp/evil"}
    clone = await cloning.clone(
        GitInitializer(remote_uri=address(server), config=GitConfig(custom_config=custom)),
    )
    assert {request.headers.get("x-token") for request in server.requests} == {"abc"}
    assert "abc" not in (clone.path / ".git" / "config").read_text()
    assert "the git setting 'alias.co' is not used here\n" in cloning.said.text()


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("user.name", True),
        ("core.autocrlf", True),
        ("http.https://example.com.extraHeader", True),
        ("url.https://example.com/.insteadOf", True),
        ("core.sshCommand", False),
        ("core.askPass", False),
        ("core.hooksPath", False),
        ("core.fsmonitor", False),
        ("core.gitProxy", False),
        ("core.editor", False),
        ("credential.helper", False),
        ("include.path", False),
        ("includeIf.gitdir:/.path", False),
        ("filter.lfs.smudge", False),
        ("alias.x", False),
        ("diff.external", False),
        ("diff.x.textconv", False),
        ("remote.origin.uploadpack", False),
        ("protocol.ext.allow", False),
        ("http.cookieFile", False),
        ("http.sslKey", False),
        ("http.proxy", False),
        ("gpg.program", False),
        ("color.pager", False),
        ("user.name\nfoo", False),
    ],
)
def test_settings_that_run_programs_or_read_files_are_not_used(name: str, harmless: bool) -> None:
    """Of what a request may set, only what is known to do neither."""
    assert is_harmless(name) is harmless
