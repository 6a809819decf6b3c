"""The output of a build as lines that can't steer a terminal."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.client.loglines import LONGEST_LINE, LogLines, plain_text


def lines_of(*chunks: bytes, colours: bool = False) -> list[str]:
    """All lines of *chunks*."""
    lines = LogLines(colours=colours)
    return [line for chunk in chunks for line in lines.feed(chunk)] + lines.end()


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"one\r\ntwo\n", ["one", "two"]),
        (b"no end", ["no end"]),
        (b"\n\r\n", ["", ""]),
        (b"10%\r50%\r100%\r\n", ["100%"]),
        (b"gr\xc3\xbcn \xff\n", ["grün \ufffd"]),
        (b"a\tb\x08\x07c\n", ["a\tbc"]),
        (b"\x1b[32mgreen\x1b[0m\n", ["green"]),
        (b"\x1b[2J\x1b[1;1Htop\x1b[K\n", ["top"]),
        (b"\x1b]0;title\x07text\x1b]52;c;cGF5bG9hZA==\x1b\\\n", ["text"]),
        (b"\x1b]52;c;never ends\n", [""]),
        (b"\xc2\x9b2Jtext\x1bM\n", ["2Jtext"]),
    ],
)
def test_what_steers_a_terminal_is_taken_out(data: bytes, shown: list[str]) -> None:
    """Titles, clipboards, cursors, bells; of what a line overwrote, its last state stays."""
    assert lines_of(data) == shown


def test_colours_stay_where_they_are_wanted() -> None:
    """And nothing else does; a line does not colour the next one."""
    assert lines_of(b"\x1b[1;31mred\x1b[2J\n\x1b[2Kplain\n", colours=True) == [
        "\x1b[1;31mred\x1b[0m",
        "plain",
    ]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_chunks_mean_nothing(data: bytes, cuts: list[int], colours: bool) -> None:
    """Lines are the same wherever the bytes are cut, and no line holds a control character but a tab."""
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(edges)]
    shown = lines_of(*chunks, colours=colours)
    assert shown == lines_of(data, colours=colours)
    for line in shown:
        rest = line.replace("\x1b[", "") if colours else line
        assert all(character == "\t" or ord(character) >= 32 for character in rest)
        assert not any(0x7F <= ord(character) <= 0x9F for character in line)


def test_a_line_without_end_takes_no_memory() -> None:
    """Of a progress bar the last state is kept; what is no progress bar is cut."""
    lines = LogLines()
    for _ in range(10):
        assert lines.feed(b"\r" + b"#" * (LONGEST_LINE // 2)) == []
    assert lines.feed(b"\n") == ["#" * (LONGEST_LINE // 2)]
    assert lines.feed(b"x" * (LONGEST_LINE + 1)) == ["x" * (LONGEST_LINE + 1)]
    assert lines.end() == []


def test_texts_of_others_fit_into_a_line() -> None:
    """Such as the messages of errors."""
    assert plain_text("first\nsecond \x1b[31mred\x1b]0;t\x07") == "first second red"
