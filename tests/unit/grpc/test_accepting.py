"""Accepting connections, many at the same time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio

from imgbuilder.runtime.grpc.accepting import AT_ONCE, Accepting
from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.limits import CutOff, Limits
from tests.unit.grpc.raw import raw_client
from tests.unit.grpc.serving import serving


@contextmanager
def peers(host: str, port: int, number: int) -> Iterator[list[socket.socket]]:
    """So many who connect before anybody has a chance to accept one."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((host, port))) for _ in range(number)]


async def test_others_have_a_turn() -> None:
    """However many wait to be accepted."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=3 * AT_ONCE)
    listener.setblocking(False)
    accepted: list[int] = []
    all_accepted = asyncio.Event()

    def accept(connection: socket.socket, _: Address) -> None:
        connection.close()
        accepted.append(turns)
        if len(accepted) == 2 * AT_ONCE + 1:
            all_accepted.set()

    turns = 0
    host, port = listener.getsockname()
    with peers(host, port, 2 * AT_ONCE + 1):
        accepting = Accepting(listener, accept)
        with anyio.fail_after(30):
            while not all_accepted.is_set():
                turns += 1
                await asyncio.sleep(0)
        await accepting.stop()
    assert max(map(accepted.count, accepted)) <= AT_ONCE


async def test_a_burst_of_more_than_there_may_be() -> None:
    """Those that have to go before anything was done for them leave nothing behind, and are closed."""
    async with serving(limits=Limits(connections=2)) as served:
        with peers(served.address.host, served.address.port, 20) as connected:
            for peer in connected[:18]:
                peer.settimeout(30)
                assert await anyio.to_thread.run_sync(peer.recv, 1) == b""
            assert served.server.connections == 2
        with anyio.fail_after(30):
            await served.server._connections.none()
        assert not served.server._set_ups
        assert served.cut_offs == [CutOff.ROOM] * 18
        async with raw_client(served.address) as client:
            await client.ping()
