"""Removes words from a stream of bytes, wherever the stream is cut.

What may turn out to be the beginning of a word is held back until the next bytes decide. No word is ever in
what goes out, not even one that came about because a word was removed from its midst. Decides nothing about
which stream is censored; never does I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final


def words_of(*refs: str) -> list[bytes]:
    """What has to be censored because of image references: each, and its repository name. Longest first."""
    words = {text.encode() for ref in refs for text in (ref, repository_of(ref))}
    return sorted(filter(None, words), key=lambda word: (-len(word), word))


def repository_of(ref: str) -> str:
    """A reference as it is spelled, less tag and digest. The colon of a port begins no tag."""
    name = ref.partition("@")[0]
    host, slash, path = name.rpartition("/")
    return host + slash + path.partition(":")[0]


class Censor:
    """Removes *words* from a stream.

    At each place the longest word is removed. What was on its two sides then stands together: where that
    makes a word again, the part of it that has not gone out yet is removed, too. The result does not depend
    on how the stream is cut.
    """

    def __init__(self, words: Iterable[bytes]) -> None:
        self._words: Final = sorted(filter(None, set(words)), key=lambda word: (-len(word), word))
        self._compiled: re.Pattern[bytes] | None = None
        # A word always contains one of these, and looking for them is much faster than the pattern.
        self._cores: Final = [
            word for word in self._words if not any(other in word for other in self._words if other != word)
        ]
        self._alphabet: Final = bytes({byte for word in self._words for byte in word})
        # So many bytes can be the beginning of a word, and no more.
        self._reach: Final = max(map(len, self._words), default=1) - 1
        self._held = b""
        # What went out last, as far as a word can reach, and whether something was removed right behind it.
        self._recent = b""
        self._seam = False

    def feed(self, data: bytes) -> bytes:
        """What of the stream can go out now that *data* has come."""
        return self._censor(self._held + data, last=False) if self._words else data

    def flush(self) -> bytes:
        """What was held back, at the end of the stream. What is fed after that is another stream."""
        rest = self._censor(self._held, last=True) if self._words else b""
        self._recent = b""
        self._seam = False
        return rest

    @property
    def _pattern(self) -> re.Pattern[bytes]:
        # When it is first needed: compiling it takes a millisecond, and the output of many builds has no such word.
        if self._compiled is None:
            # Of alternatives the first that fits is taken: the longest.
            self._compiled = re.compile(b"|".join(map(re.escape, self._words)))
        return self._compiled

    def _censor(self, text: bytes, *, last: bool) -> bytes:
        out: list[bytes] = []
        contains_word = any(core in text for core in self._cores)
        place = 0
        while True:
            undecided, removed = self._across_seam(text, place, last=last)
            if removed:
                place += removed
                continue
            if undecided:
                hold = place
                break
            self._seam = False
            hold = len(text)
            word = self._pattern.search(text, place) if contains_word else None
            # Far from the end everything is decided, so that a text full of words is not looked at again and
            # again for how it ends.
            if not last and (word is None or word.start() >= len(text) - self._reach):
                hold = self._beginning_of_word(text, place)
            if word is None or word.start() >= hold:
                break
            out.append(self._send(text[place : word.start()]))
            self._seam = True
            place = word.end()
        out.append(self._send(text[place:hold]))
        self._held = text[hold:]
        return b"".join(out)

    def _send(self, data: bytes) -> bytes:
        recent = self._recent + data[-self._reach - 1 :]
        self._recent = recent[max(0, len(recent) - self._reach) :]
        return data

    def _across_seam(self, text: bytes, place: int, *, last: bool) -> tuple[bool, int]:
        """Whether a word might begin in what has gone out, and how many bytes at *place* end one that does."""
        if not self._seam:
            return False, 0
        gone = len(self._recent)
        joint = self._recent + text[place : place + self._reach]
        # A word that begins in what has gone out ends within reach: with so much in view, it is decided.
        decided = last or len(joint) - gone == self._reach
        hold = len(joint) if decided else self._beginning_of_word(joint, 0)
        word = self._pattern.search(joint)
        if word is not None and word.start() < min(hold, gone):
            return False, word.end() - gone
        return hold < gone, 0

    def _beginning_of_word(self, text: bytes, place: int) -> int:
        """Where, from *place* on, the longest end of *text* begins that a longer word begins with."""
        place = max(place, len(text) - self._reach)
        # Output mostly ends with a line feed, which no reference contains: then nothing has to be compared.
        place += len(text[place:].rstrip(self._alphabet))
        while place < len(text):
            end = text[place:]
            if any(word.startswith(end) and len(word) > len(end) for word in self._words):
                break
            place += 1
        return place
