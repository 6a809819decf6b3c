"""The listen stream: what it decodes to, in any chunking, and that no part of it brings the rest to a halt."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.terminal import (
    Event,
    ExitCode,
    ListenDecoder,
    Output,
    Skipped,
    StreamError,
)


def line(value: object) -> bytes:
    """A value as the supervisor sends it."""
    return orjson.dumps(value) + b"\n"


def output(data: bytes) -> bytes:
    """A line that carries output."""
    return line({"result": {"data": base64.b64encode(data).decode()}})


def decode(chunks: Iterable[bytes], decoder: ListenDecoder | None = None) -> list[Event]:
    """All events of a stream, with output that follows output joined."""
    decoder = decoder or ListenDecoder()
    events: list[Event] = []
    for chunk in chunks:
        for event in decoder.feed(chunk):
            if events and isinstance(event, Output) and isinstance(events[-1], Output):
                events[-1] = Output(events[-1].data + event.data)
            else:
                events.append(event)
    return events


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (output(b"hello\n"), [Output(b"hello\n")]),
        (output(b"a") + output(b"\xff\x00"), [Output(b"a\xff\x00")]),
        (line({"result": {"title": "bash", "titleSource": "process"}}), []),
        (line({"result": {"exitCode": 0}}), [ExitCode(0)]),
        (line({"result": {"exitCode": 137}}), [ExitCode(137)]),
        (line({"error": {"code": 5, "message": "terminal not found"}}), [StreamError("terminal not found")]),
        (line({"error": "gone"}), [StreamError("no reason given")]),
        (b"\n \r\n\t\n", []),
        (output(b""), []),
    ],
)
def test_each_kind_of_value_has_its_event(stream: bytes, expected: list[Event]) -> None:
    """Output, exit codes (0 too) and errors are told, titles and blank lines are not."""
    assert decode([stream]) == expected


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>",
        b"null",
        b"[1, 2]",
        b'"text"',
        b'{"result": {"data": "no base64!"}}',
        b'{"result": {"data": "\xc3\xa4"}}',
        b'{"result": {"data": 5}}',
        b'{"result": {"exitCode": true}}',
        b'{"result": {"exitCode": "0"}}',
        b'{"result": {}}',
        b'{"result": []}',
        b"{}",
        b'{"result": {"data": "aGVsbG8="',
        b'{"result": {"data": "aGVsbG8=',
        b"{bad}",
        b'{"a": "\xff"}',
    ],
)
def test_what_has_another_shape_is_skipped(garbage: bytes) -> None:
    """A line that can't be understood is told as skipped, and the lines around it are decoded."""
    first, skipped, last = decode([output(b"before") + garbage + b"\n" + output(b"after")])
    assert first == Output(b"before")
    assert isinstance(skipped, Skipped)
    assert last == Output(b"after")


def test_objects_need_no_line_feed_between_them() -> None:
    """An object is decoded as soon as its last byte is there, whatever follows it."""
    stream = (output(b"a") + output(b"b")).replace(b"\n", b"")
    decoder = ListenDecoder()
    assert decoder.feed(stream) == [Output(b"ab")]
    assert decoder.feed(output(b"c").strip()) == [Output(b"c")]


def test_an_object_cut_off_by_the_end_of_the_stream_is_no_event() -> None:
    """What a broken stream leaves unfinished is repeated by the next one, so it is not told as skipped."""
    assert decode([output(b"a") + output(b"b")[:-5]]) == [Output(b"a")]


def test_an_endless_object_is_skipped_without_being_kept() -> None:
    """An object that is too long is skipped with the rest of its line, and the next line is decoded."""
    decoder = ListenDecoder(longest_object=100)
    assert decoder.feed(b'{"a": "') == []
    assert decoder.feed(b"x" * 200) == [Skipped("an object that is too long")]
    assert decoder.feed(b'y"}' + output(b"z")) == []
    assert decoder.feed(output(b"next")) == [Output(b"next")]


def test_a_stream_that_is_only_garbage_ends() -> None:
    """After so many lines without one that is understood, the stream is given up, and nothing follows."""
    decoder = ListenDecoder(most_skipped=3)
    skipped = Skipped("no JSON object")
    events = decoder.feed(b"x\n" * 10)
    assert events == [skipped, skipped, skipped, skipped, StreamError("it is no listen stream")]
    assert decoder.feed(b"x\n" + output(b"late")) == []


def test_garbage_between_lines_of_output_does_not_end_the_stream() -> None:
    """What is understood in between starts the count anew."""
    events = decode([b"x\n" + output(b"a")] * 10, ListenDecoder(most_skipped=1))
    assert events[-1] == Output(b"a")
    assert len(events) == 20


LINES = st.one_of(
    st.binary(max_size=40).map(output),
    st.integers(0, 255).map(lambda code: line({"result": {"exitCode": code}})),
    st.just(line({"result": {"title": 'a "title" {'}})),
    st.just(line({"error": {"message": "gone"}})),
    st.just(b'{"result": {"title": "\\\\\\" {"}}\n'),
    st.binary(max_size=20).map(lambda data: data + b"\n"),
    st.text(alphabet='{}"\\ \n\ra', max_size=20).map(str.encode),
    st.recursive(
        st.none() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ).map(orjson.dumps),
)


@given(lines=st.lists(LINES, max_size=12), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_a_stream_decodes_the_same_under_any_chunking(lines: list[bytes], cuts: list[int]) -> None:
    """Whole, in arbitrary pieces, or byte by byte: the same events come out, limits included."""
    stream = b"".join(lines)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(bounds)]
    single = [stream[index : index + 1] for index in range(len(stream))]

    def events(chunks: list[bytes]) -> list[Event]:
        return decode(chunks, ListenDecoder(longest_object=60, most_skipped=4))

    assert events(pieces) == events([stream]) == events(single)
