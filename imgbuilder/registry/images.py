"""The registry layer as others use it: looks images up with the credentials that a request may use.

Decides whose credentials are shown, makes one look-up of many equal ones, and remembers what can't change.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
import structlog

from imgbuilder.core.permissions import Credentials, Permissions, check_additional, decode_additional
from imgbuilder.core.references import Reference
from imgbuilder.registry.assembly import assemble
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.ecr import EcrCredentials
from imgbuilder.registry.errors import (
    CredentialsUnavailableError,
    RegistryDeniedError,
    RegistryUnreachableError,
)
from imgbuilder.registry.http import RegistryMetrics
from imgbuilder.registry.keychain import Keychain
from imgbuilder.registry.lookups import Lookups, Resolved
from imgbuilder.registry.pullsecret import PullSecret
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.registry.singleflight import CutOffError, SingleFlight
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.tracing import NO_TRACER, Tracer

log = structlog.get_logger(__name__)
T = TypeVar("T")

RESOLVED: Final = 4096
"""How many references by digest are remembered."""

Key = tuple[str, bytes, bool]
"""A reference, whose credentials, and whether to retry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a look-up shows to the registry; *identity* is the same for the same credentials only."""

    credentials: Credentials | None
    identity: bytes


class RegistryImages:
    """Looks images up in registries. Use as an async context manager, once.

    Owns the connections, the watch of the pull secret, and the tasks of the look-ups under way.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        *,
        metrics: RegistryMetrics,
        pull_secret_file: Path | None = None,
        ecr: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        tracer: Tracer = NO_TRACER,
        wall_clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Read the pull secret; nothing is sent yet. To be called inside the event loop.

        :param ecr: whether to get credentials for Amazon's registries from AWS.
        :param ssl_context: by default the system's trust store, or what ``SSL_CERT_FILE`` names.
        :raises DockerConfigError: if the pull secret can't be used.
        """
        self._settings = settings
        self._tasks = Tasks()
        self._pull_secret = PullSecret(pull_secret_file) if pull_secret_file is not None else None
        self._keychain = Keychain(
            pull_secret=self._pull_secret,
            ecr=EcrCredentials(tasks=self._tasks, wall_clock=wall_clock) if ecr else None,
            tasks=self._tasks,
        )
        parts = assemble(
            settings,
            metrics=metrics,
            tasks=self._tasks,
            wall_clock=wall_clock,
            jitter=jitter,
            ssl_context=ssl_context,
            tracer=tracer,
        )
        self._http = parts.http
        self._lookups = Lookups(
            client=parts.client,
            endpoints=parts.endpoints,
            retrying=parts.retrying,
            platform=settings.platform,
            mirror_credentials=self._mirror_credentials,
        )
        self._resolving: SingleFlight[Key, Resolved] = SingleFlight(self._tasks, name="resolve an image")
        self._checking: SingleFlight[Key, bool] = SingleFlight(self._tasks, name="look for an image")
        self._resolved: BoundedCache[tuple[str, bytes], str] = BoundedCache(RESOLVED)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._http)
        await self._stack.enter_async_context(self._tasks)
        if self._pull_secret is not None:
            self._tasks.spawn(self._pull_secret.watch, name="watch the pull secret")
            self._stack.callback(self._pull_secret.stop)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, traceback)

    async def resolve(self, reference: Reference, permissions: Permissions, *, retry: bool) -> Reference:
        """The digest form of *reference*, for the configured platform.

        From one GET; nothing is sent for a reference by digest whose contents these credentials were shown
        before. Cancelling it leaves the look-up to the others who wait for it.

        :param retry: whether to send again what failed for a reason that may pass.
        :raises RegistryError: one of the subclasses, each a situation of its own.
        :raises NoManifestForPlatformError: if it is an index without an image for the platform.
        :raises InvalidInputError: if *permissions* bring credentials for its registry that can't be read.
        """
        return await self._with_credentials(reference, permissions, partial(self._resolve, reference, retry))

    async def exists(self, reference: Reference, permissions: Permissions, *, retry: bool) -> bool:
        """Whether there is an image under *reference*, from one HEAD.

        Cancelling it leaves the look-up to the others who wait for it.

        :param retry: whether to send again what failed for a reason that may pass.
        :raises RegistryError: if that can't be found out.
        :raises InvalidInputError: if *permissions* bring credentials for its registry that can't be read.
        """
        return await self._with_credentials(reference, permissions, partial(self._exists, reference, retry))

    async def credentials(self, registry: str) -> Credentials | None:
        """The service's own for *registry*, from the pull secret, else from AWS; None if there are none.

        :raises CredentialsUnavailableError: if there should be some, and they can't be had.
        """
        try:
            return await self._keychain.credentials(registry)
        except CutOffError as error:
            raise CredentialsUnavailableError(registry, str(error)) from error

    async def _resolve(self, reference: Reference, retry: bool, shown: Shown) -> Reference:
        image = self._resolved.get((str(reference), shown.identity))
        if image is None:
            look_up = partial(self._lookups.resolve, reference, shown.credentials, retry=retry)
            key = (str(reference), shown.identity, retry)
            resolved = await self._resolving.run(key, partial(self._in_time, reference, look_up))
            image = resolved.image
            found = reference.with_digest(resolved.found)
            self._resolved.put((str(found), shown.identity), image)
        return reference.with_digest(image)

    async def _exists(self, reference: Reference, retry: bool, shown: Shown) -> bool:
        look_up = partial(self._lookups.exists, reference, shown.credentials, retry=retry)
        key = (str(reference), shown.identity, retry)
        return await self._checking.run(key, partial(self._in_time, reference, look_up))

    async def _with_credentials(
        self,
        reference: Reference,
        permissions: Permissions,
        look_up: Callable[[Shown], Awaitable[T]],
    ) -> T:
        """What *look_up* gives with the credentials that *permissions* allow, in the time that it may take.

        Where own credentials can't be had, it goes on without: the image may be public. Only if that is not
        enough are they to blame, and not the image.
        """
        registry = reference.domain
        missing: CredentialsUnavailableError | None = None
        with anyio.move_on_after(self._settings.lookup_timeout):
            credentials: Credentials | None = None
            if permissions.may_use(registry):
                try:
                    credentials = await self.credentials(registry)
                except CredentialsUnavailableError as error:
                    log.warning("own credentials can't be had", registry=registry, reason=error.fault)
                    missing = error
            if credentials is None:
                credentials = _additional(registry, permissions)
            identity = credentials.fingerprint() if credentials is not None else b""
            try:
                return await look_up(Shown(credentials=credentials, identity=identity))
            except CutOffError as error:
                raise RegistryUnreachableError(registry, str(error)) from error
            except RegistryDeniedError as error:
                if missing is None:
                    raise
                raise missing from error
        raise RegistryUnreachableError(registry, f"no answer within {self._settings.lookup_timeout:g} s")

    async def _in_time(self, reference: Reference, look_up: Callable[[], Awaitable[T]]) -> T:
        """A look-up that others may join has a time limit of its own, whoever asked first."""
        with anyio.move_on_after(self._settings.lookup_timeout):
            return await look_up()
        fault = f"no answer within {self._settings.lookup_timeout:g} s"
        raise RegistryUnreachableError(reference.domain, fault)

    async def _mirror_credentials(self, mirror: str) -> Credentials | None:
        try:
            return await self.credentials(mirror)
        except CredentialsUnavailableError as error:
            log.warning("own credentials can't be had", registry=mirror, reason=error.fault)
            return None


def _additional(registry: str, permissions: Permissions) -> Credentials | None:
    value = permissions.additional.get(registry)
    if value is None:
        return None
    check_additional({registry: value})
    credentials = decode_additional(value)
    return None if credentials.anonymous else credentials
