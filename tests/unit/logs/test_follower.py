"""A follower against a supervisor that plays a script, in virtual time: when it asks, and what the log tells."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import orjson
import pytest

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.builds import Build, LogSource
from imgbuilder.core.secrets import Secret
from imgbuilder.orchestrator.logs.follower import CONNECTED, CONNECTING, FAILED, GAP, Follower
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.errors import SupervisorError

SOURCE = LogSource(url="http://first", owner_token=Secret("t"))
MOVED = LogSource(url="http://second", owner_token=Secret("t"))
BUILD = Build(build_id="b", ref="registry/workspace:tag", base_ref="registry/base:tag", log_source=SOURCE)
UNREACHABLE = SupervisorError("no connection: refused")
DENIED = SupervisorError("it answered 403", status=403)

pytestmark = pytest.mark.looptime(start=0)

Answer = str | None | SupervisorError
Part = bytes | SupervisorError | float


def output(data: bytes) -> bytes:
    """A line that carries output."""
    return orjson.dumps({"result": {"data": base64.b64encode(data).decode()}}) + b"\n"


def exit_code(code: int) -> bytes:
    """The line at the end of a task."""
    return orjson.dumps({"result": {"exitCode": code}}) + b"\n"


class Script:
    """A supervisor that gives one answer after the other, the last one for ever.

    :param terminals: answers to the question for a terminal: an alias, none, or what goes wrong.
    :param streams: of each listen stream the parts: data, seconds to wait, or how it breaks.
    :ivar asked: when it was asked for a terminal, and where it was thought to be.
    """

    def __init__(self, terminals: list[Answer], streams: list[list[Part]]) -> None:
        self._terminals = terminals
        self._streams = streams
        self.asked: list[tuple[float, str]] = []
        self.listened: list[str] = []

    async def terminal(self, source: LogSource) -> str | None:
        """The next answer."""
        self.asked.append((round(anyio.current_time(), 2), source.url))
        answer = self._terminals.pop(0) if len(self._terminals) > 1 else self._terminals[0]
        if isinstance(answer, SupervisorError):
            raise answer
        return answer

    @asynccontextmanager
    async def listen(self, _: LogSource, terminal: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The next stream."""
        self.listened.append(terminal)
        parts = self._streams.pop(0) if len(self._streams) > 1 else self._streams[0]
        if not parts:
            raise UNREACHABLE
        yield self._play(parts)

    async def _play(self, parts: list[Part]) -> AsyncIterator[bytes]:
        for part in parts:
            match part:
                case bytes():
                    yield part
                case SupervisorError():
                    raise part
                case _:
                    await anyio.sleep(part)


class Log:
    """What was written into the log."""

    def __init__(self) -> None:
        self.text = b""

    def append(self, data: bytes) -> None:
        """Add *data*."""
        self.text += data


async def follow(
    script: Script,
    *happening: tuple[float, Callable[[Follower], None]],
    metrics: Metrics | None = None,
    until: float = 1000.0,
) -> tuple[bytes, float]:
    """What a follower writes, and when it is done; *happening* comes to pass at its times."""
    log = Log()
    follower = Follower(
        BUILD,
        SOURCE,
        log,
        supervisor=script,
        settings=LogSettings(retry=Backoff(first=0.2, factor=2, limit=5), grace=5.0),
        metrics=metrics or Metrics(),
        jitter=lambda: 0.999999,
    )

    async def happen() -> None:
        for time, what in happening:
            await anyio.sleep(time - anyio.current_time())
            what(follower)

    with anyio.move_on_after(until):
        async with anyio.create_task_group() as group:
            group.start_soon(happen)
            await follower.run()
            group.cancel_scope.cancel()
    return log.text, round(anyio.current_time(), 2)


END = Follower.build_ended


async def test_a_log_begins_with_what_is_done_for_it_and_ends_with_the_exit_code() -> None:
    """The two lines of the contract, the output, and nothing after the task has ended."""
    script = Script(["t"], [[output(b"one\n"), output(b"two\n"), exit_code(0), output(b"never")]])
    assert await follow(script) == (CONNECTING + CONNECTED + b"one\ntwo\n", 0)


async def test_the_lines_of_the_contract() -> None:
    """Clients look for these."""
    assert CONNECTING == b"Connecting to log output ...\n"
    assert CONNECTED == b"Connected to log output ...\n"
    assert FAILED == (
        b"Build log listener failed. The image build is still running, but you won't see any log output.\n"
    )


async def test_it_asks_again_until_there_is_a_terminal() -> None:
    """No connection, errors and an empty alias are tried again, with delays that grow up to 5 s."""
    not_found = SupervisorError("it answered 404", status=404)
    script = Script([UNREACHABLE, not_found, None, None, None, None, None, "t"], [[], [exit_code(1)]])
    text, _ = await follow(script)
    assert text == CONNECTING + CONNECTED
    assert [time for time, _ in script.asked] == [0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2, 16.2, 21.2]


async def test_references_are_censored_wherever_they_are_cut() -> None:
    """Also across the border of two streams."""
    script = Script(
        ["t"],
        [
            [output(b"to regis"), output(b"try/work"), UNREACHABLE],
            [output(b"to registry/workspace:tag\n"), exit_code(0)],
        ],
    )
    assert (await follow(script))[0] == CONNECTING + CONNECTED + b"to \n"


async def test_what_is_held_back_comes_at_the_end() -> None:
    """The beginning of a word is output, if the word does not come."""
    script = Script(["t"], [[output(b"in registry/"), exit_code(0)]])
    assert (await follow(script))[0] == CONNECTING + CONNECTED + b"in registry/"


async def test_a_stream_that_breaks_is_taken_up_and_nothing_is_written_twice() -> None:
    """Connecting again is not told; the delays begin anew when something new came."""
    script = Script(
        ["t"],
        [
            [output(b"a"), UNREACHABLE],
            [output(b"ab")],
            [output(b"ab"), b'{"error": {"message": "gone"}}\n', output(b"never")],
            [output(b"abc"), exit_code(0)],
        ],
    )
    assert (await follow(script))[0] == CONNECTING + CONNECTED + b"abc"
    assert [time for time, _ in script.asked] == [0, 0.2, 0.4, 0.8]


async def test_output_that_is_lost_is_told() -> None:
    """A terminal that printed more than it remembers leaves a gap, with a line in the log."""
    script = Script(["t"], [[output(b"abc registry/"), UNREACHABLE], [output(b"xyz"), exit_code(0)]])
    assert (await follow(script))[0] == CONNECTING + CONNECTED + b"abc registry/" + GAP + b"xyz"


async def test_another_terminal_is_not_compared() -> None:
    """What another terminal printed is new, even if it looks the same."""
    script = Script(["t", "u"], [[output(b"abc"), UNREACHABLE], [output(b"abc"), exit_code(0)]])
    assert (await follow(script))[0] == CONNECTING + CONNECTED + b"abcabc"
    assert script.listened == ["t", "u"]


async def test_garbage_is_skipped_and_counted() -> None:
    """A line that means nothing does not disturb the others."""
    metrics = Metrics()
    script = Script(["t"], [[output(b"a") + b"<html>\n" + output(b"b") + b"{}\n" + exit_code(0)]])
    assert (await follow(script, metrics=metrics))[0] == CONNECTING + CONNECTED + b"ab"
    assert metrics.registry.get_sample_value("imgbuilder_log_skipped_lines_total") == 2
    assert metrics.registry.get_sample_value("imgbuilder_log_received_bytes_total") == 2


async def test_a_log_that_can_not_be_had_is_told_when_the_build_ends() -> None:
    """As long as the build runs, there is hope; at its end there is one more attempt."""
    script = Script([UNREACHABLE], [[]])
    assert await follow(script, (100, END)) == (CONNECTING + FAILED, 100)
    assert script.asked[-1][0] == 100


async def test_a_build_that_ends_before_its_terminal_was_known_is_asked_once_more() -> None:
    """A short build would have no log otherwise."""
    script = Script([None, None, None, "t"], [[output(b"failed early\n"), exit_code(1)]])
    assert await follow(script, (1.3, END)) == (CONNECTING + CONNECTED + b"failed early\n", 1.3)


async def test_after_the_end_of_the_build_output_is_taken_for_a_moment() -> None:
    """What a supervisor still sends is taken until the grace time is over."""
    script = Script(["t"], [[output(b"a"), 12.0, output(b"b"), 2.0, output(b"c"), 2.0, output(b"late")]])
    assert await follow(script, (10, END)) == (CONNECTING + CONNECTED + b"abc", 15)


async def test_a_break_after_the_end_of_the_build_is_taken_up_once_more() -> None:
    """What a supervisor that is still there has to say is not lost, within the time that is left."""
    script = Script(["t"], [[output(b"a"), 12.0, output(b"b"), UNREACHABLE]])
    assert await follow(script, (10, END)) == (CONNECTING + CONNECTED + b"ab", 15)
    assert len(script.asked) == 2


async def test_a_stream_that_broke_before_the_end_of_the_build_is_asked_for_once_more() -> None:
    """The last words of a build are the most interesting ones."""
    script = Script(
        ["t", UNREACHABLE, UNREACHABLE, "t"], [[output(b"a"), UNREACHABLE], [output(b"ab"), UNREACHABLE]]
    )
    assert await follow(script, (1, END)) == (CONNECTING + CONNECTED + b"ab", 1)


async def test_a_token_that_is_refused_for_good_is_told_while_the_build_runs() -> None:
    """After some attempts there is no hope, unless the workspace gets another address or token."""
    script = Script([DENIED], [[]])
    assert await follow(script, (100, END)) == (CONNECTING + FAILED, 100)
    assert len(script.asked) == 6


async def test_a_new_token_is_tried_after_all_hope_was_lost() -> None:
    """The log goes on from there."""
    script = Script([*[DENIED] * 5, "t"], [[output(b"a"), exit_code(0)]])
    text, time = await follow(script, (50, lambda follower: follower.move(MOVED)))
    assert (text, time) == (CONNECTING + FAILED + CONNECTED + b"a", 50)
    assert script.asked[-1][1] == MOVED.url


async def test_a_new_address_is_tried_at_once() -> None:
    """The workspace manager may tell it late; the same one again changes nothing."""
    script = Script([*[UNREACHABLE] * 4, "t"], [[exit_code(0)]])
    await follow(
        script,
        (1.5, lambda follower: follower.move(SOURCE)),
        (2.0, lambda follower: follower.move(MOVED)),
    )
    assert script.asked[3:5] == [(1.4, SOURCE.url), (2.0, MOVED.url)]


async def test_a_follower_that_is_stopped_asks_no_more() -> None:
    """Nobody needs the log of a build that was forgotten."""
    script = Script([UNREACHABLE], [[]])
    assert await follow(script, (1.5, Follower.stop)) == (CONNECTING, 1.5)
