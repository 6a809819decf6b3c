"""All that it takes to write to registries, put together: connections, tokens, transfers.

Has no credentials of its own: whoever asks for something says what to show.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference
from imgbuilder.registry.access import PULL, PUSH, Access, repository_scope
from imgbuilder.registry.assembly import assemble
from imgbuilder.registry.endpoints import Endpoint
from imgbuilder.registry.http import RegistryMetrics
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.registry.transfers import Transfers
from imgbuilder.runtime.tasks import Tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """Part of a registry, and what to show there.

    :ivar path: as references spell it, e.g. ``library/ubuntu``.
    """

    endpoint: Endpoint
    path: str
    credentials: Credentials | None

    @property
    def registry(self) -> str:
        """The name for errors."""
        return self.endpoint.registry

    def reading(self) -> Access:
        """The right to read it."""
        return self._access(repository_scope(self.path, PULL))

    def writing(self, *, beside: Repository | None = None) -> Access:
        """The right to write to it, and to read *beside*, which is in the same registry."""
        scope = repository_scope(self.path, PUSH)
        if beside is not None and beside.path != self.path:
            scope = f"{scope} {repository_scope(beside.path, PULL)}"
        return self._access(scope)

    def _access(self, scope: str) -> Access:
        return Access(endpoint=self.endpoint, scope=scope, credentials=self.credentials, retry=True)


class RegistrySession:
    """Use as an async context manager, once.

    :ivar client: for what fits into memory.
    :ivar transfers: for what does not.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        metrics: RegistryMetrics,
        ssl_context: ssl.SSLContext | None = None,
        wall_clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """:param ssl_context: by default the system's trust store, or what ``SSL_CERT_FILE`` names."""
        self._tasks = Tasks()
        self._stack = AsyncExitStack()
        parts = assemble(
            settings,
            metrics=metrics,
            tasks=self._tasks,
            wall_clock=wall_clock,
            jitter=jitter,
            ssl_context=ssl_context,
        )
        self._http, self._endpoints = parts.http, parts.endpoints
        self.client, self.retrying = parts.client, parts.retrying
        self.transfers = Transfers(
            may_go=self._endpoints.allows,
            connections_per_host=settings.connections_per_host,
            ssl_context=ssl_context,
        )

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._http)
        await self._stack.enter_async_context(self.transfers)
        await self._stack.enter_async_context(self._tasks)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    def repository(self, reference: Reference, credentials: Credentials | None) -> Repository:
        """The repository of *reference*, in the registry itself: no mirror has what was just pushed.

        :raises RegistryFaultError: if the registry's name can't be a host's.
        """
        return Repository(
            endpoint=self._endpoints.origin(reference.domain),
            path=reference.path,
            credentials=credentials,
        )

    def allows(self, url: str, *, beside: str) -> bool:
        """Whether a request may go to *url*, where something at the address *beside* sends us."""
        return self._endpoints.allows(url, beside=beside)
