"""How long a peer may take for what, by a clock that does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from imgbuilder.runtime.grpc.limits import CutOff, Limits
from imgbuilder.runtime.grpc.watch import Watch

pytestmark = pytest.mark.looptime

LIMITS = Limits(handshake=10, keepalive=30, keepalive_timeout=20, idle=1800)


class Told:
    """What a watch tells, and when, in seconds since the beginning."""

    def __init__(self) -> None:
        self.at: list[tuple[str | CutOff, float]] = []
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def ping(self) -> None:
        """The peer is to be asked."""
        self._note("ping")

    def leave(self) -> None:
        """The connection is to be left."""
        self._note("leave")

    def give_up(self, reason: CutOff) -> None:
        """The peer is given up."""
        self._note(reason)

    def _note(self, what: str | CutOff) -> None:
        self.at.append((what, round(self._loop.time() - self._began, 3)))


@contextmanager
def watching(limits: Limits = LIMITS, *, hands: bool = True) -> Iterator[tuple[Watch, Told]]:
    """A watch of a peer that has shaken *hands*, or has not."""
    told = Told()
    watch = Watch(limits, ping=told.ping, give_up=told.give_up, leave=told.leave)
    if hands:
        watch.shook_hands()
    try:
        yield watch, told
    finally:
        watch.stop()


async def test_no_handshake() -> None:
    """Whatever else is sent meanwhile."""
    with watching(hands=False) as (watch, told):
        for _ in range(100):
            await anyio.sleep(1)
            watch.heard()
    assert told.at == [(CutOff.HANDSHAKE, 10)]


async def test_silence() -> None:
    """The peer is asked for a sign of life, and has its time to give one: with and without calls."""
    for busy in (False, True):
        with watching() as (watch, told):
            if busy:
                watch.busy()
            await anyio.sleep(1000)
        assert told.at == [("ping", 30), (CutOff.SILENT, 50)]


async def test_any_word_is_a_sign_of_life() -> None:
    """The answer to the question, or anything else; after that it is asked no sooner than at first."""
    with watching() as (watch, told):
        watch.busy()
        for _ in range(5):
            await anyio.sleep(40)
            watch.heard()
    assert told.at == [("ping", 30 + 40 * number) for number in range(5)]


async def test_who_speaks_is_not_asked() -> None:
    """For hours."""
    with watching() as (watch, told):
        watch.busy()
        for _ in range(1000):
            await anyio.sleep(20)
            watch.heard()
    assert told.at == []


async def test_a_connection_without_calls_is_left() -> None:
    """Once; the peer has to show that it lives until it has gone."""
    with watching() as (watch, told):
        for _ in range(80):
            await anyio.sleep(25)
            watch.heard()
        await anyio.sleep(100)
    assert told.at == [("leave", 1800), ("ping", 2030), (CutOff.SILENT, 2050)]


async def test_calls_keep_a_connection() -> None:
    """However long they take; the time begins when the last has ended."""
    limits = Limits(keepalive=1e6, idle=100)
    with watching(limits) as (watch, told):
        await anyio.sleep(99)
        watch.busy()
        await anyio.sleep(5000)
        watch.idle()
        await anyio.sleep(99)
        assert told.at == []


async def test_idleness_is_noticed_when_the_peer_is_asked_at_the_latest() -> None:
    """There is one timer, which calls do not move."""
    limits = Limits(keepalive=30, keepalive_timeout=20, idle=10)
    with watching(limits) as (watch, told):
        watch.busy()
        await anyio.sleep(15)
        watch.idle()
        await anyio.sleep(20)
    assert told.at == [("ping", 30), ("leave", 30)]


async def test_nothing_is_told_after_the_end() -> None:
    """Also if that came with what was told."""
    told = Told()

    def leave() -> None:
        told.leave()
        watch.stop()

    watch = Watch(
        Limits(idle=5, keepalive=5, keepalive_timeout=1), ping=told.ping, give_up=told.give_up, leave=leave
    )
    watch.shook_hands()
    await anyio.sleep(100)
    assert told.at == [("ping", 5), ("leave", 5)]
