"""What the registry layer can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from imgbuilder.core.backoff import Backoff
from imgbuilder.core.manifests import LINUX_AMD64, Platform

BACKOFF: Final = Backoff(first=0.5, factor=2, limit=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """How registries are spoken to.

    :ivar insecure: hosts, with their ports, that are spoken to over plain HTTP; token servers included.
    :ivar mirrors: registry to the address that is asked first, e.g. ``https://mirror.example.com``.
    :ivar platform: whose image an index is resolved to.
    :ivar timeout: seconds that one request may take, the body of its answer included.
    :ivar lookup_timeout: seconds that a look-up may take, with all its requests and pauses.
    :ivar connections_per_host: how many requests at a time a host gets.
    :ivar backoff: the pauses between repetitions, where the registry asks for none.
    """

    insecure: frozenset[str] = frozenset()
    mirrors: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = LINUX_AMD64
    timeout: float = 15.0
    lookup_timeout: float = 40.0
    connections_per_host: int = 8
    backoff: Backoff = BACKOFF
