"""What engines are made of: credentials, failures, the gate, what is left over, the probe."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from imgbuilder.core.permissions import Credentials, basic_credentials
from imgbuilder.core.secrets import Secret
from imgbuilder.standalone.engines.credentials import DOCKER_HUB_KEY, config_document, credential_folder
from imgbuilder.standalone.engines.failures import failure, last_words
from imgbuilder.standalone.engines.gate import Gate
from imgbuilder.standalone.engines.leftovers import mounts_below, remove_contents
from imgbuilder.standalone.engines.probing import exit_program, probe_request
from imgbuilder.standalone.engines.protocol import BuildFailedError, EngineError
from imgbuilder.standalone.processes import Exit

# --- credentials ---


def test_credentials_are_for_this_user_only_and_not_for_long(tmp_path: Path) -> None:
    """The file is gone afterwards, also after an error."""
    with credential_folder(tmp_path, {"a": basic_credentials("user", "password")}) as folder:
        assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    with pytest.raises(ValueError, match="oops"), credential_folder(tmp_path, {}):
        raise ValueError("oops")
    assert list(tmp_path.iterdir()) == []


def test_credentials_are_written_as_docker_reads_them() -> None:
    """All kinds; Docker Hub under both of its names; nothing for nobody."""
    document = config_document(
        {
            "docker.io": basic_credentials("user", "pass:word"),
            "a": Credentials(identity_token=Secret("identity")),
            "b": Credentials(registry_token=Secret("bearer")),
            "c": Credentials(),
        },
    )
    basic = {"auth": "dXNlcjpwYXNzOndvcmQ="}
    assert document == {
        "auths": {
            "docker.io": basic,
            DOCKER_HUB_KEY: basic,
            "a": {"identitytoken": "identity"},
            "b": {"registrytoken": "bearer"},
        },
    }


# --- failures ---


@pytest.mark.parametrize(
    ("status", "said", "exit_status", "fault"),
    [
        # buildah, podman
        (
            7,
            'oops\nError: building at STEP "RUN exit 7": while running runtime: exit status 7\n',
            7,
            'building at STEP "RUN exit 7": while running runtime: exit status 7',
        ),
        (
            125,
            "Error: creating build container: manifest unknown\n",
            125,
            "creating build container: manifest unknown",
        ),
        # BuildKit
        (
            1,
            'error: failed to solve: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3',
            3,
            'failed to solve: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3',
        ),
        (
            1,
            "\x1b[31merror: \x1b[0mfailed to solve: dockerfile parse error on line 2",
            1,
            "failed to solve: dockerfile parse error on line 2",
        ),
        # Docker
        (1, "ERROR: failed to solve: x: not found", 1, "failed to solve: x: not found"),
        (
            4,
            "The command '/bin/sh -c exit 4' returned a non-zero code: 4",
            4,
            "The command '/bin/sh -c exit 4' returned a non-zero code: 4",
        ),
        (
            1,
            "Step 2/2 : COPY a b\nCOPY failed: file not found in build context\n",
            1,
            "COPY failed: file not found in build context",
        ),
        # a program may speak of errors as well: the engine has the last word
        (
            2,
            "Error: mine\nError: building: while running runtime: exit status 2\n",
            2,
            "building: while running runtime: exit status 2",
        ),
        # a RUN step that fills a disk of its own fails by itself
        (
            1,
            "dd: no space left on device\nError: building: while running runtime: exit status 1",
            1,
            "building: while running runtime: exit status 1",
        ),
    ],
)
def test_what_is_built_is_at_fault(status: int, said: str, exit_status: int, fault: str) -> None:
    """With the RUN step's exit status where it has one."""
    error = failure("engine", Exit(status=status), said)
    assert isinstance(error, BuildFailedError)
    assert (error.exit_status, error.fault) == (exit_status, fault)


@pytest.mark.parametrize(
    ("ended", "said", "text"),
    [
        (Exit(status=137, signal=signal.SIGKILL), "Error: whatever", "engine was ended by SIGKILL"),
        (
            Exit(status=125),
            "Error: committing: write /x: no space left on device",
            "engine: committing: write /x: no space left on device",
        ),
        (
            Exit(status=1),
            "ERROR: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "engine: Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
        ),
        (Exit(status=3), "", "engine failed with exit status 3"),
    ],
)
def test_the_machine_is_at_fault(ended: Exit, said: str, text: str) -> None:
    """Another Dockerfile would fail, too."""
    error = failure("engine", ended, said)
    assert isinstance(error, EngineError)
    assert str(error) == text


def test_last_words_are_the_error_or_the_last_line() -> None:
    """In one line of bounded length."""
    assert last_words("hello\nError: oops\nbye\n\n") == "oops"
    assert last_words("hello\nbye\n\n") == "bye"
    assert last_words("") == ""
    assert len(last_words("Error: " + "x" * 5000)) < 700


# --- the gate ---


class Upkeep:
    """Counts how often it was done, and makes sure that nobody builds meanwhile."""

    def __init__(self) -> None:
        self.gate = Gate(self.do)
        self.building = 0
        self.done = 0
        self.log: list[str] = []

    async def do(self) -> None:
        """Take a moment."""
        assert self.building == 0
        await anyio.lowlevel.checkpoint()
        assert self.building == 0
        self.done += 1
        self.log.append("upkeep")

    async def build(self, name: str, end: anyio.Event) -> None:
        """Build until *end*."""
        async with self.gate.passing():
            self.building += 1
            self.log.append(name)
            await end.wait()
            self.building -= 1


async def settle() -> None:
    """Let everything happen that can."""
    await anyio.wait_all_tasks_blocked()


async def test_upkeep_that_is_not_due_is_not_done() -> None:
    """Builds come and go."""
    upkeep, end = Upkeep(), anyio.Event()
    end.set()
    await upkeep.build("a", end)
    assert upkeep.done == 0


async def test_upkeep_waits_for_the_last_build() -> None:
    """Others start while it is due."""
    upkeep, first, second = Upkeep(), anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(upkeep.build, "a", first)
        await settle()
        upkeep.gate.due = True
        group.start_soon(upkeep.build, "b", second)
        await settle()
        assert upkeep.building == 2
        first.set()
        await settle()
        assert upkeep.done == 0
        second.set()
    assert upkeep.log == ["a", "b", "upkeep"]
    assert not upkeep.gate.due


async def test_pressing_upkeep_keeps_others_from_starting() -> None:
    """It is done as soon as those that run have ended."""
    upkeep, first, second = Upkeep(), anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(upkeep.build, "a", first)
        await settle()
        upkeep.gate.pressing = True
        group.start_soon(upkeep.build, "b", second)
        await settle()
        assert upkeep.building == 1
        first.set()
        await settle()
        assert upkeep.building == 1
        second.set()
    assert upkeep.log == ["a", "upkeep", "b"]


async def test_a_cancelled_build_leaves_the_gate() -> None:
    """Inside, and while it waits."""
    upkeep, never = Upkeep(), anyio.Event()
    async with anyio.create_task_group() as inside:
        inside.start_soon(upkeep.gate.passing().__aenter__)
        await settle()
        inside.cancel_scope.cancel()
    upkeep = Upkeep()
    async with anyio.create_task_group() as builds:
        async with upkeep.gate.passing():
            upkeep.gate.pressing = True
            builds.start_soon(upkeep.build, "waits", never)
            await settle()
            builds.cancel_scope.cancel()
        assert upkeep.building == 0
    assert upkeep.done == 1


# --- what is left over ---


def test_finds_mounts_in_a_folder_innermost_first() -> None:
    """As the kernel writes them, with spaces as numbers."""
    table = "".join(
        f"{number} 1 0:1 / {place} rw - ext4 /dev/x rw\n"
        for number, place in enumerate(["/", "/data", "/data/a", "/data/a/b", "/data\\040b/c", "/database/x"])
    )
    assert mounts_below(Path("/data"), table) == [Path("/data/a/b"), Path("/data/a")]
    assert mounts_below(Path("/data b"), table) == [Path("/data b/c")]


def test_empties_a_folder(tmp_path: Path) -> None:
    """Files, folders, links; not what the links lead to."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    folder = tmp_path / "folder"
    (folder / "sub" / "sub").mkdir(parents=True)
    (folder / "file").touch()
    (folder / "link").symlink_to(kept)
    remove_contents(folder)
    assert list(folder.iterdir()) == []
    assert (kept / "file").exists()
    remove_contents(tmp_path / "nowhere")


# --- the probe ---


def test_the_probe_runs_where_its_processor_is(tmp_path: Path) -> None:
    """A program of a hundred bytes, that ends well."""
    content = exit_program(platform.machine())
    if content is None:
        pytest.skip("a processor without a program")
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    assert subprocess.run([program], check=False).returncode == 0


@pytest.mark.parametrize(("machine", "runs"), [("amd64", True), ("aarch64", True), ("riscv64", False)])
def test_the_probe_is_gone_afterwards(tmp_path: Path, machine: str, runs: bool) -> None:
    """For a processor that is not known it runs nothing."""
    with probe_request(tmp_path / "probes", machine=machine) as request:
        assert ("RUN" in request.dockerfile.read_text()) is runs
        assert os.access(request.context / "probe", os.X_OK)
        assert request.scratch.is_dir()
    assert list((tmp_path / "probes").iterdir()) == []
