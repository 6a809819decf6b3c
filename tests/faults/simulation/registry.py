"""The registry as one replica of the service sees it."""

from __future__ import annotations

import asyncio
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
        self._running: dict[tuple[str, bool], asyncio.Future[bool]] = {}
        self.failed_at = -math.inf
        """When a request failed last."""

    async def resolve(self, reference: Reference, permissions: Permissions, *, retry: bool) -> Reference:
        """The digest form."""
        await anyio.sleep(await self._look_up(f"resolve {reference}", retry=retry))
        return reference.with_digest(DIGEST)

    async def exists(self, reference: Reference, permissions: Permissions, *, retry: bool) -> bool:
        """Whether it was there when the registry was asked. Equal look-ups at the same time are one."""
        while (shared := self._running.get((str(reference), retry))) is not None:
            # Whoever began it may leave before it has an answer: then another begins again.
            await asyncio.wait([shared])
            if not shared.cancelled():
                return shared.result()
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._running[str(reference), retry] = answer
        try:
            answer.set_result(await self._exists(str(reference), retry=retry))
        except RegistryError as error:
            answer.set_exception(error)
        finally:
            answer.cancel()
            del self._running[str(reference), retry]
        return answer.result()

    async def _exists(self, reference: str, *, retry: bool) -> bool:
        answer_after = await self._look_up("exists", retry=retry)
        found = reference in self._world.images
        await anyio.sleep(answer_after)
        return found

    async def credentials(self, registry: str) -> Credentials | None:
        """None."""
        return None

    async def _look_up(self, what: str, *, retry: bool) -> float:
        """The way there, tried again as the real client does; in how many seconds the answer is back.

        :raises RegistryError: if it does not get there.
        """
        began = self._world.now()
        last: RegistryError = RegistryUnreachableError(HOST)
        for attempt in range(4 if retry else 1):
            try:
                with anyio.fail_after(began + LONGEST_LOOKUP - self._world.now()):
                    if attempt:
                        await anyio.sleep(0.5 * 2**attempt * self._faults.between(0.5, 1.0))
                    return await self._request(what)
            except TimeoutError:
                break
            except RegistryError as error:
                self.failed_at = self._world.now()
                last = error
        raise last

    async def _request(self, what: str) -> float:
        """The way there; in how many seconds the answer is back.

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
                await anyio.sleep(faults.between(0.0, 0.4 * LONGEST_REQUEST))
                return faults.between(0.0, 0.4 * LONGEST_REQUEST)
            case "registry.silent":
                await anyio.sleep(LONGEST_REQUEST)
                raise RegistryUnreachableError(HOST)
            case "registry.unreachable":
                raise RegistryUnreachableError(HOST, "connection refused")
            case "registry.limited":
                raise RegistryRateLimitedError(HOST)
            case "registry.fault":
                raise RegistryFaultError(HOST, "it answered 503")
        return faults.latency()
