"""The libraries are what the transport was written for; where they are not, it still serves."""

from __future__ import annotations

from collections.abc import Iterator

import grpclib
import h2.connection
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.runtime.grpc import http2, internals, streams
from tests.unit.grpc.serving import STREAMING, Stream, ask, channel_to, replies, serving


@pytest.fixture(autouse=True)
def _ask_anew() -> Iterator[None]:
    internals.faults.cache_clear()
    yield
    internals.faults.cache_clear()


def test_the_libraries_are_as_expected() -> None:
    """If this fails after an update, look at what `imgbuilder.runtime.grpc` overrides before anything else."""
    assert internals.faults() == ()


def test_another_grpclib_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its version: too much of it is used to try it all out."""
    monkeypatch.setattr(grpclib, "__version__", "0.5.0")
    assert internals.faults() == ("grpclib is 0.5.0, not 0.4.9",)


def test_an_h2_that_counts_windows_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames by hand would exceed the windows, or use too little of them."""
    monkeypatch.setattr(streams, "consume_window", lambda *_: None)
    monkeypatch.setattr(internals, "consume_window", lambda *_: None)
    assert len(internals.faults()) == 1
    assert "DATA frames can't be made by hand" in internals.faults()[0]


def test_an_h2_without_the_hook_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frames can't be counted there are no limits."""
    monkeypatch.delattr(http2.GuardedH2Connection, "_receive_frame")
    assert any("frames can't be counted" in fault for fault in internals.faults())


def test_an_h2_that_lost_something_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of any kind are faults."""
    monkeypatch.delattr(h2.connection.H2Connection, "_open_streams")
    assert any("AttributeError" in fault for fault in internals.faults())


async def test_with_other_libraries_it_serves_as_grpclib_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls and what stands around them are the same."""
    monkeypatch.setattr(internals, "faults", lambda: ("something",))
    seen = []

    async def note(call: object, proceed: object) -> None:
        assert callable(proceed)
        seen.append(call)
        await proceed()

    async def fail(_: Stream) -> None:
        raise GRPCError(Status.ABORTED, "no")

    async with serving(fail, STREAMING, interceptors=[note]) as served, channel_to(served) as channel:
        assert (await ask(channel, "Echo", ref="hi")).content == b"hi"
        with pytest.raises(GRPCError, match="no"):
            await replies(channel)
        await served.server.drain()
        await served.server.drained()
    assert len(seen) == 2
