"""Around the service: gRPC health, metrics by name, label and bucket, and the probes."""

from __future__ import annotations

import gc
from typing import Final

import anyio
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import StreamTerminatedError
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

import imgbuilder
from imgbuilder.pb.builder import BuildRequest, BuildStatus, LogsRequest
from imgbuilder.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.runtime.grpc.channel import open_channel
from tests.contract.service.client import Client, connected, dockerfile, refusal
from tests.contract.service.conftest import Logged, Served, get, serving, unobserved
from tests.unit.grpc.raw import raw_client
from tests.world.scripts import failing, idle, succeeding
from tests.world.world import World

RPC: Final = {"grpc_type", "grpc_service", "grpc_method"}

CONTRACT: Final = {
    "gitpod_image_builder_builds_started": ("counter", set()),
    "gitpod_image_builder_builds_done": ("counter", {"success"}),
    "gitpod_server_version": ("gauge", {"version"}),
    "grpc_server_started": ("counter", RPC),
    "grpc_server_handled": ("counter", RPC | {"grpc_code"}),
    "grpc_server_msg_received": ("counter", RPC),
    "grpc_server_msg_sent": ("counter", RPC),
    "grpc_server_handling_seconds": ("histogram", RPC),
    "process_cpu_seconds": ("counter", set()),
    "process_max_fds": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
}
"""What others read: type and labels by name, less ``_total``."""

BEYOND: Final = {
    "imgbuilder_build_duration_seconds": ("histogram", {"success"}),
    "imgbuilder_builds_attached": ("counter", set()),
    "imgbuilder_builds_running": ("gauge", {"phase"}),
    "imgbuilder_event_loop_lag_seconds": ("histogram", set()),
    "imgbuilder_log_received_bytes": ("counter", set()),
    "imgbuilder_log_sent_bytes": ("counter", set()),
    "imgbuilder_log_skipped_lines": ("counter", set()),
    "imgbuilder_log_spool_bytes": ("gauge", set()),
    "imgbuilder_peers_cut_off": ("counter", {"reason"}),
    "imgbuilder_registry_request_seconds": ("histogram", {"registry", "method"}),
    "imgbuilder_registry_requests": ("counter", {"registry", "method", "status"}),
    "imgbuilder_registry_tokens": ("counter", {"result"}),
    "imgbuilder_subscribers": ("gauge", set()),
    "imgbuilder_watcher_last_event_age_seconds": ("gauge", set()),
    "imgbuilder_watcher_reconnects": ("counter", set()),
}
"""What is shown besides, at least."""

WITHOUT_SERIES: Final = {"imgbuilder_peers_cut_off"}
"""Those that have none as long as nothing has happened."""

BUILD: Final = 'grpc_method="Build",grpc_service="builder.ImageBuilder",grpc_type="server_stream"'
LIST: Final = 'grpc_method="ListBuilds",grpc_service="builder.ImageBuilder",grpc_type="unary"'


async def families(served: Served) -> dict[str, Metric]:
    """What is shown at ``/metrics``."""
    answer = await get(served.running.endpoints.metrics_port, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


async def test_names_types_and_labels_of_metrics(world: World, observed: Served) -> None:
    """Those of the contract are exactly these; ours have a prefix of their own."""
    await observed.client.build(dockerfile())
    shown = await families(observed)
    assert {name for name in shown if not name.startswith("imgbuilder_")} == set(CONTRACT)
    assert set(shown) >= set(BEYOND)
    for name, (kind, labels) in {**CONTRACT, **BEYOND}.items():
        assert shown[name].type == kind, name
        for sample in shown[name].samples:
            assert set(sample.labels) - {"le"} == labels, name
        assert shown[name].samples or name in WITHOUT_SERIES or name == "imgbuilder_builds_running", name


async def test_the_buckets_of_calls(observed: Served) -> None:
    """Those of the system that is replaced."""
    handling = (await families(observed))["grpc_server_handling_seconds"]
    buckets = [
        float(sample.labels["le"])
        for sample in handling.samples
        if sample.name.endswith("_bucket") and sample.labels["grpc_method"] == "Build"
    ]
    assert buckets == [0.005, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 5, 30, 60, 120, 240, 600, float("inf")]


async def test_builds_are_counted_once_each(world: World, observed: Served) -> None:
    """However many clients wait."""
    world.script = idle
    client = observed.client
    async with client.open(BuildRequest(source=dockerfile())) as call:
        build_id = (await call.next()).info.build_id
        async with client.open(BuildRequest(source=dockerfile())) as other:
            await other.next()
            numbers = await observed.metrics()
            assert sum(n for name, n in numbers.items() if "imgbuilder_builds_running" in name) == 1
            assert numbers["imgbuilder_builds_attached_total"] == 1
            world.manager.advance(build_id, WorkspacePhase.STOPPED, failed="no")
            await other.rest()
        await call.rest()
    world.script = succeeding()
    await client.build(dockerfile())
    numbers = await observed.metrics()
    assert numbers["gitpod_image_builder_builds_started_total"] == 2
    assert numbers['gitpod_image_builder_builds_done_total{success="true"}'] == 1
    assert numbers['gitpod_image_builder_builds_done_total{success="false"}'] == 1
    assert numbers[f'gitpod_server_version{{version="{imgbuilder.__version__}"}}'] == 1


async def test_calls_are_counted_as_go_does(world: World, observed: Served) -> None:
    """Every series is there from the start; codes have Go's names."""
    client = observed.client
    numbers = await observed.metrics()
    assert numbers[f"grpc_server_started_total{{{BUILD}}}"] == 0
    assert numbers[f'grpc_server_handled_total{{grpc_code="OK",{BUILD}}}'] == 0
    world.script = failing()
    responses = await client.build(dockerfile())
    await refusal(client.call(BuildRequest()))
    await client.builds()
    numbers = await observed.metrics()
    assert numbers[f"grpc_server_started_total{{{BUILD}}}"] == 2
    assert numbers[f'grpc_server_handled_total{{grpc_code="OK",{BUILD}}}'] == 1
    assert numbers[f'grpc_server_handled_total{{grpc_code="InvalidArgument",{BUILD}}}'] == 1
    assert numbers[f"grpc_server_msg_received_total{{{BUILD}}}"] == 2
    assert numbers[f"grpc_server_msg_sent_total{{{BUILD}}}"] == len(responses)
    assert numbers[f"grpc_server_handling_seconds_count{{{BUILD}}}"] == 2
    assert numbers[f"grpc_server_msg_sent_total{{{LIST}}}"] == 1


async def test_what_else_is_counted(world: World, observed: Served) -> None:
    """Requests to registries and bytes of logs."""
    world.script = succeeding(["0123456789"], heard=True)
    ref = (await observed.client.build(dockerfile()))[-1].ref
    log = await observed.client.log(build_ref=ref)
    numbers = await observed.metrics()
    labels = f'method="HEAD",registry="{world.registry.host}"'
    assert numbers[f'imgbuilder_registry_requests_total{{{labels},status="404"}}'] == 1
    assert numbers[f'imgbuilder_registry_requests_total{{{labels},status="200"}}'] == 1
    assert numbers[f"imgbuilder_registry_request_seconds_count{{{labels}}}"] == 2
    assert numbers["imgbuilder_log_received_bytes_total"] == len("0123456789\r\n")
    assert numbers["imgbuilder_log_sent_bytes_total"] == len(log)
    assert numbers["imgbuilder_watcher_last_event_age_seconds"] >= 0


async def test_ready_only_when_the_workspace_manager_was_subscribed_to(world: World) -> None:
    """Live before that; a service that was ready stays so while the workspace manager is away."""
    await world.manager.stop()
    async with serving(world.service_config()) as served:
        answer = await served.probe("/ready")
        assert answer.status_code == 503
        assert "workspace manager" in answer.text
        assert (await served.probe("/live")).status_code == 200
        await world.manager.start()
        await world.manager.wait_for_calls("GetWorkspaces")
        while (await served.probe("/ready")).status_code != 200:
            pass
        await world.manager.stop()
        assert (await served.probe("/ready")).status_code == 200


async def test_health_over_grpc(served: Served) -> None:
    """Of the service and of the server as a whole; other names are unknown."""
    channel = open_channel("127.0.0.1", served.running.address.port)

    async def check(service: str) -> HealthCheckResponseServingStatus:
        path, kind = "/grpc.health.v1.Health/Check", Cardinality.UNARY_UNARY
        async with channel.request(path, kind, HealthCheckRequest, HealthCheckResponse) as stream:
            await stream.send_message(HealthCheckRequest(service=service), end=True)
            response = await stream.recv_message()
            assert response is not None
            return response.status

    try:
        for service in ("", "builder.ImageBuilder"):
            assert await check(service) is HealthCheckResponseServingStatus.SERVING
        assert (await refusal(check("unknown")))[0] is Status.NOT_FOUND
    finally:
        channel.close()


# --- when something goes wrong --------------------------------------------------------------------------------


async def test_a_bug_in_a_handler_is_nobody_elses(
    served: Served, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INTERNAL, without details, and a traceback in the log; other calls go on."""
    client = served.client
    async with client.open(BuildRequest(source=dockerfile())) as call:
        with monkeypatch.context() as broken:
            broken.setattr(served.running.tracker, "running", None)
            assert await refusal(client.builds()) == (Status.INTERNAL, "internal error")
        assert (await call.rest())[-1].status is BuildStatus.done_success
    assert await client.builds() == []
    (event,) = [event for event in logged.events if event["event"] == "a call failed"]
    assert event["exc_info"]
    assert event["method"] == "/builder.ImageBuilder/ListBuilds"


async def test_connections_are_bounded(world: World) -> None:
    """One more than there may be is closed at once, unless there is one without calls: that makes room."""
    world.script = idle
    async with (
        serving(unobserved(world, limits={"connections": 1})) as served,
        connected(served.running.address.port) as one_more,
    ):
        async with served.client.open(BuildRequest(source=dockerfile())) as call:
            await call.next()
            with pytest.raises((StreamTerminatedError, OSError)):
                await one_more.builds()
        for client in (served.client, one_more, served.client):
            assert len(await client.builds()) == 1


async def test_streams_of_a_connection_are_bounded(world: World) -> None:
    """More calls than there may be at a time have to wait; clients know how many there may be."""
    world.script = idle
    async with serving(unobserved(world, limits={"streamsPerConnection": 1})) as served:
        client = served.client
        async with client.open(BuildRequest(source=dockerfile())) as call:
            await call.next()
            with anyio.move_on_after(0.1) as waiting:
                await client.builds()
            assert waiting.cancelled_caught
            async with connected(served.running.address.port) as other:
                assert len(await other.builds()) == 1


async def test_a_peer_that_floods_is_cut_off(world: World, observed: Served) -> None:
    """Here with pings; it is counted."""
    address = observed.running.address
    async with raw_client(address) as peer:
        for _ in range(2000):
            peer.h2.ping(bytes(8))
        peer.flush()
        await peer.until_closed()
    assert await observed.client.builds() == []
    assert (await observed.metrics())['imgbuilder_peers_cut_off_total{reason="flood of pings"}'] == 1


async def test_an_open_call_keeps_nothing_of_its_request(world: World, client: Client) -> None:
    """It may be of 4 MiB, and open for an hour, with twenty thousand others."""
    world.script = idle
    request = BuildRequest(source=dockerfile())
    known = [request, *_requests()]  # those that tests are parametrized with
    async with client.open(request) as build:
        first = await build.next()
        log_request = LogsRequest(build_ref=first.ref)
        async with client.open(log_request) as log:
            await log.next()
            ours = {id(one) for one in (*known, log_request)}
            assert [one for one in _requests() if id(one) not in ours] == []


def _requests() -> list[object]:
    """All that there are in this process."""
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, BuildRequest | LogsRequest)]
