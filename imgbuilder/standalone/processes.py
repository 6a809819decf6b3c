"""Programs as children: run one, pass on what it says as it comes, and leave nothing of it behind.

Each runs in a session of its own, so that it can be ended with all that it started. Cancelling asks it to end
and makes it if it does not. What outlives this process when *that* is killed is asked to end by the kernel
(on Linux), and otherwise found again by a mark in its environment: see `end_marked`.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import anyio
import structlog
from anyio.abc import Process

from imgbuilder.core.errors import ImgbuilderError

log = structlog.get_logger(__name__)

PATIENCE: Final = 10.0
"""Seconds between asking a program to end and making it."""

LINGERING: Final = 1.0
"""Seconds that the output of a program which has ended may be held open by what it left behind."""

CHUNK: Final = 64 * 1024
LONGEST_ANSWER: Final = 4 << 20
"""Bytes of a program's answer that are kept: its end."""

MARK: Final = "IMGBUILDER_OWNER"
"""The environment variable that tells whose child a program is."""

PASSED_ON: Final = (
    "HOME",
    "USER",
    "LOGNAME",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
)
"""What a program gets of this process's environment. All else could be a secret that is none of its business."""

FOLDERS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for besides PATH: that of a plain user often lacks where container runtimes are."""


Take = Callable[[bytes], object]
"""Takes a piece of what a program writes: any length, not cut at lines."""


class ProgramNotFoundError(ImgbuilderError):
    """A program is not installed, or can't be run."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program} is not installed")
        self.program = program


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run.

    :ivar argv: the program's name and its arguments. Everybody on the machine can read them: no secrets.
    :ivar env: its whole environment; see `environment`.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path | None = None

    @property
    def name(self) -> str:
        """The program, for logs."""
        return Path(self.argv[0]).name


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a program ended.

    :ivar status: its exit status; 128 and the signal's number if a signal ended it, as shells have it.
    """

    status: int
    signal: signal.Signals | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.status == 0

    def __str__(self) -> str:
        return f"exit status {self.status}" if self.signal is None else f"ended by {self.signal.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a program said, its standard output and error apart, each without white space around it."""

    exit: Exit
    output: str
    errors: str


@dataclass(slots=True)
class Tail:
    """Keeps the end of what a program says, and passes everything on."""

    onward: Take | None = None
    limit: int = 16 * 1024
    kept: bytearray = field(default_factory=bytearray)

    def __call__(self, chunk: bytes) -> None:
        """Take the next piece."""
        self.kept += chunk
        if len(self.kept) > 2 * self.limit:
            del self.kept[: -self.limit]
        if self.onward is not None:
            self.onward(chunk)

    def text(self) -> str:
        """The end of what was said; bytes that are no UTF-8 are replaced."""
        return bytes(self.kept[-self.limit :]).decode(errors="replace")


def environment(owner: Path, *, passed_on: Iterable[str] = (), **values: str) -> dict[str, str]:
    """An environment for a program: little of this process's, and *values*.

    :param owner: the folder on whose behalf it runs; `end_marked` finds it by that.
    :param passed_on: names of more variables to pass on, where they are set.
    """
    kept = {name: os.environ[name] for name in (*PASSED_ON, *passed_on) if name in os.environ}
    paths = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join([*filter(None, paths), *(folder for folder in FOLDERS if folder not in paths)])
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", MARK: str(owner), **values}


async def run(command: Command, output: Take, errors: Take | None = None) -> Exit:
    """Run a program to its end. It has no input.

    Cancelling ends it first, and all that is in its process group; that may take `PATIENCE`.

    :param output: called with what it writes as it comes; must not block.
    :param errors: called with what it writes to its standard error instead, if given.
    :raises ProgramNotFoundError: if it can't be started.
    """
    with ExitStack() as stack:
        written = [stack.enter_context(_Pipe(take)) for take in (output, errors) if take is not None]
        process = await _start(command, written[0], written[-1])
        try:
            failure = await _follow(process, written)
            if failure is not None:
                raise failure
            return _exit(process)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process, written, command.name)


async def ask(command: Command, *, limit: float) -> Answer:
    """Run a program for its answer. Ended after *limit* seconds, as when cancelled.

    :raises ProgramNotFoundError: if it can't be started.
    :raises TimeoutError: if it takes longer.
    """
    output, errors = Tail(limit=LONGEST_ANSWER), Tail()
    with anyio.fail_after(limit):
        ended = await run(command, output, errors)
    return Answer(exit=ended, output=output.text().strip(), errors=errors.text().strip())


def end_marked(owner: Path) -> None:
    """Kill every process that runs on behalf of *owner*, or of a folder in it, but this one; wait until it is gone.

    Blocks meanwhile: to be called in a thread. Finds none where there is no ``/proc``. Only for the start, when
    nothing may run on behalf of *owner*.
    """
    deadline = time.monotonic() + PATIENCE
    while (marked := find_marked(owner)) and time.monotonic() < deadline:
        for pid in marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)  # the kernel tells nobody when what is no child of ours has ended


def find_marked(owner: Path) -> list[int]:
    """The processes that run on behalf of *owner*, or of a folder in it, but this one."""
    marks = [f"\0{MARK}={owner}{end}".encode() for end in ("\0", "/")]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or somebody else's
            variables = b"\0" + (folder / "environ").read_bytes()
            if any(mark in variables for mark in marks) and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


class _Pipe:
    """What a program writes into one stream, read here.

    A pipe of our own rather than asyncio's, which stays open for as long as anything holds its other end.
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._source, self.sink = os.pipe()
        os.set_blocking(self._source, False)

    def close_sink(self) -> None:
        """Let the program alone hold the other end."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    async def pump(self) -> None:
        """Pass on what is written until nobody is left who could write."""
        while True:
            await anyio.wait_readable(self._source)
            chunk = os.read(self._source, CHUNK)
            if not chunk:
                return
            self._take(chunk)

    async def discard(self) -> None:
        """Read on, for nobody."""
        self._take = len
        await self.pump()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_sink()
        os.close(self._source)


async def _start(command: Command, output: _Pipe, errors: _Pipe) -> Process:
    if shutil.which(command.argv[0], path=command.env["PATH"]) is None:
        raise ProgramNotFoundError(command.name)
    try:
        with anyio.CancelScope(shield=True):  # it is either not started or ours to end
            process = await anyio.open_process(
                [*_until_parent_dies(), *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=output.sink,
                stderr=errors.sink,
                cwd=command.cwd,
                env=dict(command.env),
                start_new_session=True,
            )
    except OSError as error:
        raise ProgramNotFoundError(command.name) from error
    output.close_sink()
    errors.close_sink()
    log.debug("started a program", program=command.name, pid=process.pid)
    return process


@functools.cache
def _until_parent_dies() -> tuple[str, ...]:
    """What, put before a command, has the kernel ask it to end when this process has died."""
    found = shutil.which("setpriv")
    program = Path(found).resolve() if found is not None else None
    if not sys.platform.startswith("linux") or program is None or program.name != "setpriv":
        return ()  # busybox has one as well, which can't
    return (str(program), "--pdeathsig", "TERM", "--")


async def _follow(process: Process, written: Iterable[_Pipe]) -> Exception | None:
    """Wait for the program to end, and for the end of what it writes; what a taker raised, if one did."""
    failures: list[Exception] = []

    async def pump(pipe: _Pipe) -> None:
        try:
            await pipe.pump()
        except Exception as error:  # noqa: BLE001  # for the caller, past the task group that would wrap it
            failures.append(error)
            pumps.cancel_scope.cancel()

    async with anyio.create_task_group() as watch:
        async with anyio.create_task_group() as pumps:
            watch.start_soon(_cut_off_lingering, process, pumps.cancel_scope)
            for pipe in written:
                pumps.start_soon(pump, pipe)
        if not failures:
            await process.wait()
        watch.cancel_scope.cancel()
    return failures[0] if failures else None


async def _cut_off_lingering(process: Process, pumps: anyio.CancelScope) -> None:
    """End what holds the output open though the program has ended."""
    await process.wait()
    await anyio.sleep(LINGERING)
    _signal(process, signal.SIGKILL)
    await anyio.sleep(LINGERING)
    pumps.cancel()  # it has left the process group


async def _end(process: Process, written: Iterable[_Pipe], name: str) -> None:
    """End what runs of the program, and reap it."""
    async with anyio.create_task_group() as readers:
        for pipe in written:  # one that waits for a reader would not get to ending
            readers.start_soon(pipe.discard)
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            with anyio.move_on_after(PATIENCE) as patience:
                await process.wait()
                await _group_is_gone(process)  # a child of it may be what tidies up
            if patience.cancelled_caught:
                log.warning("made a program end that did not when asked to", program=name, pid=process.pid)
        _signal(process, signal.SIGKILL)
        await process.wait()
        readers.cancel_scope.cancel()
    await process.aclose()


async def _group_is_gone(process: Process) -> None:
    """Wait until no process of the program's group is left."""
    with suppress(ProcessLookupError, PermissionError):
        while True:  # the kernel tells nobody when what is no child of ours has ended
            os.killpg(process.pid, 0)
            await anyio.sleep(0.01)


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone; macOS says it the other way
        os.killpg(process.pid, number)


def _exit(process: Process) -> Exit:
    code = process.returncode or 0
    if code < 0:
        return Exit(status=128 - code, signal=signal.Signals(-code))
    return Exit(status=code)
