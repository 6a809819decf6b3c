"""The workspaces' supervisors as one process of the service sees them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

import anyio

from imgbuilder.core.builds import LogSource
from imgbuilder.core.splicing import LEAST_OVERLAP
from imgbuilder.wsman.errors import SupervisorError
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.world import Workspace, World

TASKS_DEADLINE: Final = 15.0
KEEPALIVE: Final = 60.0
"""After how many seconds a listen stream whose other side is silent is found to be broken."""

GARBAGE: Final = (
    b"\n",
    b"garbage\n",
    b"[1]\n",
    b'{"result":{"data":"!"}}\n',
    b'{"result":{"title":"bash","titleSource":"process"}}\n',
    b'{"result":{"exitCode":null}}\n',
    b'{"result":\n',
)


class Heard:
    """What one process of the service was sent of one build's output, and what it must make of that.

    :ivar parts: the output as it must be told, cut where a gap must be.
    :ivar connected: whether a listen stream ever began.
    :ivar told_upto: how much of the present terminal's output.
    :ivar hidden: where a repetition is spliced wrongly, as nobody could have known; of what is unique, never.
    """

    def __init__(self) -> None:
        self.parts: list[bytearray] = []
        self.connected = False
        self.hidden: list[str] = []
        self._terminal = ""
        self._known = b""
        """What was told since the last gap."""
        self._after_gap = False
        self.told_upto = 0
        self._began: int | None = None
        """Where the present stream began, while it may repeat what was told."""
        self._repeats = False

    def listening(self, terminal: str) -> None:
        """A listen stream has begun."""
        self.connected = True
        if terminal != self._terminal:
            self._terminal, self._known, self._after_gap = terminal, b"", False
        self._began, self._repeats = None, bool(self._known)

    def take(self, output: bytes | bytearray, start: int, end: int) -> None:
        """*output* from *start* to *end* has arrived, next in the present stream."""
        if self._began is None:
            self._began = start
        if not self._repeats:
            self._tell(bytes(output[start:end]), end)
            return
        stream = bytes(output[self._began : end])
        place = self._known.find(stream)
        if place >= 0 and place + len(stream) < len(self._known):
            return
        self._repeats = False
        overlap = next(n for n in range(len(stream), -1, -1) if self._known.endswith(stream[:n]))
        if overlap >= LEAST_OVERLAP or (overlap == len(self._known) and not self._after_gap):
            if self._began + overlap != self.told_upto and overlap >= LEAST_OVERLAP:
                self.hidden.append(f"{self.told_upto} followed by {self._began + overlap}")
            self._tell(stream[overlap:], end)
            return
        self.parts.append(bytearray())
        self._known, self._after_gap = b"", True
        self._tell(stream, end)

    def _tell(self, data: bytes, upto: int) -> None:
        if not self.parts:
            self.parts.append(bytearray())
        self.parts[-1] += data
        self._known += data
        self.told_upto = upto


class Link:
    """Satisfies `imgbuilder.orchestrator.ports.Supervisor`."""

    def __init__(self, world: World, faults: Faults, replica: str) -> None:
        self.world = world
        self.faults = faults
        self.replica = replica
        self.heard: dict[str, Heard] = {}

    async def terminal(self, source: LogSource) -> str | None:
        """The alias of the task's terminal, if the supervisor tells it."""
        faults = self.faults
        workspace = self._workspace(source)
        fault = faults.first("tasks.status", "tasks.silent", "tasks.none", "tasks.slow", "tasks.denied")
        if fault:
            self._note(fault, workspace)
        await anyio.sleep(faults.latency())
        match fault:
            case "tasks.silent":
                await anyio.sleep(TASKS_DEADLINE)
                raise SupervisorError("no answer in time")
            case "tasks.slow":
                await anyio.sleep(faults.between(0.0, TASKS_DEADLINE))
            case "tasks.denied":
                raise SupervisorError("it answered 403", status=403)
            case "tasks.status":
                raise SupervisorError("it answered 502", status=502)
        if workspace.terminal.gone:
            raise SupervisorError("no connection: Connection refused")
        if not workspace.terminal.opened:
            if workspace.status.phase != "RUNNING":
                raise SupervisorError("it answered 404", status=404)
            return None
        return None if fault == "tasks.none" else f"t{workspace.number}"

    @asynccontextmanager
    async def listen(self, source: LogSource, terminal: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What the terminal prints, from what it remembers on."""
        workspace = self._workspace(source)
        await anyio.sleep(self.faults.latency())
        if self.faults.strikes("listen.refused"):
            self._note("listen.refused", workspace)
            raise SupervisorError("it answered 500", status=500)
        if workspace.terminal.gone:
            raise SupervisorError("no connection: Connection refused")
        if terminal != f"t{workspace.number}":
            raise SupervisorError("it answered 404", status=404)
        heard = self.heard.setdefault(workspace.status.build_id, Heard())
        heard.listening(terminal)
        listening = Listening(self, workspace, heard)
        try:
            yield listening
        finally:
            listening.close()

    def _workspace(self, source: LogSource) -> Workspace:
        return self.world.workspaces[source.url.rpartition("/")[2]]

    def _note(self, fault: str, workspace: Workspace) -> None:
        self.world.trace.note(self.replica, fault, build=self.world.name(workspace.status.build_id))


class Listening:
    """One listen stream: lines of JSON, cut anywhere."""

    def __init__(self, link: Link, workspace: Workspace, heard: Heard) -> None:
        self._link = link
        self._faults = link.faults
        self._terminal = workspace.terminal
        self._heard = heard
        self._position = max(0, len(self._terminal.output) - link.world.scenario.window)
        self._unsent: deque[tuple[bytes, int, int]] = deque()
        """Lines, or what is left of them, and which output they bring."""
        self._exit_sent = False
        self._wake: asyncio.Future[None] | None = None
        self._fate = self._faults.first("listen.cut", "listen.end", "listen.error", "listen.silent")
        self._budget = self._faults.chance.choice((0, 10, 300, 2000)) if self._fate else -1
        self._in_pieces = self._faults.strikes("listen.pieces")
        self._no_exit = self._faults.strikes("listen.no-exit")
        if self._fate:
            link._note(self._fate, workspace)
        self._terminal.listen(self._rouse)

    def close(self) -> None:
        """Nobody listens any more."""
        self._terminal.leave(self._rouse)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await anyio.sleep(self._faults.latency())
        if self._faults.strikes("listen.slow"):
            await anyio.sleep(self._faults.between(0.0, 3.0))
        while True:
            if self._budget == 0:
                return await self._meet_fate()
            if self._terminal.gone:
                raise SupervisorError("the connection was lost")
            self._collect()
            if self._unsent:
                return self._send()
            if self._exit_sent or (self._terminal.ended and self._no_exit):
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    async def _meet_fate(self) -> bytes:
        match self._fate:
            case "listen.error":
                self._fate, self._exit_sent = "", True
                self._budget = -1
                return b'\n{"error":{"code":14,"message":"fault"}}\n'
            case "listen.end":
                raise StopAsyncIteration
            case "listen.silent":
                await anyio.sleep(KEEPALIVE)
        raise SupervisorError("the connection was lost")

    def _collect(self) -> None:
        """Make lines of what the terminal has printed."""
        output = self._terminal.output
        while self._position < len(output):
            start = self._position
            end = len(output)
            if self._faults.chance.random() < 0.5:
                end = min(end, start + self._faults.chance.choice((1, 30, 500)))
            if self._faults.strikes("listen.garbage"):
                self._unsent.append((self._faults.chance.choice(GARBAGE), 0, 0))
            data = base64.b64encode(output[start:end]).decode()
            self._unsent.append((json.dumps({"result": {"data": data}}).encode() + b"\n", start, end))
            self._position = end
        if self._terminal.ended and not self._exit_sent and not self._no_exit:
            self._exit_sent = True
            self._unsent.append((b'{"result":{"exitCode":0}}\n', 0, 0))

    def _send(self) -> bytes:
        """The next bytes: one line, many, or a part of one."""
        sent = bytearray()
        most = self._faults.chance.choice((1, 7, 100)) if self._in_pieces else 100_000
        if self._budget > 0:
            most = min(most, self._budget)
        while self._unsent and len(sent) < most:
            line, start, end = self._unsent.popleft()
            part = line[: most - len(sent)]
            sent += part
            if len(part) < len(line) - 1:  # more than the line feed is missing
                self._unsent.appendleft((line[len(part) :], start, end))
                break
            if end:
                self._heard.take(self._terminal.output, start, end)
            if len(part) < len(line):
                self._unsent.appendleft((line[len(part) :], 0, 0))
        if self._budget > 0:
            self._budget -= len(sent)
        return bytes(sent)

    def _rouse(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
