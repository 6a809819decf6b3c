"""HTTPS: spoken to every registry that is not listed, and only to those whose certificate is trusted."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from imgbuilder.registry.errors import RegistryUnreachableError
from tests.contract.registry.asking import EVERYTHING, named, resolve
from tests.contract.registry.conftest import Looking
from tests.world.registries.misbehaving import FakeRegistry


@pytest.fixture
def authority() -> trustme.CA:
    """Somebody who issues certificates."""
    return trustme.CA()


def served_by(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """What a server of *names* needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_the_trust_store_can_be_named(
    looking: Looking,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``SSL_CERT_FILE`` counts; authentication works the same."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    context = served_by(authority, "localhost")
    registry = FakeRegistry(authentication="token", anonymous=True, ssl_context=context, name="localhost")
    async with registry, looking(ssl_context=None) as images:
        digest = registry.put_image("a")
        assert await resolve(images, registry) == f"{registry.host}/a@{digest}"
        assert registry.seen() == ["GET manifest", "GET token", "GET manifest"]


async def test_a_certificate_of_somebody_unknown(looking: Looking, authority: trustme.CA) -> None:
    """Nothing is sent, and the error says why."""
    context = served_by(authority, "localhost")
    async with (
        FakeRegistry(ssl_context=context, name="localhost") as registry,
        looking(ssl_context=None) as images,
    ):
        with pytest.raises(RegistryUnreachableError, match="its certificate is not trusted"):
            await resolve(images, registry)
        assert not registry.requests


async def test_a_certificate_of_another_host(looking: Looking, authority: trustme.CA) -> None:
    """Trusted, but not for this name."""
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    context = served_by(authority, "other.test")
    registry = FakeRegistry(ssl_context=context, name="localhost")
    async with registry, looking(ssl_context=trust) as images:
        with pytest.raises(RegistryUnreachableError, match="its certificate is not trusted"):
            await resolve(images, registry)


async def test_plain_http_is_not_spoken_to_a_registry_that_is_not_listed(looking: Looking) -> None:
    """Not even when TLS does not work."""
    async with FakeRegistry() as registry, looking(timeout=0.3) as images:
        with pytest.raises(RegistryUnreachableError, match="no connection in time"):
            await images.exists(named(registry, "a"), EVERYTHING, retry=False)
        assert not registry.requests
