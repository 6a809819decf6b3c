"""Addresses to listen on."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from imgbuilder.runtime.grpc.addresses import (
    Address,
    InvalidAddressError,
    bound_address,
    listening_socket,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":8080", "", 8080),
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[::]:8080", "::", 8080),
        ("[::1]:65535", "::1", 65535),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("localhost:22", "localhost", 22),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    """As Go programs write them, and print them."""
    assert parse_address(text) == Address(host, port)
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "::1:80", "[::1]", "[host]:80", ":65536", ":-1", ":x", "a b:1", "h:1/"]
)
def test_no_addresses(text: str) -> None:
    """The error names the text."""
    with pytest.raises(InvalidAddressError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reachable"),
    [
        (":0", ["127.0.0.1", "::1"]),
        ("[::]:0", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", ["127.0.0.1"]),
        ("127.0.0.1:0", ["127.0.0.1"]),
        ("[::1]:0", ["::1"]),
        ("localhost:0", ["127.0.0.1"]),
    ],
)
def test_listening(text: str, reachable: list[str]) -> None:
    """On one port, for both families where no address is given."""
    if not socket.has_dualstack_ipv6() and "::1" in reachable:
        pytest.skip("no IPv6 here")
    with closing(listening_socket(parse_address(text))) as listener:
        port = bound_address(listener).port
        assert port
        for host in reachable:
            socket.create_connection((host, port), timeout=5).close()


def test_a_port_that_is_taken() -> None:
    """Is an OSError."""
    with closing(listening_socket(Address("127.0.0.1", 0))) as listener:
        taken = bound_address(listener)
        with pytest.raises(OSError, match="in use"):
            listening_socket(taken)


def test_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses are those of IPv4 then, unless IPv6 was asked for."""
    create = socket.create_server

    def only_ipv4(address: tuple[str, int], **options: object) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError("no IPv6 here")
        return create(address, backlog=1)

    monkeypatch.setattr(socket, "create_server", only_ipv4)
    with closing(listening_socket(Address("", 0))) as listener:
        assert bound_address(listener).host == "0.0.0.0"
    with pytest.raises(OSError, match="no IPv6"):
        listening_socket(Address("::", 0))
