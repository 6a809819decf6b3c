"""One connection of the server: grpclib's protocol, made safe to be exposed.

What it adds: limits on what a peer may do (`limits`, `http2`), errors that the peer is told before the
connection is closed, frames and headers that are odd but allowed, and leaving gracefully: GOAWAY first, the
open calls go on, new ones are refused, and the connection is closed when the last has ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import grpclib.config
import grpclib.protocol
import structlog
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RemoteSettingsChanged, RequestReceived, WindowUpdated
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame

from imgbuilder.runtime.grpc.calls import Calls
from imgbuilder.runtime.grpc.http2 import CONFIGURATION, FloodError, FloodGuard, GuardedH2Connection
from imgbuilder.runtime.grpc.limits import YOUNG, CutOff, Limits
from imgbuilder.runtime.grpc.streams import Stream

log = structlog.get_logger(__name__)

SLICE: Final = 16 << 10
"""How many bytes are given to h2 at once: so many that a flood in one large read is noticed early."""

CLOSING: Final = 2.0
"""Seconds a peer may take to read what is left for it when the connection is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a connection tells the server.

    :ivar opened: it was made; False if there are too many.
    :ivar lost: it is gone.
    :ivar cut_off: this side ended it.
    """

    opened: Callable[[Protocol], bool]
    lost: Callable[[Protocol], None]
    cut_off: Callable[[CutOff], None]


def _send_at_once(transport_socket: socket.socket | None) -> None:
    """Without waiting for acknowledgements of earlier, smaller writes: answers would take 40 ms.

    asyncio and grpclib do this, too, but not for sockets that were accepted from a listener of our own.
    """
    if transport_socket is not None and transport_socket.family in {socket.AF_INET, socket.AF_INET6}:
        transport_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class Connection(grpclib.protocol.Connection):
    """grpclib's connection, whose streams are ours."""

    def __init__(
        self,
        connection: H2Connection,
        transport: asyncio.Transport,
        *,
        config: grpclib.config.Configuration,
        guard: FloodGuard,
    ) -> None:
        super().__init__(connection, transport, config=config)
        self.waiting: set[grpclib.protocol.Stream] = set()
        self._guard = guard

    def create_stream(self, *, stream_id: int | None = None, wrapper: Any = None) -> Stream:
        """A stream that the peer has opened."""
        return Stream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def close(self) -> None:
        """Say no more, and close the transport when the peer has done so, or some seconds later.

        Until then what the peer sends is dropped. Closing while there is something to read would make the
        system reset the connection, and the peer would never see why it was closed.
        """
        transport: asyncio.Transport | None = self.__dict__.pop("_transport", None)
        super().close()  # closes no transport, as there is none any more
        if transport is None:
            return
        self._connection._frame_dispatch_table.clear()  # noqa: SLF001  # as grpclib does, against cycles
        self.write_ready.set()  # whoever waits for it would wait forever
        try:
            transport.write_eof()
        except (OSError, NotImplementedError):
            transport.close()  # the peer is gone; or over TLS, where it waits for the peer by itself
        asyncio.get_running_loop().call_later(CLOSING, transport.abort)

    def flush(self) -> None:
        """Send what h2 has prepared, unless the connection is closed."""
        if not self.is_closing():
            super().flush()

    def headers_send_process(self) -> None:
        """Headers were sent."""
        super().headers_send_process()
        self._guard.sent()

    def data_send_process(self, frames: int = 1) -> None:
        """Data were sent."""
        super().data_send_process()
        self._guard.sent(frames)


class Processor(grpclib.protocol.EventsProcessor):
    """grpclib's dispatcher of events, which refuses streams and overlooks what it does not know."""

    connection: Connection
    refusing = False

    def __init__(self, calls: Calls, connection: Connection, limits: Limits, guard: FloodGuard) -> None:
        super().__init__(calls, connection)
        self._limits = limits
        self._guard = guard
        self.closed = False

    def process(self, event: Event) -> None:
        """Handle an event; one of an unknown kind, of an unknown frame, means nothing (RFC 9113, 5.5)."""
        if not self.closed and event.__class__ in self.processors:
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        """Begin with a call."""
        stream_id = event.stream_id
        connection = self.connection._connection  # noqa: SLF001  # grpclib has no other way to it
        stream = connection.streams.get(stream_id)
        if stream is None or stream.closed:
            return  # reset by now: nobody waits for an answer
        if self.refusing or len(self.streams) >= self._limits.streams_per_connection:
            connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            self._guard.count(CutOff.REFUSED)
        else:
            super().process_request_received(event)
            cast("Stream", self.streams[stream_id]).opened = asyncio.get_running_loop().time()

    def process_data_received(self, event: DataReceived) -> None:
        """Keep the data for whoever reads the stream. Empty data say nothing, and would confuse grpclib's buffer."""
        if event.flow_controlled_length:
            super().process_data_received(event)

    def process_window_updated(self, event: WindowUpdated) -> None:
        """Wake who waits for the window; not all streams, which may be thousands, for that of the connection."""
        if event.stream_id:
            super().process_window_updated(event)
        else:
            for stream in self.connection.waiting:
                stream.window_updated.set()

    def close(self, reason: str = "Connection closed") -> None:
        """Close the connection and cancel its calls. Once: cancelling again would break off their clean-up."""
        if not self.closed:
            self.closed = True
            super().close(reason)


class Protocol(grpclib.protocol.H2Protocol):
    """What asyncio tells of one connection.

    :param calls: handles the calls; of this connection only.
    """

    processor: Processor

    def __init__(
        self,
        calls: Calls,
        config: grpclib.config.Configuration,
        limits: Limits,
        hooks: Hooks,
    ) -> None:
        super().__init__(calls, config, CONFIGURATION)
        self.calls = calls
        self._limits = limits
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._h2: GuardedH2Connection
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._leaving = False

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak HTTP/2."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._hooks.opened(self):
            self._ended = True
            self._hooks.cut_off(CutOff.CONNECTIONS)
            self._transport.abort()
            return
        _send_at_once(transport.get_extra_info("socket"))
        guard = FloodGuard(self._loop.time)
        self._h2 = GuardedH2Connection(self._limits, guard, is_young=self._is_young)
        self._h2.begin()
        self.connection = Connection(self._h2, self._transport, config=self.config, guard=guard)
        self.connection.flush()
        self.connection.initialize()
        self.processor = Processor(self.calls, self.connection, self._limits, guard)
        self.calls.ended = self._call_ended
        self._timer = self._loop.call_later(self._limits.handshake, self.cut_off, CutOff.HANDSHAKE)

    def data_received(self, data: bytes) -> None:
        """Handle what the peer sent."""
        for start in range(0, len(data), SLICE):
            if self._ended or self.connection.is_closing():
                return
            self._receive(data[start : start + SLICE])

    def connection_lost(self, _: BaseException | None) -> None:
        """Cancel the calls of a connection that is gone."""
        self._ended = True
        self._stop_timer()
        if hasattr(self, "processor"):
            self.processor.close("Connection lost")
        self._hooks.lost(self)

    # --- what the server calls

    def refuse(self) -> None:
        """Take no new calls."""
        self.processor.refusing = True

    def leave(self) -> None:
        """Take no new calls, let the open ones end, then close. Tells the peer, who calls elsewhere from now on."""
        if self._ended or self._leaving:
            return
        self._leaving = True
        self.refuse()
        # By hand: after a GOAWAY of its own, h2 would not let the open streams go on.
        goaway = GoAwayFrame(
            0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=ErrorCodes.NO_ERROR
        )
        self.connection.flush()
        self._writing_transport.write(goaway.serialize())
        self._call_ended()

    def close(self) -> None:
        """Close the connection when the peer has read what was sent to it, or some seconds later."""
        if not self._ended:
            self._ended = True
            self._end("Server closed")

    def cut_off(self, reason: CutOff, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
        """End the connection, telling the peer *code*."""
        if self._ended:
            return
        self._ended = True
        if self._h2.state_machine.state is not ConnectionState.CLOSED:
            self._h2.close_connection(code)
        self._hooks.cut_off(reason)
        self._end(reason.value)

    # --- inside

    @property
    def _writing_transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101  # the connection was made
        return self._transport

    def _receive(self, data: bytes) -> None:
        try:
            events = self.connection.feed(data)
            self.connection.flush()
            for event in events:
                if event.__class__ is RemoteSettingsChanged:
                    self._stop_timer()
                self.processor.process(event)
            self.connection.flush()
        except FloodError as error:
            self.cut_off(error.reason)
        except ProtocolError as error:
            log.info("a peer broke the protocol", peer=self._peer(), fault=str(error))
            self.cut_off(CutOff.PROTOCOL, ErrorCodes.PROTOCOL_ERROR)
        except Exception:
            log.exception("a frame could not be handled", peer=self._peer())
            self.cut_off(CutOff.PROTOCOL, ErrorCodes.INTERNAL_ERROR)

    def _end(self, reason: str) -> None:
        self._stop_timer()
        self.connection.flush()
        self.processor.close(reason)

    def _call_ended(self) -> None:
        if self._leaving and not self.processor.streams:
            self.close()

    def _is_young(self, stream_id: int) -> bool:
        stream = self.processor.streams.get(stream_id)
        return not isinstance(stream, Stream) or self._loop.time() - stream.opened < YOUNG

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _peer(self) -> str:
        return str(self._writing_transport.get_extra_info("peername"))
