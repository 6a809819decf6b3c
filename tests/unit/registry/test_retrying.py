"""When requests are sent again: in virtual time."""

from __future__ import annotations

import anyio
import httpx
import pytest

from imgbuilder.registry.errors import RegistryFaultError, RegistryUnreachableError
from imgbuilder.registry.http import Answer
from imgbuilder.registry.retrying import Retrying
from imgbuilder.registry.settings import BACKOFF

pytestmark = pytest.mark.looptime


class Exchange:
    """Gives one outcome after the other, and keeps when it was asked."""

    def __init__(self, *outcomes: int | Exception, headers: dict[str, str] | None = None) -> None:
        self._outcomes = list(outcomes)
        self._headers = httpx.Headers(headers)
        self._began = anyio.current_time()
        self.times: list[float] = []

    async def __call__(self) -> Answer:
        """The next outcome."""
        self.times.append(round(anyio.current_time() - self._began, 3))
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return Answer(status=outcome, headers=self._headers, body=b"")


def retrying(*, jitter: float = 0.0, wall_time: float = 0.0) -> Retrying:
    """With chance and the wall clock held still."""
    return Retrying(backoff=BACKOFF, wall_clock=lambda: wall_time, jitter=lambda: jitter)


@pytest.mark.parametrize(("jitter", "times"), [(0.0, [0, 0.25, 0.75, 1.75]), (1.0, [0, 0.5, 1.5, 3.5])])
async def test_pauses_grow(jitter: float, times: list[float]) -> None:
    """From half a second, less up to half of it; after three more attempts the last answer counts."""
    exchange = Exchange(500, 503, 502, 500, 200)
    answer = await retrying(jitter=jitter).run("a.test", exchange, retry=True)
    assert answer.status == 500
    assert exchange.times == times


async def test_without_retries_there_is_one_attempt() -> None:
    """Whatever comes of it."""
    exchange = Exchange(503, 200)
    assert (await retrying().run("a.test", exchange, retry=False)).status == 503
    assert exchange.times == [0]


async def test_connections_are_tried_again() -> None:
    """The last failure is raised."""
    lost = RegistryUnreachableError("a.test")
    exchange = Exchange(lost, lost, 200)
    assert (await retrying().run("a.test", exchange, retry=True)).status == 200
    assert exchange.times == [0, 0.25, 0.75]
    with pytest.raises(RegistryUnreachableError):
        await retrying().run("a.test", Exchange(lost, lost, lost, lost, 200), retry=True)


async def test_other_errors_are_not() -> None:
    """An answer that makes no sense will make none the next time."""
    exchange = Exchange(RegistryFaultError("a.test", "no"), 200)
    with pytest.raises(RegistryFaultError):
        await retrying().run("a.test", exchange, retry=True)
    assert exchange.times == [0]


@pytest.mark.parametrize("status", [200, 301, 401, 404, 501])
async def test_these_answers_count_at_once(status: int) -> None:
    """They will not change."""
    exchange = Exchange(status, 200)
    assert (await retrying().run("a.test", exchange, retry=True)).status == status


@pytest.mark.parametrize(
    ("value", "second"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 0.25),
        ("Thu, 01 Jan 1970 00:01:47 GMT", 7),
        ("Thu, 01 Jan 1970 00:00:47 GMT", 0.25),
        ("", 0.25),
        ("soon", 0.25),
        ("-5", 0.25),
        ("Thu, 99 Foo 1970", 0.25),
    ],
)
async def test_a_server_that_says_when(value: str, second: float) -> None:
    """In seconds, or as a date; what makes no sense is not heeded."""
    exchange = Exchange(429, 200, headers={"Retry-After": value})
    await retrying(wall_time=100).run("a.test", exchange, retry=True)
    assert exchange.times == [0, second]


async def test_no_pause_outlasts_the_deadline() -> None:
    """What there is by then is the answer, at once."""
    exchange = Exchange(429, 200, headers={"Retry-After": "9" * 400})
    with anyio.fail_after(40):
        answer = await retrying().run("a.test", exchange, retry=True)
    assert answer.status == 429
    lost = Exchange(RegistryUnreachableError("a.test"), 200)
    with pytest.raises(RegistryUnreachableError), anyio.fail_after(0.2):
        await retrying().run("a.test", lost, retry=True)
    assert (exchange.times, lost.times) == ([0], [0])
