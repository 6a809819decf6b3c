"""The workspace manager as one replica of the service sees it: everything that can happen to a call does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeVar

from imgbuilder.core.builds import WorkspaceSeen, WorkspaceStarted
from imgbuilder.pb.wsman import StartWorkspaceRequest
from imgbuilder.wsman.errors import WorkspaceManagerError
from tests.faults.simulation.fates import Fate, fate_of, unavailable
from tests.faults.simulation.faults import Faults
from tests.faults.simulation.feeds import Feed
from tests.faults.simulation.world import Asking, World

T = TypeVar("T")

CALL_DEADLINE: Final = 30.0
SUBSCRIBE_DEADLINE: Final = 10.0

STALENESS: Final = 4.0
"""How old, in seconds, what a cache says may be: less than `imgbuilder.orchestrator.tracker.GRACE`."""

MOST_RESTARTS: Final = 3
FAULTS_OF_CALLS: Final = ("refused", "unheard", "unanswered", "slow", "internal")


class Manager:
    """Whether the workspace manager is there, for all replicas."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.world = world
        self._faults = faults
        self._restarts = 0
        world.subscribers.append(self)
        self.up = True
        self.silent = False
        self.lives = 0
        self.feeds: list[Feed] = []

    def offer(self, _: WorkspaceSeen) -> None:
        """A workspace has changed: just the moment to be restarted."""
        if self._restarts < MOST_RESTARTS and self._faults.strikes("manager.restarted"):
            self._restarts += 1
            loop, begins = self.world.loop, self._faults.between(0.0, 0.02)
            forgets, silent = (self._faults.chance.random() < 0.5 for _ in range(2))
            loop.call_later(begins, partial(self.go, silent=silent, forgets=forgets))
            loop.call_later(begins + self._faults.between(0.001, 5.0), self.come)

    def go(self, *, silent: bool, forgets: bool) -> None:
        """Go away: connections break, or fall silent."""
        self.world.trace.note("manager", "away", silent=silent, forgets=forgets)
        self.up, self.silent = False, silent
        self.lives += 1
        for feed in tuple(self.feeds):
            if silent:
                feed.fall_silent()
            else:
                feed.break_off(unavailable("connection lost"))
        if forgets:
            self.world.forget_stopped()

    def come(self) -> None:
        """Be there again."""
        self.world.trace.note("manager", "back")
        self.up = True


class Link:
    """Satisfies `imgbuilder.orchestrator.ports.WorkspaceManager`."""

    def __init__(self, manager: Manager, faults: Faults, replica: str) -> None:
        self._manager = manager
        self._world = manager.world
        self._faults = faults
        self._replica = replica
        self._loop = asyncio.get_running_loop()
        self.cut_off = False
        self.cut_off_silently = False
        self.internal_errors: set[str] = set()
        self.feeds: list[Feed] = []
        self.on_start: Callable[[str, str], str | None] = lambda *_: None
        self._listed_as_of: dict[str, float] = {}

    def partition(self, *, silent: bool) -> None:
        """Nothing gets through any more."""
        self._world.trace.note(self._replica, "cut off", silent=silent)
        self.cut_off, self.cut_off_silently = True, silent
        for feed in tuple(self.feeds):
            if silent:
                feed.fall_silent()
            else:
                feed.break_off(unavailable("connection lost"))

    def heal(self) -> None:
        """Messages get through again."""
        self._world.trace.note(self._replica, "connected again")
        self.cut_off = False

    # --- the port ---

    async def start(self, request: StartWorkspaceRequest) -> WorkspaceStarted:
        """Start a workspace, perhaps; tell whether it was, perhaps."""
        assert request.metadata is not None
        ref = request.metadata.annotations["ref"]
        asking = Asking(
            replica=self._replica,
            asked_at=self._world.now(),
            listed_as_of=self._listed_as_of[ref],
            remembers=self.on_start(request.id, ref),
            wants_address=not self._faults.strikes("start.no-address"),
        )
        name = self._world.name(request.id)
        return await self._call("start", lambda: self._world.start(request, asking), about=name)

    async def stop(self, workspace_id: str) -> None:
        """Stop a workspace, perhaps."""
        await self._call("stop", lambda: self._world.stop(workspace_id), about=self._world.name(workspace_id))

    async def describe(self, workspace_id: str) -> WorkspaceSeen | None:
        """What is known of one workspace."""
        _, found = await self._call(
            "describe", lambda: self._listing("describe.stale"), about=self._world.name(workspace_id)
        )
        return next((status for status in found if status.build_id == workspace_id), None)

    async def list(self, *, ref: str | None = None) -> list[WorkspaceSeen]:
        """What is known of all workspaces."""
        as_of, found = await self._call("list", lambda: self._listing("list.stale"))
        if ref is not None:
            self._listed_as_of[ref] = as_of
        return [status for status in found if ref in (None, status.ref)]

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[WorkspaceSeen]]:
        """Every change, more or less."""
        feed = Feed(self._world, self._faults, self._replica)

        def open_feed() -> None:
            self.feeds.append(feed)
            self._manager.feeds.append(feed)
            feed.open()

        try:
            await self._call("subscribe", open_feed, deadline=SUBSCRIBE_DEADLINE)
            yield feed
        finally:
            feed.close()
            for feeds in (self.feeds, self._manager.feeds):
                if feed in feeds:
                    feeds.remove(feed)

    # --- how a call goes ---

    async def _call(
        self, method: str, effect: Callable[[], T], *, about: str = "", deadline: float = CALL_DEADLINE
    ) -> T:
        """Send a request. What it effects does not depend on whether somebody still waits for the answer."""
        answer: asyncio.Future[T] = self._loop.create_future()
        fate = self._fate(method, about, deadline)
        if fate.heard_after is not None:
            # Whoever asks does not get an answer that is lost, but it is given.
            reply = answer if fate.answered else self._loop.create_future()
            self._loop.call_later(fate.heard_after, self._arrive, effect, reply, fate.answer_after)
        self._loop.call_later(fate.fails_after, _fail, answer, fate.error)
        return await answer

    def _fate(self, method: str, about: str, deadline: float) -> Fate:
        fault = self._faults.first(*(f"{method}.{fault}" for fault in FAULTS_OF_CALLS))
        if fault is None and method == "start":
            fault = self._faults.first("start.late", "start.internal-after")
        if self.cut_off:
            fault = f"{method}.unheard" if self.cut_off_silently else f"{method}.refused"
        if fault:
            self._world.trace.note(self._replica, fault, about=about)
        return fate_of((fault or "").partition(".")[2], self._faults, deadline, self._internal_error)

    def _internal_error(self) -> WorkspaceManagerError:
        fault = f"fault {len(self.internal_errors)}"
        self.internal_errors.add(fault)
        return WorkspaceManagerError("INTERNAL", fault)

    def _arrive(self, effect: Callable[[], T], answer: asyncio.Future[T], answer_after: float) -> None:
        manager = self._manager
        if not manager.up:
            if not manager.silent:
                _fail(answer, unavailable("connection refused"))
            return
        try:
            result = effect()
        except WorkspaceManagerError as error:
            self._loop.call_later(answer_after, _fail, answer, error)
        else:
            self._loop.call_later(answer_after, self._settle, answer, result, manager.lives)

    def _settle(self, answer: asyncio.Future[T], result: T, lives: int) -> None:
        if lives != self._manager.lives or self.cut_off:
            _fail(answer, unavailable("connection lost"))
        elif not answer.done():
            answer.set_result(result)

    def _listing(self, stale: str) -> tuple[float, tuple[WorkspaceSeen, ...]]:
        as_of = self._world.now()
        if self._faults.strikes(stale):
            as_of = max(as_of - self._faults.between(0.0, STALENESS), self._world.past_until)
        return as_of, self._world.listed(as_of=as_of)


def _fail(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # nobody may be there to hear it
