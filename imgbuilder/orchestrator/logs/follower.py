"""Follows the output of one build: asks its supervisor until there is a terminal, listens, writes into the log.

A stream that breaks is taken up again, as long as the build runs. Decides when to ask again and what is told
in the log about that; what the bytes mean is decided in `imgbuilder.core`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Final, Protocol

import anyio
import structlog

from imgbuilder.core.builds import Build, LogSource
from imgbuilder.core.censoring import Censor, words_of
from imgbuilder.core.splicing import Gap, Splicer
from imgbuilder.core.terminal import Event, ExitCode, ListenDecoder, Output, Skipped, StreamError
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.orchestrator.ports import Supervisor
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.wsman.errors import SupervisorError

log = structlog.get_logger(__name__)

CONNECTING: Final = b"Connecting to log output ...\n"
CONNECTED: Final = b"Connected to log output ...\n"
FAILED: Final = (
    b"Build log listener failed. The image build is still running, but you won't see any log output.\n"
)
GAP: Final = b"\n[... output may be missing here: the connection to the build was lost for too long ...]\n"

MOST_DENIALS: Final = 5
"""How often in a row a supervisor may refuse the owner token. A proxy before it may know a new one late."""


class _Outcome(enum.Enum):
    """How an attempt to follow ended."""

    UNREACHED = "there was no listen stream"
    BROKEN = "the listen stream ended, and the task had not"
    COMPLETE = "the task has ended"


class Sink(Protocol):
    """Where output goes."""

    def append(self, data: bytes) -> None:
        """Add *data*."""
        ...


class Follower:
    """Follows one build, once. The methods but `run` may be called at any time, and return at once.

    :param jitter: spreads the delays; in [0, 1).
    """

    def __init__(
        self,
        build: Build,
        source: LogSource,
        sink: Sink,
        *,
        supervisor: Supervisor,
        settings: LogSettings,
        metrics: Metrics,
        jitter: Callable[[], float],
    ) -> None:
        self._log = log.bind(build_id=build.build_id)
        self._source = source
        self._sink = sink
        self._supervisor = supervisor
        self._settings = settings
        self._metrics = metrics
        self._jitter = jitter
        self._censor = Censor(words_of(build.ref, build.base_ref))
        self._splicer = Splicer()
        self._terminal: str | None = None
        """Alias of the terminal that was listened to; None before the first."""
        self._denials = 0
        self._failure_told = False
        self._progress = False
        self._build_ended = False
        self._stopped = False
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()

    # --- what changes around it -------------------------------------------------------------------------

    def move(self, source: LogSource) -> None:
        """The supervisor is at *source* now. Counts from the next attempt on, which is due at once."""
        if source != self._source:
            self._source = source
            self._denials = 0
            self._changed.set()

    def build_ended(self) -> None:
        """The build has ended: take what the supervisor still sends, for a moment.

        Where nothing was connected there is one more attempt: a short build may end between two.
        """
        if not self._build_ended:
            self._build_ended = True
            self._scope.deadline = anyio.current_time() + self._settings.grace
            self._changed.set()

    def stop(self) -> None:
        """Nobody needs the log any more."""
        self._stopped = True
        self._scope.cancel()

    # --- following --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow until the task's exit code, or until the build has ended and nothing more comes."""
        with self._scope:
            self._sink.append(CONNECTING)
            await self._follow()
        if self._stopped:
            return
        self._sink.append(self._censor.flush())
        if self._terminal is None:
            self._tell_failure()

    async def _follow(self) -> None:
        attempt = 0
        while True:
            last = self._build_ended
            self._changed = anyio.Event()
            self._progress = False
            outcome = await self._attempt()
            if outcome is _Outcome.COMPLETE:
                return
            if self._build_ended and last:
                return  # one attempt that began after the end has had all there was to have
            if self._progress:
                attempt = 0
            await self._pause(attempt)
            attempt += 1

    async def _pause(self, attempt: int) -> None:
        """Wait until it makes sense to try again: at once if something has changed."""
        delay = self._settings.retry.delay(attempt, self._jitter())
        if self._denials >= MOST_DENIALS:
            self._tell_failure()
            delay = math.inf
        with anyio.move_on_after(delay):
            await self._changed.wait()

    async def _attempt(self) -> _Outcome:
        outcome = _Outcome.UNREACHED
        try:
            terminal = await self._supervisor.terminal(self._source)
            self._denials = 0
            if terminal is not None:
                async with self._supervisor.listen(self._source, terminal) as stream:
                    outcome = _Outcome.BROKEN
                    self._take_up(terminal)
                    decoder = ListenDecoder()
                    async for data in stream:
                        ended = self._take_in(decoder.feed(data))
                        if ended is not None:
                            return ended
        except SupervisorError as error:
            self._denials = self._denials + 1 if error.denied else 0
            self._log.debug("no build log for now", reason=error.fault, listened=outcome is _Outcome.BROKEN)
        return outcome

    def _take_up(self, terminal: str) -> None:
        """A listen stream begins: it repeats what *terminal* printed last."""
        if self._terminal is None:
            self._sink.append(CONNECTED)
        if self._terminal == terminal:
            self._splicer.restart()
        else:
            self._splicer = Splicer()
        self._log.info("listening to a build", again=self._terminal is not None)
        self._terminal = terminal

    def _take_in(self, events: list[Event]) -> _Outcome | None:
        """Write output into the log; how the stream ended, if that is among *events*."""
        for event in events:
            match event:
                case Output(data):
                    self._metrics.log_received(len(data))
                    for piece in self._splicer.feed(data):
                        self._write(piece)
                case Skipped(reason):
                    self._metrics.log_line_skipped()
                    self._log.debug("a part of a listen stream was skipped", reason=reason)
                case StreamError(text):
                    self._log.info("a supervisor ended a listen stream", reason=text)
                    return _Outcome.BROKEN
                case ExitCode(code):
                    self._log.info("the task of a build has ended", exit_code=code)
                    return _Outcome.COMPLETE
        return None

    def _write(self, piece: bytes | Gap) -> None:
        self._progress = True
        if isinstance(piece, Gap):
            self._sink.append(self._censor.flush() + GAP)
        else:
            self._sink.append(self._censor.feed(piece))

    def _tell_failure(self) -> None:
        if not self._failure_told:
            self._failure_told = True
            self._log.warning("the log of a build can't be had")
            self._sink.append(FAILED)
