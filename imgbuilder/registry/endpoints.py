"""Where registries are, and where plain HTTP may be spoken. Decides addresses, and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from imgbuilder.core.references import DOCKER_HUB
from imgbuilder.registry.errors import RegistryFaultError

DOCKER_HUB_HOST = "registry-1.docker.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of a registry.

    :ivar registry: its name in errors, metrics and logs, and for credentials: the registry's own as references
        spell it, or the host of a mirror.
    :ivar base: the address up to, without, ``/v2/``.
    """

    registry: str
    base: str

    def url(self, path: str) -> str:
        """The address of *path*, which counts from ``/v2/``."""
        return f"{self.base}/v2/{path}"


class Endpoints:
    """The addresses of registries, from the configuration."""

    def __init__(self, *, insecure: frozenset[str], mirrors: Mapping[str, str]) -> None:
        self._insecure = frozenset(host.lower() for host in insecure)
        self._mirrors = {registry: _mirror(address) for registry, address in mirrors.items()}

    def origin(self, registry: str) -> Endpoint:
        """The registry itself.

        :raises RegistryFaultError: if its name can't be a host's.
        """
        host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
        scheme = "http" if host.lower() in self._insecure else "https"
        try:
            proper = urlsplit(f"{scheme}://{host}").port != 0 and max(map(len, host.split("."))) < 64
        except ValueError:  # a port past 65535, or brackets around no IPv6 address
            proper = False
        if not proper:
            raise RegistryFaultError(registry, "its name is no host's")
        return Endpoint(registry=registry, base=f"{scheme}://{host}")

    def mirror(self, registry: str) -> Endpoint | None:
        """Who is asked before *registry* itself; None if nobody is."""
        return self._mirrors.get(registry)

    def allows(self, url: str, beside: str) -> bool:
        """Whether a request may go to *url*, where something at the address *beside* sends us.

        Over HTTPS always; over plain HTTP only to hosts that are listed, and within a host that is spoken to
        over plain HTTP anyway.
        """
        try:
            target = urlsplit(url)
        except ValueError:  # httpx takes brackets where no host is
            return False
        present = urlsplit(beside)
        if target.scheme == "https":
            return True
        same = (target.scheme, target.netloc) == (present.scheme, present.netloc)
        return target.scheme == "http" and (same or target.netloc.lower() in self._insecure)


def _mirror(address: str) -> Endpoint:
    # Credentials for a mirror stand in the pull secret. In an address they would end up in logs.
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return Endpoint(registry=host, base=f"{parts.scheme}://{host}{parts.path.rstrip('/')}")
