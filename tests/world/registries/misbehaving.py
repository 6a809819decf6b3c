"""A registry that does what it is told, request by request, also what no registry should.

It serves manifests, authenticates in the three ways that registries do, and writes down what it is asked. Faults
are put before it with `FakeRegistry.fail_next`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from tests.world.registries import contents
from tests.world.registries.contents import Manifest
from tests.world.registries.httpd import HttpServer, Respond, Seen, head_of

Authentication = Literal["none", "basic", "token"]


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answers."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Resets the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Closes the connection after half of the body."""


@dataclass(frozen=True, slots=True)
class Endless:
    """Answers with a body that never ends: as fast as it goes, or a byte now and then."""

    trickle: bool = False


@dataclass(frozen=True, slots=True)
class WrongBody:
    """Serves another manifest than the one that the digest in its header, or in the request, is of."""


@dataclass(frozen=True, slots=True)
class RedirectTo:
    """Redirects to an address; ``{path}`` in it stands for the path of the request."""

    location: str
    status: int = 307


Fault = Respond | Hang | Reset | Truncate | Endless | WrongBody | RedirectTo


class FakeRegistry(HttpServer):
    """Use as an async context manager; then it is at `host`."""

    def __init__(
        self,
        *,
        authentication: Authentication = "none",
        users: Mapping[str, str] | None = None,
        identity_tokens: frozenset[str] = frozenset(),
        anonymous: bool = False,
        realm: str | None = None,
        token_lifetime: float | None = 300,
        latency: float = 0.0,
        ssl_context: ssl.SSLContext | None = None,
        name: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """
        :param users: user name to password.
        :param anonymous: whether the token server gives tokens to anybody.
        :param realm: the address of the token server; by default it is one itself.
        :param token_lifetime: in seconds; None to say nothing of it.
        :param latency: seconds before each answer.
        """  # noqa: D205, D212  # only parameters to describe
        super().__init__(ssl_context=ssl_context, name=name, port=port)
        self.authentication = authentication
        self.users = dict(users or {})
        self.identity_tokens = identity_tokens
        self.anonymous = anonymous
        self.realm = realm
        self.token_lifetime = token_lifetime
        self.latency = latency
        self.tokens: dict[str, str] = {}
        self._issued = 0
        self._manifests: dict[tuple[str, str], Manifest] = {}
        self._faults: list[tuple[str, Fault]] = []

    # --- contents -----------------------------------------------------------------------------------------

    def put(self, repository: str, tag: str, manifest: Manifest) -> str:
        """Keep *manifest* under *tag* and its digest; the digest."""
        self._manifests[repository, tag] = manifest
        self._manifests[repository, manifest.digest] = manifest
        return manifest.digest

    def put_image(self, repository: str, tag: str = "latest", *, text: str = "hello") -> str:
        """Keep an image; its digest."""
        return self.put(repository, tag, contents.image(text))

    def put_index(self, repository: str, tag: str, *platforms: str) -> tuple[str, dict[str, str]]:
        """Keep an index of one image for each of *platforms*; its digest, and theirs by platform."""
        images = {platform: contents.image(platform, platform=platform) for platform in platforms}
        for manifest in images.values():
            self.put(repository, manifest.digest, manifest)
        digests = {platform: manifest.digest for platform, manifest in images.items()}
        return self.put(repository, tag, contents.index(images)), digests

    def delete(self, repository: str, tag: str) -> None:
        """Keep the manifest of *tag* no more, neither under its digest."""
        manifest = self._manifests.pop((repository, tag))
        self._manifests.pop((repository, manifest.digest), None)

    def revoke_tokens(self) -> None:
        """Accept none of the tokens that were given so far."""
        self.tokens.clear()

    # --- faults and records -------------------------------------------------------------------------------

    def fail_next(self, *faults: Fault, kind: str = "manifest") -> None:
        """Let the next requests of *kind* (``manifest``, ``token``) fail so, one request each."""
        self._faults.extend((kind, fault) for fault in faults)

    def seen(self) -> list[str]:
        """What was asked, as ``GET manifest``."""
        return [f"{request.method} {_kind(request)}" for request in self.requests]

    # --- serving ------------------------------------------------------------------------------------------

    async def answer(
        self,
        request: Seen,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer *request*, or fail as told; whether the connection may be used again."""
        if self.latency:
            await asyncio.sleep(self.latency)
        match self._next_fault(request):
            case Hang():
                await reader.read()  # until the client gives up
                return False
            case Reset():
                writer.transport.abort()
                return False
            case Truncate():
                response = await self.respond(request)
                writer.write(head_of(response) + response.body[: len(response.body) // 2])
                await writer.drain()
                return False
            case Endless(trickle):
                await _endless(writer, trickle=trickle)
            case fault:
                response = await self._failed(request, fault)
                writer.write(head_of(response) + (b"" if request.method == "HEAD" else response.body))
                await writer.drain()
        return True

    async def _failed(self, request: Seen, fault: Respond | WrongBody | RedirectTo | None) -> Respond:
        match fault:
            case Respond():
                return fault
            case RedirectTo(location, status):
                return Respond(status, {"Location": location.format(path=request.path)})
            case WrongBody():
                proper = await self.respond(request)
                return Respond(proper.status, proper.headers, proper.body + b" ")
            case None:
                return await self.respond(request)

    def _next_fault(self, request: Seen) -> Fault | None:
        for number, (kind, fault) in enumerate(self._faults):
            if kind == _kind(request):
                del self._faults[number]
                return fault
        return None

    async def respond(self, request: Seen) -> Respond:
        """What a proper registry answers."""
        if _kind(request) == "token":
            return self._token(request)
        prefix, _, name = request.path.rpartition("/manifests/")
        repository = prefix.rpartition("/v2/")[2]
        if not self._lets_in(request, repository):
            return self._challenge(repository)
        manifest = self._manifests.get((repository, name))
        if manifest is None or manifest.media_type not in request.headers.get("accept", ""):
            return _error(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": manifest.media_type, "Docker-Content-Digest": manifest.digest}
        return Respond(200, headers, manifest.body)

    def _lets_in(self, request: Seen, repository: str) -> bool:
        if self.authentication == "none":
            return True
        scheme, _, value = request.authorization.partition(" ")
        if self.authentication == "basic":
            return scheme == "Basic" and self._knows(value)
        return scheme == "Bearer" and self.tokens.get(value) == f"repository:{repository}:pull"

    def _knows(self, pair: str) -> bool:
        user, _, password = base64.b64decode(pair).decode().partition(":")
        return self.users.get(user) == password

    def _challenge(self, repository: str) -> Respond:
        challenge = 'Basic realm="fake"'
        if self.authentication == "token":
            scope = f"repository:{repository}:pull"
            challenge = f'Bearer realm="{self.realm or self.url + "/token"}",service="fake",scope="{scope}"'
        answer = _error(401, "UNAUTHORIZED")
        return Respond(401, {**answer.headers, "WWW-Authenticate": challenge}, answer.body)

    def _token(self, request: Seen) -> Respond:
        if request.method == "POST":
            form = parse_qs(request.body.decode())
            allowed = form["refresh_token"][0] in self.identity_tokens
        else:
            form = dict(request.query)
            scheme, _, value = request.authorization.partition(" ")
            allowed = self._knows(value) if scheme == "Basic" else self.anonymous
        if not allowed:
            return _error(401, "UNAUTHORIZED")
        self._issued += 1
        token = f"token-{self._issued}"
        self.tokens[token] = form["scope"][0]
        document: dict[str, object] = {"token": token}
        if self.token_lifetime is not None:
            document["expires_in"] = self.token_lifetime
        return Respond(200, {"Content-Type": "application/json"}, json.dumps(document).encode())


def _kind(request: Seen) -> str:
    return "token" if request.path == "/token" else "manifest"


def _error(status: int, code: str) -> Respond:
    body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
    return Respond(status, {"Content-Type": "application/json"}, body)


async def _endless(writer: asyncio.StreamWriter, *, trickle: bool) -> None:
    """Write until the client goes, which raises."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b" " if trickle else b" " * 65536
    while True:
        writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.02 if trickle else 0)
