"""A workspace manager that behaves like the real one over gRPC, and misbehaves on demand.

It keeps workspaces and tells subscribers of their changes. What happens in a workspace is decided by whoever
drives it: a test through `WorkspaceManager.advance`, or a script (see `tests.world.scripts`).
"""

from __future__ import annotations

import datetime as dt
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final, Self

import anyio
from grpclib.exceptions import GRPCError

from imgbuilder.pb.wsman import (
    MetadataFilter,
    StartWorkspaceRequest,
    StartWorkspaceSpec,
    WorkspaceAuthentication,
    WorkspaceConditions,
    WorkspaceMetadata,
    WorkspacePhase,
    WorkspaceSpec,
    WorkspaceStatus,
)
from tests.world.faults import Faults
from tests.world.service import WorkspaceService
from tests.world.serving import GrpcServer, RecordingCodec
from tests.world.subscribers import Subscriber

BACKLOG: Final = 256
PATIENCE: Final = 30.0
"""Seconds a test waits for a condition before it fails."""


@dataclass(slots=True, kw_only=True)
class Workspace:
    """One workspace: what was asked for, and its present status, which is replaced and never changed."""

    request: StartWorkspaceRequest
    status: WorkspaceStatus
    url: str
    owner_token: str

    @property
    def id(self) -> str:
        """The build id."""
        return self.request.id

    @property
    def phase(self) -> WorkspacePhase:
        """Where it stands."""
        return self.status.phase

    @property
    def annotations(self) -> dict[str, str]:
        """What the request said of the build: ``ref``, ``baseref``, ``managed-by``."""
        return {} if self.request.metadata is None else self.request.metadata.annotations

    @property
    def ref(self) -> str:
        """The workspace image that is to be made."""
        return self.annotations.get("ref", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that came in."""

    method: str
    request: Any


class WorkspaceManager:
    """Use as an async context manager: it serves from entering to leaving.

    :param port: 0 for any that is free; known as *port* once it serves.
    :param tls: the server's side of TLS; None for plaintext.
    :param backlog: how many changes may wait for a subscriber before it is dropped.
    :ivar calls: every call so far.
    :ivar faults: what is to go wrong.
    :ivar place: gives a new workspace the address of its supervisor, for its id and owner token.
    :ivar on_start: is called with each workspace that a call started, before the caller gets its answer.
    :ivar on_end: is called with each workspace that is there no more.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        backlog: int = BACKLOG,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.port = port
        self.workspaces: dict[str, Workspace] = {}
        self.calls: list[Call] = []
        self.faults = Faults()
        self.place: Callable[[str, str], str] = lambda workspace_id, _: f"http://127.0.0.1:9/{workspace_id}"
        self.on_start: Callable[[Workspace], None] = lambda _: None
        self.on_end: Callable[[Workspace], None] = lambda _: None
        self.codec = RecordingCodec(StartWorkspaceRequest)
        self._tls = tls
        self._backlog = backlog
        self._wall_clock = wall_clock
        self._version = 0
        self._subscribers: set[Subscriber] = set()
        self._server: GrpcServer | None = None
        self._held: list[WorkspaceStatus] | None = None
        self._happened = anyio.Event()

    # --- its life ---------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def metadata(self) -> list[tuple[str, dict[str, str]]]:
        """What came with each call since it serves, with the call's path."""
        return [] if self._server is None else self._server.metadata

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve, on the same port as before if there was one."""
        self._server = GrpcServer([WorkspaceService(self)], codec=self.codec)
        self.port = await self._server.listen(self.port, tls=self._tls)

    async def stop(self) -> None:
        """Be gone at once, as a process that is killed. Does nothing if it is gone."""
        self.faults.release()
        server, self._server = self._server, None
        if server is not None:
            await server.end()

    @asynccontextmanager
    async def away(self, *, forgetful: bool = False) -> AsyncIterator[None]:
        """Be gone inside the block; workspaces can change meanwhile.

        :param forgetful: whether all workspaces are forgotten.
        """
        await self.stop()
        if forgetful:
            for workspace_id in list(self.workspaces):
                self.vanish(workspace_id)
        yield
        await self.start()

    async def restart(self, *, forgetful: bool = False) -> None:
        """Be gone and come back."""
        async with self.away(forgetful=forgetful):
            pass

    # --- driving workspaces -----------------------------------------------------------------------------

    def advance(
        self,
        workspace_id: str,
        phase: WorkspacePhase,
        *,
        message: str = "",
        **conditions: Any,
    ) -> WorkspaceStatus:
        """Change a workspace and tell the subscribers. One that is STOPPED is forgotten afterwards.

        :param conditions: fields of `WorkspaceConditions` to set beside those that are set.
        """
        workspace = self.workspaces[workspace_id]
        assert workspace.status.conditions is not None
        self._version += 1
        workspace.status = replace(
            workspace.status,
            phase=phase,
            message=message,
            conditions=replace(workspace.status.conditions, **conditions),
            status_version=self._version,
        )
        if phase is WorkspacePhase.STOPPED:
            self._forget(workspace_id)
        self._publish(workspace.status)
        return workspace.status

    def vanish(self, workspace_id: str) -> None:
        """Lose a workspace without telling anybody."""
        self._forget(workspace_id)

    def add(self, request: StartWorkspaceRequest) -> Workspace:
        """Start a workspace without a call: somebody else's, or one of earlier times."""
        token = secrets.token_urlsafe(16)
        url = self.place(request.id, token)
        spec = StartWorkspaceSpec() if request.spec is None else request.spec
        metadata = WorkspaceMetadata() if request.metadata is None else request.metadata
        started_at = dt.datetime.fromtimestamp(self._wall_clock(), dt.UTC)
        status = WorkspaceStatus(
            id=request.id,
            metadata=replace(metadata, started_at=started_at),
            spec=WorkspaceSpec(
                workspace_image=spec.workspace_image,
                headless=True,
                url=url,
                type=request.type,
                timeout=spec.timeout,
                ide_image=spec.ide_image,
            ),
            conditions=WorkspaceConditions(),
            auth=WorkspaceAuthentication(owner_token=token),
        )
        workspace = Workspace(request=request, status=status, url=url, owner_token=token)
        self.workspaces[request.id] = workspace
        self.advance(request.id, WorkspacePhase.PENDING)
        return workspace

    # --- disturbing and ending subscriptions ------------------------------------------------------------

    def end_subscriptions(self, error: GRPCError | None = None) -> None:
        """End every subscription, with *error* or cleanly."""
        for subscriber in list(self._subscribers):
            subscriber.end(error)

    @contextmanager
    def rerouted(self, change: Callable[[list[WorkspaceStatus]], list[WorkspaceStatus]]) -> Iterator[None]:
        """Hold back what is published inside the block; at its end, publish what *change* makes of it."""
        held = self._held = []
        try:
            yield
        finally:
            self._held = None
        for status in change(held):
            self._publish(status)

    # --- watching it ------------------------------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """How many subscriptions are open."""
        return len(self._subscribers)

    def received(self, method: str) -> list[Any]:
        """The requests of all calls of *method*."""
        return [call.request for call in self.calls if call.method == method]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that calls, subscribers or workspaces bring about.

        :raises TimeoutError: if it takes unreasonably long.
        """
        with anyio.fail_after(PATIENCE):
            while not condition():
                await self._happened.wait()

    async def wait_for_calls(self, method: str, count: int = 1) -> list[Any]:
        """Wait for *count* calls of *method* in all; their requests."""
        await self.wait_until(lambda: len(self.received(method)) >= count)
        return self.received(method)

    async def wait_for_start(self, count: int = 1) -> list[StartWorkspaceRequest]:
        """Wait for *count* StartWorkspace calls in all; their requests."""
        return await self.wait_for_calls("StartWorkspace", count)

    async def wait_for_subscribers(self, count: int = 1) -> None:
        """Wait until exactly *count* subscriptions are open."""
        await self.wait_until(lambda: self.subscribers == count)

    # --- what the service asks of it --------------------------------------------------------------------

    def record(self, method: str, request: Any) -> None:
        """Take down a call that came in."""
        self.calls.append(Call(method=method, request=request))
        self._notify()

    @contextmanager
    def subscribed(self, must_match: MetadataFilter | None) -> Iterator[Subscriber]:
        """Someone who is told of changes as long as the block lasts."""
        subscriber = Subscriber(must_match, self._backlog)
        self._subscribers.add(subscriber)
        self._notify()
        try:
            yield subscriber
        finally:
            self._subscribers.discard(subscriber)
            self._notify()

    def _forget(self, workspace_id: str) -> None:
        self.on_end(self.workspaces.pop(workspace_id))
        self._notify()

    def _publish(self, status: WorkspaceStatus) -> None:
        if self._held is not None:
            self._held.append(status)
            return
        for subscriber in self._subscribers:
            subscriber.put(status)
        self._notify()

    def _notify(self) -> None:
        self._happened.set()
        self._happened = anyio.Event()
