"""Which connection makes room."""

from __future__ import annotations

import anyio

from imgbuilder.runtime.grpc.connections import Connections


async def test_the_longest_idle() -> None:
    """Since when it has had no calls counts, not since when it is there."""
    connections = Connections[str](3)
    for name in "abc":
        assert not connections.full
        connections.add(name)
    assert connections.full
    assert connections.longest_idle() == "a"
    connections.busy("a")
    assert connections.longest_idle() == "b"
    connections.idle("a")
    connections.remove("b")
    connections.idle("b")  # its last call ends when it has gone
    assert connections.longest_idle() == "c"
    connections.busy("c")
    connections.busy("a")
    assert connections.longest_idle() is None
    assert sorted(connections) == ["a", "c"]
    assert len(connections) == 2


async def test_waiting_until_there_are_none() -> None:
    """At once if there never was one."""
    connections = Connections[str](3)
    await connections.none()
    connections.add("a")
    async with anyio.create_task_group() as group:
        group.start_soon(connections.none)
        await anyio.lowlevel.checkpoint()
        connections.remove("a")
        connections.remove("a")
