"""The service in this process, with all of its parts, in a test world, and a client of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
import structlog

from imgbuilder.cli.service import RunningService, running
from imgbuilder.config import parse
from tests.contract.service.client import Client, connected
from tests.helpers import in_own_task
from tests.world.certificates import Authority
from tests.world.world import World


@dataclass(frozen=True, kw_only=True)
class Served:
    """A service that runs, a client of it, and what it shows over HTTP."""

    running: RunningService
    client: Client

    async def probe(self, path: str) -> httpx.Response:
        """What ``/ready`` or ``/live`` answers."""
        return await get(self.running.endpoints.probes_port, path)

    async def metrics(self) -> dict[str, float]:
        """All series at ``/metrics`` by name and labels."""
        answer = await get(self.running.endpoints.metrics_port, "/metrics")
        return series_of(answer.text)


async def get(port: int, path: str) -> httpx.Response:
    """The answer to a request on a port of this machine."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


def series_of(text: str) -> dict[str, float]:
    """The numbers in *text*, Prometheus' format, by name and labels as they stand there."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@asynccontextmanager
async def serving(
    config: Mapping[str, Any], *, debug: bool = False, client: Mapping[str, Any] | None = None
) -> AsyncIterator[Served]:
    """A service with *config* that runs inside the block.

    :param client: options of the channel of its client.
    """
    loaded = parse("test", json.dumps(config).encode())
    async with (
        running(loaded.config, debug=debug) as service,
        connected(service.address.port, **(client or {})) as connection,
    ):
        yield Served(running=service, client=connection)


def unobserved(world: World, **overrides: Any) -> dict[str, Any]:
    """The configuration of a service that serves nothing over HTTP: it takes longer to end than all the rest."""
    return world.service_config(telemetry={"metricsAddress": "", "probesAddress": ""}, **overrides)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom all trust here."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _few_to_trust(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the system's trust store takes longer than all else that a service does when it starts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    """A service in the world of the test."""
    async with in_own_task(serving(unobserved(world))) as served:
        yield served


@pytest.fixture
async def observed(world: World) -> AsyncIterator[Served]:
    """The same, with its endpoints for metrics and probes."""
    async with in_own_task(serving(world.service_config())) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Client:
    """A client of that service."""
    return served.client


class Logged:
    """What the service logs, by the words of the event."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self._happened = anyio.Event()

    def take(self, _logger: Any, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """The structlog processor that takes an event, of which nobody else hears."""
        self.events.append({"level": level, **structlog.contextvars.get_contextvars(), **event})
        self._happened.set()
        raise structlog.DropEvent

    async def until(self, words: str, count: int = 1) -> None:
        """Wait until the event of these *words* was logged *count* times in all."""
        with anyio.fail_after(20):
            while sum(event["event"] == words for event in self.events) < count:
                self._happened = anyio.Event()
                await self._happened.wait()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What the service of the test logs."""
    logged = Logged()
    structlog.configure(processors=[logged.take])
    yield logged
    structlog.reset_defaults()
