"""HTTP exchanges with registries and token servers, and nothing of what they mean.

Bounds each in time, size and number per host, follows redirects without carrying credentials along, and types
what httpx raises. Neither retries nor answers challenges.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Protocol, Self

import anyio
import httpx

from imgbuilder import __version__
from imgbuilder.core.secrets import Secret
from imgbuilder.registry.connections import IDLE, Connections
from imgbuilder.registry.errors import RegistryError, RegistryFaultError, RegistryUnreachableError
from imgbuilder.telemetry.tracing import NO_TRACER, Tracer

# Both log addresses, at levels people turn on, and those of redirects are signed: as good as a password.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
READING: Final = frozenset({"GET", "HEAD"})
MOST_REDIRECTS: Final = 5
CONNECTING: Final = 1 / 3
"""The part of a request's time that a connection may take, and a TLS handshake again."""

LONGEST_ERROR: Final = 64 * 1024
"""Bytes that are read of the body of an answer that is no success."""

MOST_LABELS: Final = 64
"""Registries that metrics tell apart. Requests name registries, so there is no end to them."""


class RegistryMetrics(Protocol):
    """What is counted here."""

    def registry_request(self, registry: str, method: str, status: str, seconds: float) -> None:
        """One request was answered with the HTTP status *status*, or ended with ``timeout`` or ``error``."""
        ...

    def token_cache(self, hit: bool) -> None:
        """A token was needed, and was there or not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to send. It may be sent more than once.

    :ivar registry: the name for errors and metrics.
    :ivar authorization: the value of that header; empty for none. Only the host of *url* ever sees it.
    :ivar limit: how many bytes of body a successful answer may have.
    """

    registry: str
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: Secret = Secret("")  # noqa: RUF009  # a constant: secrets do not change
    content: bytes | None = field(default=None, repr=False)
    limit: int = LONGEST_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    :ivar body: whole if *status* is a success; otherwise its beginning.
    :ivar elsewhere: whether it comes from another host than was asked, after a redirect.
    """

    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)
    elsewhere: bool = False


class Http:
    """One pool of connections. Use as an async context manager, once."""

    def __init__(
        self,
        *,
        timeout: float,
        connections_per_host: int,
        metrics: RegistryMetrics,
        may_go: Callable[[str, str], bool],
        ssl_context: ssl.SSLContext | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """
        :param timeout: seconds that a request may take, from the moment it has a connection slot of its host.
        :param may_go: whether a redirect to the first address is fine where one comes from the second.
        :param ssl_context: by default the system's trust store, or what ``SSL_CERT_FILE`` names.
        """  # noqa: D205, D212  # only parameters to describe
        self._timeout = timeout
        self._metrics = metrics
        self._may_go = may_go
        self._tracer = tracer
        self._labels: set[str] = set()
        self._ssl_context = ssl_context
        self._connections = Connections(per_host=connections_per_host, connect=self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connections.close()

    async def exchange(self, request: Request) -> Answer:
        """Send *request*, follow redirects if it only reads, and read the answer. Any status is an answer.

        :raises RegistryUnreachableError: without connection, or an answer in time.
        :raises RegistryFaultError: if the answer is too long, or leads astray.
        """
        url = parse_address(request.registry, request.url)
        authorization, elsewhere = request.authorization, False
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._send(request, url, authorization)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or location is None or request.method not in READING:
                return replace(answer, elsewhere=elsewhere)
            target = parse_address(request.registry, location, seen_from=url)
            if not self._may_go(str(target), str(url)):
                raise RegistryFaultError(request.registry, "redirects to where no request may go")
            if origin_of(target) != origin_of(url):
                # Gone for good: a host that sends us back could choose what is asked there in our name.
                authorization, elsewhere = Secret(""), True
            url = target
        raise RegistryFaultError(request.registry, f"redirects more than {MOST_REDIRECTS} times")

    async def _send(self, request: Request, url: httpx.URL, authorization: Secret) -> Answer:
        # No more of the address: a query can be as good as a password.
        about = {"http.request.method": request.method, "server.address": url.host, "url.path": url.path}
        with self._tracer.calling(request.method, about) as span:
            answer = await self._exchange(request, url, authorization)
            span.tell({"http.response.status_code": answer.status})
            return answer

    async def _exchange(self, request: Request, url: httpx.URL, authorization: Secret) -> Answer:
        async with self._connections.to(str(origin_of(url))) as client:
            started = anyio.current_time()
            status = "cancelled"
            try:
                with anyio.move_on_after(self._timeout), typed_errors(request.registry):
                    answer = await _send_over(client, request, url, authorization)
                    status = str(answer.status)
                    return answer
                status = "timeout"
            except RegistryError:
                status = "error"
                raise
            finally:
                seconds = anyio.current_time() - started
                self._metrics.registry_request(self._label(request.registry), request.method, status, seconds)
            raise RegistryUnreachableError(request.registry, f"no answer within {self._timeout:g} s")

    def _client(self) -> httpx.AsyncClient:
        if self._ssl_context is None:
            # With the first request: reading the trust store takes as long as a twentieth of the start.
            self._ssl_context = ssl.create_default_context()
        return httpx.AsyncClient(
            verify=self._ssl_context,
            # There is one time limit, around everything. But a TLS handshake that is cancelled, and does not
            # time out, leaves its socket to the garbage collector.
            timeout=httpx.Timeout(None, connect=self._timeout * CONNECTING),
            follow_redirects=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE),
            # A compressed body has another digest, and no bound on what it unpacks to.
            headers={"User-Agent": f"imgbuilder/{__version__}", "Accept-Encoding": "identity"},
        )

    def _label(self, registry: str) -> str:
        if registry not in self._labels:
            if len(self._labels) >= MOST_LABELS:
                return "other"
            self._labels.add(registry)
        return registry


class _Connecting:
    """Learns from httpcore whether a request opened a connection or used a kept one."""

    def __init__(self) -> None:
        self.happened = False

    async def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.happened = True


async def _send_over(
    client: httpx.AsyncClient,
    request: Request,
    url: httpx.URL,
    authorization: Secret,
) -> Answer:
    """Send again at once where a kept connection turns out to be closed: the server saw no request."""
    headers = dict(request.headers)
    if authorization:
        headers["Authorization"] = authorization.reveal()
    while True:
        connecting = _Connecting()
        built = client.build_request(
            request.method,
            url,
            headers=headers,
            content=request.content,
            extensions={"trace": connecting},
        )
        try:
            response = await client.send(built, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            # The one that is opened then is new, so this happens once.
            if connecting.happened or request.method not in READING:
                raise
            continue
        try:
            body = await _body(request, response)
        finally:
            await response.aclose()
        return Answer(status=response.status_code, headers=response.headers, body=body)


async def _body(request: Request, response: httpx.Response) -> bytes:
    success = response.is_success
    limit = request.limit if success else LONGEST_ERROR
    if success and response.headers.get("content-encoding", "identity") != "identity":
        raise RegistryFaultError(request.registry, "its answer is encoded, which nobody asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            if success:
                raise RegistryFaultError(request.registry, f"its answer is longer than {limit} bytes")
            break
    return bytes(body[:limit])


def parse_address(registry: str, text: str, *, seen_from: httpx.URL | None = None) -> httpx.URL:
    """The address *text*, less userinfo, which would be sent as credentials, and fragment."""
    with typed_errors(registry):
        try:
            url = httpx.URL(text) if seen_from is None else seen_from.join(text)
        except ValueError as error:  # joining them is left to a library that takes less than httpx does
            raise RegistryFaultError(registry, "names an address that can't be read") from error
        if url.userinfo or url.fragment:
            url = url.copy_with(username=None, password=None, fragment=None)
        return url


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Who is spoken to at *url*: credentials for one origin are no other's business."""
    return url.scheme, url.host, url.port


@contextmanager
def typed_errors(registry: str) -> Generator[None]:
    """Turn what httpx raises into errors of ours. Their texts say nothing that came from elsewhere."""
    try:
        yield
    except httpx.ConnectError as error:
        fault = "no connection"
        if _caused_by(error, ssl.SSLCertVerificationError):
            fault = "its certificate is not trusted"
        elif _caused_by(error, ssl.SSLError):
            fault = "no TLS connection"
        raise RegistryUnreachableError(registry, fault) from error
    except httpx.ConnectTimeout as error:
        raise RegistryUnreachableError(registry, "no connection in time") from error
    except httpx.TransportError as error:
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
            raise RegistryFaultError(registry, "the request can't be sent") from error
        raise RegistryUnreachableError(registry, "the connection broke") from error
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        # UnicodeError: a host name that the resolver can't encode.
        raise RegistryFaultError(registry, "the request can't be sent") from error


def _caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
