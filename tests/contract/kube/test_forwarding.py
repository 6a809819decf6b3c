"""Port-forwards through a cluster: what goes over them, and what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream

from imgbuilder.kube.forwarding import Forward, forwarding
from tests.world.kube import Kubernetes

SERVICE = "ws-manager-mk2"
PORT = 8080


@asynccontextmanager
async def program(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """What runs in a pod: handles each connection; its port."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, handle)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


def saying(words: bytes) -> Callable[[SocketStream], Awaitable[None]]:
    """A program that says who it is, and then repeats what it hears."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            try:
                await stream.send(words)
                async for data in stream:
                    await stream.send(data)
            except anyio.BrokenResourceError:
                return

    return handle


def forward(kubeconfig: Path, **options: Any) -> Any:
    """A port-forward to the service."""
    given = {"context": None, "namespace": None, "service": SERVICE, "port": PORT, **options}
    return forwarding(kubeconfig=kubeconfig, **given)


async def heard(forward: Forward) -> bytes:
    """What is said first to a connection."""
    async with await anyio.connect_tcp("127.0.0.1", forward.port) as stream:
        return await stream.receive()


async def test_bytes_go_both_ways(kubernetes: Kubernetes, kubeconfig: Path) -> None:
    """To the pod and back, over as many connections as there are, each with its own."""
    kubernetes.add_service(SERVICE, PORT)
    async with program(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with (
            forward(kubeconfig) as opened, await anyio.connect_tcp("127.0.0.1", opened.port) as first,
            await anyio.connect_tcp("127.0.0.1", opened.port) as second,
        ):
            for stream, words in ((first, b"first"), (second, b"second")):
                assert await stream.receive() == b"hello"
                await stream.send(words)
                assert await stream.receive() == words
    await kubernetes.until_forwards(0)
