"""The HTTP endpoints for metrics and probes, each on an address of its own.

They show what others know, and decide nothing. ``/live`` says that the event loop runs, ``/ready`` what the
service says of itself.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import orjson
import uvicorn

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.telemetry.metrics import Metrics

Readiness = Callable[[], tuple[bool, Sequence[str]]]
"""Whether the service is ready, and what it is waiting for, in words."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application as ASGI has it."""

CONNECTIONS_LIMIT: Final = 100
HEADERS_LIMIT: Final = 16 * 1024
CLOSING_TIME: Final = 1
"""Seconds that answers have to be completed when the endpoints are stopped."""


class ListenError(ImgbuilderError):
    """An address can't be listened on.

    :ivar address: ``host:port``.
    :ivar fault: why, as the system says it.
    """

    def __init__(self, address: str, fault: str) -> None:
        fault = fault.partition(" (while attempting to bind on")[0]  # Python repeats the address
        super().__init__(f"cannot listen on {address}: {fault}")
        self.address = address
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The ports that are listened on, which is of interest where port 0 was asked for; 0 for none."""

    metrics_port: int = 0
    probes_port: int = 0


@asynccontextmanager
async def serve_endpoints(
    *,
    metrics: Metrics,
    ready: Readiness,
    metrics_address: tuple[str, int] | None,
    probes_address: tuple[str, int] | None,
) -> AsyncIterator[Endpoints]:
    """Serve inside the block. Addresses are host and port; an empty host means all interfaces, None not to serve.

    :raises ListenError: if an address can't be listened on; then nothing is served.
    """
    async with AsyncExitStack() as stack:
        metrics_port = probes_port = 0
        if metrics_address is not None:
            server = serving(_metrics_app(metrics), *metrics_address)
            metrics_port = await stack.enter_async_context(server)
        if probes_address is not None:
            server = serving(_probes_app(ready), *probes_address)
            probes_port = await stack.enter_async_context(server)
        yield Endpoints(metrics_port=metrics_port, probes_port=probes_port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a path answers."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


def pages(contents: Mapping[str, Callable[[str], Page]]) -> App:
    """An application that answers GET and HEAD for the paths of *contents*, from the Accept header.

    By hand: a framework takes longer to import than all else that is needed for three pages.
    """

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        content = contents.get(scope["path"])
        if content is None:
            page = Page(status=404, body=b"Not Found")
        elif scope["method"] not in ("GET", "HEAD"):
            page = Page(status=405, body=b"Method Not Allowed")
        else:
            page = content(dict(scope["headers"]).get(b"accept", b"").decode("latin-1"))
        headers = [
            (b"content-type", page.content_type.encode()),
            (b"content-length", b"%d" % len(page.body)),
        ]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": page.body})

    return app


def _metrics_app(metrics: Metrics) -> App:
    def show(accept: str) -> Page:
        text, content_type = metrics.exposition(accept)
        return Page(content_type=content_type, body=text)

    return pages({"/metrics": show})


def _probes_app(ready: Readiness) -> App:
    def show_ready(_: str) -> Page:
        is_ready, reasons = ready()
        body = orjson.dumps({"ready": is_ready, "reasons": list(reasons)})
        return Page(status=200 if is_ready else 503, content_type="application/json", body=body)

    return pages({"/ready": show_ready, "/live": lambda _: Page(body=b"ok\n")})


@asynccontextmanager
async def serving(
    app: App,
    host: str,
    port: int,
    *,
    connections: int = CONNECTIONS_LIMIT,
) -> AsyncIterator[int]:
    """Serve *app* inside the block; the port, which is of interest where *port* is 0.

    :param connections: how many there may be; more are answered with 503.
    :raises ListenError: if the address can't be listened on.
    """
    with _listening(host, port) as listener:
        server = _Server(
            uvicorn.Config(
                app,
                access_log=False,
                date_header=False,
                h11_max_incomplete_event_size=HEADERS_LIMIT,
                http="h11",
                lifespan="off",
                limit_concurrency=connections,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSING_TIME,
                ws="none",
            )
        )
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve_until_stopped, listener, name=f"http on port {port}")
            try:
                yield listener.getsockname()[1]
            except Exception as error:  # noqa: BLE001  # raised again below, not as part of a group
                failure = error
            finally:
                server.stop()
        if failure is not None:
            raise failure


class _Server(uvicorn.Server):
    """A server that leaves signals alone, and ends when it is told to, not when it next looks."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopped = anyio.Event()

    async def serve_until_stopped(self, listener: socket.socket) -> None:
        """Serve until `stop` is called, not until cancelled: what was opened must be closed."""
        with anyio.CancelScope(shield=True):
            await self.serve([listener])

    def stop(self) -> None:
        """Have it end, after what is being answered."""
        self._stopped.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._stopped.wait()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens; for all interfaces one for IPv6 and IPv4, where the system has both."""
    try:
        if host in ("", "::") and socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                # In a container without IPv6, whose kernel has it all the same.
                return socket.create_server(("", port))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise ListenError(address, error.strerror or str(error)) from error
