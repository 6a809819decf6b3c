"""HTTP answers: the body comes out the same under any chunking, and what is no answer is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.wsman.http_answer import HttpAnswerDecoder, HttpAnswerError


def chunked(pieces: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """An answer whose body is sent in chunks."""
    chunks = [b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"


def sized(body: bytes) -> bytes:
    """An answer that says how long its body is."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def decode(pieces: list[bytes]) -> tuple[int | None, bytes]:
    """Status and body of an answer that is complete when the connection ends."""
    decoder = HttpAnswerDecoder()
    body = b"".join(map(decoder.feed, pieces))
    decoder.end()
    assert decoder.complete
    return decoder.status, body


@given(
    bodies=st.lists(st.binary(max_size=20), max_size=6),
    extension=st.sampled_from([b"", b";a=b", b" ; x"]),
    trailer=st.sampled_from([b"", b"a: b\r\n"]),
    informational=st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]),
    cuts=st.lists(st.integers(0, 250), max_size=6),
)
def test_the_body_is_the_same_under_any_chunking(
    bodies: list[bytes], extension: bytes, trailer: bytes, informational: bytes, cuts: list[int]
) -> None:
    """In chunks, with a length, or until the end: cut anywhere, the body comes out whole."""
    body = b"".join(bodies)
    for answer in (
        chunked(bodies, extension=extension, trailer=trailer),
        sized(body),
        b"HTTP/1.0 200 OK\r\n\r\n" + body,
    ):
        stream = informational + answer
        bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        assert decode([stream[start:end] for start, end in pairwise(bounds)]) == (200, body)
        assert decode([stream[index : index + 1] for index in range(len(stream))]) == (200, body)


@pytest.mark.parametrize("answer", [chunked([b"abc", b"def"]), sized(b"abcdef")])
def test_an_answer_that_is_cut_off_is_told(answer: bytes) -> None:
    """An end of the connection before the end of the answer is an error wherever it comes."""
    for end in range(len(answer)):
        decoder = HttpAnswerDecoder()
        decoder.feed(answer[:end])
        assert not decoder.complete
        with pytest.raises(HttpAnswerError):
            decoder.end()


def test_what_follows_the_answer_is_ignored() -> None:
    """The body ends where the answer says so."""
    assert decode([chunked([b"abc"]) + b"more"]) == (200, b"abc")
    assert decode([sized(b"abc") + b"more", b"again"]) == (200, b"abc")


@pytest.mark.parametrize(
    "stream",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1_0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000,
        b"HTTP/1.1 200 OK\r\na: " + b"x" * 70000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 101,
    ],
)
def test_what_is_no_answer_is_refused(stream: bytes) -> None:
    """Nothing is guessed, and nothing endless is kept."""
    decoder = HttpAnswerDecoder()
    with pytest.raises(HttpAnswerError):
        decoder.feed(stream)
