"""Connections to the workspace manager."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

from grpclib.client import Channel
from grpclib.config import Configuration

from imgbuilder.runtime.grpc.codec import ProtoCodec
from imgbuilder.wsman.target import Target

SERVER_NAME: Final = "ws-manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """Files in PEM: whom to trust, and what to show."""

    ca: str
    crt: str
    key: str


def open_channel(target: Target, tls: ClientTls | None) -> Channel:
    """A channel to *target*, which connects when it is first used.

    :raises OSError: if a file of *tls* can't be read, or is not what it should be.
    """
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
    context = None
    if tls:
        context = ssl.create_default_context(cafile=tls.ca)
        context.load_cert_chain(tls.crt, tls.key)
        context.set_alpn_protocols(["h2"])
    return Channel(target.host, target.port, codec=ProtoCodec(), ssl=context, config=config)
