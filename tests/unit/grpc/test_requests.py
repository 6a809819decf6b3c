"""What headers ask for, and what is answered to those that ask for nothing."""

from __future__ import annotations

import pytest
from grpclib.const import Status
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.runtime.grpc.requests import Refusal, RequestHead, read_head, unknown_path
from tests.unit.grpc.raw import head

PATHS = ["/builder.ImageBuilder/Build", "/grpc.health.v1.Health/Check"]


def test_a_call() -> None:
    """The path, the time, and what the caller added, less what is the transport's."""
    known = read_head(
        head("/s/m", ("grpc-timeout", "1500m"), ("user-agent", "x"), ("a", "1"), ("a", "2"), ("b-bin", "AP8"))
    )
    assert isinstance(known, RequestHead)
    assert (known.path, known.timeout, known.user_agent) == ("/s/m", 1.5, "x")
    assert list(known.metadata.items()) == [("a", "1"), ("a", "2"), ("b-bin", b"\x00\xff")]


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8", "Application/gRPC"],
)
def test_content_types(content_type: str) -> None:
    """All spellings of protobuf over gRPC."""
    assert isinstance(read_head(head("/s/m", ("content-type", content_type))), RequestHead)


def test_te_may_be_missing() -> None:
    """Some proxies drop it."""
    assert isinstance(read_head(head("/s/m", without=["te"])), RequestHead)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0n", 0), ("1H", 3600), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("99999999S", 99_999_999)],
)
def test_timeouts(text: str, seconds: float) -> None:
    """In all units."""
    known = read_head(head("/s/m", ("grpc-timeout", text)))
    assert isinstance(known, RequestHead)
    assert known.timeout == pytest.approx(seconds)


def test_joined_binary_metadata() -> None:
    """With padding or without, joined by a proxy or not."""
    known = read_head(head("/s/m", ("x-bin", "AA==, AQ,AgM=")))
    assert isinstance(known, RequestHead)
    assert known.metadata.getall("x-bin") == [b"\x00", b"\x01", b"\x02\x03"]


@pytest.mark.parametrize(
    ("headers", "http_status"),
    [
        (head("/s/m", without=[":method"]), 400),
        (head("/s/m", without=[":path"]), 400),
        (head(""), 400),
        ([], 400),
        (head("/s/m", (":method", "GET")), 405),
        (head("/s/m", without=["content-type"]), 415),
        (head("/s/m", ("content-type", "application/json")), 415),
        (head("/s/m", ("content-type", "application/grpc+json")), 415),
        (head("/s/m", ("content-type", "application/grpc-web")), 415),
        (head("/s/m", ("grpc-timeout", "5")), 400),
        (head("/s/m", ("grpc-timeout", "123456789S")), 400),
        (head("/s/m", ("grpc-timeout", "-1S")), 400),
        (head("/s/m", ("x-bin", "!")), 400),
        (head("/s/m", ("x-bin", "\xe9")), 400),
    ],
)
def test_no_call(headers: list[tuple[str, str]], http_status: int) -> None:
    """An HTTP status for HTTP clients, and one of gRPC for the others."""
    refusal = read_head(headers)
    assert isinstance(refusal, Refusal)
    assert refusal.http_status == http_status
    assert refusal.status is Status.INTERNAL


@given(
    st.lists(
        st.tuples(st.text(max_size=9) | st.sampled_from([":method", ":path", "x-bin"]), st.text(max_size=9))
    )
)
def test_any_headers(headers: list[tuple[str, str]]) -> None:
    """Whatever the headers are, there is an answer. They are decoded as Latin-1."""
    latin = [(name, value.encode().decode("latin-1")) for name, value in headers]
    answer = read_head(latin)
    if isinstance(answer, Refusal):
        assert answer.headers()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/builder.ImageBuilder/Nothing", "unknown method Nothing for service builder.ImageBuilder"),
        ("/builder.Other/Build", "unknown service builder.Other"),
        ("/builder/Build", "unknown service builder"),
        ("/Build", 'malformed method name: "/Build"'),
        ("Build", 'malformed method name: "Build"'),
        ("*", 'malformed method name: "*"'),
        ("/s/" + "m" * 200, "unknown service s"),
        ("/" + "s" * 200 + "/m", "unknown service " + "s" * 100 + "…"),
    ],
)
def test_unknown_paths(path: str, message: str) -> None:
    """The texts that grpc-go has, too."""
    refusal = unknown_path(path, PATHS)
    assert (refusal.http_status, refusal.status, refusal.message) == (200, Status.UNIMPLEMENTED, message)
