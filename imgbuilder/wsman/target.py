"""Where the workspace manager is: the addresses that a Go client takes, as a host and a port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from imgbuilder.core.errors import InvalidInputError

FIELD: Final = "orchestrator.wsman.address"
DEFAULT_PORT: Final = 443
PREFIX: Final = re.compile(r"^(dns|passthrough|ipv4|ipv6):(//[^/]*/)?")
IPV6: Final = re.compile(r"(?=[^:]*:[^:]*:)[0-9A-Fa-f:.]+")
"""Two colons at least; looked for ahead, as any other way to say so may take cubic time."""
ENDPOINT: Final = re.compile(r"([\w.-]+|\[(?P<ipv6>[\w:.%]+)\])(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host, as a name or an IP address without brackets, and a port."""

    host: str
    port: int


def parse_target(address: str) -> Target:
    """What to connect to for *address*.

    Takes ``host:port`` and ``host`` (port 443, as gRPC has it), IPv6 addresses in brackets, and the same
    behind ``dns:``, ``dns:///``, ``dns://resolver/`` (the resolver is not used) and ``passthrough:///``.

    :raises InvalidInputError: for anything else, naming the configuration's field.
    """
    endpoint = PREFIX.sub("", address.strip(), count=1)
    if IPV6.fullmatch(endpoint):
        return Target(host=endpoint, port=DEFAULT_PORT)
    match = ENDPOINT.fullmatch(endpoint)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 1 << 16:
        raise InvalidInputError(FIELD, "is not a host and a port")
    return Target(host=match["ipv6"] or match[1], port=port)
