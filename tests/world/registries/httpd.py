"""A plain HTTP/1.1 server over real sockets, that writes down what it is asked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

REASONS: Final = {200: "OK", 401: "Unauthorized", 404: "Not Found"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request that arrived; the names of its headers are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        """What it shows; empty for nothing."""
        return self.headers.get("authorization", "")


@dataclass(frozen=True, slots=True)
class Respond:
    """An answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class HttpServer:
    """Use as an async context manager; then it is at `host`. Subclasses say what it answers.

    :ivar requests: all that arrived, in order.
    :ivar connections: how many were opened in all.
    :ivar open_now, most_open: connections.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, name: str = "127.0.0.1", port: int = 0
    ) -> None:
        """:param name: what it calls itself, for a certificate.
        :param port: 0 for any that is free.
        """  # noqa: D205  # only parameters to describe
        self.requests: list[Seen] = []
        self.connections = 0
        self.open_now = 0
        self.most_open = 0
        self._ssl_context = ssl_context
        self._name = name
        self._port = port
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._change = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._ssl_context)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.drop_connections()
        await self._server.wait_closed()

    @property
    def host(self) -> str:
        """Where it is, as references spell it."""
        return f"{self._name}:{self._port}"

    @property
    def url(self) -> str:
        """Where it is, as an address."""
        return f"{'https' if self._ssl_context else 'http'}://{self.host}"

    async def drop_connections(self) -> None:
        """Reset all connections, whatever they are doing."""
        dropped = dict(self._serving)
        for writer, task in dropped.items():
            writer.transport.abort()
            if task is not None:
                task.cancel()
        async with self._change:
            await self._change.wait_for(lambda: not dropped.keys() & self._serving.keys())

    async def requested(self, count: int) -> None:
        """Wait until *count* requests have arrived in all."""
        async with self._change:
            await self._change.wait_for(lambda: len(self.requests) >= count)

    async def abandoned(self) -> None:
        """Wait until no connection is open."""
        async with self._change:
            await self._change.wait_for(lambda: not self.open_now)

    async def respond(self, request: Seen) -> Respond:
        """What to answer *request*."""
        raise NotImplementedError

    async def answer(
        self,
        request: Seen,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer *request*; whether the connection may be used again."""
        response = await self.respond(request)
        writer.write(head_of(response) + (b"" if request.method == "HEAD" else response.body))
        await writer.drain()
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving[writer] = asyncio.current_task()
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                await self._changed()
                if not await self.answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or was made to; nobody but `drop_connections` cancels this
        finally:
            self.open_now -= 1
            writer.close()
            del self._serving[writer]
            await self._changed()

    async def _changed(self) -> None:
        async with self._change:
            self._change.notify_all()


def head_of(response: Respond) -> bytes:
    """The status line and headers of *response*; its length is that of its body unless it says otherwise."""
    headers = {"Content-Length": str(len(response.body)), **response.headers}
    lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Whatever')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in filter(None, lines):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    address = urlsplit(target)
    return Seen(
        method=method,
        path=address.path,
        query=parse_qs(address.query),
        headers=headers,
        body=body,
    )
