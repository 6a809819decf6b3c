"""Connections: in virtual time, with clients that are never used."""

from __future__ import annotations

import anyio
import httpx
import pytest

from imgbuilder.registry.connections import IDLE, MOST_IDLE_HOSTS, Connections

pytestmark = pytest.mark.looptime


class Opened:
    """Makes clients, and keeps them."""

    def __init__(self) -> None:
        self.clients: list[httpx.AsyncClient] = []

    def __call__(self) -> httpx.AsyncClient:
        """A client without a network."""
        self.clients.append(httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
        return self.clients[-1]

    @property
    def open(self) -> int:
        """How many are not closed."""
        return sum(not client.is_closed for client in self.clients)


async def test_a_connection_is_used_again() -> None:
    """By one user after the other; another host has its own."""
    opened = Opened()
    connections = Connections(per_host=2, connect=opened)
    async with connections.to("a") as first:
        pass
    async with connections.to("a") as second, connections.to("b") as other:
        assert second is first
        assert other is not first
    await connections.close()
    assert opened.open == 0


async def test_users_wait_for_a_place() -> None:
    """In turn; one that leaves while waiting takes none."""
    opened = Opened()
    connections = Connections(per_host=2, connect=opened)
    order: list[int] = []

    async def use(number: int) -> None:
        async with connections.to("a"):
            order.append(number)
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(use, number)
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.5):
            await use(99)
    assert order == [0, 1, 2, 3]
    assert len(opened.clients) == 2
    await connections.close()


async def test_a_connection_of_somebody_who_fails_is_closed() -> None:
    """Or is cancelled: there may be half an answer on it."""
    opened = Opened()
    connections = Connections(per_host=1, connect=opened)
    with pytest.raises(ValueError, match="no"):
        async with connections.to("a"):
            raise ValueError("no")
    with anyio.move_on_after(1):
        async with connections.to("a"):
            await anyio.sleep_forever()
    assert opened.open == 0
    async with connections.to("a"):
        assert opened.open == 1
    await connections.close()


async def test_connections_that_nobody_uses_are_closed() -> None:
    """Their time is counted from the last use."""
    opened = Opened()
    connections = Connections(per_host=1, connect=opened)
    for host in ("a", "b", "c"):
        async with connections.to(host):
            await anyio.sleep(IDLE / 2)
    assert [client.is_closed for client in opened.clients] == [True, False, False]
    await connections.close()
    assert opened.open == 0


async def test_the_number_of_hosts_is_bounded() -> None:
    """The ones used longest ago make room, unless they are in use."""
    opened = Opened()
    connections = Connections(per_host=1, connect=opened)
    async with connections.to("in use"):
        for number in range(MOST_IDLE_HOSTS + 10):
            async with connections.to(str(number)):
                pass
        assert not opened.clients[0].is_closed
    async with connections.to("one more"):
        pass
    assert opened.open <= MOST_IDLE_HOSTS
    await connections.close()
    assert opened.open == 0
