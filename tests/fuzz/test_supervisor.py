"""What supervisors answer, and what becomes of it on the way into a log."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.censoring import Censor, words_of
from imgbuilder.core.secrets import Secret
from imgbuilder.core.splicing import Gap, Splicer
from imgbuilder.core.terminal import ListenDecoder, Output, Skipped, StreamError
from imgbuilder.wsman.errors import SupervisorError
from imgbuilder.wsman.http_answer import HttpAnswerDecoder, HttpAnswerError
from imgbuilder.wsman.supervisor import _address_of, _first_terminal, _request
from tests.fuzz.inputs import bounded, documents, fuzz, inputs, refusing, texts

LINE: Final = json.dumps(
    {"result": {"data": base64.b64encode(b"Step 1/2 \x1b[31mred\r\n").decode()}}
).encode()
STREAM: Final = b"\n".join((LINE, b'{"result":{"title":"bash"}}', LINE, b'{"result":{"exitCode":0}}', b""))
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(LINE),
    LINE,
)
SIZED: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(LINE), LINE)
SIZES: Final = st.sampled_from([1, 2, 3, 7, 100, 65536])


def cut(data: bytes, size: int) -> list[bytes]:
    """*data* in pieces; long inputs not byte by byte."""
    size = max(size, len(data) // 300)
    return [data[start : start + size] for start in range(0, len(data), size)]


@fuzz
@given(
    inputs(
        CHUNKED,
        SIZED,
        b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED,
        pieces=(b"\r\n", b"0", b"f", b";", b":", b"a: b\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"1\r\nx\r\n"),
    ),
    SIZES,
)
def test_http_answers(data: bytes, size: int) -> None:
    """A status and never more body than there were bytes, or HttpAnswerError, however they are cut."""
    results: list[tuple[int | None, bytes] | None] = []
    for pieces in (cut(data, size), [data]):
        decoder, body = HttpAnswerDecoder(), b""
        with bounded():
            try:
                for piece in pieces:
                    body += decoder.feed(piece)
                decoder.end()
                results.append((decoder.status, body))
            except HttpAnswerError:
                results.append(None)
    assert results[0] == results[1]
    assert results[0] is None or len(results[0][1]) <= len(data)


@fuzz
@given(documents({"result": {"tasks": [{"id": "0", "state": "running", "terminal": "1b2c3d"}]}}))
def test_task_lists(body: bytes) -> None:
    """An alias or none, or SupervisorError."""
    with bounded(), suppress(SupervisorError):
        alias = _first_terminal(bytearray(body))
        assert alias is None or alias


@fuzz
@given(
    texts(
        "https://user:password@ws.test:8080/a b",
        "http://[::1]/",
        pieces=(":", "/", "@", "[", "]", "é", "\r\n"),
    ),
    texts("token", pieces=("\r\n", "é")),
)
def test_addresses_of_supervisors(url: str, token: str) -> None:
    """A request of one line for each header, or SupervisorError, without what may be secret."""
    with bounded(), refusing(SupervisorError) as said:
        request = _request(_address_of(url), "/path", Secret(token))
        assert request.count(b"\r\n") == request.count(b"\n") == 8
    assert all(len(words) < 100 for words in said)


@fuzz
@given(
    inputs(STREAM, LINE, pieces=(b"{", b"}", b'"', b"\\", b"\n", b" ", b'{"result":', b'{"error":{}}', b"[")),
    SIZES,
)
def test_listen_streams(data: bytes, size: int) -> None:
    """Events, however it is cut: the same output, and no more of it than was sent."""
    results = []
    for pieces in (cut(data, size), [data]):
        decoder, events = ListenDecoder(), []
        with bounded():
            for piece in pieces:
                events += decoder.feed(piece)
        output = b"".join(event.data for event in events if isinstance(event, Output))
        rest = [event for event in events if not isinstance(event, Output)]
        assert sum(isinstance(event, Skipped) for event in rest) <= data.count(b"\n") + data.count(b"}") + 1
        assert all(len(event.text) <= 500 for event in rest if isinstance(event, StreamError))
        results.append((output, rest))
    assert results[0] == results[1]
    assert len(results[0][0]) <= len(data)


@fuzz
@given(documents(json.loads(LINE), {"result": {"exitCode": 0}}, {"error": {"code": 13, "message": "gone"}}))
def test_values_of_listen_streams(line: bytes) -> None:
    """One event for each value at most, whatever is in it."""
    with bounded():
        events = ListenDecoder().feed(line.replace(b"\n", b" ") + b"\n")
    assert len(events) <= 1 + line.count(b"}")


REF: Final = "registry.test:5000/workspace-images:abc"
BASE: Final = "registry.test:5000/base@sha256:def"


@fuzz
@given(
    inputs(
        f"pushing {REF} of {BASE}\r\n".encode(),
        pieces=(REF.encode(), BASE.encode(), REF.encode()[:7], REF.encode()[7:], b"\x1b[0m", b"\xff", b"r"),
    ),
    SIZES,
)
def test_output_that_is_censored(data: bytes, size: int) -> None:
    """No word is in what comes out, however it is cut, and what comes out was in what went in."""
    words = words_of(REF, BASE)
    results = []
    for pieces in (cut(data, size), [data]):
        censor = Censor(words)
        with bounded():
            results.append(b"".join(map(censor.feed, pieces)) + censor.flush())
    assert results[0] == results[1]
    assert not any(word in results[0] for word in words)
    assert len(results[0]) <= len(data)


@fuzz
@given(inputs(STREAM, pieces=(b"a", b"ab", b"\n")), st.integers(0, 70_000), SIZES)
def test_output_that_is_repeated(data: bytes, begins: int, size: int) -> None:
    """What a terminal repeats from any place on is told once, or after a gap."""
    splicer = Splicer()
    with bounded():
        told = splicer.feed(data)
        splicer.restart()
        for piece in cut(data[begins:] + b"new", size):
            told += splicer.feed(piece)
    content = b"".join(piece for piece in told if not isinstance(piece, Gap))
    assert content.startswith(data)
    assert len(content) <= 2 * len(data) + 3
