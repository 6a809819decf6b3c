"""h2's connection, with the limits that it lacks on the side of a server.

A peer that floods is refused in the middle of what it sent, with GOAWAY and ENHANCE_YOUR_CALM; a frame that is
too large is refused when its header has come, not when all of it has; and opening a stream does not take
time in proportion to those that are open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import ProtocolError
from h2.frame_buffer import CONTINUATION_BACKLOG, FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from imgbuilder.runtime.grpc.limits import FLOODS, Allowance, CutOff, Limits

CONFIGURATION: Final = H2Configuration(
    client_side=False,
    header_encoding="latin-1",  # which decodes any byte; what is in them is judged when they are read
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)

STREAM_WINDOW: Final = 1 << 20
"""How many bytes of a request may come before its handler reads them."""
CONNECTION_WINDOW: Final = 16 << 20
"""The same for all requests of a connection: larger, so that one does not hold up the others."""


class FloodError(ProtocolError):
    """A peer sent more of something than it may."""

    error_code = ErrorCodes.ENHANCE_YOUR_CALM

    def __init__(self, reason: CutOff) -> None:
        super().__init__(reason.value)
        self.reason = reason


class FloodGuard:
    """Counts what a peer sends that costs it nothing.

    :param clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self._allowances = {reason: Allowance(flood, now) for reason, flood in FLOODS.items()}

    def received(self, frame: Frame) -> None:
        """Count a frame from the peer; not resets, for which see `reset`.

        :raises FloodError: if there were too many of its kind.
        """
        reason = _KINDS.get(frame.__class__)
        if reason is not None:
            self.count(reason)
        elif isinstance(frame, DataFrame) and not frame.data and "END_STREAM" not in frame.flags:
            self.count(CutOff.EMPTY)

    def reset(self, *, is_open: bool, is_young: bool) -> None:
        """Count a reset from the peer of a stream that was opened a moment ago, or longer ago, or has ended.

        :raises FloodError: if there were too many.
        """
        if not is_open:
            self.count(CutOff.CONTROL)  # a way to take note of the answer
        elif is_young:
            self.count(CutOff.RESETS)

    def count(self, reason: CutOff) -> None:
        """Count something that may lead to being cut off for *reason*.

        :raises FloodError: if it was too often.
        """
        if not self._allowances[reason].take(self._clock()):
            raise FloodError(reason)

    def sent(self, frames: int = 1) -> None:
        """So many frames of answers were sent to the peer."""
        for reason in _ANSWERING:
            self._allowances[reason].sent(frames)


_KINDS: Final = {
    PingFrame: CutOff.PINGS,
    SettingsFrame: CutOff.SETTINGS,
    PriorityFrame: CutOff.CONTROL,
    WindowUpdateFrame: CutOff.CONTROL,
    ExtensionFrame: CutOff.CONTROL,
}
_ANSWERING: Final = [reason for reason, flood in FLOODS.items() if flood.per_frame_sent]


_FRAME_HEADER: Final = 9


class ImpatientFrameBuffer(FrameBuffer):
    """Refuses a frame that is too large at once; h2's own first collects all of it, up to 16 MiB."""

    @property
    def missing(self) -> int:
        """How many bytes the frame still needs of which the header has come; 0 if there is none."""
        if len(self._data) < _FRAME_HEADER:
            return 0
        return max(0, _FRAME_HEADER + int.from_bytes(self._data[:3], "big") - len(self._data))

    def __next__(self) -> Frame:
        if len(self._data) >= 3:
            self._validate_frame_length(int.from_bytes(self._data[:3], "big"))
        return super().__next__()

    def _update_header_buffer(self, f: Frame | None) -> Frame | None:
        if len(self._headers_buffer) >= CONTINUATION_BACKLOG:
            raise FloodError(CutOff.HEADERS)  # which h2 would take for a mistake
        return super()._update_header_buffer(f)


class GuardedH2Connection(H2Connection):
    """The server's side of a connection.

    :param is_young: whether an open stream was opened only a moment ago.
    """

    MAX_CLOSED_STREAMS = 4096  # h2 remembers sixteen times as many, for the exact code of some errors

    def __init__(self, limits: Limits, guard: FloodGuard, *, is_young: Callable[[int], bool]) -> None:
        super().__init__(CONFIGURATION)
        self._is_young = is_young
        self._guard = guard
        self._sweep_at = 64
        self.incoming_buffer: ImpatientFrameBuffer = ImpatientFrameBuffer(server=True)
        self.decoder.max_header_list_size = limits.header_list_size
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams_per_connection,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_list_size,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )

    @property
    def missing(self) -> int:
        """How many bytes the frame still needs that is being received; 0 if that is not known."""
        return self.incoming_buffer.missing

    def begin(self) -> None:
        """Prepare what the server says first."""
        self.initiate_connection()
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    @property
    def open_inbound_streams(self) -> int:
        """None: the protocol limits them, by refusing streams where h2 would end the connection.

        Asked for at each new stream; the time to forget the closed ones, when they may be half of all.
        """
        if len(self.streams) >= self._sweep_at:
            self._sweep_at = 64 + 2 * super().open_inbound_streams
        return 0

    def _receive_frame(self, frame: Frame) -> list[Event]:
        if isinstance(frame, RstStreamFrame):
            stream = self.streams.get(frame.stream_id)
            is_open = stream is not None and not stream.closed
            self._guard.reset(is_open=is_open, is_young=is_open and self._is_young(frame.stream_id))
        else:
            self._guard.received(frame)
        return super()._receive_frame(frame)
