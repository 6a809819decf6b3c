"""Asks a workspace's supervisor for its tasks, and listens to their terminals, over HTTP.

Moves bytes and types what goes wrong; what the stream means is decoded in `imgbuilder.core.terminal`. Never
tries again, never follows a redirect (the owner token is for this one address), and keeps no connection
between requests: there is a supervisor per workspace, and each is asked only now and then.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

import anyio
import orjson
from anyio.abc import ByteStream, SocketAttribute

from imgbuilder.core.builds import LogSource
from imgbuilder.core.secrets import Secret
from imgbuilder.wsman.errors import SupervisorError
from imgbuilder.wsman.http_answer import HttpAnswerDecoder, HttpAnswerError

OWNER_TOKEN_HEADER: Final = "x-gitpod-owner-token"  # noqa: S105  # the header's name
TASKS_PATH: Final = "/_supervisor/v1/status/tasks"
LISTEN_PATH: Final = "/_supervisor/v1/terminal/listen/"

CONNECT_SECONDS: Final = 10.0
SEND_SECONDS: Final = 10.0
TASKS_SECONDS: Final = 15.0
LONGEST_TASKS: Final = 1024 * 1024
"""Bytes of a task list that are read at most."""

READ_SIZE: Final = 64 * 1024

_HEADER_TEXT: Final = re.compile(r"[\x20-\x7e]*")
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~-._"

# A quiet build sends nothing for as long as it likes, so the stream has no time limit of its own. That the
# other side is still there is asked of its TCP, and known within a minute.
_KEEP_ALIVE: Final = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPALIVE": 30,  # what other systems call TCP_KEEPIDLE
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
}


class SupervisorClient:
    """Satisfies `imgbuilder.orchestrator.ports.Supervisor`.

    :param tls: for ``https`` addresses; by default the system's trust store, and ``SSL_CERT_FILE``.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls

    async def terminal(self, source: LogSource) -> str | None:
        """The alias of the first task that has a terminal; None while none has. Takes 15 s at most.

        :raises SupervisorError: on anything but a proper answer.
        """
        text = bytearray()
        with _typed_faults(), anyio.fail_after(TASKS_SECONDS):
            async with self._get(source, TASKS_PATH) as answer:
                async for data in answer:
                    text += data
                    if len(text) > LONGEST_TASKS:
                        raise SupervisorError("the task list is too long")
        return _first_terminal(text)

    def listen(self, source: LogSource, terminal: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The listen stream of *terminal*, entered when the supervisor has begun to answer.

        That may be only when there is output, so it has no time limit: whoever listens knows until when that
        is worth it. Connecting takes 10 s at most.

        :raises SupervisorError: on anything but a proper answer; from the iterator when the stream breaks.
        """
        return self._get(source, LISTEN_PATH + quote(terminal, safe=""))

    @asynccontextmanager
    async def _get(self, source: LogSource, path: str) -> AsyncIterator[_Answer]:
        address = _address_of(source.url)
        request = _request(address, path, source.owner_token)
        async with await self._connect(address) as connection:
            _keep_alive(connection)
            answer = _Answer(connection)
            await answer.begin(request)
            yield answer

    async def _connect(self, address: SplitResult) -> ByteStream:
        host = address.hostname or ""
        with _typed_faults(), anyio.fail_after(CONNECT_SECONDS):
            if address.scheme == "http":
                return await anyio.connect_tcp(host, address.port or 80)
            self._tls = self._tls or ssl.create_default_context()
            return await anyio.connect_tcp(
                host, address.port or 443, ssl_context=self._tls, tls_standard_compatible=False
            )


class _Answer:
    """The body of an answer, as it arrives."""

    def __init__(self, connection: ByteStream) -> None:
        self._connection = connection
        self._decoder = HttpAnswerDecoder()
        self._received = b""

    async def begin(self, request: bytes) -> None:
        """Send the request, and wait for the head of the answer.

        :raises SupervisorError: if it has another status than 200.
        """
        with _typed_faults():
            with anyio.fail_after(SEND_SECONDS):
                await self._connection.send(request)
            while self._decoder.status is None:
                await self._receive()
        if self._decoder.status != 200:
            raise SupervisorError(f"it answered {self._decoder.status}", status=self._decoder.status)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with _typed_faults():
            while not self._received and not self._decoder.complete:
                await self._receive()
        if not self._received:
            raise StopAsyncIteration
        received, self._received = self._received, b""
        return received

    async def _receive(self) -> None:
        try:
            data = await self._connection.receive(READ_SIZE)
        except anyio.EndOfStream:
            self._decoder.end()
        else:
            self._received += self._decoder.feed(data)


@contextmanager
def _typed_faults() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise SupervisorError("no answer in time") from error
    except ssl.SSLError as error:
        raise SupervisorError(f"no TLS connection: {error.reason or 'failed'}") from error
    except OSError as error:
        raise SupervisorError(f"no connection: {error.strerror or error}") from error
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise SupervisorError("the connection was lost") from error
    except HttpAnswerError as error:
        raise SupervisorError(str(error)) from error


def _address_of(url: str) -> SplitResult:
    """The parts of a supervisor's address; the errors don't repeat it, as it may contain a password."""
    with suppress(ValueError):
        address = urlsplit(url)
        if address.scheme in {"http", "https"} and address.hostname and address.port != 0:
            return address
    raise SupervisorError("its address is no http or https URL")


def _request(address: SplitResult, path: str, owner_token: Secret) -> bytes:
    """The bytes of a request, which must not let the workspace manager's data add anything to it."""
    host = address.netloc.rpartition("@")[2]
    base = quote(address.path.rstrip("/"), safe=_PATH_CHARACTERS)
    token = owner_token.reveal()
    if not _HEADER_TEXT.fullmatch(token) or not _HEADER_TEXT.fullmatch(host):
        raise SupervisorError("its address or owner token can't be sent in a header")
    lines = (
        f"GET {base}{path} HTTP/1.1",
        f"host: {host}",
        f"{OWNER_TOKEN_HEADER}: {token}",
        "accept: application/json",
        "accept-encoding: identity",
        "connection: close",
        "user-agent: imgbuilder",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def _keep_alive(connection: ByteStream) -> None:
    """Have the system find out when nobody is there any more.

    :raises SupervisorError: if the connection was reset as soon as it was made.
    """
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    options += [
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in _KEEP_ALIVE.items()
        if hasattr(socket, name)
    ]
    try:
        raw: socket.socket = connection.extra(SocketAttribute.raw_socket)  # noqa: S610  # not Django's
        for level, option, value in options:
            raw.setsockopt(level, option, value)
    except (OSError, AttributeError) as error:
        # uvloop has no socket any more, of which anyio asks the name of the peer
        raise SupervisorError("the connection was lost") from error


def _first_terminal(text: bytearray) -> str | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SupervisorError("the task list is no JSON") from error
    match value:
        case {"result": {"tasks": list(tasks)}}:
            aliases = (task.get("terminal") for task in tasks if isinstance(task, dict))
            return next((alias for alias in aliases if alias and isinstance(alias, str)), None)
        case {"result": dict()}:
            # No task yet: a list that is empty may be left out.
            return None
        case _:
            raise SupervisorError("the task list has another shape")
