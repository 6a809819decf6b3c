"""A client written in JavaScript, with and without TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.interop.conftest import ROOT
from tests.world.certificates import Authority
from tests.world.process import service_process
from tests.world.scripts import LINES, waiting
from tests.world.world import World


async def call_everything(
    node_client: tuple[str, str],
    host: str,
    ref: str,
    *tls: Path,
    listed: anyio.Event,
) -> dict[str, Any]:
    """What the client prints: the result of each method. *listed* is set once it has called ListBuilds."""
    command = [*node_client, host, str(ROOT / "protos"), ref, *map(str, tls)]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        assert await lines.receive_until(b"\n", 100) == b"listed"
        listed.set()
        answer: dict[str, Any] = json.loads(await lines.receive_until(b"\n", 1 << 20))
        assert await process.wait() == 0
    return answer


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
async def test_every_method_works_from_javascript(
    node_client: tuple[str, str],
    world: World,
    tmp_path: Path,
    tls: bool,
) -> None:
    """A build from start to success with its log, the list, and the errors."""
    ref = world.seed_base_image()
    listed = anyio.Event()
    world.script = waiting(listed)
    config = world.service_config()
    files: tuple[Path, ...] = ()
    if tls:
        authority = Authority(tmp_path)
        server, client = authority.files("localhost"), authority.files("client")
        files = (authority.ca, Path(client.certificate), Path(client.key))
        config["server"]["services"]["grpc"]["tls"] = {
            "caPath": server.ca,
            "certPath": server.certificate,
            "keyPath": server.key,
            "requireClientCert": True,
        }
    async with service_process(config, tmp_path) as service:
        host = service.host.replace("127.0.0.1", "localhost") if tls else service.host
        told = await call_everything(node_client, host, ref, *files, listed=listed)

    resolved = told["resolved"]["ref"]
    assert resolved.startswith(f"{world.registry.host}/base@sha256:")
    assert (told["before"]["status"], told["after"]["status"]) == ("unknown", "done_success")
    responses = told["build"]["responses"]
    assert "code" not in told["build"]
    assert responses[0]["status"] == "running"
    assert responses[-1]["status"] == "done_success"
    assert {response["ref"] for response in responses} == {told["before"]["ref"]}
    assert {response["base_ref"] for response in responses} == {resolved}
    log = "".join(told["logs"]["responses"])
    assert [line for line in LINES if line in log] == list(LINES)
    assert [build["build_id"] for build in told["builds"]["builds"]] == [responses[0]["info"]["build_id"]]
    assert told["missing"] == {"code": "NOT_FOUND", "message": "cannot resolve image"}
    assert told["nothing"] == {
        "code": "INVALID_ARGUMENT",
        "message": "build source is missing",
        "responses": [],
    }
    assert told["unknown"] == {"code": "NOT_FOUND", "message": "build not found", "responses": []}
