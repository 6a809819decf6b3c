"""Connections to the workspace manager."""

from __future__ import annotations

import ssl
from typing import Final

from grpclib.client import Channel
from grpclib.config import Configuration

from imgbuilder.runtime.grpc.codec import ProtoCodec
from imgbuilder.wsman.target import Target

SERVER_NAME: Final = "ws-manager"
"""What the certificate of a workspace manager says, whatever its address is."""


def open_channel(target: Target, tls: ssl.SSLContext | None) -> Channel:
    """A channel to *target*, which connects when it is first used, and again when the connection broke."""
    config = Configuration(
        _keepalive_time=10,
        _keepalive_timeout=10,
        _keepalive_permit_without_calls=True,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=10,
        http2_stream_window_size=1 << 20,
        http2_connection_window_size=64 << 20,
        ssl_target_name_override=SERVER_NAME if tls else None,
    )
    return Channel(target.host, target.port, codec=ProtoCodec(), ssl=tls, config=config)
