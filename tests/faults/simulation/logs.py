"""Clients that read logs, and what they must have read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import grpclib.server

from imgbuilder.core.censoring import Censor, words_of
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING, FAILED, GAP
from imgbuilder.pb.builder import LogsRequest, LogsResponse
from tests.faults.simulation.invariants import LOG_LIMIT, Judge
from tests.faults.simulation.supervisor import Heard

if TYPE_CHECKING:
    from tests.faults.simulation.replica import Life

LEFT_OUT: Final = re.compile(rb"\n\[\.\.\. (\d+) bytes of output are left out here \.\.\.\]\n")


class LogStream:
    """What a handler of Logs sees of a client, and what the client has read."""

    def __init__(self, request: LogsRequest, *, slowness: float) -> None:
        self._request = request
        self._slowness = slowness
        self.chunks = 0
        self.content = bytearray()

    async def recv_message(self) -> LogsRequest:
        """The request."""
        return self._request

    async def send_message(self, response: LogsResponse) -> None:
        """Take a chunk, at the client's pace."""
        self.chunks += 1
        self.content += response.content
        if self._slowness:
            await anyio.sleep(self._slowness)


async def read_log(
    name: str, life: Life, request: LogsRequest, slowness: float, leaves_after: float, judge: Judge
) -> None:
    """Read a log to its end, or until it is enough."""
    world = life.replica.world
    world.trace.note(name, "calls Logs", replica=life.name, build=world.name(request.build_id))
    stream = LogStream(request, slowness=slowness)
    began = world.now()
    scope = anyio.CancelScope(deadline=began + min(leaves_after, LOG_LIMIT))
    life.calls[scope] = None
    try:
        build = life.tracker.find(ref=request.build_ref, build_id=request.build_id)
        with scope:
            await life.api.logs(cast("grpclib.server.Stream[Any, Any]", stream))
    except BuildNotFoundError:
        if life.tracker.get(request.build_id) is not None:
            judge.broken("the log of a build can be read", f"{name}, {world.name(request.build_id)}")
        return
    finally:
        del life.calls[scope]
    world.trace.note(name, "Logs ended", size=len(stream.content), left=scope.cancelled_caught)
    if scope.cancelled_caught and not life.killed and leaves_after > LOG_LIMIT:
        judge.broken("a log has an end", f"{name}, {world.name(build.build_id)}")
    forgotten = life.tracker.get(build.build_id) is None
    if forgotten or build.build_id in life.forgotten:
        return  # it was never started: its log was dropped while it was read
    problem = judge_log(
        bytes(stream.content),
        life.supervisor.heard.get(build.build_id, Heard()),
        words_of(build.ref, build.base_ref),
        complete=not scope.cancelled_caught,
    )
    if problem:
        judge.broken("a log is what was printed", f"{name}, {world.name(build.build_id)}: {problem}")
    if not scope.cancelled_caught:
        judge.log_ended(life, build.build_id, began, slowness * stream.chunks)


def judge_log(content: bytes, heard: Heard, words: list[bytes], *, complete: bool) -> str:
    """What is wrong with what was read of a log whose build's output was *heard*; empty if nothing is."""
    for word in words:
        if word in content:
            return f"it contains {word!r}"
    if heard.connected:
        censor = Censor(words)
        parts = GAP.join(censor.feed(bytes(part)) + censor.flush() for part in heard.parts)
        # That nobody listens may have been told at any time before it turned out otherwise.
        expectations = [CONNECTING + CONNECTED + parts, CONNECTING + FAILED + CONNECTED + parts]
        content = content.replace(FAILED, b"", 1)
    else:
        expectations = [CONNECTING + FAILED, FAILED]
    if heard.hidden:
        return f"a gap is hidden: {heard.hidden}"
    problems = [_difference(content, expected, complete=complete) for expected in expectations]
    return "" if "" in problems else problems[0]


def _difference(content: bytes, expected: bytes, *, complete: bool) -> str:
    place = 0
    read = LEFT_OUT.split(content)
    for part, left_out in zip(read[::2], [*read[1::2], b"0"], strict=True):
        if expected[place : place + len(part)] != part:
            return f"at byte {place} it says {part[:300]!r}, not {expected[place : place + 300]!r}"
        place += len(part) + int(left_out)
    if complete and place != len(expected):
        return f"it ends at byte {place} of {len(expected)}, before {expected[place : place + 300]!r}"
    return ""
