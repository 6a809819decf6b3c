"""What the headers of a request say: the call that is asked for, or why there is none.

Pure decisions, liberal in what they accept: as other gRPC servers do, requests without ``te: trailers`` (some
proxies drop it) are served.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from grpclib.const import Status
from grpclib.metadata import encode_grpc_message
from multidict import MultiDict

Headers = Sequence[tuple[str, str]]
Metadata = MultiDict[str | bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """What a request says before its first message.

    :ivar path: ``/service/method``.
    :ivar timeout: seconds from now until the caller gives up; None for never.
    :ivar metadata: what the caller adds; bytes under names that end in ``-bin``.
    """

    path: str
    timeout: float | None
    metadata: Metadata
    user_agent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The whole answer to a request that is no call."""

    http_status: int = 200
    status: Status
    message: str

    def headers(self) -> list[tuple[str, str]]:
        """The answer as HTTP headers."""
        return [
            (":status", str(self.http_status)),
            ("content-type", "application/grpc"),
            ("grpc-status", str(self.status.value)),
            ("grpc-message", encode_grpc_message(self.message)),
        ]


_CONTENT_TYPE: Final = re.compile(r"application/grpc(\+proto)?\s*(;.*)?", re.IGNORECASE)
_TIMEOUT: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_RESERVED: Final = frozenset({"te", "content-type", "user-agent"})


def read_head(headers: Headers) -> RequestHead | Refusal:
    """What *headers* ask for."""
    known = dict(headers)
    method, path = known.get(":method"), known.get(":path")
    if not method or not path:
        return _malformed("a request has a :method and a :path")
    if method != "POST":
        return Refusal(http_status=405, status=Status.INTERNAL, message="calls are made with POST")
    if not _CONTENT_TYPE.fullmatch(known.get("content-type", "")):
        return Refusal(
            http_status=415, status=Status.INTERNAL, message="the content-type is not application/grpc"
        )
    timeout = None
    if "grpc-timeout" in known:
        match = _TIMEOUT.fullmatch(known["grpc-timeout"])
        if match is None:
            return _malformed("grpc-timeout is not a time")
        timeout = int(match[1]) * _UNITS[match[2]]
    try:
        metadata = read_metadata(headers)
    except binascii.Error:
        return _malformed("binary metadata are not base64")
    return RequestHead(path=path, timeout=timeout, metadata=metadata, user_agent=known.get("user-agent"))


def read_metadata(headers: Headers) -> Metadata:
    """The headers that belong to the caller.

    :raises binascii.Error: if a binary one is not base64.
    """
    metadata: Metadata = MultiDict()
    for name, value in headers:
        if name.startswith((":", "grpc-")) or name in _RESERVED:
            continue
        if name.endswith("-bin"):
            for part in value.split(","):  # proxies may join what was sent apart
                encoded = part.strip().rstrip("=").encode("latin-1")
                padding = b"=" * (-len(encoded) % 4)
                metadata.add(name, base64.b64decode(encoded + padding, validate=True))
        else:
            metadata.add(name, value)
    return metadata


def unknown_path(path: str, paths: Collection[str]) -> Refusal:
    """The answer to a call of *path*, which is not one of *paths*."""
    _, _, rest = path.partition("/")
    service, slash, method = rest.rpartition("/")
    if not path.startswith("/") or not slash:
        return Refusal(status=Status.UNIMPLEMENTED, message=f"malformed method name: {_quoted(path)}")
    if any(known.startswith(f"/{service}/") for known in paths):
        message = f"unknown method {_short(method)} for service {_short(service)}"
    else:
        message = f"unknown service {_short(service)}"
    return Refusal(status=Status.UNIMPLEMENTED, message=message)


def _malformed(message: str) -> Refusal:
    return Refusal(http_status=400, status=Status.INTERNAL, message=message)


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"


def _quoted(text: str) -> str:
    return f'"{_short(text)}"'
