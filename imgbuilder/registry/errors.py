"""What can go wrong with a registry: one class per situation that callers tell apart.

The texts name the registry and never contain credentials, tokens or addresses with userinfo.
"""

from __future__ import annotations

from imgbuilder.core.errors import ImgbuilderError


class RegistryError(ImgbuilderError):
    """A registry did not give what was asked of it.

    :ivar registry: its host, as references spell it.
    :ivar fault: what happened, as words that can follow the registry's name.
    """

    def __init__(self, registry: str, fault: str) -> None:
        super().__init__(f"registry {registry}: {fault}")
        self.registry = registry
        self.fault = fault


class ManifestUnknownError(RegistryError):
    """The registry has no such image (404)."""

    def __init__(self, registry: str, fault: str = "manifest unknown") -> None:
        super().__init__(registry, fault)


class RegistryDeniedError(RegistryError):
    """The registry, or its token server, does not let us (401, 403)."""

    def __init__(self, registry: str, fault: str = "access denied") -> None:
        super().__init__(registry, fault)


class RegistryRateLimitedError(RegistryError):
    """The registry was asked too often (429).

    :ivar retry_after: in how many seconds it wants to be asked again; None if it does not say.
    """

    def __init__(
        self,
        registry: str,
        fault: str = "too many requests",
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(registry, fault)
        self.retry_after = retry_after


class RegistryUnreachableError(RegistryError):
    """There was no connection, or no answer in time."""

    def __init__(self, registry: str, fault: str = "no answer in time") -> None:
        super().__init__(registry, fault)


class RegistryFaultError(RegistryError):
    """The registry answered with something that is no proper answer."""


class CredentialsUnavailableError(RegistryError):
    """The service's own credentials for a registry can't be had: a helper program or AWS failed."""
