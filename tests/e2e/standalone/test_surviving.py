"""An image builder whose workspace manager is killed in the middle of a build and comes back."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from imgbuilder.pb.builder import BuildRequest
from tests.contract.service.conftest import serving
from tests.e2e.engines.traces import gone, processes_with
from tests.e2e.standalone.conftest import Project
from tests.e2e.standalone.programs import need, standalone_process
from tests.world.baseimage import push_base_image
from tests.world.git import Repository
from tests.world.registries.processes import docker_registry

OPTIONS = ("--engine", "buildah", "--allow-file-urls", "--no-image-builder")


def config(wsman_port: int, registry: str) -> Mapping[str, Any]:
    """An image builder for a workspace manager and a registry."""
    return {
        "orchestrator": {
            "wsman": {"address": f"127.0.0.1:{wsman_port}"},
            "baseImageRepository": f"{registry}/base-images",
            "workspaceImageRepository": f"{registry}/workspace-images",
            "builderImage": "builder:1",
        },
        "server": {"services": {"grpc": {"address": "127.0.0.1:0"}}},
        "registries": {"insecure": [registry]},
        "telemetry": {"metricsAddress": "", "probesAddress": ""},
    }


async def test_a_client_learns_that_its_build_was_interrupted(tmp_path: Path) -> None:
    """It waits through kill -9 and restart, and gets the workspace manager's reason; the same can be built then."""
    need("buildah", "docker-registry", "git")
    (tmp_path / "registry").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with docker_registry(tmp_path / "registry") as registry:
        base = await push_base_image(registry, tmp_path / "base")
        project = Project(Repository(tmp_path / "repository"), base)
        source = project.commit("FROM BASE\nCOPY pause /pause\nRUN sh /pause\n", pause="exec sleep 3393\n")
        options = (*OPTIONS, "--registry", registry.host, "--wsman-port", str(port))
        async with serving(config(port, registry.host)) as service:
            with standalone_process(tmp_path / "data", *options) as process:
                async with service.client.open(BuildRequest(source=source, triggered_by="tester")) as call:
                    assert (await call.next()).status.name == "running"
                    with anyio.fail_after(30):
                        while not processes_with("sleep 3393"):  # noqa: ASYNC110  # the kernel tells nobody
                            await anyio.sleep(0.02)
                    process.kill()
                    with standalone_process(tmp_path / "data", *options):
                        with anyio.fail_after(30):
                            last = (await call.rest())[-1]
                        await gone("sleep 3393")
                        assert last.status.name == "done_failure"
                        assert last.message == "build was interrupted: the workspace manager was restarted"
                        other = project.commit("FROM BASE\nRUN true\n")
                        again = await service.client.build(other, triggered_by="tester")
                        assert again[-1].status.name == "done_success"
