"""Traces: from the call that comes in, over requests to registries, to the start of the workspace."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from grpclib.exceptions import GRPCError

from imgbuilder.pb.builder import BuildRequest
from imgbuilder.telemetry import otlp
from imgbuilder.telemetry.tracing import tracing
from tests.contract.service.client import dockerfile, reference, selected
from tests.contract.service.conftest import Logged, serving, unobserved
from tests.helpers import in_own_task
from tests.world.collector import Collector, collecting
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.world import World

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
FROM_DOCKERFILE = BuildRequest(source=dockerfile(), auth=selected(base=True))


def from_ref(ref: str) -> BuildRequest:
    """A build of the workspace image of *ref*, with the service's own credentials."""
    return BuildRequest(source=reference(ref), auth=selected(base=True))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which the service is told to send."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        yield collector


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A world whose registry gives tokens to the service."""
    registry = FakeRegistry(authentication="token", users={"service": "password"})
    async with in_own_task(World(registry=registry)) as world:
        yield world


async def test_a_build_is_one_trace(world: World, collector: Collector) -> None:
    """The caller's: its span is the parent of the call's, and that of all that is done for it."""
    async with serving(unobserved(world)) as served:
        await served.client.call(from_ref(world.seed_base_image()), metadata=TRACEPARENT)
    (build,) = collector.named("builder.ImageBuilder/Build")
    assert (build.trace, build.parent, build.failed) == (TRACE, CALLER, False)
    assert build.attributes["rpc.grpc.status_code"] == 0
    assert build.service == "image-builder"
    children = [span for span in collector.spans if span.parent == build.id]
    assert {span.trace for span in collector.spans} == {TRACE}
    assert len(children) == len(collector.spans) - 1
    (start,) = collector.named("wsman.WorkspaceManager/StartWorkspace")
    (started,) = world.manager.received("StartWorkspace")
    assert start.attributes["imgbuilder.build_id"] == started.id
    asked = [span for span in children if span.name in {"GET", "HEAD", "POST"}]
    assert len(asked) == len(world.registry.requests) - 1  # the look at the end is nobody's call
    assert asked[0].attributes["http.response.status_code"] == 401
    assert asked[0].attributes["server.address"] == "127.0.0.1"


async def test_the_workspace_manager_is_told_of_the_trace(world: World, collector: Collector) -> None:
    """With the span of the call to it as parent."""
    async with serving(unobserved(world)) as served:
        await served.client.call(FROM_DOCKERFILE, metadata=TRACEPARENT)
    (start,) = collector.named("wsman.WorkspaceManager/StartWorkspace")
    told = [metadata for path, metadata in world.manager.metadata if path.endswith("/StartWorkspace")]
    assert [metadata["traceparent"] for metadata in told] == [f"00-{TRACE}-{start.id}-01"]


async def test_a_call_without_a_trace_begins_one(world: World, collector: Collector) -> None:
    """Also where what the caller sends of one can't be read."""
    async with serving(unobserved(world)) as served:
        for metadata in ({}, {"traceparent": "of no use"}):
            await served.client.call(FROM_DOCKERFILE, metadata=metadata)
    first, second = collector.named("builder.ImageBuilder/Build")
    assert first.parent == second.parent == ""
    assert first.trace != second.trace


async def test_upkeep_and_health_checks_are_not_traced(world: World, collector: Collector) -> None:
    """They would be most of what is collected."""
    async with serving(unobserved(world)) as served:
        await served.client.builds()
        assert await served.client.serves()
        await world.manager.wait_for_calls("GetWorkspaces")
    assert [span.name for span in collector.spans] == ["builder.ImageBuilder/ListBuilds"]


async def test_an_error_is_told_without_its_text(world: World, collector: Collector, logged: Logged) -> None:
    """And no credential is in what is sent; what is logged meanwhile names the trace."""
    async with serving(unobserved(world)) as served:
        with pytest.raises(GRPCError):
            await served.client.call(from_ref("127.0.0.1:1/base:tag"), metadata=TRACEPARENT)
        await served.client.call(from_ref(world.seed_base_image()), metadata=TRACEPARENT)
    failed = [span for span in collector.spans if span.failed]
    assert failed[0].name == "builder.ImageBuilder/Build"
    assert failed[1].attributes["error.type"] == "RegistryUnreachableError"
    assert all(b"password" not in body and b"Bearer" not in body for body in collector.bodies)
    (event,) = [event for event in logged.events if event["event"] == "build started"]
    assert event["trace_id"] == TRACE


async def test_a_collector_that_is_away_costs_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the traces; the service ends all the same."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    async with serving(unobserved(world)) as served:
        assert await served.client.call(FROM_DOCKERFILE)


async def test_a_collector_that_does_not_answer_delays_the_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits to be sent, and however long a batch of it may take."""
    monkeypatch.setattr(otlp, "SENDING_LIMIT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "120")
        with anyio.fail_after(30):
            async with tracing(os.environ) as tracer:
                with tracer.serving("call", {}, {}):
                    pass
