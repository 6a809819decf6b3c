"""The program as its users run it: how it starts, what it says, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

import anyio
import pytest
from grpclib.const import Cardinality, Status
from grpclib.exceptions import StreamTerminatedError
from h2.events import Event
from hyperframe.frame import Frame, GoAwayFrame

from imgbuilder.cli.main import execute
from imgbuilder.pb.builder import BuildRequest, LogsRequest, ResolveBaseImageRequest
from imgbuilder.pb.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
)
from tests.contract.service.client import Client, connected, dockerfile, reference, refusal, statuses
from tests.contract.service.conftest import get
from tests.world.process import PROGRAM, ServiceProcess, service_process
from tests.world.registries.misbehaving import Hang
from tests.world.scripts import idle
from tests.world.world import World

SHUTTING_DOWN: Final = (Status.UNAVAILABLE, "the service is shutting down: try again")


@asynccontextmanager
async def program(
    world: World, folder: Path, *arguments: str, **overrides: Any
) -> AsyncIterator[tuple[ServiceProcess, Client]]:
    """The program, and a client of it that knows that calls go on after a GOAWAY, unlike grpclib's and h2."""
    config = world.service_config(**overrides)
    async with (
        service_process(config, folder, *arguments) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
    ):
        await going_on(client)
        yield process, client


async def going_on(client: Client) -> anyio.Event:
    """Let the calls of *client* go on after a GOAWAY; what is set when there was one."""
    told = anyio.Event()

    def go_on(_: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        told.set()
        return [], []

    protocol = await client._channel.__connect__()
    protocol.connection._connection._frame_dispatch_table[GoAwayFrame] = go_on
    return told


async def run(*arguments: str) -> CompletedProcess[bytes]:
    """A run of the program that ends by itself."""
    with anyio.fail_after(20):
        return await anyio.run_process([str(PROGRAM), *arguments], check=False)


# --- the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_drains_when_it_is_told_to_stop(
    world: World, tmp_path: Path, number: signal.Signals
) -> None:
    """Not ready at once, new calls refused, open streams ended with UNAVAILABLE; then it ends with status 0."""
    world.script = idle
    ref = world.seed_base_image()
    ends: list[Status | None] = []

    async def resolve(client: Client) -> None:
        async with client.open(ResolveBaseImageRequest(ref=ref)) as call:
            ends.append((await refusal(call.next()))[0])

    async with (
        program(world, tmp_path, shutdown={"drain": "20s"}) as (process, client),
        client.open(BuildRequest(source=dockerfile())) as build,
    ):
        build_id = (await build.next()).info.build_id
        async with client.open(LogsRequest(build_id=build_id)) as log, anyio.create_task_group() as group:
            await log.next()
            world.registry.fail_next(Hang(), Hang())
            asked = len(world.registry.requests)
            group.start_soon(resolve, client)
            await world.registry.requested(asked + 1)
            assert (await get(process.probes_port, "/ready")).status_code == 200
            told_to_leave = await going_on(client)

            process.send_signal(number)
            assert await refusal(build.rest()) == SHUTTING_DOWN
            assert await refusal(log.rest()) == SHUTTING_DOWN
            # The call that is not a stream is still being served, so the service is still there.
            ready = await get(process.probes_port, "/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert "shutting down" in ready.text
            assert (await get(process.probes_port, "/live")).status_code == 200
            with anyio.fail_after(20):
                await told_to_leave.wait()
            with pytest.raises(StreamTerminatedError):
                await client.builds()
            with pytest.raises(OSError, match="All connection attempts failed"):
                await anyio.connect_tcp("127.0.0.1", int(process.host.rpartition(":")[2]))
            assert not ends
            for attempt in (
                1,
                2,
            ):  # a connection that breaks may have been closed before, so it is tried again
                await world.registry.requested(asked + attempt)
                await world.registry.drop_connections()
        assert ends == [Status.UNAVAILABLE]
        assert await process.wait() == 0
    assert not world.manager.received("StopWorkspace")
    assert build_id in world.manager.workspaces


async def test_who_drops_calls_at_goaway_is_told_before(world: World, tmp_path: Path) -> None:
    """As clients of grpclib do: they hear UNAVAILABLE, which says that calling again is worth it."""
    world.script = idle
    config = world.service_config()
    async with (
        service_process(config, tmp_path) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
        client.open(BuildRequest(source=dockerfile())) as build,
    ):
        await build.next()
        process.send_signal(signal.SIGTERM)
        assert await refusal(build.rest()) == SHUTTING_DOWN
        assert await process.wait() == 0


async def test_who_watches_its_health_is_told(world: World, tmp_path: Path) -> None:
    """Not serving, and then the stream ends with UNAVAILABLE."""
    told: list[HealthCheckResponseServingStatus] = []

    async def watch(process: ServiceProcess, client: Client) -> None:
        path, kind = "/grpc.health.v1.Health/Watch", Cardinality.UNARY_STREAM
        async with client._channel.request(path, kind, HealthCheckRequest, HealthCheckResponse) as stream:
            await stream.send_message(HealthCheckRequest(service="builder.ImageBuilder"), end=True)
            while (response := await stream.recv_message()) is not None:
                if not told:
                    process.send_signal(signal.SIGTERM)
                told.append(response.status)

    async with program(world, tmp_path) as (process, client):
        status, _ = await refusal(watch(process, client))
    assert status is Status.UNAVAILABLE
    assert told == [
        HealthCheckResponseServingStatus.SERVING,
        HealthCheckResponseServingStatus.NOT_SERVING,
    ]


async def test_draining_has_an_end(world: World, tmp_path: Path) -> None:
    """A call that does not end in time is ended, with UNAVAILABLE."""
    ref = world.seed_base_image()
    world.registry.fail_next(Hang())
    async with program(world, tmp_path, shutdown={"drain": "100ms"}) as (process, client):
        async with client.open(ResolveBaseImageRequest(ref=ref)) as call:
            await world.registry.requested(1)
            process.send_signal(signal.SIGTERM)
            assert (await refusal(call.next()))[0] is Status.UNAVAILABLE
        assert await process.wait() == 0


# --- the configuration ----------------------------------------------------------------------------------------


async def test_the_configuration_of_the_system_that_is_replaced(world: World, tmp_path: Path) -> None:
    """Every key of it, a schema, and keys that nobody knows, which are logged."""
    ref = world.seed_base_image()
    config = {
        "$schema": "https://schemas.test/image-builder.json",
        "orchestrator": {
            "wsman": {"address": world.wsman_address, "tls": {"ca": "", "crt": "", "key": ""}},
            "pullSecret": "",
            "pullSecretFile": "",
            "baseImageRepository": f"{world.registry.host}/base-images",
            "workspaceImageRepository": f"{world.registry.host}/workspace-images",
            "builderImage": f"{world.registry.host}/builder:1",
            "enableAdditionalECRAuth": False,
            "subassemblyBucketName": "bucket",
            "subassemblyBucketPrefix": "prefix",
            "colour": "blue",
        },
        "refCache": {"interval": "6h0m0s", "refs": [ref]},
        "server": {"services": {"grpc": {"address": "127.0.0.1:0", "tls": {}}}},
        "registries": {"insecure": [world.registry.host]},
        "telemetry": {"metricsAddress": "127.0.0.1:0", "probesAddress": "127.0.0.1:0"},
        "pprof": {"addr": ":6060"},
    }
    async with (
        service_process(config, tmp_path) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
    ):
        assert statuses(await client.build(reference(ref)))[-1] == "done_success"
    (record,) = [record for record in process.records if "keys" in record]
    assert record["level"] == "warning"
    assert record["keys"] == ["orchestrator.colour", "pprof"]


CONFIG: Final[dict[str, Any]] = {
    "orchestrator": {
        "wsman": {"address": "127.0.0.1:9"},
        "baseImageRepository": "registry.test/base-images",
        "workspaceImageRepository": "registry.test/workspace-images",
        "builderImage": "registry.test/builder:1",
    },
    "server": {"services": {"grpc": {"address": "127.0.0.1:0"}}},
    "telemetry": {"metricsAddress": "", "probesAddress": ""},
}


def changed(section: str, **settings: Any) -> str:
    """The text of a configuration with other settings in a section, e.g. ``orchestrator.wsman``."""
    config = json.loads(json.dumps(CONFIG))
    place = config
    for name in section.split("."):
        place = place.setdefault(name, {})
    place.update(settings)
    return json.dumps(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON: "),
        ("{}", "orchestrator: is missing; server: is missing"),
        (changed("orchestrator", builderImage="No Image"), "orchestrator.builderImage: "),
        (changed("refCache", interval="soon"), "refCache.interval: "),
        (changed("orchestrator", pullSecretFile="gone.json"), "orchestrator.pullSecretFile: gone.json: "),
        (changed("orchestrator.wsman", address="a b"), "orchestrator.wsman.address: "),
        (
            changed("server.services.grpc.tls", certPath="gone.crt", keyPath="gone.key"),
            "server.services.grpc.tls.certPath: ",
        ),
        (changed("orchestrator.wsman.tls", crt="gone.crt"), "orchestrator.wsman.tls: "),
    ],
)
def test_a_configuration_that_can_not_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    """Exit status 1, and one message with the file, the field and what is wrong."""
    file = tmp_path / "config.json"
    file.write_text(text)
    assert execute(["run", "--config", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"imgbuilder: {file}: {words}")


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("server.services.grpc", "address"),
        ("telemetry", "metricsAddress"),
        ("telemetry", "probesAddress"),
    ],
)
def test_an_address_that_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], section: str, setting: str
) -> None:
    """It shows only when the service starts, and is told in the same way."""
    file = tmp_path / "config.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        file.write_text(changed(section, **{setting: address}))
        assert execute(["run", "--config", str(file), "--json-log=false"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    fault = f"cannot listen on {address}: Address already in use"
    assert message == f"imgbuilder: {file}: {section}.{setting}: {fault}"


def test_a_pull_secret_that_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the setting, the file and the registry, and shows nothing of the secret."""
    secret = tmp_path / "pull-secret.json"
    secret.write_text('{"auths": {"registry.test": {"auth": "!swordfish!"}}}')
    file = tmp_path / "config.json"
    file.write_text(changed("orchestrator", pullSecretFile=str(secret)))
    assert execute(["run", "--config", str(file), "--json-log=false"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        f"imgbuilder: {file}: orchestrator.pullSecretFile: {secret}: auths[registry.test]"
    )
    assert "swordfish" not in message


async def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    """The program itself ends so, with nothing else on any stream."""
    file = tmp_path / "gone.json"
    ended = await run("run", "--config", str(file))
    assert ended.returncode == 1
    assert ended.stderr.decode() == f"imgbuilder: {file}: cannot be read: No such file or directory\n"
    assert not ended.stdout


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """By `generate config`."""
    assert execute(["generate", "config"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"orchestrator", "refCache", "server"} <= set(schema["properties"])


# --- the log --------------------------------------------------------------------------------------------------


async def test_logs_are_json_with_the_fields_of_the_contract(world: World, tmp_path: Path) -> None:
    """Off a terminal. What is said of a build has its id; details only with --verbose."""
    async with program(world, tmp_path) as (process, client):
        end = (await client.build(dockerfile()))[-1]
    assert end.info is not None
    for record in process.records:
        assert {"level", "time", "message", "serviceContext"} <= set(record)
        assert record["level"] != "debug"
    told = [record["message"] for record in process.records if record.get("build_id") == end.info.build_id]
    assert {"build started", "build ended"} <= set(told)


async def test_details_are_logged_where_asked_for(world: World, tmp_path: Path) -> None:
    """And build workspaces are told to log in detail, too."""
    world.script = idle
    async with (
        program(world, tmp_path, "--verbose") as (process, client),
        client.open(BuildRequest(source=dockerfile())) as call,
    ):
        await call.next()
        (request,) = world.manager.received("StartWorkspace")
        await world.supervisors.until(lambda: bool(world.supervisors.requests))
    assert request.spec.envvars[-1].value == "true"
    assert "debug" in {record["level"] for record in process.records}
