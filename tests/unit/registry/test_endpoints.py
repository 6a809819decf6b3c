"""Where registries are, and where plain HTTP may be spoken."""

from __future__ import annotations

import pytest

from imgbuilder.registry.endpoints import Endpoints
from imgbuilder.registry.errors import RegistryFaultError

ENDPOINTS = Endpoints(
    insecure=frozenset({"localhost:5000", "Plain.test"}),
    mirrors={"docker.io": "https://user:hunter2@mirror.test/hub/"},
)


@pytest.mark.parametrize(
    ("registry", "address"),
    [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("ghcr.io", "https://ghcr.io/v2/"),
        ("ghcr.io:8443", "https://ghcr.io:8443/v2/"),
        ("[::1]:5000", "https://[::1]:5000/v2/"),
        ("localhost", "https://localhost/v2/"),
        ("localhost:5000", "http://localhost:5000/v2/"),
        ("PLAIN.test", "http://PLAIN.test/v2/"),
    ],
)
def test_the_address_of_a_registry(registry: str, address: str) -> None:
    """HTTPS, unless exactly this host and port is listed; Docker Hub is elsewhere."""
    endpoint = ENDPOINTS.origin(registry)
    assert endpoint.url("") == address
    assert endpoint.registry == registry


@pytest.mark.parametrize("registry", ["a.test:0", "a.test:65536", "a." + "b" * 64, "[1:2]:5000"])
def test_a_name_that_is_no_hosts(registry: str) -> None:
    """The grammar of references lets it through, the network would not."""
    with pytest.raises(RegistryFaultError, match="its name is no host's"):
        ENDPOINTS.origin(registry)


def test_a_mirror() -> None:
    """Known by its own host; what is secret in its address is dropped."""
    mirror = ENDPOINTS.mirror("docker.io")
    assert mirror is not None
    assert (mirror.registry, mirror.url("x")) == ("mirror.test", "https://mirror.test/hub/v2/x")
    assert ENDPOINTS.mirror("ghcr.io") is None


@pytest.mark.parametrize(
    ("url", "beside", "allowed"),
    [
        ("https://auth.test/token", "https://ghcr.io", True),
        ("https://auth.test/token", "http://localhost:5000", True),
        ("http://auth.test/token", "https://ghcr.io", False),
        ("http://auth.test/token", "http://localhost:5000", False),
        ("http://localhost:5000/token", "https://ghcr.io", True),
        ("http://PLAIN.test/token", "https://ghcr.io", True),
        ("http://plain.test:81/token", "http://plain.test", False),
        ("http://ghcr.io/token", "https://ghcr.io", False),
        ("http://mirror.test/token", "http://mirror.test/hub", True),
        ("http://localhost:5000@evil.test/", "https://ghcr.io", False),
        ("ftp://localhost:5000/", "http://localhost:5000", False),
        ("", "https://ghcr.io", False),
    ],
)
def test_where_requests_may_go(url: str, beside: str, allowed: bool) -> None:
    """To plain HTTP only where it is listed, or is spoken anyway."""
    assert ENDPOINTS.allows(url, beside) is allowed
