"""How much of what is a flood, by the clock."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PingFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.runtime.grpc.http2 import FloodError, FloodGuard
from imgbuilder.runtime.grpc.limits import FEW, FLOODS, Allowance, CutOff, Flood, Room, weight_of


class Clock:
    """A time that tests move on."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@given(st.lists(st.floats(0, 10), max_size=50), st.integers(1, 10), st.floats(0.1, 5))
def test_an_allowance_is_never_exceeded(pauses: list[float], burst: int, rate: float) -> None:
    """In any time no more is taken than the burst and what the time adds."""
    allowance, now, taken = Allowance(Flood(burst=burst, rate=rate), 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += allowance.take(now)
    assert taken <= burst + now * rate + 1e-6


def test_an_allowance_fills_up_again() -> None:
    """With time, and with what is sent, but never over its burst."""
    allowance = Allowance(Flood(burst=2, rate=1, per_frame_sent=1), 0.0)
    assert [allowance.take(0.0) for _ in range(3)] == [True, True, False]
    assert [allowance.take(1.5) for _ in range(2)] == [True, False]
    allowance.sent()
    assert allowance.take(1.5)
    for _ in range(10):
        allowance.sent()
    assert [allowance.take(50.0) for _ in range(3)] == [True, True, False]


def test_resets_of_old_streams_do_not_count() -> None:
    """A client may give up all its calls at once."""
    guard = FloodGuard(Clock())
    for _ in range(10_000):
        guard.reset(is_open=True, is_young=False)


def test_resets_of_calls_that_have_ended_are_no_flood() -> None:
    """Some clients answer each answer with one; without any answers it is a flood."""
    guard = FloodGuard(Clock())
    for _ in range(10_000):
        guard.sent()
        guard.reset(is_open=False, is_young=False)
    with pytest.raises(FloodError, match="control"):  # noqa: PT012  # the burst is not known here
        for _ in range(10_000):
            guard.reset(is_open=False, is_young=False)


def test_window_updates_of_a_reader_are_no_flood() -> None:
    """Two for each frame, of the stream and of the connection, and a ping now and then."""
    guard = FloodGuard(Clock())
    for _ in range(10_000):
        guard.sent(6)
        for _ in range(6):
            guard.received(WindowUpdateFrame(1, window_increment=1))
            guard.received(WindowUpdateFrame(0, window_increment=1))
        guard.received(PingFrame(0))


def test_what_is_slow_is_no_flood() -> None:
    """A ping a second, for hours."""
    clock = Clock()
    guard = FloodGuard(clock)
    for _ in range(10_000):
        guard.received(PingFrame(0))
        clock.now += 1


@pytest.mark.parametrize(
    "frame", [HeadersFrame(1), DataFrame(1, data=b"x"), DataFrame(1, flags=["END_STREAM"])]
)
def test_what_calls_are_made_of_does_not_count(frame: Frame) -> None:
    """However many there are."""
    guard = FloodGuard(Clock())
    for _ in range(10_000):
        guard.received(frame)


def test_kinds_are_counted_apart() -> None:
    """Using one up leaves the others."""
    guard = FloodGuard(Clock())
    for _ in range(FLOODS[CutOff.PINGS].burst):
        guard.received(PingFrame(0))
    guard.reset(is_open=True, is_young=True)
    with pytest.raises(FloodError) as caught:
        guard.received(PingFrame(0))
    assert caught.value.reason is CutOff.PINGS


# --- room -------------------------------------------------------------------------------------------------


@given(st.integers(1, 1000), st.integers(1, 60), st.integers(1, 5))
def test_there_is_room_for_newcomers(total: int, greedy: int, weight: int) -> None:
    """However many connections take all they can get: no more than there is, and whoever comes gets some."""
    room, own = Room(total), [0] * greedy
    taking = True
    while taking:
        taking = False
        for number in range(greedy):
            if room.take(weight, own[number]):
                own[number] += weight
                taking = True
    assert sum(own) + room.left == total
    assert room.left >= 0
    if total >= 10 * weight * (greedy + 1):
        assert room.take(weight, 0), "a newcomer gets none"
        assert max(own) - min(own) <= weight


def test_one_connection_leaves_a_fifth_beside_what_is_kept() -> None:
    """And what was given back is there again."""
    room, own = Room(20_000), 0
    while room.take(1, own):
        own += 1
    assert own == (20_000 - 2_000) * 4 // 5
    for _ in range(own):
        room.give_back(1)
    assert room.left == 20_000


def test_what_is_kept_goes_round_to_connections_with_few_calls() -> None:
    """Also where others have taken all they can, one after the other."""
    room = Room(2_000)
    taken = []
    for _ in range(30):
        own = 0
        while own < 60 and room.take(1, own):
            own += 1
        taken.append(own)
    for _ in range(20):
        own = 0
        while room.take(1, own):
            own += 1
        taken.append(own)
    assert min(taken) == FEW
    assert sum(taken) <= 2_000
    assert room.take(1, FEW - 1)


def test_large_headers_weigh() -> None:
    """As they are kept."""
    assert weight_of([(":path", "/a/b")] * 10) == 1
    assert weight_of([("x", "y" * 5000)]) == 2
    assert weight_of([("x", "y" * 4000)] * 15) == 15
