"""What the events of a connection mean: calls that begin, go on and end, or are refused."""

from __future__ import annotations

import asyncio
from typing import Final, cast

import grpclib.protocol
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, WindowUpdated

from imgbuilder.runtime.grpc.calls import Calls
from imgbuilder.runtime.grpc.connection import Connection
from imgbuilder.runtime.grpc.http2 import FloodGuard
from imgbuilder.runtime.grpc.limits import CutOff, Limits, Room, weight_of
from imgbuilder.runtime.grpc.streams import Stream
from imgbuilder.runtime.grpc.turns import Turns

ENDED_AT_ONCE: Final = 100
"""How many calls are cancelled at once: each has something to clean up, and they all do that in the same round."""


class Processor(grpclib.protocol.EventsProcessor):
    """grpclib's dispatcher of events, which refuses streams and overlooks what it does not know.

    :param room, turns: are shared by all connections of the server.
    :ivar refusing: whether no new calls are taken.
    """

    connection: Connection

    def __init__(
        self,
        calls: Calls,
        connection: Connection,
        *,
        limits: Limits,
        room: Room,
        guard: FloodGuard,
        turns: Turns,
    ) -> None:
        super().__init__(calls, connection)
        self.refusing = False
        self.closed = False
        self._limits = limits
        self._room = room
        self._weight = 0  # of the open calls
        self._guard = guard
        self._turns = turns

    def process(self, event: Event) -> None:
        """Handle an event; one of an unknown kind, of an unknown frame, means nothing (RFC 9113, 5.5)."""
        if not self.closed and event.__class__ in self.processors:
            super().process(event)

    def process_request_received(self, event: RequestReceived) -> None:
        """Begin with a call, or refuse it.

        :raises FloodError: if that was done too often.
        """
        stream_id = event.stream_id
        connection = self.connection._connection  # noqa: SLF001  # grpclib has no other way to it
        of_h2 = connection.streams.get(stream_id)
        if of_h2 is None or of_h2.closed:
            return  # reset by now: nobody waits for an answer
        headers = cast("list[tuple[str, str]]", event.headers)  # decoded, as h2 was told
        weight = weight_of(headers)
        if not self._takes(weight):
            connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            self._guard.count(CutOff.REFUSED)
            return
        stream = self.connection.create_stream(stream_id=stream_id)
        stream.opened = asyncio.get_running_loop().time()
        release = self.register(stream)

        def ended() -> None:
            self._weight -= weight
            self._room.give_back(weight)
            release()

        self.handler.accept(stream, headers, ended)

    def process_data_received(self, event: DataReceived) -> None:
        """Keep the data for whoever reads the stream. Empty data say nothing, and would confuse grpclib's buffer."""
        size = event.flow_controlled_length
        if not size:
            return
        stream = cast("Stream | None", self.streams.get(event.stream_id))
        if stream is not None and stream.deaf:
            self.connection.ack(event.stream_id, size)
        else:
            super().process_data_received(event)

    def process_window_updated(self, event: WindowUpdated) -> None:
        """Wake who waits for the window; not all streams, which may be thousands, for that of the connection."""
        if event.stream_id:
            super().process_window_updated(event)
        else:
            for stream in self.connection.waiting:
                stream.window_updated.set()

    def close(self, reason: str = "Connection closed") -> None:
        """Close the connection and cancel its calls, some at once, the rest in turn with others.

        Once: cancelling again would break off their clean-up.
        """
        if self.closed:
            return
        self.closed = True
        self.connection.close()
        del self.processors  # as grpclib does, against cycles
        ending = list(self.streams.values())

        def end_some() -> bool:
            for stream in ending[-ENDED_AT_ONCE:]:
                if stream.id in self.streams:
                    stream.__terminated__(reason)
                    self.handler.cancel(stream)
            del ending[-ENDED_AT_ONCE:]
            return bool(ending)

        if end_some():
            self._turns.wait_for_one(end_some)

    def _takes(self, weight: int) -> bool:
        if self.refusing or len(self.streams) >= self._limits.streams_per_connection:
            return False
        if not self._room.take(weight, self._weight):
            return False
        self._weight += weight
        return True
