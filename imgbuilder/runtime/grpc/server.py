"""The gRPC server: listens, limits, serves, and leaves in stages.

A stage each for `Server.drain` (take no new connections and calls, and say so), `Server.drained` (wait until
the open calls have ended by themselves) and `Server.stop` (end what is left). Built on grpclib's protocol,
whose internals it knows: where the libraries are not the ones it was written for, it warns and serves as grpclib does,
without limits.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Final, Self

import anyio
import anyio.to_thread
import grpclib.config
import grpclib.server
import structlog

from imgbuilder.runtime.grpc import internals
from imgbuilder.runtime.grpc.accepting import Accepting, set_up
from imgbuilder.runtime.grpc.addresses import Address, bound_address, listening_socket, parse_address
from imgbuilder.runtime.grpc.calls import Calls, CallServer
from imgbuilder.runtime.grpc.callstream import Receiving
from imgbuilder.runtime.grpc.codec import REQUESTS, ProtoCodec
from imgbuilder.runtime.grpc.connections import Connections
from imgbuilder.runtime.grpc.interceptors import Intercepted, Interceptor, Service
from imgbuilder.runtime.grpc.limits import CutOff, Limits, Room
from imgbuilder.runtime.grpc.offenders import Offenders
from imgbuilder.runtime.grpc.protocol import Hooks, Protocol
from imgbuilder.runtime.grpc.turns import Turns

log = structlog.get_logger(__name__)

STOPPING: Final = 5.0
"""Seconds that handlers may take to clean up when they are cancelled."""

CONFIGURATION: Final = grpclib.config.Configuration(_keepalive_time=None).__for_server__()
"""Without grpclib's own keepalive: see `imgbuilder.runtime.grpc.watch`."""


class Server:
    """Serves *services* on one address. Must be made where an event loop runs; use as an async context manager.

    :param interceptors: are called around each call, the first outermost.
    :param on_cut_off: is told when a connection was ended because of what its peer did.
    """

    def __init__(
        self,
        services: Collection[Service],
        *,
        limits: Limits | None = None,
        interceptors: Sequence[Interceptor] = (),
        on_cut_off: Callable[[CutOff], None] | None = None,
        codec: ProtoCodec | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._services = Intercepted(services, interceptors)
        self._codec = codec or ProtoCodec(REQUESTS)
        receiving = Receiving(
            message_size=limits.message_size, total=limits.receiving, timeout=limits.request
        )
        self._calls = CallServer(self._services.__mapping__(), self._codec, receiving)
        self._room = Room(limits.streams)
        self._turns = Turns()
        self._offenders = Offenders(on_cut_off)
        self._connections: Connections[Protocol] = Connections(limits.connections)
        self._set_ups: dict[Protocol, asyncio.Task[None]] = {}
        self._hooks = Hooks(
            busy=self._connections.busy,
            idle=self._connections.idle,
            lost=self._connections.remove,
            cut_off=self._cut_off,
        )
        self._tls: ssl.SSLContext | None = None
        self._accepting: Accepting | None = None
        self._address: Address | None = None
        self._stock: grpclib.server.Server | None = None

    async def listen(self, address: str, *, tls: ssl.SSLContext | None = None) -> Address:
        """Listen on *address*, see `imgbuilder.runtime.grpc.addresses`; the address that it got.

        :raises InvalidAddressError: if it is none.
        :raises OSError: if it can't be listened on.
        """
        # a host name is looked up, which blocks
        listener = await anyio.to_thread.run_sync(listening_socket, parse_address(address))
        self._address = bound_address(listener)
        self._tls = tls
        faults = internals.faults()
        if faults:
            log.warning("serving without limits: the gRPC libraries are not as expected", faults=faults)
            self._stock = grpclib.server.Server([self._services], codec=self._codec)
            await self._stock.start(sock=listener, ssl=tls)
        else:
            self._accepting = Accepting(listener, self._accepted)
        return self._address

    @property
    def address(self) -> Address:
        """Where the server listens, or did."""
        if self._address is None:
            raise RuntimeError("the server does not listen yet")
        return self._address

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    @property
    def open_calls(self) -> int:
        """How many calls have not ended."""
        return self._calls.open

    async def drain(self) -> None:
        """Take no new connections and no new calls, and tell all peers so; open calls go on. Never takes long.

        Peers are told when nobody listens any more: one that comes back at once must not be taken in again.
        """
        if self._accepting is not None:
            await self._accepting.stop()
        for protocol in self._connections:
            protocol.leave()

    async def drained(self) -> None:
        """Wait until no call is open. Bound it by a deadline: a call may stay open for as long as it likes."""
        await self._calls.none_open.wait()

    async def stop(self) -> None:
        """End all calls, with UNAVAILABLE where they can be told, and all connections. Never takes long."""
        if self._accepting is not None:
            await self._accepting.stop()
        if self._stock is not None:
            self._stock.close()
            await self._stock.wait_closed()
        for task in tuple(self._set_ups.values()):
            task.cancel()
        tasks = [task for protocol in self._connections for task in protocol.calls.tasks]
        for protocol in self._connections:
            protocol.refuse()
            protocol.calls.close()
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=STOPPING)
            if pending:
                log.warning("calls did not end when they were cancelled", calls=len(pending))
        # Only now GOAWAY: some clients, grpclib's too, drop what they wait for when they see it.
        for protocol in self._connections:
            protocol.leave()
            protocol.close()
        with anyio.move_on_after(STOPPING):
            await self._connections.none()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- connections

    def _accepted(self, connection: socket.socket, peer: Address) -> None:
        if not self._connections.has_room_for(peer.host):
            self._make_room(peer.host)
        if not self._connections.has_room_for(peer.host):
            connection.close()
            self._offenders.tell(CutOff.CONNECTIONS, host=peer.host)
            return
        protocol = Protocol(
            Calls(self._calls),
            CONFIGURATION,
            self._limits,
            self._hooks,
            room=self._room,
            turns=self._turns,
            peer=peer,
        )
        self._connections.add(protocol, peer.host)
        unowned = [connection]

        def end(_: asyncio.Task[None]) -> None:
            # Not at the end of the task's function: a task that is cancelled at once never gets there.
            del self._set_ups[protocol]
            if not protocol.made:
                self._connections.remove(protocol)
            for never_taken in unowned:
                never_taken.close()

        task = asyncio.get_running_loop().create_task(self._set_up(protocol, unowned))
        self._set_ups[protocol] = task
        task.add_done_callback(end)

    async def _set_up(self, protocol: Protocol, unowned: list[socket.socket]) -> None:
        """Make the connection of *protocol* with the one socket that is in *unowned*, and take it out."""
        blame = await set_up(protocol, unowned.pop(), tls=self._tls, patience=self._limits.handshake)
        if blame is not None:
            reason, fault = blame
            self._offenders.tell(reason, host=protocol.peer.host, fault=fault)

    def _make_room(self, host: str) -> None:
        """End a connection that has no calls, if there is one, for another from *host*."""
        protocol = self._connections.in_the_way_of(host)
        if protocol is None:
            return
        self._connections.remove(protocol)  # it is gone as soon as its peer has heard
        if protocol.made:
            protocol.make_room()
        else:
            self._cut_off(protocol, CutOff.ROOM, "")
            self._set_ups[protocol].cancel()

    def _cut_off(self, protocol: Protocol, reason: CutOff, fault: str) -> None:
        self._offenders.tell(reason, host=protocol.peer.host, fault=fault)
