"""What the orchestrator needs of the world, as protocols. The clients below satisfy them; tests bring their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from imgbuilder.core.builds import LogSource, WorkspaceSeen, WorkspaceStarted
from imgbuilder.core.permissions import Permissions
from imgbuilder.core.references import Reference
from imgbuilder.pb.wsman import StartWorkspaceRequest

WallClock = Callable[[], float]
"""The Unix time in seconds, as `time.time` tells it."""


class Images(Protocol):
    """Looks images up in registries."""

    async def resolve(self, reference: Reference, permissions: Permissions, *, retry: bool) -> Reference:
        """The digest form of *reference*, for the configured platform.

        :raises RegistryError: see `imgbuilder.registry.errors`.
        :raises NoManifestForPlatformError: if an index has no entry for the platform.
        """
        ...

    async def exists(self, reference: Reference, permissions: Permissions, *, retry: bool) -> bool:
        """Whether there is an image under *reference*.

        :raises RegistryError: if that can't be found out.
        """
        ...


class WorkspaceManager(Protocol):
    """Runs workspaces. Every call has a deadline of its own.

    Each raises a `imgbuilder.wsman.errors.WorkspaceManagerError`: its subclass `WorkspaceManagerUnavailableError`
    where trying again makes sense (no connection, UNAVAILABLE, no answer in time).
    """

    async def start(self, request: StartWorkspaceRequest) -> WorkspaceStarted:
        """Start a workspace.

        :raises WorkspaceExistsError: if there is one of this id.
        """
        ...

    async def stop(self, workspace_id: str) -> None:
        """Stop a workspace at once; does nothing if there is none of this id."""
        ...

    async def describe(self, workspace_id: str) -> WorkspaceSeen | None:
        """The status of one workspace; None if there is none of this id, or it is no image build of ours."""
        ...

    async def list(self, *, ref: str | None = None) -> list[WorkspaceSeen]:
        """The workspaces that are image builds, all or those of one workspace image *ref*."""
        ...

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[WorkspaceSeen]]:
        """Every change of image-build workspaces from now on, over a connection of its own.

        The iterator ends when the workspace manager ends the stream cleanly, and raises otherwise. It must be
        read without waiting for anything else: a subscriber that lags is dropped.
        """
        ...


class Supervisor(Protocol):
    """Reads the output of a workspace's task.

    Both raise `imgbuilder.wsman.errors.SupervisorError` on anything but a proper answer.
    """

    async def terminal(self, source: LogSource) -> str | None:
        """The alias of the task's terminal; None while there is none yet."""
        ...

    def listen(self, source: LogSource, terminal: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The raw bytes of the listen stream, as they arrive; see `imgbuilder.core.terminal` for their meaning."""
        ...
