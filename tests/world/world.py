"""All that surrounds the service, put together: workspace manager, supervisors, a registry, and a network to break.

Builds that the service starts run a script (`tests.world.scripts`), which ends with the image in the registry, or
without.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskGroup

from imgbuilder.core.references import parse_reference
from imgbuilder.pb.wsman import StartWorkspaceRequest, WorkspacePhase
from tests.world.proxy import TcpProxy
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import Script, succeeding
from tests.world.supervisor import Supervisors
from tests.world.workspaces import Workspace, WorkspaceManager

BASE_IMAGES: Final = "base-images"
WORKSPACE_IMAGES: Final = "workspace-images"


class World:
    """Use as an async context manager.

    :param script: what happens in the workspaces that are started; may be changed, for those to come.
    :param registry: in the place of one that asks for no credentials; is entered with the world.
    :param proxied: whether the service is to reach the workspace manager over `network`.
    :ivar manager: the workspace manager.
    :ivar supervisors: the supervisors of its workspaces.
    :ivar network: passes on to the workspace manager, until it is frozen or cut.
    :ivar folder: for the world's files, and those of who uses it; removed in the end.
    """

    def __init__(
        self,
        *,
        script: Script | None = None,
        registry: FakeRegistry | None = None,
        manager: WorkspaceManager | None = None,
        proxied: bool = False,
    ) -> None:
        self.script = script or succeeding()
        self.supervisors = Supervisors()
        self.registry = registry or FakeRegistry()
        self.manager = manager or WorkspaceManager()
        self.network = TcpProxy(0)
        self.folder = Path()
        self._proxied = proxied
        self._resources = AsyncExitStack()
        self._scripts: TaskGroup = anyio.create_task_group()
        self._running: dict[str, anyio.CancelScope] = {}

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as resources:
            self.folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="world-")))
            await resources.enter_async_context(self.registry)
            await resources.enter_async_context(self.supervisors)
            await resources.enter_async_context(self.manager)
            self.network.target_port = self.manager.port
            await resources.enter_async_context(self.network)
            await resources.enter_async_context(self._scripts)
            self._resources = resources.pop_all()
        self.manager.place = self.supervisors.add
        self.manager.on_start = self._begin
        self.manager.on_end = self._stop
        self._write_pull_secret()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._scripts.cancel_scope.cancel()
        return await self._resources.__aexit__(kind, error, traceback)

    @property
    def wsman_address(self) -> str:
        """Where the service is to find the workspace manager."""
        return f"127.0.0.1:{self.network.port}" if self._proxied else self.manager.address

    @property
    def pull_secret_file(self) -> Path:
        """The service's own credentials, as Docker keeps them: the first of the registry's users."""
        return self.folder / "pull-secret.json"

    def service_config(self, **overrides: Any) -> dict[str, Any]:
        """The configuration of a service in this world, as JSON has it. It listens to free ports.

        :param overrides: sections and settings in the place of these, or beside them, at any depth.
        """
        config = {
            "orchestrator": {
                "wsman": {"address": self.wsman_address},
                "pullSecret": "image-builder-pull-secret",
                "pullSecretFile": str(self.pull_secret_file),
                "baseImageRepository": f"{self.registry.host}/{BASE_IMAGES}",
                "workspaceImageRepository": f"{self.registry.host}/{WORKSPACE_IMAGES}",
                "builderImage": f"{self.registry.host}/builder:latest",
            },
            "server": {"services": {"grpc": {"address": "127.0.0.1:0"}}},
            "registries": {"insecure": [self.registry.host]},
            "logs": {"folder": str(self.folder / "logs")},
            "telemetry": {"metricsAddress": "127.0.0.1:0", "probesAddress": "127.0.0.1:0"},
        }
        return _merged(config, overrides)

    def seed_base_image(self, repository: str = "base", tag: str = "latest") -> str:
        """Put a base image into the registry; the reference that names it."""
        self.registry.put_image(repository, tag, text=f"{repository}:{tag}")
        return f"{self.registry.host}/{repository}:{tag}"

    def push(self, ref: str) -> str:
        """Put an image into the registry under *ref*; its digest."""
        reference = parse_reference(ref)
        assert reference.domain == self.registry.host, f"{ref} is not of this world"
        return self.registry.put_image(reference.path, reference.tag or "latest", text=ref)

    def workspace_ref(self, tag: str) -> str:
        """The reference of a workspace image of the service."""
        return f"{self.registry.host}/{WORKSPACE_IMAGES}:{tag}"

    def start(self, request: StartWorkspaceRequest) -> Workspace:
        """Start a workspace that the service has not asked for, e.g. before it runs; `script` happens in it."""
        workspace = self.manager.add(request)
        self._begin(workspace)
        return workspace

    def _begin(self, workspace: Workspace) -> None:
        scope = self._running[workspace.id] = anyio.CancelScope()
        self._scripts.start_soon(self._run, self.script, workspace, scope, name=f"script of {workspace.id}")

    async def _run(self, script: Script, workspace: Workspace, scope: anyio.CancelScope) -> None:
        with scope:
            await script(Stage(self, workspace))

    def _stop(self, workspace: Workspace) -> None:
        scope = self._running.pop(workspace.id, None)
        if scope is not None:
            scope.cancel()

    def _write_pull_secret(self) -> None:
        auths: dict[str, dict[str, str]] = {}
        for user, password in list(self.registry.users.items())[:1]:
            auths[self.registry.host] = {"username": user, "password": password}
        self.pull_secret_file.write_text(json.dumps({"auths": auths}))


class Stage:
    """Satisfies `tests.world.scripts.Stage` in *world*."""

    def __init__(self, world: World, workspace: Workspace) -> None:
        self.workspace = workspace
        self._world = world

    def advance(self, phase: WorkspacePhase, *, message: str = "", **conditions: Any) -> None:
        """Change the workspace and tell the subscribers. The task begins when it is RUNNING."""
        self._world.manager.advance(self.workspace.id, phase, message=message, **conditions)
        if phase is WorkspacePhase.RUNNING:
            self._world.supervisors.open_terminal(self.workspace.id)

    async def heard(self) -> None:
        """Wait until somebody listens to the terminal."""
        supervisors = self._world.supervisors
        await supervisors.until(lambda: bool(supervisors.workspaces[self.workspace.id].listeners))

    def write(self, text: str) -> None:
        """Let the task write *text* to its terminal."""
        self._world.supervisors.write(self.workspace.id, text.encode())

    def exit(self, code: int) -> None:
        """End the task."""
        self._world.supervisors.exit(self.workspace.id, code)

    def push(self) -> None:
        """Put an image under the workspace ref into the registry."""
        self._world.push(self.workspace.ref)

    def vanish(self) -> None:
        """Lose the workspace without telling anybody."""
        self._world.manager.vanish(self.workspace.id)


def _merged(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**config, **overrides}
    for key in config.keys() & overrides.keys():
        if isinstance(config[key], Mapping) and isinstance(overrides[key], Mapping):
            merged[key] = _merged(config[key], overrides[key])
    return merged
