"""What tests of look-ups need: the registry layer, configured for registries of the test world."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from imgbuilder.core.backoff import Backoff
from imgbuilder.registry.images import RegistryImages
from imgbuilder.registry.settings import RegistrySettings
from tests.world.registries.httpd import HttpServer

WITHOUT_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For tests without TLS: to read the system's trust store takes longer than most of them."""


class CountedMetrics:
    """Keeps what is counted, by its labels without the time."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.tokens: Counter[bool] = Counter()

    def registry_request(self, registry: str, method: str, status: str, seconds: float) -> None:
        """Count a request."""
        assert seconds >= 0
        self.requests[registry, method, status] += 1

    def token_cache(self, hit: bool) -> None:
        """Count a use of the cache."""
        self.tokens[hit] += 1


Looking = Callable[..., AbstractAsyncContextManager[RegistryImages]]


@pytest.fixture
def metrics() -> CountedMetrics:
    """What the look-ups of the test count."""
    return CountedMetrics()


@pytest.fixture
def looking(metrics: CountedMetrics) -> Looking:
    """Makes the registry layer; the servers it is given are spoken to over plain HTTP.

    Repetitions come fast. Keywords go to the settings if they are one, and else to the layer.
    """

    @asynccontextmanager
    async def make(*servers: HttpServer, **options: Any) -> AsyncIterator[RegistryImages]:
        names = RegistrySettings.__dataclass_fields__
        chosen = {name: options.pop(name) for name in list(options) if name in names}
        chosen.setdefault("insecure", frozenset(server.host for server in servers))
        chosen.setdefault("backoff", Backoff(first=0.002, factor=1, limit=0.002))
        options.setdefault("ssl_context", WITHOUT_TRUST)
        async with RegistryImages(RegistrySettings(**chosen), metrics=metrics, **options) as images:
            yield images

    return make
