"""Programs as children: what they say, how they end, and that nothing of them is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from imgbuilder.standalone import processes
from imgbuilder.standalone.processes import (
    Command,
    Exit,
    ProgramNotFoundError,
    Tail,
    ask,
    end_marked,
    environment,
    find_marked,
    run,
)
from tests.unit.standalone.running import nothing_runs


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    """A folder that programs run on behalf of."""
    return tmp_path / "owner"


def shell(owner: Path, script: str) -> Command:
    """A shell that runs *script*."""
    return Command(argv=("sh", "-c", script), env=environment(owner))


def open_descriptors() -> int:
    """How many files and pipes this process holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Heard:
    """Keeps what a program says, and tells when it has said something."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.spoken = anyio.Event()

    def __call__(self, chunk: bytes) -> None:
        """Take the next piece."""
        self.chunks.append(chunk)
        self.spoken.set()


async def test_output_comes_as_it_is_written(owner: Path) -> None:
    """Without waiting for the end of a line, and both streams in order."""
    heard = Heard()
    async with anyio.create_task_group() as group:
        group.start_soon(run, shell(owner, "printf '50%%\\r'; read line < /dev/null; exec sleep 60"), heard)
        await heard.spoken.wait()
        group.cancel_scope.cancel()
    assert heard.chunks == [b"50%\r"]
    heard = Heard()
    ended = await run(shell(owner, "echo out; echo err >&2; echo again"), heard)
    assert ended.ok
    assert b"".join(heard.chunks) == b"out\nerr\nagain\n"


@pytest.mark.parametrize(
    ("script", "ended", "text"),
    [
        ("exit 0", Exit(status=0), "exit status 0"),
        ("exit 7", Exit(status=7), "exit status 7"),
        ("kill -9 $$", Exit(status=137, signal=signal.SIGKILL), "ended by SIGKILL"),
    ],
)
async def test_tells_how_a_program_ended(owner: Path, script: str, ended: Exit, text: str) -> None:
    """Its exit status, or the signal."""
    assert await run(shell(owner, script), Tail()) == ended
    assert str(ended) == text


async def test_an_answer_keeps_the_streams_apart(owner: Path) -> None:
    """What is written to standard error is no part of the answer."""
    answer = await ask(shell(owner, "echo 42; echo careful >&2"), limit=10)
    assert (answer.exit.ok, answer.output, answer.errors) == (True, "42", "careful")


async def test_an_answer_is_not_awaited_for_ever(owner: Path) -> None:
    """The program is ended then."""
    with pytest.raises(TimeoutError):
        await ask(shell(owner, "exec sleep 60"), limit=0.1)
    await nothing_runs(owner)


@pytest.mark.parametrize("argv", [("no-such-program",), ("/no/such/program",)])
async def test_a_program_that_is_not_there_is_named(owner: Path, argv: tuple[str, ...]) -> None:
    """It says what is not installed."""
    with pytest.raises(ProgramNotFoundError, match=r"no/?-?such-?/?program is not installed|program is not"):
        await run(Command(argv=argv, env=environment(owner)), Tail())


async def test_cancelling_asks_the_whole_group_to_end(owner: Path) -> None:
    """A program gets to tidy up, and its children end as well."""
    done = owner.with_name("done")
    heard = Heard()
    script = f"trap 'echo tidied > {done}; exit 3' TERM; sleep 60 & echo ready; wait"
    async with anyio.create_task_group() as group:
        group.start_soon(run, shell(owner, script), heard)
        await heard.spoken.wait()
        group.cancel_scope.cancel()
    assert done.read_text() == "tidied\n"
    await nothing_runs(owner)


async def test_what_does_not_end_is_made_to(owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ignores being asked is killed, with its children."""
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    heard = Heard()
    async with anyio.create_task_group() as group:
        group.start_soon(
            run, shell(owner, "trap '' TERM; sleep 60 & echo ready; while :; do wait; done"), heard
        )
        await heard.spoken.wait()
        group.cancel_scope.cancel()
    await nothing_runs(owner)


async def test_a_program_that_talks_while_it_ends_is_heard_out(owner: Path) -> None:
    """Its last words fit into no pipe: somebody has to read on."""
    heard = Heard()
    script = "trap 'head -c 1000000 /dev/zero; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run, shell(owner, script), heard)
            await heard.spoken.wait()
            group.cancel_scope.cancel()
    await nothing_runs(owner)


@pytest.mark.parametrize("leave", ["", "setsid "])
async def test_what_holds_the_output_open_is_cut_off(
    owner: Path, leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child in the background does not keep a program from having ended."""
    monkeypatch.setattr(processes, "LINGERING", 0.1)
    heard = Heard()
    with anyio.fail_after(20):
        ended = await run(shell(owner, f"{leave}sleep 60 & echo done"), heard)
    assert ended.ok
    assert heard.chunks == [b"done\n"]
    assert bool(find_marked(owner)) == bool(leave)  # what left the group is found by its mark
    await to_thread.run_sync(end_marked, owner)
    await nothing_runs(owner)


async def test_a_child_that_holds_nothing_open_is_ended_too(owner: Path) -> None:
    """Whatever a program leaves in its group ends with it."""
    assert (await run(shell(owner, "sleep 60 > /dev/null 2>&1 &"), Tail())).ok
    await nothing_runs(owner)


async def test_an_error_in_the_taker_ends_the_program(owner: Path) -> None:
    """And is raised as it was."""

    def fail(chunk: bytes) -> None:
        raise ValueError(chunk)

    with pytest.raises(ValueError, match="hello"):
        await run(shell(owner, "echo hello; exec sleep 60"), fail)
    await nothing_runs(owner)


async def test_descriptors_are_closed(owner: Path) -> None:
    """However it went."""
    before = open_descriptors()
    await run(shell(owner, "echo hello"), Tail())
    with pytest.raises(ProgramNotFoundError):
        await run(Command(argv=("no-such-program",), env=environment(owner)), Tail())
    with pytest.raises(TimeoutError):
        await ask(shell(owner, "exec sleep 60"), limit=0.05)
    assert open_descriptors() <= before + 2  # the loop's own, made at first use


def test_the_environment_is_small(owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of this process are nobody's business."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    monkeypatch.setenv("PATH", "/opt/bin:/usr/bin")
    env = environment(owner, passed_on=("DOCKER_HOST",), TMPDIR="/scratch")
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert env["HTTPS_PROXY"] == "http://proxy:3128"
    assert env["DOCKER_HOST"] == "unix:///run/docker.sock"
    assert env["TMPDIR"] == "/scratch"
    assert env["LC_ALL"] == "C.UTF-8"
    assert env["PATH"].split(":")[:2] == ["/opt/bin", "/usr/bin"]
    assert "/usr/sbin" in env["PATH"].split(":")


def test_the_tail_is_bounded() -> None:
    """Of what was said, the end is kept; all of it is passed on."""
    passed: list[bytes] = []
    tail = Tail(passed.append, limit=10)
    for number in range(100):
        tail(f"{number:05d}".encode())
    assert tail.text() == "0009800099"
    assert len(b"".join(passed)) == 500
    assert len(tail.kept) <= 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
async def test_a_program_is_asked_to_end_when_its_parent_is_killed(owner: Path) -> None:
    """A kill -9 of this process would not leave it running."""
    script = f"""
import anyio
from pathlib import Path
from imgbuilder.standalone.processes import Command, environment, run
env = environment(Path({str(owner)!r}))
anyio.run(run, Command(argv=("sh", "-c", "echo ready; exec sleep 60"), env=env), lambda said: print(said, flush=True))
"""
    async with await anyio.open_process([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        with anyio.fail_after(20):
            await parent.stdout.receive()
            assert find_marked(owner)
            parent.kill()
            await nothing_runs(owner)


def test_marks_of_other_folders_are_left_alone(owner: Path) -> None:
    """Only what runs on behalf of the folder, or of one in it, is ended."""
    env = environment(owner.with_name("owner-of-others"))
    with subprocess.Popen(["sleep", "60"], env=env) as other:
        with subprocess.Popen(["sleep", "60"], env=environment(owner / "inner")) as inner:
            end_marked(owner)
            assert inner.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
