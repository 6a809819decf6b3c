"""Addresses to listen on, as Go programs write them: ``:8080``, ``0.0.0.0:8080``, ``[::1]:8080``, ``host:8080``."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^\[\]:/\s]*)):(?P<port>[0-9]{1,5})"
)


class InvalidAddressError(ImgbuilderError):
    """A text is not an address to listen on."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not an address: write host:port, [ipv6]:port or :port")
        self.text = text


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port.

    :ivar host: a name or an IP address, without brackets; empty for all there are.
    :ivar port: 0 to listen on any that is free.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that *text* is.

    :raises InvalidAddressError: if it is none.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match["port"]) > 0xFFFF:
        raise InvalidAddressError(text)
    return Address(match["ipv6"] or match["host"], int(match["port"]))


def listening_socket(address: Address, *, backlog: int = 1024) -> socket.socket:
    """A socket that listens on *address*; on all addresses of the machine, IPv4 and IPv6, if it has no host or ``::``.

    Blocks while a host name is looked up.

    :raises OSError: if it can't be listened on.
    """
    if address.host in {"", "::"}:
        try:
            listener = socket.create_server(
                ("::", address.port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
        except (OSError, ValueError):
            if address.host:
                raise
            listener = socket.create_server(("0.0.0.0", address.port), backlog=backlog)  # no IPv6 here
    else:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, place = min(
            found, key=lambda one: one[0] != socket.AF_INET
        )  # IPv4 first, as Go does
        try:
            listener = socket.create_server(place[:2], family=family, backlog=backlog)
        except OSError as error:
            # create_server adds the address, which whoever listens knows
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error
    listener.setblocking(False)
    return listener


def bound_address(listener: socket.socket) -> Address:
    """Where *listener* listens, with the port that it got."""
    host, port = listener.getsockname()[:2]
    return Address(str(host), int(port))
