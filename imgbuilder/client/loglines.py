"""The output of a build as lines: what a terminal would show in the end, and nothing that could steer one.

Output comes from programs that strangers wrote. Sequences that move the cursor, set titles or write into a
clipboard are taken out; colours stay where they are wanted.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

LONGEST_LINE: Final = 64 * 1024
"""Characters that are kept of a line that does not end."""

_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_SEQUENCE: Final = re.compile(
    r"""
      \x1b \[ [0-?]* [ -/]* [@-~]                # control sequences
    | \x1b [\]PX^_] .*? (?: \x07 | \x1b\\ | $ )  # titles, clipboards and other strings
    | \x1b [ -/]* [0-~]                          # the rest
    | [\x00-\x08\x0b-\x1f\x7f-\x9f]              # control characters but tab and line feed
    """,
    re.VERBOSE,
)
_RESET: Final = "\x1b[0m"


def plain_text(text: str) -> str:
    """*text* in one line, without what could steer a terminal."""
    return " ".join(_SEQUENCE.sub(" ", text).split())


class LogLines:
    """Makes lines of chunks of bytes.

    :param colours: whether colours stay; every line that has some ends with a reset.
    """

    def __init__(self, *, colours: bool = False) -> None:
        self._colours = colours
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The lines that *data* completes."""
        *lines, rest = (self._rest + self._decoder.decode(data)).split("\n")
        if len(rest) > LONGEST_LINE:
            # A progress bar writes over itself for minutes before its line ends: its last state is enough.
            rest = rest.rstrip("\r").rpartition("\r")[2]
            if len(rest) > LONGEST_LINE:
                lines.append(rest)
                rest = ""
        self._rest = rest
        return [self._shown(line) for line in lines]

    def end(self) -> list[str]:
        """What is left when nothing more comes: at most one line, which had no end."""
        rest, self._rest = self._rest + self._decoder.decode(b"", final=True), ""
        return [self._shown(rest)] if rest else []

    def _shown(self, line: str) -> str:
        states = [state for state in line.split("\r") if state]
        line = states[-1].rstrip() if states else ""
        if not self._colours:
            return _SEQUENCE.sub("", line)
        parts: list[str] = []
        at = 0
        for colour in _COLOUR.finditer(line):
            parts += [_SEQUENCE.sub("", line[at : colour.start()]), colour[0]]
            at = colour.end()
        parts.append(_SEQUENCE.sub("", line[at:]))
        return "".join(parts) + (_RESET if at else "")
