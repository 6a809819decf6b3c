"""Decodes one HTTP/1.1 answer: bytes in any chunking in, the body out.

Used instead of a library where a supervisor streams: it sends each line of output as a chunk of its own, and
what general clients do per chunk costs several times what the line itself does. Knows only what an answer to
a GET without content coding can be. Never does I/O.
"""

from __future__ import annotations

import re
from typing import Final

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?")
_LONGEST_HEAD: Final = 64 * 1024
_LONGEST_LINE: Final = 4 * 1024
_MOST_INFORMATIONAL: Final = 100


class HttpAnswerError(Exception):
    """What came is no HTTP/1.1 answer, or not a whole one."""


class HttpAnswerDecoder:
    """Decodes the answer to a GET request.

    :ivar status: the status code; None until the head is there. Informational answers are passed over.
    :ivar complete: whether the body is complete.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        self.complete = False
        self._rest = b""
        self._chunked = False
        self._left: int | None = None
        """Bytes of the body or the chunk that are still to come; None for all until the end."""
        self._behind_chunk = False
        self._in_trailer = False
        self._informational = 0

    def feed(self, data: bytes) -> bytes:
        """The part of the body that *data* brings; what comes after the body is ignored.

        :raises HttpAnswerError: if it is no answer.
        """
        data = self._rest + data
        self._rest = b""
        if self.status is None:
            data = self._feed_head(data)
        if self.status is None or self.complete:
            return b""
        if self._chunked:
            return self._feed_chunks(data)
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.complete = not self._left
        return data

    def end(self) -> None:
        """The connection has ended.

        :raises HttpAnswerError: if that cuts the answer off.
        """
        if self.status is None or ((self._chunked or self._left) and not self.complete):
            raise HttpAnswerError("the connection ended in the midst of an answer")
        self.complete = True

    def _feed_head(self, data: bytes) -> bytes:
        """Take in the head if it is there; what follows it in *data*."""
        while self.status is None:
            head, end, data = data.partition(b"\r\n\r\n")
            if len(head) > _LONGEST_HEAD:
                raise HttpAnswerError("the head of the answer is too long")
            if not end:
                self._rest = head
                return b""
            self._take_head(head)
        return data

    def _take_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        status_line = _STATUS_LINE.fullmatch(first)
        if status_line is None:
            raise HttpAnswerError("no HTTP/1.1 answer")
        status = int(status_line[1])
        if status < 200 and status != 101:
            self._informational += 1
            if self._informational > _MOST_INFORMATIONAL:
                raise HttpAnswerError("nothing but informational answers")
            return
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise HttpAnswerError("a header without a name")
            headers[name.strip().lower()] = value.strip().lower()
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise HttpAnswerError("a content coding that was not asked for")
        self._take_framing(headers)
        self.status = status

    def _take_framing(self, headers: dict[bytes, bytes]) -> None:
        coding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if coding is not None:
            if coding != b"chunked":
                raise HttpAnswerError("an unknown transfer coding")
            self._chunked = True
            self._left = 0
        elif length is not None:
            if not length.isdigit() or len(length) > 15:
                raise HttpAnswerError("a length that is no number")
            self._left = int(length)
            self.complete = not self._left

    def _feed_chunks(self, data: bytes) -> bytes:
        out: list[bytes] = []
        place = 0
        while not self.complete:
            if self._left:
                piece = data[place : place + self._left]
                out.append(piece)
                place += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._behind_chunk = True
            end = data.find(b"\r\n", place)
            if end < 0 or end - place > _LONGEST_LINE:
                if len(data) - place > _LONGEST_LINE:
                    raise HttpAnswerError("a line between chunks is too long")
                self._rest = data[place:]
                break
            self._take_line(data[place:end])
            place = end + 2
        return b"".join(out)

    def _take_line(self, line: bytes) -> None:
        """A line between chunks: the end of one, the size of the next, or of the trailer."""
        if self._in_trailer:
            self.complete = not line
        elif self._behind_chunk:
            if line:
                raise HttpAnswerError("a chunk is longer than its size")
            self._behind_chunk = False
        else:
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise HttpAnswerError("a chunk without a size")
            self._left = int(size[1], 16)
            self._in_trailer = not self._left
