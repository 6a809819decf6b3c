"""Servers of the test world that come and go like processes do: at once, and back on the same port."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from typing import Any, Final

import grpclib.events
import grpclib.server
from grpclib.encoding.base import CodecBase
from grpclib.protocol import H2Protocol

from imgbuilder.runtime.grpc.codec import ProtoCodec

HOST: Final = "127.0.0.1"


class GrpcServer(grpclib.server.Server):
    """Closes its connections when it is closed, as a process that ends does; grpclib leaves them open.

    :ivar metadata: what came with each call, with its path.
    """

    def __init__(self, handlers: Collection[Any], *, codec: CodecBase) -> None:
        super().__init__(handlers, codec=codec)
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self._protocols: set[H2Protocol] = set()
        grpclib.events.listen(self, grpclib.events.RecvRequest, self._keep_metadata)

    async def listen(self, port: int, *, tls: ssl.SSLContext | None = None) -> int:
        """Serve on *port* of the loopback, 0 for any that is free, and tell which."""
        await self.start(HOST, port, ssl=tls)
        return int(self._server.sockets[0].getsockname()[1])  # type: ignore[union-attr]  # it was started

    async def end(self) -> None:
        """Close everything, connections that are in use included."""
        for protocol in self._protocols:
            if hasattr(protocol, "processor"):
                protocol.processor.close()
        self.close()
        await self.wait_closed()

    async def _keep_metadata(self, event: grpclib.events.RecvRequest) -> None:
        texts = {name: value for name, value in event.metadata.items() if isinstance(value, str)}
        self.metadata.append((event.method_name, texts))

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.add(protocol)
        return protocol


class RecordingCodec(ProtoCodec):
    """Keeps the bytes of every message of *kinds* that is received."""

    def __init__(self, *kinds: type[Any]) -> None:
        super().__init__()
        self.received: dict[type[Any], list[bytes]] = {kind: [] for kind in kinds}

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Decode *data*, and keep it."""
        if message_type in self.received:
            self.received[message_type].append(bytes(data))
        return super().decode(data, message_type)
