"""One connection of the server: grpclib's protocol, made safe to be exposed.

What it adds: limits on what a peer may do (`limits`, `http2`, `watch`), turns for those that send much
(`turns`), errors that the peer is told before the connection is closed, frames and headers that are odd but
allowed, and leaving gracefully: GOAWAY first, the open calls go on, new ones are refused, and the connection is
closed when the last has ended.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import grpclib.config
import grpclib.protocol
import structlog
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import RemoteSettingsChanged
from h2.exceptions import DenialOfServiceError, ProtocolError
from hyperframe.frame import GoAwayFrame

from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.calls import Calls
from imgbuilder.runtime.grpc.connection import Connection
from imgbuilder.runtime.grpc.http2 import CONFIGURATION, FloodError, FloodGuard, GuardedH2Connection
from imgbuilder.runtime.grpc.limits import YOUNG, CutOff, Limits, Room
from imgbuilder.runtime.grpc.processor import Processor
from imgbuilder.runtime.grpc.streams import Stream
from imgbuilder.runtime.grpc.turns import SHARE, Turns
from imgbuilder.runtime.grpc.watch import Watch

log = structlog.get_logger(__name__)

PIECE: Final = 1 << 10
"""Bytes that are given to h2 at once, unless a frame needs more: there may be a hundred frames in them."""

WRITE_BUFFER: Final = 64 << 10
"""Bytes of answers that wait for the socket until calls have to wait, too. Over TLS the default is far more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a connection tells the server.

    :ivar busy: it has calls.
    :ivar idle: it has no calls any more.
    :ivar lost: it is gone.
    :ivar cut_off: this side ended it, for that reason; the text is what is known besides.
    """

    busy: Callable[[Protocol], None]
    idle: Callable[[Protocol], None]
    lost: Callable[[Protocol], None]
    cut_off: Callable[[Protocol, CutOff, str], None]


class Protocol(grpclib.protocol.H2Protocol):
    """What asyncio tells of one connection.

    :param calls: handles the calls; of this connection only.
    :param room: for calls; of all connections.
    :param turns: of all connections.
    :ivar peer: who is at the other end.
    :ivar made: whether it was made: the peer is connected, and TLS is set up.
    """

    connection: Connection
    processor: Processor

    def __init__(
        self,
        calls: Calls,
        config: grpclib.config.Configuration,
        limits: Limits,
        hooks: Hooks,
        *,
        room: Room,
        turns: Turns,
        peer: Address,
    ) -> None:
        super().__init__(calls, config, CONFIGURATION)
        self.calls = calls
        self.peer = peer
        self.made = False
        self._limits = limits
        self._hooks = hooks
        self._room = room
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._h2: GuardedH2Connection
        self._watch: Watch
        self._unhandled = b""
        self._ended = False
        self._leaving = False

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak HTTP/2."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER)
        guard = FloodGuard(self._loop.time)
        self._h2 = GuardedH2Connection(self._limits, guard, is_young=self._is_young)
        self._h2.begin()
        self.connection = Connection(self._h2, self._transport, config=self.config, guard=guard)
        self.connection.flush()
        self.processor = Processor(
            self.calls,
            self.connection,
            limits=self._limits,
            room=self._room,
            guard=guard,
            turns=self._turns,
        )
        self.calls.began, self.calls.ended = self._call_began, self._call_ended
        self._watch = Watch(self._limits, ping=self._ping, give_up=self.cut_off, leave=self.leave)
        self.made = True
        if self._leaving:  # it had to shake hands when the server told all to leave
            self._say_goodbye()

    def data_received(self, data: bytes) -> None:
        """Handle what the peer sent; if it is much, only a part of it, and the rest in turn with others."""
        self._watch.heard()
        if self._unhandled:
            self._unhandled += data  # read before reading was paused
            return
        self._unhandled = data
        if self._handle_some():
            self._transport.pause_reading()
            self._turns.wait_for_one(self._handle_more)

    def connection_lost(self, error: BaseException | None) -> None:
        """Cancel the calls of a connection that is gone."""
        if isinstance(error, ssl.SSLError) and not self._ended:
            self._hooks.cut_off(self, CutOff.TLS, error.reason or "")
        self._ended = True
        if self.made:
            self._watch.stop()
            self.processor.close("Connection lost")
        self._hooks.lost(self)

    # --- what the server calls

    def refuse(self) -> None:
        """Take no new calls."""
        if self.made:
            self.processor.refusing = True

    def leave(self) -> None:
        """Take no new calls, let the open ones end, then close. Tells the peer, who calls elsewhere from now on."""
        if self._ended or self._leaving:
            return
        self._leaving = True
        if self.made:
            self._say_goodbye()

    def close(self) -> None:
        """Close the connection when the peer has read what was sent to it, or some seconds later."""
        if self.made and not self._ended:
            self._end("Server closed")

    def cut_off(
        self, reason: CutOff, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM, fault: str = ""
    ) -> None:
        """End the connection, telling the peer *code*."""
        if self._ended:
            return
        if self._h2.state_machine.state is not ConnectionState.CLOSED:
            self._h2.close_connection(code)
        self._hooks.cut_off(self, reason, fault)
        self._end(reason.value)

    def make_room(self) -> None:
        """End the connection, which has no calls, for the sake of another."""
        if not self._ended:
            self._hooks.cut_off(self, CutOff.ROOM, "")
            self.connection.hasty = True
            self.leave()

    # --- receiving

    def _handle_some(self) -> bool:
        """Handle what was received, for no longer than its share; whether there is more."""
        data, position = self._unhandled, 0
        until = self._loop.time() + SHARE
        while position < len(data):
            if self._ended or self.connection.is_closing():
                self._unhandled = b""
                return False
            end = position + max(PIECE, self._h2.missing)
            self._receive(data[position:end])
            position = end
            if position < len(data) and self._loop.time() >= until:
                self._unhandled = data[position:]
                return True
        self._unhandled = b""
        return False

    def _handle_more(self) -> bool:
        more = self._handle_some()
        if not more and not self._transport.is_closing():
            self._transport.resume_reading()
        return more

    def _receive(self, data: bytes) -> None:
        try:
            events = self.connection.feed(data)
            self.connection.flush()
            for event in events:
                if event.__class__ is RemoteSettingsChanged:
                    self._watch.shook_hands()
                self.processor.process(event)
            self.connection.flush()
            if self.connection.unread > self._limits.unread:
                raise FloodError(CutOff.UNREAD)  # noqa: TRY301  # it ends as other floods do
        except FloodError as error:
            self.cut_off(error.reason)
        except DenialOfServiceError as error:
            self.cut_off(CutOff.HEADERS, fault=str(error))
        except ProtocolError as error:
            self.cut_off(CutOff.PROTOCOL, ErrorCodes.PROTOCOL_ERROR, fault=str(error))
        except Exception:
            log.exception("a frame could not be handled", peer=str(self.peer))
            self.cut_off(CutOff.PROTOCOL, ErrorCodes.INTERNAL_ERROR)

    # --- inside

    def _say_goodbye(self) -> None:
        self.refuse()
        # By hand: after a GOAWAY of its own, h2 would not let the open streams go on.
        goaway = GoAwayFrame(
            0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=ErrorCodes.NO_ERROR
        )
        self.connection.flush()
        self._transport.write(goaway.serialize())
        self._call_ended()

    def _end(self, reason: str) -> None:
        self._ended = True
        self._watch.stop()
        self.connection.flush()
        self.processor.close(reason)

    def _call_began(self) -> None:
        if len(self.processor.streams) == 1:
            self._watch.busy()
            self._hooks.busy(self)

    def _call_ended(self) -> None:
        if self.processor.streams or self._ended:
            return
        if self._leaving:
            self.close()
        else:
            self._watch.idle()
            self._hooks.idle(self)

    def _ping(self) -> None:
        self._h2.ping(bytes(8))
        self.connection.flush()

    def _is_young(self, stream_id: int) -> bool:
        stream = self.processor.streams.get(stream_id)
        return not isinstance(stream, Stream) or self._loop.time() - stream.opened < YOUNG
