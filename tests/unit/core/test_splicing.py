"""A stream that repeats its last part at each beginning: the result is what the terminal printed, once."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.splicing import WINDOW, Gap, Splicer, longest_overlap


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """*data* in pieces; a cut outside of it does nothing."""
    bounds = sorted({0, len(data), *(place for place in cuts if place < len(data))})
    return [data[start:end] for start, end in pairwise(bounds)]


def splice(splicer: Splicer, streams: list[list[bytes]]) -> list[bytes | Gap]:
    """What comes of streams that are listened to one after the other, with the bytes between gaps joined."""
    pieces: list[bytes | Gap] = []
    for number, stream in enumerate(streams):
        if number:
            splicer.restart()
        for chunk in stream:
            pieces += splicer.feed(chunk)
    return joined(pieces)


def joined(pieces: list[bytes | Gap]) -> list[bytes | Gap]:
    """*pieces* with bytes that follow bytes joined, and none that are empty."""
    result: list[bytes | Gap] = []
    for piece in pieces:
        if not piece:
            continue
        if result and isinstance(piece, bytes) and isinstance(result[-1], bytes):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def naive_overlap(before: bytes, after: bytes) -> int:
    """The longest end of *before* that *after* begins with, tried one by one."""
    lengths = range(min(len(before), len(after)), 0, -1)
    return next((length for length in lengths if before.endswith(after[:length])), 0)


CUTS = st.lists(st.integers(0, 300), max_size=5)
# Each byte occurs once within what is compared: no overlap but the true one fits.
COUNTED = bytes(range(256)) * 8
PERIODIC = st.builds(
    lambda start, unit, times, end: start + unit * times + end,
    st.text("ab", max_size=3).map(str.encode),
    st.text("ab", min_size=1, max_size=5).map(str.encode),
    st.integers(0, 12),
    st.text("ab", max_size=3).map(str.encode),
)


@given(
    window=st.integers(1, 100),
    remembered=st.integers(1, 100),
    growth=st.lists(st.tuples(st.integers(0, 300), CUTS), min_size=1, max_size=6),
    missed=st.lists(st.integers(0, 99), min_size=6, max_size=6),
)
def test_breaks_leave_no_trace(
    window: int, remembered: int, growth: list[tuple[int, list[int]]], missed: list[int]
) -> None:
    """Whatever is repeated and wherever the streams break, each byte comes out once.

    Between two streams the terminal prints less than it remembers; what it remembers may be less than we do.
    """
    remembered = min(remembered, window)
    printed = 0
    streams: list[list[bytes]] = []
    for (live, cuts), away in zip(growth, missed, strict=False):
        if streams:
            printed += away % remembered
        begin = max(0, printed - remembered)
        printed += live
        streams.append(cut(COUNTED[begin:printed], cuts))
    expected = [COUNTED[:printed]] if printed else []
    assert splice(Splicer(window=window, least_overlap=1), streams) == expected


def test_a_terminal_that_printed_too_much_leaves_a_gap() -> None:
    """When nothing of what came before is repeated, a gap is told, and all that is there follows."""
    result = splice(Splicer(window=10), [[b"0123456789"], [b"abc", b"def"]])
    assert result == [b"0123456789", Gap(), b"abcdef"]


@pytest.mark.parametrize("length", [1, 31, 32])
@pytest.mark.parametrize("pieces", [1, 100])
def test_a_short_overlap_may_be_chance_and_hides_no_gap(length: int, pieces: int) -> None:
    """Any line feed would be one. Where little was printed so far, all of it is enough."""
    before, after = bytes(range(100, 200)), bytes(range(200 - length, 200)) + b"after"
    size = -(-len(after) // pieces)
    stream = [after[start : start + size] for start in range(0, len(after), size)]
    expected = [before + b"after"] if length == 32 else [before, Gap(), after]
    assert splice(Splicer(), [[before], stream]) == expected
    short = before[-length:]
    assert splice(Splicer(), [[short], stream]) == [short + b"after"]
    gap_before = [[b"x" * 100], [short], stream]
    expected = [b"x" * 100, Gap(), *([short + b"after"] if length == 32 else [short, Gap(), after])]
    assert splice(Splicer(), gap_before) == expected


def test_after_a_gap_only_what_followed_counts() -> None:
    """The next repetition is compared with what came after the gap."""
    result = splice(Splicer(window=10, least_overlap=1), [[b"01234"], [b"abc"], [b"bcd"], [b"012"]])
    assert result == [b"01234", Gap(), b"abcd", Gap(), b"012"]


def test_a_first_stream_is_all_new() -> None:
    """Before anything came there is nothing to compare with, also after empty streams."""
    assert splice(Splicer(), [[], [b"ab"], [], [b"abc"]]) == [b"abc"]


def test_a_stream_that_breaks_in_its_repetition_changes_nothing() -> None:
    """A repetition that was not finished is repeated by the next stream."""
    streams = [[b"abcdef"], [b"cd"], [b"cdefg"]]
    assert splice(Splicer(window=4, least_overlap=1), streams) == [b"abcdefg"]


@given(
    streams=st.lists(
        st.tuples(st.one_of(PERIODIC, st.text("ab", max_size=9).map(str.encode)), CUTS), max_size=4
    )
)
def test_the_longest_overlap_is_taken_under_any_chunking(streams: list[tuple[bytes, list[int]]]) -> None:
    """With contents of any kind, the result is that of the longest overlap, however the streams are cut."""
    expected: list[bytes | Gap] = []
    before = b""
    for stream, _ in streams:
        if not before:
            new = stream
        elif stream in before:
            new = b""
        else:
            overlap = naive_overlap(before, stream)
            new = stream[overlap:]
            if not overlap:
                expected.append(Gap())
                before = b""
        before += new
        expected.append(new)
    for pieces in (
        [cut(stream, cuts) for stream, cuts in streams],
        [[stream[index : index + 1] for index in range(len(stream))] for stream, _ in streams],
    ):
        assert splice(Splicer(window=1000, least_overlap=1), pieces) == joined(expected)


@given(before=PERIODIC, after=PERIODIC, shared=st.integers(0, 60))
def test_the_overlap_of_periodic_contents_is_the_longest(before: bytes, after: bytes, shared: int) -> None:
    """Contents that repeat themselves have many overlaps: the longest is found."""
    assert longest_overlap(before, after) == naive_overlap(before, after)
    after = before[len(before) - min(shared, len(before)) :] + after
    assert longest_overlap(before, after) == naive_overlap(before, after)


def _fibonacci(length: int) -> bytes:
    before, word = b"a", b"ab"
    while len(word) < length:
        before, word = word, word + before
    return word[:length]


RANDOM = random.Random(7).randbytes(WINDOW)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(b"a" * (WINDOW - 1) + b"b", b"a" * WINDOW, id="one byte"),
        pytest.param(b"a" * WINDOW, b"a" * (WINDOW // 2) + b"b" * (WINDOW // 2), id="two bytes"),
        pytest.param(RANDOM, RANDOM[WINDOW // 2 :] + RANDOM[:1000][::-1], id="random"),
        pytest.param(RANDOM[:1000] * (WINDOW // 1000), RANDOM[1:1000] * (WINDOW // 1000), id="periodic"),
        pytest.param(_fibonacci(WINDOW)[::-1], _fibonacci(WINDOW), id="self-similar"),
    ],
)
def test_no_contents_take_long(before: bytes, after: bytes) -> None:
    """A build can print what it likes: finding the overlap must not hold up the other builds."""
    started = time.process_time()
    longest_overlap(before, after)
    assert time.process_time() - started < 0.1
