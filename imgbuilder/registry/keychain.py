"""The service's own credentials: from the pull secret first, then from AWS."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio

from imgbuilder.core.permissions import Credentials
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.dockerconfig import Helper
from imgbuilder.registry.ecr import EcrCredentials
from imgbuilder.registry.helpers import ask_helper
from imgbuilder.registry.pullsecret import PullSecret
from imgbuilder.registry.singleflight import SingleFlight
from imgbuilder.runtime.tasks import Tasks

HELPER_KEPT: Final = 60.0
"""Seconds that the answer of a helper program is used. Its secrets may be short-lived: it knows, we don't."""

HELPERS: Final = 256


class Keychain:
    """Finds credentials of the service's own. The first source that has some for a registry counts."""

    def __init__(
        self,
        *,
        pull_secret: PullSecret | None,
        ecr: EcrCredentials | None,
        tasks: Tasks,
    ) -> None:
        self._pull_secret = pull_secret
        self._ecr = ecr
        # Kept as a list: of none or one, since to have none is an answer, too.
        self._kept: BoundedCache[Helper, list[Credentials]] = BoundedCache(HELPERS)
        self._flights: SingleFlight[Helper, Credentials | None] = SingleFlight(tasks, name="ask a helper")

    async def credentials(self, registry: str) -> Credentials | None:
        """Those for *registry*; None if there are none.

        :raises CredentialsUnavailableError: if there should be some, and they can't be had.
        """
        if self._pull_secret is not None:
            config = self._pull_secret.config
            helper = config.helper(registry)
            found = await self._from_helper(registry, helper) if helper is not None else None
            if found is None:
                found = config.credentials(registry)
            if found is not None:
                return found
        return await self._ecr.credentials(registry) if self._ecr is not None else None

    async def _from_helper(self, registry: str, helper: Helper) -> Credentials | None:
        kept = self._kept.get(helper, now=anyio.current_time())
        if kept is not None:
            return kept[0] if kept else None
        found = await self._flights.run(helper, partial(ask_helper, registry, helper))
        self._kept.put(helper, [found] if found else [], until=anyio.current_time() + HELPER_KEPT)
        return found
