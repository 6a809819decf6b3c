"""``grpcurl`` through reflection only: list, describe and call."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.world.certificates import Authority
from tests.world.process import service_process
from tests.world.scripts import LINES, succeeding
from tests.world.world import World

METHODS = {"ResolveBaseImage", "ResolveWorkspaceImage", "Build", "Logs", "ListBuilds"}


class Client:
    """Runs ``grpcurl`` against one server."""

    def __init__(self, program: str, host: str, flags: Sequence[str]) -> None:
        self._program = program
        self._host = host
        self._flags = flags

    async def run(self, *arguments: str, data: dict[str, Any] | None = None) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        flags = [*self._flags, *(["-d", json.dumps(data)] if data is not None else [])]
        command = [self._program, "-max-time", "30", *flags, self._host, *arguments]
        result = await anyio.run_process(command, check=False)
        return result.returncode, result.stdout.decode(), result.stderr.decode()

    async def call(self, method: str, data: dict[str, Any]) -> list[dict[str, Any]]:
        """The responses of a call that succeeds."""
        status, output, errors = await self.run(f"builder.ImageBuilder/{method}", data=data)
        assert status == 0, errors
        return json_values(output)

    async def error(self, method: str, data: dict[str, Any]) -> str:
        """The error of a call that fails."""
        status, _, errors = await self.run(f"builder.ImageBuilder/{method}", data=data)
        assert status != 0
        return errors


def json_values(text: str) -> list[dict[str, Any]]:
    """The JSON values that follow one another in *text*."""
    decoder = json.JSONDecoder()
    values = []
    text = text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:].strip()
    return values


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
async def test_grpcurl_needs_no_proto_files(grpcurl: str, world: World, tmp_path: Path, tls: bool) -> None:
    """Services, methods and messages are described by the server; all methods can be called."""
    ref = world.seed_base_image()
    world.script = succeeding()
    config = world.service_config()
    flags = ["-plaintext"]
    if tls:
        authority = Authority(tmp_path)
        server = authority.files("localhost")
        flags = ["-cacert", str(authority.ca)]
        config["server"]["services"]["grpc"]["tls"] = {
            "caPath": server.ca,
            "certPath": server.certificate,
            "keyPath": server.key,
        }
    async with service_process(config, tmp_path) as service:
        client = Client(
            grpcurl, service.host.replace("127.0.0.1", "localhost") if tls else service.host, flags
        )
        await check_descriptions(client)
        await check_calls(client, ref)


async def check_descriptions(client: Client) -> None:
    """What a person looks at first."""
    _, services, _ = await client.run("list")
    assert {"builder.ImageBuilder", "grpc.health.v1.Health"} <= set(services.split())
    _, methods, _ = await client.run("list", "builder.ImageBuilder")
    assert {method.rpartition(".")[2] for method in methods.split()} == METHODS
    for symbol, part in (
        (
            "builder.ImageBuilder",
            "rpc Build ( .builder.BuildRequest ) returns ( stream .builder.BuildResponse )",
        ),
        ("builder.ImageBuilder.Logs", "rpc Logs"),
        ("builder.BuildRequest", "string base_image_name_resolved = 6"),
        ("builder.BuildStatus", "done_success = 2"),
        ("contentservice.GitInitializer", "string upstream_Remote_uri = 2"),
    ):
        status, text, errors = await client.run("describe", symbol)
        assert status == 0, errors
        assert part in text
    status, text, _ = await client.run(
        "grpc.health.v1.Health/Check", data={"service": "builder.ImageBuilder"}
    )
    assert (status, json.loads(text)) == (0, {"status": "SERVING"})


async def check_calls(client: Client, ref: str) -> None:
    """All five methods."""
    source = {"ref": {"ref": ref}}
    (resolved,) = await client.call("ResolveBaseImage", {"ref": ref})
    (before,) = await client.call("ResolveWorkspaceImage", {"source": source})
    assert "status" not in before  # unknown is the default, which JSON leaves out
    responses = await client.call("Build", {"source": source, "triggered_by": "grpcurl"})
    assert responses[0]["status"] == "running"
    assert responses[-1]["status"] == "done_success"
    assert responses[-1]["baseRef"] == resolved["ref"]
    chunks = await client.call("Logs", {"build_id": responses[0]["info"]["buildId"]})
    log = b"".join(base64.b64decode(chunk["content"]) for chunk in chunks).decode()
    assert [line for line in LINES if line in log] == list(LINES)
    assert await client.call("ListBuilds", {}) == [{}]
    (after,) = await client.call("ResolveWorkspaceImage", {"source": source})
    assert after["status"] == "done_success"
    assert await client.call("Build", {"source": source}) == [
        {"ref": after["ref"], "baseRef": resolved["ref"], "status": "done_success"},
    ]
    missing = await client.error("ResolveBaseImage", {"ref": ref.rpartition(":")[0] + ":missing"})
    assert "Code: NotFound" in missing
    assert "cannot resolve image" in missing
    assert "build source is missing" in await client.error("Build", {})
