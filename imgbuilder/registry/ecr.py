"""Credentials for Amazon's registries, from AWS.

The libraries for it are imported when the first is needed: they cost tens of megabytes.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio

from imgbuilder.core.permissions import ECR_STAND_IN, PUBLIC_ECR, Credentials, basic_credentials, ecr_region
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.errors import CredentialsUnavailableError
from imgbuilder.registry.singleflight import SingleFlight
from imgbuilder.runtime.tasks import Tasks

KEPT: Final = 4 * 3600.0
"""Seconds that a token is used at most, whatever AWS says of its life."""

MARGIN: Final = 60.0
"""Seconds before its end from which a token is not used any more."""

FAULT_KEPT: Final = 10.0
"""Seconds that a failure is remembered: with AWS away, not every look-up waits for it."""

TIME_LIMIT: Final = 15.0
REGIONS: Final = 64
PUBLIC_REGION: Final = "us-east-1"
"""Where public registries are administered, wherever they are."""


class EcrCredentials:
    """Tokens of Amazon's registries, one for each region."""

    def __init__(self, *, tasks: Tasks, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._session: Any = None
        # Of a failure the words are kept: the error itself would keep everything that it went through.
        self._kept: BoundedCache[tuple[str, str], Credentials | str] = BoundedCache(REGIONS)
        self._flights: SingleFlight[tuple[str, str], Credentials] = SingleFlight(
            tasks, name="fetch ECR token"
        )

    async def credentials(self, registry: str) -> Credentials | None:
        """Those for *registry*; None if it is not Amazon's.

        :raises CredentialsUnavailableError: if AWS does not give any.
        """
        source = _source(registry)
        if source is None:
            return None
        kept = self._kept.get(source, now=anyio.current_time())
        if isinstance(kept, str):
            raise CredentialsUnavailableError(registry, kept)
        return kept or await self._flights.run(source, partial(self._fetch, registry, source))

    async def _fetch(self, registry: str, source: tuple[str, str]) -> Credentials:
        try:
            token, expires_at = await self._authorization_token(registry, source)
        except CredentialsUnavailableError as error:
            self._kept.put(source, error.fault, until=anyio.current_time() + FAULT_KEPT)
            raise
        lifetime = min(KEPT, expires_at - self._wall_clock() - MARGIN)
        credentials = _read(registry, token)
        self._kept.put(source, credentials, until=anyio.current_time() + lifetime)
        return credentials

    async def _authorization_token(self, registry: str, source: tuple[str, str]) -> tuple[str, float]:
        """A token as AWS gives it, and the Unix time at which it expires."""
        await anyio.to_thread.run_sync(importlib.import_module, "aiobotocore.session")  # long, the first time
        from aiobotocore.config import AioConfig  # noqa: PLC0415  # only where ECR is turned on and used
        from aiobotocore.session import get_session  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        service, region = source
        settings = AioConfig(connect_timeout=5, read_timeout=10, retries={"max_attempts": 2})
        # One for all: it keeps the descriptions of AWS' services, which take long to read.
        self._session = self._session or get_session()
        try:
            with anyio.move_on_after(TIME_LIMIT):
                client = self._session.create_client(service, region_name=region or None, config=settings)
                async with client as ecr:
                    answer: Any = await ecr.get_authorization_token()
                data = answer["authorizationData"]
                # A list for private registries (of one, since all share a token), and not one for public ones.
                entry = data[0] if isinstance(data, list) else data
                return entry["authorizationToken"], entry["expiresAt"].timestamp()
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise CredentialsUnavailableError(registry, f"AWS gives no token: {code}") from error
        except (BotoCoreError, ValueError, LookupError, TypeError) as error:
            fault = f"AWS gives no token: {type(error).__name__}"
            raise CredentialsUnavailableError(registry, fault) from error
        raise CredentialsUnavailableError(registry, f"AWS gives no token within {TIME_LIMIT:g} s")


def _source(registry: str) -> tuple[str, str] | None:
    """The AWS service and region that have the token of *registry*; no region means the configured one."""
    if registry == PUBLIC_ECR:
        return "ecr-public", PUBLIC_REGION
    if registry == ECR_STAND_IN:
        return "ecr", ""
    region = ecr_region(registry)
    return ("ecr", region) if region is not None else None


def _read(registry: str, token: str) -> Credentials:
    try:
        username, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise CredentialsUnavailableError(registry, "AWS gives a token that can't be read") from error
    return basic_credentials(username, password)
