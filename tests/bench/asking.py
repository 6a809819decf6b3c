"""The floor of asking a registry: a bare HTTP client, which takes nothing from the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import anyio

from tests.bench.loops import OPTIONS

TYPES: Final = "application/vnd.oci.image.manifest.v1+json"


def ask(host: str, requests: Sequence[str], *, connections: int = 1) -> float:
    """Seconds that *requests*, e.g. ``HEAD /v2/…``, take over *connections* that are open."""
    return anyio.run(_ask, host, requests, connections, backend_options=dict(OPTIONS))


async def _ask(host: str, requests: Sequence[str], connections: int) -> float:
    name, _, port = host.partition(":")
    streams = [await asyncio.open_connection(name, int(port)) for _ in range(connections)]
    left = iter(requests)

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request in left:
            writer.write(f"{request} HTTP/1.1\r\nhost: {host}\r\naccept: {TYPES}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not request.startswith("HEAD "):
                await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))

    begun = time.perf_counter()
    async with anyio.create_task_group() as group:
        for stream in streams:
            group.start_soon(work, *stream)
    took = time.perf_counter() - begun
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()
    return took
