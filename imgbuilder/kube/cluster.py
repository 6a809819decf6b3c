"""Calls to the API server of a cluster, with deadlines and typed errors.

Logs in again when the cluster no longer accepts our credentials, since those that programs hand out are valid
for minutes. Tries nothing else twice.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import anyio
from kubernetes_asyncio.client import ApiClient, CoreV1Api
from kubernetes_asyncio.client.exceptions import ApiException

from imgbuilder.kube.errors import (
    ClusterFaultError,
    ClusterUnreachableError,
    KubeconfigError,
    NoSuchPodError,
    NoSuchSecretError,
    NoSuchServiceError,
    NotAllowedError,
    NotLoggedInError,
    PortForwardError,
)
from imgbuilder.kube.kubeconfig import Access, load_access
from imgbuilder.kube.targets import PodPort, pod_port, selector_of

DEADLINE: Final = 15.0
"""Seconds a call may take, connecting included."""

HEARTBEAT: Final = 20.0
"""Seconds between two signs of life that the other end of a websocket is asked for."""

FAREWELL: Final = 2.0
"""Seconds that the other end of a websocket may take to say farewell."""

PORT_FORWARD: Final = "v4.channel.k8s.io"

Answer = TypeVar("Answer")
WebSocket = aiohttp.ClientWebSocketResponse[bool]


@asynccontextmanager
async def connected(*, context: str | None = None, kubeconfig: Path | None = None) -> AsyncIterator[Cluster]:
    """The cluster of *context*, for as long as the block runs. Asks it nothing yet.

    :raises KubeconfigError: see `load_access`.
    """

    async def log_in() -> Access:
        return await load_access(context=context, kubeconfig=kubeconfig)

    cluster = Cluster(await log_in(), log_in)
    async with cluster.closing():
        yield cluster


class Cluster:
    """An API server, as one user of it. Made by `connected`.

    :ivar namespace: the one that the context names.
    """

    def __init__(self, access: Access, log_in: Callable[[], Awaitable[Access]]) -> None:
        self.namespace = access.namespace
        self._access = access
        self._log_in = log_in
        self._users: dict[ApiClient, int] = {}  # of every client that is open
        self._client = self._new_client()
        self._logging_in = anyio.Lock()

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        """Close all connections at the end of the block."""
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                for client in list(self._users):
                    await client.close()

    async def secret(self, name: str, *, namespace: str) -> Mapping[str, bytes]:
        """The contents of a secret, by key.

        :raises NoSuchSecretError: if there is none.
        :raises KubeError: see `_typed_errors`.
        """
        with self._typed_errors("get", "secrets", namespace, NoSuchSecretError(name, namespace)):
            secret = await self._ask(lambda api: api.read_namespaced_secret(name, namespace))
        return {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}

    async def pod_port(self, service: str, port: int, *, namespace: str) -> PodPort:
        """Where connections to *port* of *service* go now: a ready pod, and its port.

        :raises NoSuchServiceError: if there is no such service.
        :raises NoSuchPortError: if it has no such port.
        :raises NoReadyPodError: if none of its pods is ready.
        :raises KubeError: see `_typed_errors`.
        """
        with self._typed_errors("get", "services", namespace, NoSuchServiceError(service, namespace)):
            found = await self._ask(lambda api: api.read_namespaced_service(service, namespace))
        selector = selector_of(found)
        with self._typed_errors("list", "pods", namespace):
            pods = await self._ask(lambda api: api.list_namespaced_pod(namespace, label_selector=selector))
        return pod_port(found, port, pods.items or [])

    @asynccontextmanager
    async def port_forward(self, target: PodPort) -> AsyncIterator[WebSocket]:
        """A websocket to *target*, which speaks what `imgbuilder.kube.channels` reads.

        :raises NoSuchPodError: if the pod is gone.
        :raises PortForwardError: if the cluster can't reach it.
        :raises KubeError: on entry, see `_typed_errors`. Never from the block.
        """
        gone = NoSuchPodError(target.pod, target.namespace)
        async with AsyncExitStack() as held:

            async def opened(client: ApiClient) -> WebSocket:
                websocket = await _open(client, target)
                await held.enter_async_context(self._in_use(client))
                return websocket

            # get is what a websocket is to Kubernetes; since 1.35 it wants create as well
            with self._typed_errors(
                "get and create", "pods/portforward", target.namespace, gone, target=target
            ):
                websocket = await self._renewing(opened)
            try:
                yield websocket
            finally:
                with anyio.CancelScope(shield=True):
                    await websocket.close()

    async def _ask(self, call: Callable[[CoreV1Api], Awaitable[Any]]) -> Any:
        answer = await self._renewing(lambda client: call(CoreV1Api(client)))
        # A page that asks to log in, as proxies have them, is no error to the library.
        if not answer.kind:
            raise ValueError("not an object of Kubernetes")
        return answer

    async def _renewing(self, call: Callable[[ApiClient], Awaitable[Answer]]) -> Answer:
        """What *call* answers; if our credentials are not accepted, with new ones."""
        client = self._client
        try:
            async with self._in_use(client):
                with anyio.fail_after(DEADLINE):
                    return await call(client)
        except (ApiException, aiohttp.WSServerHandshakeError) as error:
            if error.status != 401:
                raise
        async with self._logging_in:
            if self._client is client:  # or somebody else has done it meanwhile
                self._access = await self._log_in()
                self._client = self._new_client()
                await self._close_unused()
        client = self._client
        async with self._in_use(client):
            with anyio.fail_after(DEADLINE):
                return await call(client)

    @asynccontextmanager
    async def _in_use(self, client: ApiClient) -> AsyncIterator[None]:
        """Have *client* stay open for as long as the block runs, whatever becomes of our credentials."""
        self._users[client] += 1
        try:
            yield
        finally:
            self._users[client] -= 1
            await self._close_unused()

    async def _close_unused(self) -> None:
        """Close those of earlier credentials: each would keep connections, and some are renewed every few minutes."""
        unused = [client for client, users in self._users.items() if not users and client is not self._client]
        for client in unused:
            del self._users[client]
        with anyio.CancelScope(shield=True):
            for client in unused:
                await client.close()

    def _new_client(self) -> ApiClient:
        """A client with the present credentials."""
        try:
            client = ApiClient(self._access.configuration)
        except (ssl.SSLError, OSError) as error:
            fault = f"the certificates of context {self._access.context} can't be used: {error.strerror}"
            raise KubeconfigError(self._access.path, fault) from error
        self._users[client] = 0
        return client

    @contextmanager
    def _typed_errors(
        self,
        verb: str,
        resource: str,
        namespace: str,
        missing: Exception | None = None,
        *,
        target: PodPort | None = None,
    ) -> Iterator[None]:
        """Raise what the client library, aiohttp and the network raise as a `KubeError`.

        :param missing: what is raised if the object is not there.
        :param target: the pod, where it is one that can't be reached.
        :raises ClusterUnreachableError: if there is no connection, or no answer in time.
        :raises NotLoggedInError: if our credentials are not accepted.
        :raises NotAllowedError: if a right is missing.
        :raises ClusterFaultError: for any other answer than the one that was asked for.
        """
        server, context = self._access.server, self._access.context
        try:
            yield
        except TimeoutError as error:
            raise ClusterUnreachableError(server, "no answer in time") from error
        except (ApiException, aiohttp.WSServerHandshakeError) as error:
            status = int(error.status or 0)
            if status == 401:
                raise NotLoggedInError(server, context) from error
            if status == 403:
                raise NotAllowedError(verb, resource, namespace, context) from error
            if status == 404 and missing is not None:
                raise missing from error
            fault = _fault(error)
            if target is not None:
                raise PortForwardError(target.pod, target.port, f"{status}: {fault}") from error
            raise ClusterFaultError(server, status, fault) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterUnreachableError(server, _reason(error)) from error
        except (ValueError, TypeError, AttributeError) as error:
            # what the library makes of an answer that no Kubernetes gives
            raise ClusterFaultError(server, 200, "not an answer of Kubernetes") from error


async def _open(client: ApiClient, target: PodPort) -> WebSocket:
    configuration = client.configuration
    credentials = (await configuration.auth_settings()).get("BearerToken")
    namespace, pod = target.namespace, target.pod
    return await client.rest_client.pool_manager.ws_connect(
        f"{configuration.host}/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
        params={"ports": str(target.port)},
        protocols=[PORT_FORWARD],
        headers={credentials["key"]: credentials["value"]} if credentials else {},
        heartbeat=HEARTBEAT,
        timeout=aiohttp.ClientWSTimeout(ws_close=FAREWELL),
        proxy=configuration.proxy,
        server_hostname=configuration.tls_server_name,
    )


def _fault(error: ApiException | aiohttp.WSServerHandshakeError) -> str:
    """What a Status says, or HTTP."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return error.message
    try:
        status: Any = json.loads(error.body or b"")
        return str(status["message"])
    except (ValueError, TypeError, KeyError):
        return str(error.reason or "without a word")


def _reason(error: Exception) -> str:
    """Why there is no connection, without the library's decoration."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        fault = getattr(cause, "verify_message", None) or str(cause)
        return f"its certificate can't be trusted: {fault}"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        if isinstance(cause, socket.gaierror) or not cause.errno:
            return cause.strerror or str(cause)
        return os.strerror(cause.errno)
    return str(error) or type(error).__name__
