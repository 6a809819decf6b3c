"""Which connection makes room, and for whom there is some."""

from __future__ import annotations

import anyio

from imgbuilder.runtime.grpc.connections import Connections


def filled(most: int, hosts: str) -> Connections[int]:
    """Connections from these hosts, one from each letter, numbered."""
    connections = Connections[int](most)
    for number, host in enumerate(hosts):
        assert connections.has_room_for(host)
        connections.add(number, host)
    return connections


async def test_that_without_calls_for_longest_makes_room() -> None:
    """Since when it has had no calls counts, not since when it is there."""
    connections = filled(3, "aaa")
    assert not connections.has_room_for("a")
    assert connections.in_the_way_of("a") == 0
    connections.busy(0)
    assert connections.in_the_way_of("a") == 1
    connections.idle(0)
    connections.remove(1)
    connections.idle(1)  # its last call ends when it has gone
    assert connections.has_room_for("a")
    assert connections.in_the_way_of("b") == 2
    connections.busy(2)
    connections.busy(0)
    assert connections.in_the_way_of("b") is None
    assert sorted(connections) == [0, 2]
    assert len(connections) == 2


async def test_one_host_never_has_all() -> None:
    """Others get some: where it has its share, only its own make room for it."""
    connections = filled(10, "b" + 8 * "a")
    assert not connections.has_room_for("a")
    assert connections.has_room_for("b")
    assert connections.in_the_way_of("a") == 1
    for number in range(1, 9):
        connections.busy(number)
    assert connections.in_the_way_of("a") is None
    connections.add(9, "b")
    assert not connections.has_room_for("c")
    assert connections.in_the_way_of("c") == 0
    connections.remove(8)
    assert connections.has_room_for("a")


async def test_very_few_may_be_from_one_host() -> None:
    """A share is rounded up."""
    assert not filled(1, "a").has_room_for("a")
    assert not filled(4, "aaaa").has_room_for("b")


async def test_waiting_until_there_are_none() -> None:
    """At once if there never was one."""
    connections = Connections[str](3)
    await connections.none()
    connections.add("x", "a")
    async with anyio.create_task_group() as group:
        group.start_soon(connections.none)
        await anyio.lowlevel.checkpoint()
        connections.remove("x")
        connections.remove("x")
