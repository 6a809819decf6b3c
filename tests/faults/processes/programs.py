"""Programs that can be killed and started again, on the same port, and whose every word is kept."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream

PROGRAM: Final = (sys.executable, "-m", "imgbuilder")
START_LIMIT: Final = 60.0
STOP_LIMIT: Final = 60.0
LONGEST_LINE: Final = 1 << 22
PORTS: Final = (18_000, 31_000)
"""Below what systems give to connections by themselves, so that a port is still free when its owner is back."""


def free_port() -> int:
    """A port of the loopback that nobody listens to, and nobody will who does not ask for it by number."""
    while True:
        port = random.randrange(*PORTS)  # not of a seed: the same test may run twice
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def is_listened_to(port: int) -> bool:
    """Whether something accepts connections on *port*."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A program, perhaps running. Its tasks run in *group*.

    :ivar said: all that it ever wrote, line by line.
    :ivar starts: how often it was started.
    :ivar died: whether it ended although nobody asked it to.
    """

    def __init__(self, name: str, command: Sequence[str], group: TaskGroup) -> None:
        self.name = name
        self.said: list[bytes] = []
        self.starts = 0
        self.died = False
        self._may_end = False
        self._command = command
        self._group = group
        self._process: Process | None = None
        self._reading = 0
        self._all_read = anyio.Event()
        self._ready = anyio.Event()

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        assert self._process is None, f"{self.name} runs already"
        self._ready = anyio.Event()
        self.starts += 1
        self._may_end = False
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = self._process = await anyio.open_process(list(self._command), env=environment)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._group.start_soon(self._read, process.stdout, self._hear, name=f"output of {self.name}")
        self._group.start_soon(self._read, process.stderr, self._hear_error, name=f"errors of {self.name}")
        self._group.start_soon(self._speak, process.stdin, name=f"input of {self.name}")
        with anyio.move_on_after(START_LIMIT):
            await self._ready.wait()
        if not self._ready.is_set() or process.returncode is not None:
            said = b"\n".join(self.said[-50:]).decode(errors="replace")
            raise AssertionError(f"{self.name} did not start: {said}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal at once. Does nothing if it does not run."""
        self._may_end = self._may_end or number in (signal.SIGKILL, signal.SIGTERM)
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)  # that of the library may take its exit status away

    async def kill(self) -> None:
        """Kill it without mercy. Does nothing if it does not run."""
        self.send_signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> int:
        """Ask it to stop; its exit status."""
        self.send_signal(signal.SIGTERM)
        return await self._gone()

    async def _gone(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            with anyio.fail_after(STOP_LIMIT):
                status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            with anyio.CancelScope(shield=True):
                if self._reading:
                    await self._all_read.wait()
                await process.aclose()
        self._ready.set()
        return status

    # --- what a subclass hears and says ---

    def _hear(self, line: bytes) -> None:
        """Take a line of its standard output."""
        self.said.append(line)

    def _hear_error(self, line: bytes) -> None:
        """Take a line of its error output."""
        self.said.append(line)

    async def _speak(self, stdin: ByteSendStream) -> None:
        """Write what it is to be told."""
        await stdin.aclose()

    async def _read(self, stream: ByteReceiveStream, hear: Any) -> None:
        lines = BufferedByteReceiveStream(stream)
        self._reading += 1
        self._all_read = anyio.Event()
        try:
            while True:
                hear(await lines.receive_until(b"\n", LONGEST_LINE))
        except (anyio.IncompleteRead, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self.died = self.died or not self._may_end
            self._ready.set()  # or it never will be
        finally:
            self._reading -= 1
            if not self._reading:
                self._all_read.set()


class Service(Program):
    """The image builder, as its users run it, on ports that stay the same.

    :param config: its configuration, but for its addresses.
    :param folder: for its configuration file.
    :ivar records: its log.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        group: TaskGroup,
        *,
        name: str,
        port: int,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.port = port
        self.metrics_port = 0
        self.records: list[dict[str, Any]] = []
        file = folder / f"{name.replace(' ', '-')}.json"
        serving = {**config, "server": {"services": {"grpc": {"address": f"127.0.0.1:{port}"}}}}
        file.write_text(json.dumps(serving))
        command = [*program, "run", "--config", str(file), "--json-log"]
        super().__init__(name, command, group)

    def logged(self, words: str) -> list[dict[str, Any]]:
        """The records of the event of these words."""
        return [record for record in self.records if record.get("message") == words]

    def _hear_error(self, line: bytes) -> None:
        super()._hear_error(line)
        try:
            record = json.loads(line)
        except ValueError:
            record = {"message": line.decode(errors="replace"), "level": "not a record"}
        self.records.append(record)
        if record.get("message") == "serving":
            self.metrics_port = record["metrics_port"]
            self._ready.set()
