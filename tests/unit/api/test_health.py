"""The health service, asked as probes and load balancers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.api.health import Health, HealthState
from imgbuilder.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponseServingStatus,
    HealthStub,
)
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.server import Server

SERVING = HealthCheckResponseServingStatus.SERVING
NOT_SERVING = HealthCheckResponseServingStatus.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponseServingStatus.SERVICE_UNKNOWN

NAMES = ["", "builder.ImageBuilder"]


@asynccontextmanager
async def _client(state: HealthState) -> AsyncIterator[HealthStub]:
    async with Server([Health(state)]) as server:
        address = await server.listen("127.0.0.1:0")
        channel: Channel = open_channel(address.host, address.port)
        try:
            yield HealthStub(channel)
        finally:
            channel.close()


@pytest.mark.parametrize("name", NAMES)
async def test_check(name: str) -> None:
    """Not serving at first; then as the state is set."""
    state = HealthState(["builder.ImageBuilder"])
    request = HealthCheckRequest(service=name)
    async with _client(state) as client:
        assert (await client.check(request)).status is NOT_SERVING
        state.set_serving(True)
        assert (await client.check(request)).status is SERVING
        state.set_serving(False)
        assert (await client.check(request)).status is NOT_SERVING


async def test_check_of_an_unknown_service() -> None:
    """NOT_FOUND, as the protocol has it."""
    async with _client(HealthState([])) as client:
        with pytest.raises(GRPCError) as caught:
            await client.check(HealthCheckRequest(service="x"))
    assert caught.value.status is Status.NOT_FOUND


@pytest.mark.parametrize("name", NAMES)
async def test_watch(name: str) -> None:
    """First how it is, then every change, and in the end that there will be none any more."""
    state = HealthState(["builder.ImageBuilder"])
    async with _client(state) as client:
        responses = client.watch(HealthCheckRequest(service=name))
        assert (await anext(responses)).status is NOT_SERVING
        state.set_serving(True)
        assert (await anext(responses)).status is SERVING
        state.set_serving(True)  # no change, so nothing is told
        state.end()
        state.set_serving(True)  # too late
        assert (await anext(responses)).status is NOT_SERVING
        with pytest.raises(GRPCError) as caught:
            await anext(responses)
    assert caught.value.status is Status.UNAVAILABLE
    assert not state.serving


async def test_watch_of_an_unknown_service() -> None:
    """Goes on, because the service may become known."""
    async with _client(HealthState([])) as client:
        responses = client.watch(HealthCheckRequest(service="x"))
        assert (await anext(responses)).status is SERVICE_UNKNOWN
        await responses.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_a_watcher_that_leaves_is_forgotten() -> None:
    """Its subscription ends with its call."""
    state = HealthState([])
    async with _client(state) as client:
        responses = client.watch(HealthCheckRequest())
        await anext(responses)
        assert state._bus.subscribers() == 1
        await responses.aclose()  # type: ignore[attr-defined]  # it is a generator
        async with asyncio.timeout(5):
            while state._bus.subscribers():
                await client.check(HealthCheckRequest())


async def test_a_watcher_that_misses_changes_sees_the_last() -> None:
    """States replace one another; the same state again is not told."""
    state = HealthState([])
    async with _client(state) as client:
        responses = client.watch(HealthCheckRequest())
        assert (await anext(responses)).status is NOT_SERVING
        for serving in (True, False, True):
            state.set_serving(serving)
        assert (await anext(responses)).status is SERVING
        state.end()
        assert (await anext(responses)).status is NOT_SERVING
        await responses.aclose()  # type: ignore[attr-defined]  # it is a generator
