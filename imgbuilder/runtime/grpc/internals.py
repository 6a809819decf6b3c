"""Whether grpclib and h2 are what this package was written for.

It overrides and reads what the two do not promise to keep. grpclib is pinned, so its version decides; h2 may
be updated, so what is relied on is tried out, on a short conversation in memory.
"""

from __future__ import annotations

import functools
from typing import Final

import grpclib
import h2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.exceptions import FrameTooLargeError
from hyperframe.frame import PingFrame

from imgbuilder.runtime.grpc.http2 import FloodError, FloodGuard, GuardedH2Connection
from imgbuilder.runtime.grpc.limits import FLOODS, CutOff, Limits
from imgbuilder.runtime.grpc.streams import consume_window, data_frames, window

GRPCLIB: Final = "0.4.9"

_REQUEST: Final = [(":method", "POST"), (":path", "/s/m"), (":scheme", "http"), (":authority", "a")]


@functools.cache
def faults() -> tuple[str, ...]:
    """What is not as expected; nothing, if all is well."""
    found = []
    if grpclib.__version__ != GRPCLIB:
        found.append(f"grpclib is {grpclib.__version__}, not {GRPCLIB}")
    for what, check in _CHECKS.items():
        try:
            as_expected = check()
        except Exception as error:  # noqa: BLE001  # whatever a changed library raises
            found.append(f"h2 {h2.__version__}: {what}: {type(error).__name__}")
        else:
            if not as_expected:
                found.append(f"h2 {h2.__version__}: {what}")
    return tuple(found)


def _conversation(limits: Limits | None = None) -> tuple[H2Connection, GuardedH2Connection]:
    """A client and a server that have exchanged their settings."""
    server = GuardedH2Connection(limits or Limits(), FloodGuard(lambda: 0.0), is_young=lambda _: True)
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    server.begin()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    return client, server


def _data_frames_fit() -> bool:
    client, server = _conversation()
    client.send_headers(1, _REQUEST, end_stream=True)
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200")])
    stream = server.streams[1]
    before = window(server, stream)
    data = bytes(40_000)
    sent = server.data_to_send() + data_frames(1, memoryview(data), server.max_outbound_frame_size)
    consume_window(server, stream, len(data))
    server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    events = client.receive_data(sent + server.data_to_send())
    received = b"".join(event.data or b"" for event in events if isinstance(event, DataReceived))
    return (
        received == data
        and isinstance(events[-1], StreamEnded)
        and before == client.local_settings.initial_window_size
        and server.local_flow_control_window(1) == before - len(data)
    )


def _floods_are_noticed() -> bool:
    _, server = _conversation()
    ping = PingFrame(0, opaque_data=bytes(8)).serialize()
    server.receive_data(ping * FLOODS[CutOff.PINGS].burst)
    server.data_to_send()
    try:
        server.receive_data(ping)
    except FloodError as error:
        goaway = server.data_to_send()
        return error.reason is CutOff.PINGS and goaway[3] == 7 and goaway[-1] == ErrorCodes.ENHANCE_YOUR_CALM
    return False


def _large_frames_are_refused_early() -> bool:
    _, server = _conversation()
    try:
        server.receive_data((1 << 20).to_bytes(3, "big"))
    except FrameTooLargeError:
        return True
    return False


def _settings_hold_at_once() -> bool:
    client, server = _conversation(Limits(streams_per_connection=7, header_list_size=3000))
    announced = client.remote_settings
    return (
        announced.max_concurrent_streams == 7
        and announced.max_header_list_size == 3000
        and announced.initial_window_size == server.local_settings.initial_window_size
        and client.outbound_flow_control_window == server.inbound_flow_control_window
    )


def _streams_are_not_counted() -> bool:
    client, server = _conversation(Limits(streams_per_connection=200))
    server._sweep_at = 10  # noqa: SLF001  # so that a few streams show it
    for number in range(1, 201, 2):
        client.send_headers(number, _REQUEST, end_stream=True)
        events = server.receive_data(client.data_to_send())
        if not isinstance(events[0], RequestReceived):
            return False
        server.send_headers(number, [(":status", "200")], end_stream=True)
        client.receive_data(server.data_to_send())
    return len(server.streams) < 80


_CHECKS: Final = {
    "DATA frames can't be made by hand": _data_frames_fit,
    "frames can't be counted": _floods_are_noticed,
    "large frames are not refused early": _large_frames_are_refused_early,
    "settings can't be chosen before the connection": _settings_hold_at_once,
    "closed streams are not forgotten": _streams_are_not_counted,
}
