"""Which credentials a request may use, and what the build workspace is given.

Decides from the request alone; finding the service's own credentials is `imgbuilder.registry.keychain`'s.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.secrets import Secret
from imgbuilder.pb.builder import BuildRegistryAuth

ECR_STAND_IN: Final = "000000000000.dkr.ecr.dummy-host-zone.amazonaws.com"
"""Under this name build workspaces look for the credentials of whatever ECR registry they meet (contract)."""

PUBLIC_ECR: Final = "public.ecr.aws"

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?")
_PRIVATE_ECR: Final = re.compile(r"[0-9]{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Permissions:
    """What a request may use to speak to registries.

    :ivar allow_all: whether it may use the service's own credentials for every registry.
    :ivar registries: those whose own credentials it may use otherwise, as references spell them.
    :ivar additional: what it brings along: registry to base64 of ``user:password``, as sent.
    """

    allow_all: bool = False
    registries: frozenset[str] = frozenset()
    additional: Mapping[str, Secret] = field(default_factory=dict)

    @classmethod
    def everything(cls) -> Self:
        """What the service itself may: all of its own credentials, and no others."""
        return cls(allow_all=True)

    def with_registry(self, registry: str) -> Permissions:
        """The same, and the service's own credentials for *registry*."""
        return replace(self, registries=self.registries | {registry})

    def may_use(self, registry: str) -> bool:
        """Whether the service's own credentials for *registry* may be used. Those of ECR always may."""
        return self.allow_all or registry in self.registries or is_ecr(registry)


NONE: Final = Secret("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What identifies somebody to a registry; what is not known is empty.

    :ivar identity_token: an OAuth2 refresh token, to be exchanged at the registry's token server.
    :ivar registry_token: a bearer token for the registry itself.
    :ivar auth: base64 of ``username:password``, or whatever else was sent in its place.
    """

    username: str = ""
    password: Secret = NONE
    identity_token: Secret = NONE
    registry_token: Secret = NONE
    auth: Secret = NONE

    @property
    def anonymous(self) -> bool:
        """Whether there is nothing in it that a registry could be shown."""
        return not (self.username or self.password or self.identity_token or self.registry_token)

    def fingerprint(self) -> bytes:
        """The same for equal credentials only, of a fixed size, and tells nothing about them: a cache's key."""
        fields = [self.username, *(secret.reveal() for secret in self._secrets())]
        return hashlib.sha256(json.dumps(fields).encode()).digest()

    def _secrets(self) -> tuple[Secret, ...]:
        return self.password, self.identity_token, self.registry_token, self.auth


def basic_credentials(username: str, password: str) -> Credentials:
    """The credentials of a user with a password."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Credentials(username=username, password=Secret(password), auth=Secret(auth))


def permissions_of(
    auth: BuildRegistryAuth | None,
    *,
    base_registry: str,
    workspace_registry: str,
) -> Permissions:
    """What *auth* grants.

    :param base_registry: the registry of the base image repository.
    :param workspace_registry: the registry of the workspace image repository.
    """
    if auth is None:
        return Permissions()
    registries: set[str] = set()
    if auth.selective is not None:
        registries.update(auth.selective.any_of)
        if auth.selective.allow_baserep:
            registries.add(base_registry)
        if auth.selective.allow_workspacerep:
            registries.add(workspace_registry)
    return Permissions(
        allow_all=auth.total is not None and auth.total.allow_all,
        registries=frozenset(registries),
        additional={registry: Secret(value) for registry, value in auth.additional.items()},
    )


def decode_additional(value: Secret) -> Credentials:
    """The credentials in one value of `Permissions.additional`.

    Split at the *last* colon (contract), unlike those in Docker's config.json. A value that is not base64 of
    something with a colon is kept as ``auth`` alone: the build workspace may know what to do with it.
    """
    decoded = _from_base64(value)
    username, colon, password = (decoded or "").rpartition(":")
    if not colon:
        return Credentials(auth=value)
    return Credentials(username=username, password=Secret(password), auth=value)


def check_additional(additional: Mapping[str, Secret]) -> None:
    """Make sure that the values of *additional* can be read.

    :raises InvalidInputError: naming the first registry, in alphabetical order, whose value is not base64.
    """
    for registry in sorted(additional):
        if _from_base64(additional[registry]) is None:
            raise InvalidInputError(f"auth.additional[{registry}]", "is not base64 of user:password")


_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
"""Made once: `json.dumps` makes one each time."""


def workspace_auth(
    additional: Mapping[str, Secret],
    *,
    workspace_registry: str,
    own: Mapping[str, Credentials],
) -> str:
    """The JSON of ``WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH``. It contains secrets in the clear.

    :param workspace_registry: its credentials are the service's business: a request can't replace them.
    :param own: the service's own credentials, by registry, which the build workspace gets as well; they
        replace those of the request.
    """
    given = {
        registry: decode_additional(value)
        for registry, value in additional.items()
        if registry != workspace_registry
    }
    given.update(own)
    document = {registry: _document(given[registry]) for registry in sorted(given)}
    return _JSON.encode(document)


def is_ecr(registry: str) -> bool:
    """Whether *registry* is one of Amazon's, private or public."""
    return registry == PUBLIC_ECR or _PRIVATE_ECR.fullmatch(registry) is not None


def ecr_region(registry: str) -> str | None:
    """The region of a private ECR *registry*; None if it is none, or the stand-in for all of them."""
    match = _PRIVATE_ECR.fullmatch(registry)
    return match["region"] if match is not None and registry != ECR_STAND_IN else None


def _document(credentials: Credentials) -> dict[str, str]:
    fields = {
        "username": credentials.username,
        "password": credentials.password.reveal(),
        "auth": credentials.auth.reveal(),
        "identitytoken": credentials.identity_token.reveal(),
        "registrytoken": credentials.registry_token.reveal(),
    }
    return {name: value for name, value in fields.items() if value}


def _from_base64(value: Secret) -> str | None:
    decoded = decode_base64(value.reveal())
    return decoded.decode(errors="replace") if decoded is not None else None


def decode_base64(text: str) -> bytes | None:
    """The bytes of *text* in standard base64, padded as it must be; None if it is something else.

    Line breaks inside are fine: that is how tools wrap it. Python's own decoder lets more through.
    """
    text = text.replace("\r", "").replace("\n", "")
    return base64.b64decode(text) if _BASE64.fullmatch(text) else None
