"""What a peer may ask of a server, and how much of what costs it nothing it may send.

Decisions only: `Limits` are numbers, an `Allowance` counts against the time it is told.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server.

    :ivar message_size: bytes of a request message; a larger one is refused before it is received.
    :ivar receiving: bytes of request messages that are being received, over all connections. Messages that
        fit one frame or so are not counted.
    :ivar connections: at the same time; more are closed at once.
    :ivar streams_per_connection: calls at the same time; more are refused, for the peer to try again.
    :ivar header_list_size: bytes of a request's headers, as HTTP/2 counts them.
    :ivar handshake: seconds a new connection may take until it speaks HTTP/2. After that it may be idle.
    :ivar keepalive: seconds after which a silent peer with open calls is asked for a sign of life.
    :ivar keepalive_timeout: seconds it may take to give one.
    """

    message_size: int = 4 << 20
    receiving: int = 256 << 20
    connections: int = 1_000
    streams_per_connection: int = 10_000
    header_list_size: int = 64 << 10
    handshake: float = 10.0
    keepalive: float = 60.0
    keepalive_timeout: float = 20.0


class CutOff(enum.Enum):
    """Why a connection was ended by this side."""

    CONNECTIONS = "too many connections"
    HANDSHAKE = "no handshake in time"
    PROTOCOL = "protocol error"
    RESETS = "flood of resets"
    REFUSED = "flood of refused streams"
    PINGS = "flood of pings"
    SETTINGS = "flood of settings"
    EMPTY = "flood of empty frames"
    CONTROL = "flood of control frames"


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
