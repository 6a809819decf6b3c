"""The floor of reading a build's output: a bare HTTP client that decodes what a supervisor sends, and no more."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import orjson

READ: Final = 64 * 1024
PATIENCE: Final = 60.0


@contextmanager
def listening(url: str, token: str, alias: str) -> Iterator[Iterator[bytes]]:
    """The output of the terminal *alias* of the workspace at *url*, piece by piece, from now on."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        head = (
            f"GET {address.path}/_supervisor/v1/terminal/listen/{alias} HTTP/1.1\r\n"
            f"host: {address.netloc}\r\nx-gitpod-owner-token: {token}\r\n\r\n"
        )
        connection.sendall(head.encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(READ)
        assert received.startswith(b"HTTP/1.1 200"), received
        yield _pieces(connection, received.partition(b"\r\n\r\n")[2])


def _pieces(connection: socket.socket, received: bytes) -> Iterator[bytes]:
    # every value is a chunk of its own here, so that the lines between are the sizes of chunks, or empty
    while True:
        *lines, received = received.split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                yield base64.b64decode(orjson.loads(line)["result"]["data"])
        data = connection.recv(READ)
        if not data:
            return
        received += data
