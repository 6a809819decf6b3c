"""When a request is sent again, and how long after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Final

import anyio
import structlog

from imgbuilder.core.backoff import Backoff
from imgbuilder.registry.errors import RegistryUnreachableError
from imgbuilder.registry.http import Answer

log = structlog.get_logger(__name__)

RETRIES: Final = 3
RATE_LIMITED: Final = 429
NOT_IMPLEMENTED: Final = 501


class Retrying:
    """Sends again what failed for a reason that may pass: no connection, 429, and 5xx but 501."""

    def __init__(
        self,
        *,
        backoff: Backoff,
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._backoff = backoff
        self._wall_clock = wall_clock
        self._jitter = jitter

    async def run(
        self,
        registry: str,
        exchange: Callable[[], Awaitable[Answer]],
        *,
        retry: bool,
    ) -> Answer:
        """The first good answer of *exchange*, or the last of its answers or errors.

        Does not begin a pause that would outlast the deadline it runs under.

        :param retry: whether to send again at all.
        :raises RegistryUnreachableError: as *exchange* does, if the last attempt does.
        """
        for attempt in range(RETRIES if retry else 0):
            pause = self._backoff.delay(attempt, self._jitter())
            try:
                answer = await exchange()
            except RegistryUnreachableError as error:
                if not _there_is_time(pause):
                    raise
                reason = error.fault
            else:
                if not _may_pass(answer.status):
                    return answer
                pause = self.retry_after(answer) or pause
                if not _there_is_time(pause):
                    return answer
                reason = f"status {answer.status}"
            log.info("registry is asked again", registry=registry, reason=reason, seconds=round(pause, 3))
            await anyio.sleep(pause)
        return await exchange()

    def retry_after(self, answer: Answer) -> float | None:
        """In how many seconds a server wants to be asked again; None if it does not say."""
        value = answer.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            moment = parsedate_to_datetime(value).timestamp()
        except (ValueError, OverflowError):
            return None
        return max(0.0, moment - self._wall_clock())


def _may_pass(status: int) -> bool:
    return status == RATE_LIMITED or (status >= 500 and status != NOT_IMPLEMENTED)


def _there_is_time(pause: float) -> bool:
    return anyio.current_time() + pause < anyio.current_effective_deadline()
