"""Registries and token servers that answer too much, for too long, or with what leads astray."""

from __future__ import annotations

from typing import Final

import anyio
import pytest

from tests.contract.service.client import refusal
from tests.faults.data.registry import ANSWERS, TOKENS, HostileRegistry
from tests.faults.trial import PATIENCE, Trial

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(PATIENCE + 10)]

ASTRAY: Final = "redirects to where no request may go"
UNREADABLE: Final = "the realm of its challenge is no HTTP address"

OUTCOMES: Final = {
    "manifest-with-length": ("INTERNAL", "its answer is longer than 4194304 bytes"),
    "manifest-in-chunks": ("INTERNAL", "its answer is longer than 4194304 bytes"),
    "manifest-never-ends": ("UNAVAILABLE", "no answer within 2 s"),
    "headers-never-end": ("UNAVAILABLE", "the connection broke"),
    "never-more-than-a-hint": ("UNAVAILABLE", "no answer within 2 s"),
    "gzip-bomb": ("INTERNAL", "its answer is encoded, which nobody asked for"),
    "deep": ("INTERNAL", "its manifest is not JSON"),
    "in-circles": ("INTERNAL", "redirects more than 5 times"),
    "to-a-file": ("INTERNAL", ASTRAY),
    "to-ftp": ("INTERNAL", ASTRAY),
    "to-data": ("INTERNAL", "the request can't be sent"),
    "to-plain-http": ("INTERNAL", ASTRAY),
    "challenge-of-a-mebibyte": ("UNAVAILABLE", "the connection broke"),
    "token-server-is-a-file": ("INTERNAL", UNREADABLE),
    "token-of-a-mebibyte": ("INTERNAL", "its answer is longer than 262144 bytes"),
    "token-of-a-tenth-of-that": ("INTERNAL", "its token server gives a token that is too long"),
    "token-that-breaks-lines": ("INTERNAL", "its token server gives no token"),
    "token-never-ends": ("UNAVAILABLE", "no answer within 2 s"),
    "token-server-elsewhere": ("INTERNAL", ASTRAY),
    "token-server-in-circles": ("INTERNAL", "redirects more than 5 times"),
}


@pytest.mark.parametrize("name", OUTCOMES)
async def test_it_is_refused_with_its_name(hostile: Trial, registry: HostileRegistry, name: str) -> None:
    """The call ends with a status that says of which registry what is wrong, and little memory was needed."""
    status, fault = OUTCOMES[name]
    retry = status == "INTERNAL"  # so that a moment's pause of the machine is not taken for the registry's
    with anyio.fail_after(PATIENCE):
        async with hostile.bounded(name):
            ref = f"{registry.host}/{name}:latest"
            ended, message = await refusal(hostile.client.resolve(ref, retry=retry))
    assert ended.name == status, message
    assert f"registry {registry.host}: " in message
    assert fault in message
    assert len(message) < 300


async def test_all_at_once_and_others_build_meanwhile(hostile: Trial, registry: HostileRegistry) -> None:
    """Each of them several times, at a registry that is slow because of it; another registry is none the worse."""
    ended: list[str] = []

    async def ask(name: str) -> None:
        status, _ = await refusal(hostile.client.resolve(f"{registry.host}/{name}:latest"))
        ended.append(status.name)

    with anyio.fail_after(PATIENCE):
        async with hostile.bounded("all at once"), anyio.create_task_group() as group:
            for name in 3 * list(OUTCOMES):
                group.start_soon(ask, name)
            await hostile.another_build()
    assert len(ended) == 3 * len(OUTCOMES)
    assert set(ended) <= {"INTERNAL", "UNAVAILABLE"}


async def test_it_is_counted_and_no_bug(hostile: Trial, registry: HostileRegistry) -> None:
    """By what came, or why nothing did; and nothing of it was taken for a fault of the service."""
    metrics = await hostile.metrics()
    labels = f'imgbuilder_registry_requests_total{{method="GET",registry="{registry.host}",status="%s"}}'
    assert all(metrics[labels % status] for status in ("error", "timeout", "200", "307", "401"))
    assert [record for record in hostile.service.records if record["level"] in {"error", "critical"}] == []
    assert ANSWERS.keys() | TOKENS.keys() <= OUTCOMES.keys()
