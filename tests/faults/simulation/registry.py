"""The registry as one replica of the service sees it."""

from __future__ import annotations

import math

import anyio

from imgbuilder.core.permissions import Credentials, Permissions
from imgbuilder.core.references import Reference
from imgbuilder.registry.errors import (
    RegistryError,
    RegistryFaultError,
    RegistryRateLimitedError,
    RegistryUnreachableError,
)
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.trace import Trace
from tests.faults.simulation.world import World

DIGEST = "sha256:" + "0123456789abcdef" * 4
HOST = "registry.test"
LONGEST_REQUEST = 15.0
LONGEST_LOOKUP = 40.0


class Registry:
    """Whether the registry is there, for all replicas."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.up = True
        self.silent = False

    def go(self, *, silent: bool) -> None:
        """Go away: refuse requests, or do not answer."""
        self._trace.note("registry", "away", silent=silent)
        self.up, self.silent = False, silent

    def come(self) -> None:
        """Be there again."""
        self._trace.note("registry", "back")
        self.up = True


class Link:
    """Satisfies `imgbuilder.orchestrator.ports.Images`, and knows no credentials."""

    def __init__(self, registry: Registry, world: World, faults: Faults, replica: str) -> None:
        self._registry = registry
        self._world = world
        self._faults = faults
        self._replica = replica
        self.failed_at = -math.inf
        """When a request failed last."""

    async def resolve(self, reference: Reference, permissions: Permissions, *, retry: bool) -> Reference:
        """The digest form."""
        await self._look_up(f"resolve {reference}", retry=retry)
        await anyio.sleep(self._faults.latency())
        return reference.with_digest(DIGEST)

    async def exists(self, reference: Reference, permissions: Permissions, *, retry: bool) -> bool:
        """Whether it was there when the registry was asked."""
        await self._look_up("exists", retry=retry)
        found = str(reference) in self._world.images
        await anyio.sleep(self._faults.latency())
        return found

    async def credentials(self, registry: str) -> Credentials | None:
        """None."""
        return None

    async def _look_up(self, what: str, *, retry: bool) -> None:
        """The way there, tried again as the real client does.

        :raises RegistryError: if it does not get there.
        """
        began = self._world.now()
        last: RegistryError = RegistryUnreachableError(HOST)
        for attempt in range(4 if retry else 1):
            try:
                with anyio.fail_after(began + LONGEST_LOOKUP - self._world.now()):
                    if attempt:
                        await anyio.sleep(0.5 * 2**attempt * self._faults.between(0.5, 1.0))
                    await self._request(what)
                    return
            except TimeoutError:
                break
            except RegistryError as error:
                self.failed_at = self._world.now()
                last = error
        raise last

    async def _request(self, what: str) -> None:
        """The way there.

        :raises RegistryError: if it does not get there.
        """
        faults = self._faults
        fault = faults.first(
            "registry.slow", "registry.unreachable", "registry.silent", "registry.fault", "registry.limited"
        )
        if not self._registry.up:
            fault = "registry.silent" if self._registry.silent else "registry.unreachable"
        if fault:
            self._world.trace.note(self._replica, fault, request=what)
        await anyio.sleep(faults.latency())
        match fault:
            case "registry.slow":
                await anyio.sleep(faults.between(0.0, 0.9 * LONGEST_REQUEST))
            case "registry.silent":
                await anyio.sleep(LONGEST_REQUEST)
                raise RegistryUnreachableError(HOST)
            case "registry.unreachable":
                raise RegistryUnreachableError(HOST, "connection refused")
            case "registry.limited":
                raise RegistryRateLimitedError(HOST)
            case "registry.fault":
                raise RegistryFaultError(HOST, "it answered 503")
