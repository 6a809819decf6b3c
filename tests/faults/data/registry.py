"""A registry, token server included, that answers each repository in a hostile way of its own."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping
from typing import Final

from tests.world.registries.httpd import HttpServer, Respond, Seen, head_of

GIBIBYTE: Final = 1 << 30
_CHUNK: Final = b" " * (64 << 10)
_JSON: Final = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}

TOKENS: Final = {
    "token-of-a-mebibyte": Respond(200, _JSON, json.dumps({"token": "t" * (1 << 20)}).encode()),
    "token-of-a-tenth-of-that": Respond(200, _JSON, json.dumps({"token": "t" * 100_000}).encode()),
    "token-that-breaks-lines": Respond(200, _JSON, b'{"token": "a\\r\\nHost: evil.test"}'),
    "token-server-elsewhere": Respond(307, {"Location": "file:///etc/passwd"}),
    "token-server-in-circles": Respond(
        307, {"Location": "/token?scope=repository:token-server-in-circles:pull"}
    ),
}
"""What the token server answers, by the repository that a token is asked for."""

ANSWERS: Final[Mapping[str, Respond]] = {
    "gzip-bomb": Respond(200, {**_JSON, "Content-Encoding": "gzip"}, gzip.compress(b" " * (64 << 20))),
    "deep": Respond(200, _JSON, b'{"layers":[],"mediaType":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "in-circles": Respond(307, {"Location": "/v2/in-circles/manifests/latest"}),
    "to-a-file": Respond(307, {"Location": "file:///etc/passwd"}),
    "to-ftp": Respond(302, {"Location": "ftp://evil.test/"}),
    "to-data": Respond(302, {"Location": "data:application/json,%7B%7D"}),
    "to-plain-http": Respond(302, {"Location": "http://127.0.0.1:1/"}),
    "challenge-of-a-mebibyte": Respond(
        401, {"WWW-Authenticate": 'Bearer realm="https://auth.test",scope="' + "a" * (1 << 20)}
    ),
    "token-server-is-a-file": Respond(401, {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'}),
}


class HostileRegistry(HttpServer):
    """Use as an async context manager."""

    async def respond(self, request: Seen) -> Respond:
        """What is answered in one piece."""
        if request.path == "/token":
            return TOKENS[request.query["scope"][0].split(":")[1]]
        name = request.path.split("/")[2]
        if name.startswith("token-") and name not in ANSWERS:
            realm = f'Bearer realm="{self.url}/token",service="hostile"'
            return Respond(401, {"WWW-Authenticate": realm})
        return ANSWERS[name]

    async def answer(self, request: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer, in pieces and for as long as somebody takes them where the repository is that kind."""
        name = (
            request.path.split("/")[2]
            if request.path != "/token"
            else request.query["scope"][0].split(":")[1]
        )
        match name:
            case "manifest-with-length":
                writer.write(head_of(Respond(200, {**_JSON, "Content-Length": str(GIBIBYTE)})))
                for _ in range(GIBIBYTE // len(_CHUNK)):
                    writer.write(_CHUNK)
                    await writer.drain()
            case "manifest-in-chunks":
                await self._in_chunks(writer, pause=0.0)
            case "manifest-never-ends":
                await self._in_chunks(writer, pause=0.05)
            case "token-never-ends" if request.path == "/token":
                await self._in_chunks(writer, pause=0.05)
            case "headers-never-end":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-Header: value\r\n" * 1000)
                    await writer.drain()
            case "never-more-than-a-hint":
                while True:
                    writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)
                    await writer.drain()
                    await asyncio.sleep(0.001)
            case _:
                return await super().answer(request, reader, writer)
        return False

    async def _in_chunks(self, writer: asyncio.StreamWriter, *, pause: float) -> None:
        writer.write(
            head_of(Respond(200, {**_JSON, "Transfer-Encoding": "chunked"})).replace(
                b"Content-Length: 0\r\n", b""
            )
        )
        chunk = b" " if pause else _CHUNK
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await writer.drain()
            await asyncio.sleep(pause)
