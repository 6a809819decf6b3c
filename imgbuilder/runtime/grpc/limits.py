"""What a peer may ask of a server, and how much of what costs it nothing it may send.

Decisions only: `Limits` are numbers, `Room` is shared out, an `Allowance` counts against the time it is told.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server.

    :ivar message_size: bytes of a request message; a larger one is refused before it is received.
    :ivar receiving: bytes of request messages that are being received, over all connections. Small messages
        are not counted.
    :ivar request: seconds the one message of a request may take to come.
    :ivar connections: at the same time; four fifths of them from one host. For one more, that which has had
        no calls for longest makes room; if all have some, the new one is closed at once.
    :ivar streams: calls at the same time, over all connections; see `Room`.
    :ivar streams_per_connection: calls at the same time; more are refused, for the peer to try again.
    :ivar header_list_size: bytes of a request's headers, as HTTP/2 counts them.
    :ivar unread: bytes that may wait for a peer to read them, beyond what its windows and the socket's buffer
        bound: answers to frames that are no calls.
    :ivar handshake: seconds a new connection may take for TLS, and again until it speaks HTTP/2.
    :ivar idle: seconds after which a connection without calls is left, as when the server ends: its peer
        connects again when it needs to. There is no limit for the age of a connection: some clients, grpclib's
        too, break off all their calls when they are asked to leave.
    :ivar keepalive: seconds after which a peer that says nothing is asked for a sign of life.
    :ivar keepalive_timeout: seconds it may take to give one; anything that it sends is one.
    """

    message_size: int = 4 << 20
    receiving: int = 256 << 20
    request: float = 60.0
    connections: int = 1_000
    streams: int = 20_000
    streams_per_connection: int = 10_000
    header_list_size: int = 64 << 10
    unread: int = 1 << 20
    handshake: float = 10.0
    idle: float = 1800.0
    keepalive: float = 30.0
    keepalive_timeout: float = 20.0


class CutOff(enum.Enum):
    """Why a connection was ended by this side."""

    CONNECTIONS = "too many connections"
    ROOM = "idle where others need room"
    TLS = "TLS error"
    HANDSHAKE = "no handshake in time"
    PROTOCOL = "protocol error"
    HEADERS = "endless headers"
    RESETS = "flood of resets"
    REFUSED = "flood of refused streams"
    PINGS = "flood of pings"
    SETTINGS = "flood of settings"
    EMPTY = "flood of empty frames"
    CONTROL = "flood of control frames"
    UNREAD = "answers that are not read"
    SILENT = "no sign of life"


class Room:
    """How many more calls there may be, over all connections.

    What a connection may have is bounded by what is left for all: four times as much. So one that takes what it
    can get leaves a fifth to others. A tenth is kept for connections with few calls: they get their next as long as
    there are no more of them than that goes round to.

    :param total: calls at the same time. Those with large headers, which are kept, count as several.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._kept = total // KEPT

    @property
    def left(self) -> int:
        """How many more, if all are small."""
        return self._left

    def take(self, weight: int, own: int) -> bool:
        """Take room for a call of *weight* on a connection whose calls weigh *own*; False if it gets none."""
        left = self._left if own < FEW else self._left - self._kept
        if weight > left or own >= SHARE * left:
            return False
        self._left -= weight
        return True

    def give_back(self, weight: int) -> None:
        """A call has ended."""
        self._left += weight


SHARE: Final = 4
"""How many times what is left for all a connection may have."""

KEPT: Final = 10
"""Which part of all is kept for connections with few calls: a tenth."""

FEW: Final = 8

HEADERS_OF_ONE: Final = 4 << 10
"""Bytes of headers that a call has for the weight of one."""


def weight_of(headers: Iterable[tuple[str, str]]) -> int:
    """How many calls one with *headers* counts for."""
    return 1 + sum(len(name) + len(value) + 32 for name, value in headers) // HEADERS_OF_ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """How much of one kind of frame is no flood.

    :ivar burst: how many may come at once.
    :ivar rate: how many more each second.
    :ivar per_frame_sent: how many more for each frame that was sent to the peer: a reader may answer data with
        pings (to measure the bandwidth) and window updates, a caller its answer with a reset.
    """

    burst: int
    rate: float
    per_frame_sent: int = 0


FLOODS: Final = {
    CutOff.RESETS: Flood(burst=500, rate=50),
    CutOff.REFUSED: Flood(burst=1000, rate=100),
    CutOff.PINGS: Flood(burst=200, rate=2, per_frame_sent=5),
    CutOff.SETTINGS: Flood(burst=100, rate=1),
    CutOff.EMPTY: Flood(burst=100, rate=10),
    CutOff.CONTROL: Flood(burst=2000, rate=100, per_frame_sent=8),
}

YOUNG: Final = 1.0
"""Seconds a stream must have been open for its reset not to count: only resetting at once is an attack."""


class Allowance:
    """What is left of a `Flood` limit: a bucket that fills up again with time."""

    __slots__ = ("_at", "_flood", "_left")

    def __init__(self, flood: Flood, now: float) -> None:
        self._flood = flood
        self._left = float(flood.burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Use one up; False if there is none left."""
        flood = self._flood
        self._left = min(flood.burst, self._left + (now - self._at) * flood.rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def sent(self, frames: int = 1) -> None:
        """So many frames were sent to the peer."""
        self._left = min(self._flood.burst, self._left + frames * self._flood.per_frame_sent)
