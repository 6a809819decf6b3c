"""Keeps one log per build, from its first change until it is forgotten.

Decides which builds are followed, and when a log is complete. Following a build is an open connection, so only
so many builds are followed unasked, and not all at once; the others are when somebody reads their log, or when
their turn comes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import anyio
import structlog

from imgbuilder.bus import Bus
from imgbuilder.core.builds import Build, BuildState, LogSource
from imgbuilder.core.errors import BuildNotFoundError
from imgbuilder.orchestrator.logs.follower import FAILED, Follower
from imgbuilder.orchestrator.logs.reader import LogReader
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.orchestrator.logs.spool import SpoolFolder
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.orchestrator.ports import Supervisor
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

PACE: Final = 0.01
"""Seconds between two builds that are followed unasked."""

BUSY: Final = 0.01
"""Seconds that the event loop is late when others have more urgent things to do."""

LONGEST_DELAY: Final = 0.5
"""Seconds between two at most, however busy it is. A supervisor remembers much more than is printed meanwhile."""


async def quiet_moment() -> None:
    """Wait until there is time for what is not urgent."""
    latest = anyio.current_time() + LONGEST_DELAY
    while True:
        due = anyio.current_time() + PACE
        await anyio.sleep_until(due)
        now = anyio.current_time()
        if now < due + BUSY or now >= latest:
            return


@dataclass(slots=True)
class _Kept:
    """A build's log, and who writes it."""

    build: Build
    log: BuildLog
    follower: Follower | None = None
    """Who follows it now."""
    followed: bool = False
    """Whether its follower has done its work."""
    wanted: bool = False
    """Whether somebody has asked for the log."""


class LogKeeper:
    """The logs of all builds that the tracker knows.

    Use as an async context manager around all other use, within that of *tasks*, which own what runs here.
    Leaving it removes what is on disk. Readers must have come to their end by then: they are told nothing.

    :param jitter: spreads the delays of followers; in [0, 1).
    """

    def __init__(
        self,
        *,
        bus: Bus,
        supervisor: Supervisor,
        tasks: Tasks,
        settings: LogSettings,
        metrics: Metrics,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._bus = bus
        self._supervisor = supervisor
        self._tasks = tasks
        self._settings = settings
        self._metrics = metrics
        self._jitter = jitter
        self._spool = SpoolFolder(settings.folder, on_fault=metrics.log_disk_failed)
        self._kept: dict[str, _Kept] = {}
        self._following = 0
        self._waiting: dict[str, None] = {}
        """The builds that could be followed and are not, in the order they came."""
        self._ushering = False
        self._open = True
        metrics.observe_spool(lambda: self._spool.used)

    async def __aenter__(self) -> Self:
        await self._spool.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        for kept in self._kept.values():
            if kept.follower is not None:
                kept.follower.stop()
        await self._spool.close()

    def build_changed(self, build: Build) -> None:
        """Take in the state of a build, new or not."""
        if not self._open:
            return
        kept = self._kept.get(build.build_id)
        if kept is None:
            kept = self._kept[build.build_id] = _Kept(build, self._new_log(build.build_id))
        kept.build = build
        if kept.follower is None:
            self._consider(kept)
        elif build.log_source is not None:
            kept.follower.move(build.log_source)
        if build.state.ended:
            self._end(kept)

    def forget(self, build_id: str) -> None:
        """Drop the log of a build. Does nothing if there is none."""
        kept = self._kept.pop(build_id, None)
        self._waiting.pop(build_id, None)
        if kept is not None:
            if kept.follower is not None:
                kept.follower.stop()
            kept.log.discard()

    def read(self, build_id: str) -> LogReader:
        """A reader of the log of a build, from its first byte.

        :raises BuildNotFoundError: if there is no log of such a build.
        """
        kept = self._kept.get(build_id)
        if kept is None:
            raise BuildNotFoundError
        kept.wanted = True
        if kept.follower is None:
            self._consider(kept)
        return LogReader(kept.log, metrics=self._metrics)

    # --- who is followed --------------------------------------------------------------------------------

    def _consider(self, kept: _Kept) -> None:
        """Follow a build that is not followed, if that is possible and it is its turn."""
        source = kept.build.log_source
        if source is None or kept.followed or kept.log.closed:
            return
        if kept.wanted:
            self._follow(kept, source)
        else:
            self._waiting[kept.build.build_id] = None
            self._follow_next()

    def _follow_next(self) -> None:
        """Follow the next of those that wait, at once if nobody else just was."""
        if not self._ushering and self._follow_one():
            self._ushering = True
            self._tasks.spawn(self._usher, name="follow builds in turn")

    async def _usher(self) -> None:
        """Follow those that wait one after the other: a hundred that start at once have better things to do first."""
        try:
            await quiet_moment()
            while self._follow_one():
                await quiet_moment()
        finally:
            self._ushering = False

    def _follow_one(self) -> bool:
        """Follow the first that waits; whether there was one, and room for it."""
        while self._open and self._waiting and self._following < self._settings.followed:
            kept = self._kept[next(iter(self._waiting))]
            source = kept.build.log_source
            if source is not None and not kept.log.closed:
                self._follow(kept, source)
                return True
            del self._waiting[kept.build.build_id]
        return False

    def _follow(self, kept: _Kept, source: LogSource) -> None:
        self._waiting.pop(kept.build.build_id, None)
        self._following += 1
        follower = Follower(
            kept.build,
            source,
            kept.log,
            supervisor=self._supervisor,
            settings=self._settings,
            metrics=self._metrics,
            jitter=self._jitter,
        )
        kept.follower = follower
        if kept.build.state.ended:
            follower.build_ended()
        self._tasks.spawn(self._run, kept, follower, name="follow a build")

    async def _run(self, kept: _Kept, follower: Follower) -> None:
        try:
            await follower.run()
        finally:
            self._following -= 1
            # It remembers output to compare with; the log needs none of that any more.
            kept.follower, kept.followed = None, True
            if kept.build.state.ended:
                kept.log.close()
            self._follow_next()

    # --- when logs are complete -------------------------------------------------------------------------

    def _end(self, kept: _Kept) -> None:
        """A build has ended: its log is complete when its follower, if there ever is one, is done."""
        if kept.follower is not None:
            kept.follower.build_ended()
        elif kept.followed:
            kept.log.close()
        elif kept.build.build_id not in self._waiting:
            # Nobody ever knew where its output was.
            if kept.build.state is not BuildState.NOT_STARTED:
                kept.log.append(FAILED)
            kept.log.close()

    # --- how much is kept -------------------------------------------------------------------------------

    def _new_log(self, build_id: str) -> BuildLog:
        return BuildLog(
            build_id,
            bus=self._bus,
            tasks=self._tasks,
            spool=self._spool,
            settings=self._settings,
            on_moved=self._make_room,
        )

    def _make_room(self) -> None:
        """Where there is too much on disk, drop the logs of ended builds, the oldest first."""
        if self._spool.used <= self._settings.max_total:
            return
        for build_id, kept in self._kept.items():
            if kept.log.closed and kept.log.file_size:
                log.warning("dropped the log of an ended build: there is too much", build_id=build_id)
                kept.log.drop_file()
                if self._spool.used <= self._settings.max_total:
                    return
