"""Who asks whom for what: all that decides how a request to a registry is authenticated."""

from __future__ import annotations

from dataclasses import dataclass

from imgbuilder.core.permissions import Credentials
from imgbuilder.registry.endpoints import Endpoint

PULL = "pull"
PUSH = "pull,push"


def repository_scope(path: str, actions: str = PULL) -> str:
    """The scope of a token for the repository *path*."""
    return f"repository:{path}:{actions}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The right to do something at one address of a registry.

    :ivar scope: what a token must allow, where the registry works with tokens: see `repository_scope`.
    :ivar credentials: what to show; None to ask anonymously.
    :ivar retry: whether to send again what failed for a reason that may pass.
    """

    endpoint: Endpoint
    scope: str
    credentials: Credentials | None
    retry: bool

    @property
    def registry(self) -> str:
        """The name for errors, metrics and logs."""
        return self.endpoint.registry

    @property
    def identity(self) -> bytes:
        """The same for the same credentials only; tells nothing about them."""
        return self.credentials.fingerprint() if self.credentials is not None else b""
