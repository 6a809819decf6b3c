"""Bodies that are too large for memory: blobs on their way from and to registries, piece by piece.

Over connections of their own, so that look-ups never wait for them. A transfer may take as long as it likes
while it gets on; one that stands still ends. Neither retries nor answers challenges.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Self, cast

import httpx

from imgbuilder import __version__
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.errors import RegistryFaultError
from imgbuilder.registry.http import (
    LONGEST_ERROR,
    MOST_REDIRECTS,
    REDIRECTS,
    Answer,
    origin_of,
    parse_address,
    typed_errors,
)

STANDSTILL: Final = 60.0
"""Seconds without a single byte after which a transfer is given up."""

FINISHING: Final = 300.0
"""Seconds that a registry may take to answer once it has everything: some then move it to where it belongs."""

PIECE: Final = 256 * 1024
"""Bytes that are read at a time."""


class Download:
    """A body on its way to us: an iterator of its pieces. Valid inside the block that gave it."""

    def __init__(self, registry: str, pieces: AsyncIterator[bytes]) -> None:
        self._registry = registry
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        :raises RegistryUnreachableError: if the body stands still, or the connection breaks.
        """
        with typed_errors(self._registry):
            return await anext(self._pieces)


class Transfers:
    """One pool of connections. Use as an async context manager, once."""

    def __init__(
        self,
        *,
        may_go: Callable[[str, str], bool],
        connections_per_host: int,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """
        :param may_go: whether a redirect to the first address is fine where one comes from the second.
        :param ssl_context: by default the system's trust store, or what ``SSL_CERT_FILE`` names.
        """  # noqa: D205, D212  # only parameters to describe
        self._may_go = may_go
        self._client = httpx.AsyncClient(
            verify=ssl_context or ssl.create_default_context(),
            timeout=httpx.Timeout(STANDSTILL, pool=None),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=connections_per_host),
            headers={"User-Agent": f"imgbuilder/{__version__}", "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def download(
        self,
        registry: str,
        url: str,
        authorization: Secret,
    ) -> AsyncIterator[Download | Answer]:
        """What is at *url*: a body to be read, or the answer if it is no success. Follows redirects.

        :param registry: the name for errors.
        :param authorization: the value of that header; only the host of *url* ever sees it.
        :raises RegistryUnreachableError: without connection, or an answer in time.
        :raises RegistryFaultError: if the answer leads astray.
        """
        target = parse_address(registry, url)
        for _ in range(MOST_REDIRECTS + 1):
            async with self._opened(registry, "GET", target, authorization) as response:
                location = response.headers.get("location")
                if response.status_code not in REDIRECTS or location is None:
                    if not response.is_success:
                        yield await _answer(registry, response)
                        return
                    async with aclosing(_raw(response)) as pieces:
                        yield Download(registry, pieces)
                    return
            following = parse_address(registry, location, seen_from=target)
            if not self._may_go(str(following), str(target)):
                raise RegistryFaultError(registry, "redirects to where no request may go")
            if origin_of(following) != origin_of(target):
                authorization = Secret("")
            target = following
        raise RegistryFaultError(registry, f"redirects more than {MOST_REDIRECTS} times")

    async def upload(
        self,
        registry: str,
        url: httpx.URL,
        authorization: Secret,
        *,
        body: AsyncIterable[bytes],
        size: int,
    ) -> Answer:
        """PUT *body*, of *size* bytes, to *url*. Any status is an answer.

        :raises RegistryUnreachableError: without connection, or an answer in time.
        :raises Exception: whatever *body* raises.
        """
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        async with self._opened(registry, "PUT", url, authorization, headers=headers, body=body) as response:
            return await _answer(registry, response)

    @asynccontextmanager
    async def _opened(
        self,
        registry: str,
        method: str,
        url: httpx.URL,
        authorization: Secret,
        *,
        headers: dict[str, str] | None = None,
        body: AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        sent = dict(headers or {})
        if authorization:
            sent["Authorization"] = authorization.reveal()
        limits = httpx.Timeout(STANDSTILL, read=STANDSTILL if body is None else FINISHING, pool=None)
        with typed_errors(registry):
            request = self._client.build_request(method, url, headers=sent, content=body, timeout=limits)
            response = await self._client.send(request, stream=True)
        try:
            yield response
        finally:
            await response.aclose()


def _raw(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes. It is a generator, whatever httpx calls it, and must be closed like one."""
    return cast("AsyncGenerator[bytes, None]", response.aiter_raw(PIECE))


async def _answer(registry: str, response: httpx.Response) -> Answer:
    body = bytearray()
    async with aclosing(_raw(response)) as pieces:
        with typed_errors(registry):
            async for piece in pieces:
                body += piece
                if len(body) > LONGEST_ERROR:
                    break
    return Answer(
        status=response.status_code,
        headers=response.headers,
        body=bytes(body[:LONGEST_ERROR]),
    )
