"""Addresses of the workspace manager."""

from __future__ import annotations

import pytest

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.wsman.target import Target, parse_target


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("ws-manager:8080", "ws-manager", 8080),
        ("127.0.0.1:12001", "127.0.0.1", 12001),
        ("ws-manager", "ws-manager", 443),
        ("dns:ws-manager:8080", "ws-manager", 8080),
        ("dns:///ws-manager.default.svc:8080", "ws-manager.default.svc", 8080),
        ("dns://10.0.0.10/ws-manager:8080", "ws-manager", 8080),
        ("dns:///ws-manager", "ws-manager", 443),
        ("passthrough:///ws-manager:8080", "ws-manager", 8080),
        ("ipv4:10.1.2.3:8080", "10.1.2.3", 8080),
        ("[::1]:8080", "::1", 8080),
        ("dns:///[::1]:8080", "::1", 8080),
        ("::1", "::1", 443),
        (" ws-manager:8080 ", "ws-manager", 8080),
    ],
)
def test_addresses_that_go_clients_take(address: str, host: str, port: int) -> None:
    """Host and port are found in every common spelling."""
    assert parse_target(address) == Target(host=host, port=port)


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":8080",
        "ws-manager:",
        "ws-manager:http",
        "ws-manager:99999",
        "http://ws-manager:8080",
        "a b:1",
        "u@h:1",
    ],
)
def test_anything_else_is_refused(address: str) -> None:
    """What is no address is an error that names the field of the configuration."""
    with pytest.raises(InvalidInputError, match=r"orchestrator\.wsman\.address"):
        parse_target(address)
