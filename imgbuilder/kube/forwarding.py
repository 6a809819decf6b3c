"""Port-forwards: a local port that is a service in a cluster, for as long as somebody needs it.

Each connection that comes in goes to a pod that is ready then, over a websocket of its own. When a pod goes, its
connections end; what connects again gets to the next pod.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import structlog

from imgbuilder.kube.cluster import Cluster, WebSocket, connected
from imgbuilder.kube.errors import KubeError, NoSuchPodError, PortForwardError, PortTakenError
from imgbuilder.kube.targets import PodPort
from imgbuilder.kube.tunnel import LINGER, Tunnel, close
from imgbuilder.runtime.tasks import Tasks

log = structlog.get_logger(__name__)

HOST: Final = "127.0.0.1"

CONNECTIONS: Final = 64
"""How many connections there are at a time; more wait."""

PAUSE: Final = 1.0
"""Seconds until connections are taken in again, after that has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A port-forward that works.

    :ivar port: the local port.
    :ivar pod: the pod that was ready when it began.
    """

    port: int
    pod: str

    @property
    def address(self) -> str:
        """What clients connect to: ``127.0.0.1:port``."""
        return f"{HOST}:{self.port}"


@asynccontextmanager
async def forwarding(
    *,
    context: str | None,
    namespace: str | None,
    service: str,
    port: int,
    local_port: int = 0,
    kubeconfig: Path | None = None,
) -> AsyncIterator[Forward]:
    """A port-forward to *port* of *service*, which was tried once, for as long as the block runs.

    At its end, connections are closed. While it runs, it raises nothing: a connection that can't be made is
    closed, and the log says why.

    :param context: of the kubeconfig; None for the current one.
    :param namespace: None for the context's.
    :param local_port: 0 for any that is free.
    :param kubeconfig: in the place of those in ``KUBECONFIG``, or of ``~/.kube/config``.
    :raises PortTakenError: if *local_port* can't be listened on.
    :raises KubeError: if nothing can be reached yet; the text is one line that says what to do.
    """
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(connected(context=context, kubeconfig=kubeconfig))
        forwarder = Forwarder(cluster, service, port, namespace=namespace or cluster.namespace)
        listening = stack.enter_context(_listening(local_port))
        async with forwarder.opened() as (target, _):
            pass
        tasks = Tasks()
        await tasks.__aenter__()
        # without what the block raises: a task group would wrap it up
        stack.push_async_callback(tasks.__aexit__, None, None, None)
        tasks.spawn(forwarder.run, listening, tasks, name="port-forward")
        yield Forward(port=listening.getsockname()[1], pod=target.pod)


class Forwarder:
    """Serves connections to *port* of *service* in *cluster*."""

    def __init__(self, cluster: Cluster, service: str, port: int, *, namespace: str) -> None:
        self._cluster = cluster
        self._service = service
        self._port = port
        self._namespace = namespace
        self._places = anyio.Semaphore(CONNECTIONS)
        self._fault = ""

    async def run(self, listening: socket.socket, tasks: Tasks) -> None:
        """Take connections in, as many at a time as there is room for, and serve each in a task. Never ends."""
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                local, _ = await loop.sock_accept(listening)
            except OSError as error:  # too many files are open
                self._tell(error.strerror or str(error))
                self._places.release()
                await anyio.sleep(PAUSE)
            else:
                tasks.spawn(self._serve, local, name="connection of a port-forward")

    async def _serve(self, local: socket.socket) -> None:
        """Move what a local client says and is told, and close its connection in the end."""
        try:
            reader, writer = await asyncio.open_connection(sock=local)
            try:
                await self._move(reader, writer)
            except KubeError as error:
                self._tell(str(error))
            finally:
                await close(writer)
        finally:
            self._places.release()

    async def _move(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with self.opened() as (target, socket):
            log.debug("connection forwarded", service=self._service, pod=target.pod)
            tunnel = Tunnel(reader, writer, socket, on_answer=lambda: self._tell(""), linger=LINGER)
            fault = await tunnel.run()
            if fault:
                raise PortForwardError(target.pod, target.port, fault)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[PodPort, WebSocket]]:
        """A connection to a pod that is ready now.

        :raises KubeError: on entry, see `Cluster.pod_port` and `Cluster.port_forward`.
        """
        async with AsyncExitStack() as stack:
            target = await self._target()
            try:
                socket = await stack.enter_async_context(self._cluster.port_forward(target))
            except NoSuchPodError:  # it went meanwhile
                target = await self._target()
                socket = await stack.enter_async_context(self._cluster.port_forward(target))
            yield target, socket

    async def _target(self) -> PodPort:
        return await self._cluster.pod_port(self._service, self._port, namespace=self._namespace)

    def _tell(self, fault: str) -> None:
        """Log why connections can't be made, once; clients come again and again."""
        if fault and fault != self._fault:
            log.warning("a connection through the cluster failed", service=self._service, reason=fault)
        elif self._fault and not fault:
            log.info("connections go through the cluster again", service=self._service)
        self._fault = fault


def _listening(port: int) -> socket.socket:
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise PortTakenError(f"{HOST}:{port}", os.strerror(error.errno or 0)) from error
    listening.setblocking(False)
    return listening
