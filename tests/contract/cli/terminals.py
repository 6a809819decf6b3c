"""Programs on a terminal, as a user has one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import Process

LIMIT: Final = 50.0
_PROGRAM: Final = """
import fcntl, runpy, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored: in the background
runpy.run_module("imgbuilder", run_name="__main__", alter_sys=True)
"""
_SEQUENCE: Final = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Terminal:
    """A program on a terminal of its own.

    :ivar shown: all that it has written so far.
    """

    def __init__(self, process: Process, ours: int) -> None:
        self.shown = ""
        self._process = process
        self._ours = ours

    @property
    def text(self) -> str:
        """The same without what steers the terminal."""
        return _SEQUENCE.sub("", self.shown)

    async def until(self, words: str) -> None:
        """Wait until it has written *words*."""
        with anyio.fail_after(LIMIT):
            while words not in self.text:
                if not await self._read():
                    raise AssertionError(f"it ended without {words!r}: {self.text}")

    def press(self, keys: bytes) -> None:
        """Type *keys*."""
        os.write(self._ours, keys)

    async def end(self) -> int:
        """Wait until it has ended; its exit status."""
        with anyio.fail_after(LIMIT):
            while await self._read():
                pass
            return await self._process.wait()

    async def _read(self) -> bool:
        try:
            data = await anyio.to_thread.run_sync(os.read, self._ours, 65536)
        except OSError:  # Linux' way to say that the other side is closed
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)


@asynccontextmanager
async def on_terminal(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """``imgbuilder`` with these arguments on a terminal, inside the block; killed if it does not end in there."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm-256color", "COLUMNS": "300", "LINES": "40", **(environment or {})}
    process = await anyio.open_process(
        [sys.executable, "-c", _PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, **variables},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        async with process:
            try:
                yield Terminal(process, ours)
            finally:
                if process.returncode is None:
                    process.kill()
    finally:
        os.close(ours)


async def run_program(
    *arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A run of ``python -m imgbuilder`` with pipes, that ends by itself."""
    with anyio.fail_after(LIMIT):
        return await anyio.run_process(
            [sys.executable, "-m", "imgbuilder", *arguments],
            input=stdin,
            check=False,
            env={**os.environ, **(environment or {})},
        )
