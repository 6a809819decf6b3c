"""Short forms for what nearly every test of look-ups says."""

from __future__ import annotations

from collections.abc import Mapping

from imgbuilder.core.permissions import Permissions, basic_credentials
from imgbuilder.core.references import Reference, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.images import RegistryImages
from tests.world.registries.misbehaving import FakeRegistry

EVERYTHING = Permissions.everything()


def named(registry: FakeRegistry, rest: str) -> Reference:
    """A reference to something in *registry*."""
    return parse_reference(f"{registry.host}/{rest}")


async def resolve(
    images: RegistryImages,
    registry: FakeRegistry,
    rest: str = "a",
    permissions: Permissions = EVERYTHING,
    *,
    retry: bool = False,
) -> str:
    """What *rest* resolves to; by default with all of the service's credentials."""
    return str(await images.resolve(named(registry, rest), permissions, retry=retry))


def additional(values: Mapping[str, str]) -> Permissions:
    """Those of a request that brings along credentials of its own, as sent."""
    return Permissions(additional={registry: Secret(value) for registry, value in values.items()})


def as_user(registry: FakeRegistry, user: str, password: str) -> Permissions:
    """Those of a request that brings along a user of *registry*."""
    return additional({registry.host: basic_credentials(user, password).auth.reveal()})
