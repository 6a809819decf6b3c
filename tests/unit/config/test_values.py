"""Durations, sizes, addresses and names as configurations spell them."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from imgbuilder.config.values import (
    MirrorUrl,
    OptionalListenAddress,
    Platform,
    PositiveSeconds,
    Registry,
    Repository,
    Seconds,
    parse_address,
    parse_duration,
    parse_size,
)
from imgbuilder.runtime.grpc.addresses import Address


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("6h0m0s", 21600),
        ("15s", 15),
        ("1h30m", 5400),
        ("100ms", 0.1),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("+2m", 120),
        ("-2m", -120),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("5μs", 5e-6),  # Greek mu
        ("7ns", 7e-9),
        ("1h1h", 7200),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    """Each unit, fractions, signs and repeated units have the value they have in Go."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "value",
    ["", "6 hours", "15", "s", ".", "1.2.3s", "1h 30m", "3d", "1S", "--1s", "\uff19s", 15, 1.5, True, ["1s"]],
)
def test_what_is_no_go_duration_is_refused(value: object) -> None:
    """Numbers without a unit, unknown units and anything but text are no durations."""
    with pytest.raises(ValueError, match=r"duration"):
        parse_duration(value)


def test_a_duration_longer_than_gos_longest_is_refused() -> None:
    """Go's durations end at about 292 years."""
    assert parse_duration("2562047h") > 0
    with pytest.raises(ValueError, match="longer than"):
        parse_duration("2562048h")


@given(st.integers(0, 999), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int, millis: int) -> None:
    """Whatever the parts, they add up."""
    expected = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert parse_duration(f"{hours}h{minutes}m{seconds}s{millis}ms") == pytest.approx(expected)


def test_a_negative_duration_is_refused_where_it_makes_no_sense() -> None:
    """Time limits must be more than nothing; waiting times may be nothing."""
    assert TypeAdapter(Seconds).validate_python("0s") == 0
    for kind, text in ((Seconds, "-1s"), (PositiveSeconds, "-1s"), (PositiveSeconds, "0s")):
        with pytest.raises(ValidationError, match="must"):
            TypeAdapter(kind).validate_python(text)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1, 1),
        (4096, 4096),
        ("4096", 4096),
        ("10B", 10),
        ("1KiB", 1024),
        ("64MiB", 64 << 20),
        ("64Mi", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("2 TiB", 2 << 40),
        ("1kB", 1000),
        ("3MB", 3_000_000),
    ],
)
def test_sizes(value: object, size: int) -> None:
    """Numbers are bytes; units are binary with an i, else decimal."""
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value", ["", "MiB", "1 ZiB", "-1", "1e3", "1.5.5MiB", 0, -5, "0MiB", True, 1.5, None, "9EiB"]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    """Nothing, less than nothing, and other units are no sizes."""
    with pytest.raises(ValueError, match=r"size|bytes"):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        (":8080", Address("", 8080)),
        ("[::]:8080", Address("::", 8080)),
        ("[::1]:0", Address("::1", 0)),
        ("localhost:65535", Address("localhost", 65535)),
        ("ws-manager.default.svc:1", Address("ws-manager.default.svc", 1)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Names, IPv4 and bracketed IPv6 addresses, or no host at all; printing gives the text back."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "8080",
        "localhost",
        "localhost:",
        "localhost:65536",
        "::1:80",
        "[::1]",
        "a b:1",
        "http://a:1",
        8080,
    ],
)
def test_what_is_no_address_is_refused(value: object) -> None:
    """A port is needed, and IPv6 addresses need their brackets."""
    with pytest.raises(ValueError, match="address"):
        parse_address(value)


def test_an_empty_optional_address_means_off() -> None:
    """What may be turned off is turned off by an empty text."""
    assert TypeAdapter(OptionalListenAddress).validate_python("") is None


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Repository, "localhost:5000/base-images", "localhost:5000/base-images:latest"),
        (Repository, "registry.example.com/a/b", f"registry.example.com/a/b@sha256:{'0' * 64}"),
        (Registry, "localhost:5000", "localhost:5000/x"),
        (Registry, "docker.io", "index.docker.io"),
        (Registry, "registry.example.com", "registry"),
        (Registry, "[::1]:5000", "https://registry.example.com"),
        (MirrorUrl, "https://mirror.example.com", "mirror.example.com"),
        (MirrorUrl, "http://localhost:5001/prefix", "ftp://localhost"),
        (MirrorUrl, "http://[::1]:80", "http://[::1"),
        (MirrorUrl, "http://localhost:1", "http://localhost:99999"),
        (Platform, "linux/arm64/v8", "linux"),
    ],
)
def test_names_of_images_and_hosts(kind: Any, good: str, bad: str) -> None:
    """Repositories have no tag, registries are spelled as references spell them, mirrors are addresses."""
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    assert adapter.validate_python(good) == good
    with pytest.raises(ValidationError):
        adapter.validate_python(bad)


def test_the_password_in_a_mirrors_address_is_refused_and_not_repeated() -> None:
    """Credentials belong into the pull secret; the message does not show them."""
    with pytest.raises(ValidationError) as info:
        TypeAdapter(MirrorUrl).validate_python("https://user:hunter2@mirror.example.com")
    assert [error["msg"] for error in info.value.errors()] == [
        "Value error, must be an address without credentials, query or fragment"
    ]


@given(st.text(alphabet=string.printable, max_size=30))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes a parser fail in another way than the one it is allowed."""
    for parse in (parse_duration, parse_size, parse_address):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017  # that there may be none is the point
