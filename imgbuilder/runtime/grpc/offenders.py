"""Tells of peers that were cut off: a count of each, and a line in the log for each host, not for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from imgbuilder.runtime.grpc.limits import CutOff

log = structlog.get_logger(__name__)

PERIOD: Final = 10.0
"""Seconds in which what a host does again is not told again, but in one line at their end."""

HOSTS: Final = 1_000
"""For so many is told at the same time; beyond that, what others do is told as if they were one."""

OTHERS: Final = "others"


class Offenders:
    """What was done by whom, in the last seconds.

    :param count: is told of each connection that was cut off.
    """

    def __init__(self, count: Callable[[CutOff], None] | None = None) -> None:
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._again: dict[tuple[CutOff, str], int] = {}

    def tell(self, reason: CutOff, *, host: str, fault: str = "") -> None:
        """A connection from *host* was cut off for *reason*; *fault* is what is known besides."""
        if self._count is not None:
            self._count(reason)
        if len(self._again) >= HOSTS and (reason, host) not in self._again:
            host, fault = OTHERS, ""
        offence = (reason, host)
        if offence in self._again:
            self._again[offence] += 1
            return
        details = {"fault": fault} if fault else {}
        log.warning("a connection was cut off", reason=reason.value, peer=host, **details)
        self._again[offence] = 0
        self._loop.call_later(PERIOD, self._period_over, offence)

    def _period_over(self, offence: tuple[CutOff, str]) -> None:
        reason, host = offence
        connections = self._again.pop(offence)
        if connections:
            log.warning(
                "more connections were cut off", reason=reason.value, peer=host, connections=connections
            )
            self._again[offence] = 0
            self._loop.call_later(PERIOD, self._period_over, offence)
