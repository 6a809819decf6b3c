"""One look-up of an image: a GET or HEAD of its manifest, and what the answer means.

Asks a mirror first where there is one. Knows nothing of permissions, and keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio
import structlog

from imgbuilder.core.manifests import (
    MEDIA_TYPES,
    DigestMismatchError,
    InvalidManifestError,
    Platform,
    resolved_digest,
    sha256_digest,
    verify_digest,
)
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference, is_digest
from imgbuilder.registry.access import Access, repository_scope
from imgbuilder.registry.answers import check
from imgbuilder.registry.caches import BoundedCache
from imgbuilder.registry.client import RegistryClient
from imgbuilder.registry.endpoints import Endpoint, Endpoints
from imgbuilder.registry.errors import (
    ManifestUnknownError,
    RegistryError,
    RegistryFaultError,
    RegistryUnreachableError,
)
from imgbuilder.registry.http import Answer
from imgbuilder.registry.retrying import Retrying

log = structlog.get_logger(__name__)
T = TypeVar("T")

LARGEST_MANIFEST: Final = 4 * 1024 * 1024
ACCEPT: Final = {"Accept": MEDIA_TYPES}
NO_HEAD: Final = frozenset({405, 501})
"""How a registry says that it knows no HEAD."""

MIRROR_LEFT_ALONE: Final = 30.0
"""Seconds for which a mirror that can't be reached is not asked again."""

MIRRORS: Final = 256

_CODE: Final = re.compile(r"[A-Z][A-Z_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a reference leads to.

    :ivar found: the digest of what the registry has under the reference: an image, or an index of images.
    :ivar image: the digest of the image for the platform; the same if *found* is one.
    """

    found: str
    image: str


class Lookups:
    """Asks registries, each look-up for itself."""

    def __init__(
        self,
        *,
        client: RegistryClient,
        endpoints: Endpoints,
        retrying: Retrying,
        platform: Platform,
        mirror_credentials: Callable[[str], Awaitable[Credentials | None]],
    ) -> None:
        """:param mirror_credentials: the service's own, by the mirror's host. No others ever reach a mirror."""
        self._client = client
        self._endpoints = endpoints
        self._retrying = retrying
        self._platform = platform
        self._mirror_credentials = mirror_credentials
        self._left_alone: BoundedCache[str, bool] = BoundedCache(MIRRORS)

    async def resolve(
        self, reference: Reference, credentials: Credentials | None, *, retry: bool
    ) -> Resolved:
        """The digest of the image that *reference* means, from one GET.

        :raises RegistryError: if that can't be found out; `ManifestUnknownError` if there is no such image.
        :raises NoManifestForPlatformError: if it is an index without an image for the platform.
        """
        return await self._ask(self._resolve_at, reference, credentials, retry=retry)

    async def exists(self, reference: Reference, credentials: Credentials | None, *, retry: bool) -> bool:
        """Whether there is anything under *reference*, from one HEAD.

        :raises RegistryError: if that can't be found out.
        """
        try:
            return await self._ask(self._exists_at, reference, credentials, retry=retry)
        except ManifestUnknownError:
            return False

    async def _ask(
        self,
        question: Callable[[Access, Reference], Awaitable[T]],
        reference: Reference,
        credentials: Credentials | None,
        *,
        retry: bool,
    ) -> T:
        mirror = self._endpoints.mirror(reference.domain)
        if mirror is not None and not self._left_alone.get(mirror.base, now=anyio.current_time()):
            own = await self._mirror_credentials(mirror.registry)
            try:
                # Without retries: the registry itself is the second attempt.
                return await question(_access(mirror, reference, own, retry=False), reference)
            except RegistryError as error:
                log.info(
                    "mirror does not help, the registry is asked", mirror=mirror.registry, reason=str(error)
                )
                if isinstance(error, RegistryUnreachableError):
                    self._left_alone.put(mirror.base, True, until=anyio.current_time() + MIRROR_LEFT_ALONE)
        origin = self._endpoints.origin(reference.domain)
        return await question(_access(origin, reference, credentials, retry=retry), reference)

    async def _resolve_at(self, access: Access, reference: Reference) -> Resolved:
        path = manifest_path(reference)
        answer = await self._client.request(access, "GET", path, headers=ACCEPT, limit=LARGEST_MANIFEST)
        check(access.registry, answer, self._retrying)
        try:
            found = verified_digest(reference, answer)
            media_type = answer.headers.get("content-type", "")
            image = resolved_digest(answer.body, media_type, self._platform, digest=found)
        except (InvalidManifestError, DigestMismatchError) as error:
            raise RegistryFaultError(access.registry, str(error)) from error
        return Resolved(found=found, image=image)

    async def _exists_at(self, access: Access, reference: Reference) -> bool:
        path = manifest_path(reference)
        answer = await self._client.request(access, "HEAD", path, headers=ACCEPT)
        if answer.status in NO_HEAD:
            answer = await self._client.request(access, "GET", path, headers=ACCEPT, limit=LARGEST_MANIFEST)
        check(access.registry, answer, self._retrying)
        return True


def _access(
    endpoint: Endpoint,
    reference: Reference,
    credentials: Credentials | None,
    *,
    retry: bool,
) -> Access:
    scope = repository_scope(reference.path)
    return Access(endpoint=endpoint, scope=scope, credentials=credentials, retry=retry)


def manifest_path(reference: Reference) -> str:
    """Where a registry has the manifest of *reference*."""
    return f"{reference.path}/manifests/{reference.digest or reference.tag}"


def verified_digest(reference: Reference, answer: Answer) -> str:
    """The digest that the body goes by: as asked, else as the registry says, else its SHA-256.

    :raises DigestMismatchError: if it has not the digest that was asked for, or that the registry says.
    """
    told = answer.headers.get("docker-content-digest", "")
    for digest in filter(None, (reference.digest, told)):
        verify_digest(answer.body, digest)
    return reference.digest or (told if is_digest(told) else sha256_digest(answer.body))
