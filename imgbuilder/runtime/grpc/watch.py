"""When a connection is ended because of what its peer does not do: shake hands, live, or use it.

Decides by the event loop's clock, with one timer a connection; what is done is up to who is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imgbuilder.runtime.grpc.limits import CutOff, Limits


class Watch:
    """Looks after one connection, from when it is made until `stop`.

    :param ping: asks the peer for a sign of life.
    :param give_up: is called once, when the peer did not shake hands in time, or gives no sign of life.
    :param leave: is called once, when there have been no calls for long. The watch goes on.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        ping: Callable[[], None],
        give_up: Callable[[CutOff], None],
        leave: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._ping = ping
        self._give_up = give_up
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._handshake_by: float | None = now + limits.handshake
        self._heard = now
        self._asked: float | None = None
        self._idle_since: float | None = now
        self._left = False
        self._timer: asyncio.TimerHandle | None = None
        self._look_at(self._next())

    def heard(self) -> None:
        """The peer has said something."""
        self._heard = self._loop.time()
        self._asked = None

    def shook_hands(self) -> None:
        """The peer speaks HTTP/2."""
        self._handshake_by = None

    def busy(self) -> None:
        """There are calls."""
        self._idle_since = None

    def idle(self) -> None:
        """There are no calls any more."""
        self._idle_since = self._loop.time()

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now, limits = self._loop.time(), self._limits
        if self._handshake_by is not None and now >= self._handshake_by:
            self._give_up(CutOff.HANDSHAKE)
            return
        if self._asked is not None and now >= self._asked + limits.keepalive_timeout:
            self._give_up(CutOff.SILENT)
            return
        if self._asked is None and now >= self._heard + limits.keepalive:
            self._asked = now
            self._ping()
        if self._idle_since is not None and not self._left and now >= self._idle_since + limits.idle:
            self._left = True
            self._leave()
        if self._timer is not None:  # none of those called stopped the watch
            self._look_at(self._next())

    def _next(self) -> float:
        """When there may be something to do. What happens meanwhile puts it off, or may wait until then."""
        limits = self._limits
        silent = (
            self._heard + limits.keepalive if self._asked is None else self._asked + limits.keepalive_timeout
        )
        times = [silent]
        if self._handshake_by is not None:
            times.append(self._handshake_by)
        if self._idle_since is not None and not self._left:
            times.append(self._idle_since + limits.idle)
        return min(times)

    def _look_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._look)
