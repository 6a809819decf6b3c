"""Credentials for Amazon's registries, from AWS as moto plays it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from imgbuilder.core.permissions import ECR_STAND_IN, PUBLIC_ECR
from imgbuilder.registry.ecr import EcrCredentials
from imgbuilder.registry.errors import CredentialsUnavailableError
from imgbuilder.runtime.tasks import Tasks
from tests.contract.registry.conftest import Looking
from tests.helpers import in_own_task
from tests.world.registries.aws import aws, configure
from tests.world.registries.httpd import HttpServer, Respond, Seen

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class CountingAws(HttpServer):
    """Gives tokens that live as long as it is told, and counts."""

    def __init__(self, *, lifetime: float = 12 * 3600, latency: float = 0) -> None:
        super().__init__()
        self.lifetime = lifetime
        self.latency = latency
        self.failing = False

    async def respond(self, request: Seen) -> Respond:
        """Answer ``GetAuthorizationToken``."""
        await anyio.sleep(self.latency)
        if self.failing:
            return _json(400, {"__type": "AccessDeniedException", "message": "hunter2"})
        entry = {"authorizationToken": "QVdTOnRva2Vu", "expiresAt": time.time() + self.lifetime}
        public = "/ecr-public/" in request.authorization
        return _json(200, {"authorizationData": entry if public else [entry]})


def _json(status: int, document: Any) -> Respond:
    return Respond(status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(document).encode())


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """AWS, at an address."""
    with aws() as address:
        yield address


@pytest.fixture
async def ecr() -> AsyncIterator[EcrCredentials]:
    """What is tested."""
    async with in_own_task(Tasks()) as tasks:
        yield EcrCredentials(tasks=tasks, wall_clock=time.time)


@pytest.mark.parametrize("registry", [REGISTRY, ECR_STAND_IN])
async def test_private_registries(
    ecr: EcrCredentials,
    moto: str,
    monkeypatch: pytest.MonkeyPatch,
    registry: str,
) -> None:
    """Those of any region, and the stand-in for them all."""
    configure(monkeypatch, moto)
    credentials = await ecr.credentials(registry)
    assert credentials is not None
    assert credentials.username == "AWS"
    assert credentials.password
    assert credentials.auth


async def test_public_registries(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a service of their own, in one region, which moto does not know."""
    async with CountingAws() as server:
        configure(monkeypatch, server.url)
        credentials = await ecr.credentials(PUBLIC_ECR)
        assert credentials is not None
        assert (credentials.username, credentials.password.reveal()) == ("AWS", "token")
        assert "/us-east-1/ecr-public/" in server.requests[0].authorization


async def test_other_registries_are_not_amazons(ecr: EcrCredentials) -> None:
    """AWS is not asked."""
    assert await ecr.credentials("docker.io") is None
    assert await ecr.credentials(f"{REGISTRY}.evil.test") is None


async def test_the_region_is_in_the_name(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are signed for that one; for the stand-in, for the configured one."""
    async with CountingAws() as server:
        configure(monkeypatch, server.url)
        await ecr.credentials(REGISTRY)
        await ecr.credentials(ECR_STAND_IN)
        regions = [request.authorization.split("/")[2] for request in server.requests]
        assert regions == ["eu-west-1", "eu-central-1"]


async def test_a_token_is_fetched_once(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ten at the same time, and later ones; also for another account of the region."""
    async with CountingAws(latency=0.05) as server:
        configure(monkeypatch, server.url)
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ecr.credentials, REGISTRY)
        await ecr.credentials(REGISTRY.replace("1234", "4321"))
        assert len(server.requests) == 1


async def test_a_token_is_not_kept_past_its_end(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS says when that is."""
    async with CountingAws(lifetime=30) as server:
        configure(monkeypatch, server.url)
        await ecr.credentials(REGISTRY)
        await ecr.credentials(REGISTRY)
        assert len(server.requests) == 2


async def test_what_aws_refuses(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the code and not the text, and the failure is remembered for a moment."""
    async with CountingAws() as server:
        configure(monkeypatch, server.url)
        server.failing = True
        for _ in range(3):
            with pytest.raises(CredentialsUnavailableError, match="AccessDeniedException") as caught:
                await ecr.credentials(REGISTRY)
            assert "hunter2" not in str(caught.value)
        assert len(server.requests) == 1


async def test_no_credentials_for_aws(ecr: EcrCredentials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed like everything else."""
    configure(monkeypatch, "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CredentialsUnavailableError, match="NoCredentialsError"):
        await ecr.credentials(REGISTRY)


@pytest.mark.parametrize("region", ["-", "x" * 100])
async def test_a_region_that_can_not_be(
    ecr: EcrCredentials,
    monkeypatch: pytest.MonkeyPatch,
    region: str,
) -> None:
    """Requests name registries, so this comes from outside."""
    configure(monkeypatch, "")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(CredentialsUnavailableError):
        await ecr.credentials(f"123456789012.dkr.ecr.{region}.amazonaws.com")


async def test_the_layer_has_them_where_ecr_is_on(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asks nobody where it is off."""
    async with CountingAws() as server:
        configure(monkeypatch, server.url)
        async with looking(ecr=False) as images:
            assert await images.credentials(REGISTRY) is None
        assert not server.requests
        async with looking(ecr=True) as images:
            credentials = await images.credentials(REGISTRY)
        assert credentials is not None
        assert (credentials.username, credentials.password.reveal()) == ("AWS", "token")


async def test_the_pull_secret_comes_first(
    looking: Looking,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """AWS is asked for what it does not have."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {REGISTRY: {"username": "u", "password": "p"}}}))
    async with CountingAws() as server, looking(ecr=True, pull_secret_file=file) as images:
        configure(monkeypatch, server.url)
        credentials = await images.credentials(REGISTRY)
        assert credentials is not None
        assert credentials.username == "u"
        assert not server.requests
        assert await images.credentials(PUBLIC_ECR) is not None
        assert len(server.requests) == 1


def test_the_libraries_are_not_imported_without_need() -> None:
    """They cost tens of megabytes and half a second."""
    code = (
        "import imgbuilder.registry.images, sys; print([name for name in sys.modules if 'botocore' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
