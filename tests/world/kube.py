"""A cluster's API server, as its users reach it: secrets, services, pods and port-forwards over HTTPS.

It speaks Kubernetes' paths, its errors and its websockets; what its pods serve are ports of this machine. What a
user may not do, and what becomes of the pods, tests decide.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
import anyio
import yaml  # type: ignore[import-untyped]  # kubeconfigs are written with it
from aiohttp import web

from imgbuilder.runtime.tls import server_context
from tests.world.certificates import Authority
from tests.world.serving import HOST
from tests.world.workspaces import PATIENCE

NAMESPACE: Final = "default"
TOKEN: Final = "token-of-the-developer"
PORT_FORWARD: Final = "v4.channel.k8s.io"
REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    500: "InternalError",
}


@dataclass(kw_only=True)
class Pod:
    """A pod, whose ports are ports of this machine.

    :ivar serves: by the number of a port in the pod, the port of this machine.
    :ivar names: of those ports.
    """

    name: str
    labels: Mapping[str, str]
    serves: Mapping[int, int]
    names: Mapping[str, int] = field(default_factory=dict)
    ready: bool = True
    ending: bool = False
    number: int = 0
    forwards: set[anyio.CancelScope] = field(default_factory=set)

    def described(self) -> dict[str, Any]:
        """The object of the API."""
        created = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=self.number)
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": NAMESPACE,
            "labels": dict(self.labels),
            "creationTimestamp": created.isoformat().replace("+00:00", "Z"),
        }
        if self.ending:
            metadata["deletionTimestamp"] = "2026-01-02T00:00:00Z"
        ports = [{"name": name, "containerPort": number} for name, number in self.names.items()]
        status = "True" if self.ready else "False"
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": {"containers": [{"name": "main", "image": "main:1", "ports": ports}]},
            "status": {
                "phase": "Running" if self.ready else "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": status},
                ],
            },
        }


class Kubernetes:
    """Use as an async context manager: it serves from entering to leaving.

    :param authority: issues its certificate, and those of users.
    :ivar tokens: of users that are let in.
    :ivar forbidden: what no user may do: pairs of a verb and a resource.
    :ivar rules: what users may do, as roles say it; None for everything that is not forbidden.
    :ivar broken: the status and the body of all answers, where it is not itself.
    :ivar requests: the method and path of each request, and who made it.
    :ivar pods: by name; those that were deleted are not among them.
    """

    def __init__(self, authority: Authority) -> None:
        self.port = 0
        self.tokens = {TOKEN}
        self.forbidden: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.secrets: dict[str, Mapping[str, bytes]] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, Pod] = {}
        self.authority = authority
        self.rules: list[dict[str, list[str]]] | None = None
        self.broken: tuple[int, str] | None = None
        self._vanishing = ""
        self._numbers = itertools.count()
        self._runner: web.AppRunner | None = None
        self._happened = anyio.Event()

    # --- its life -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._admitted])
        base = "/api/v1/namespaces/{namespace}"
        app.router.add_get(f"{base}/secrets/{{name}}", self._secret)
        app.router.add_get(f"{base}/services/{{name}}", self._service)
        app.router.add_get(f"{base}/pods", self._list_pods)
        app.router.add_get(f"{base}/pods/{{name}}/portforward", self._port_forward)
        tls = server_context(self.authority.files(HOST))
        tls.set_alpn_protocols(["http/1.1"])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cut()
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def forwards(self) -> int:
        """How many port-forwards are open."""
        return sum(len(pod.forwards) for pod in self.pods.values())

    async def until_forwards(self, count: int) -> None:
        """Wait until *count* port-forwards are open."""
        with anyio.fail_after(PATIENCE):
            while self.forwards != count:
                self._happened = anyio.Event()
                await self._happened.wait()

    # --- what there is --------------------------------------------------------------------------------------

    def add_service(self, name: str, port: int, *, target: int | str | None = None) -> None:
        """A service whose pods have a label ``app`` with its name."""
        ports: dict[str, Any] = {"name": "rpc", "protocol": "TCP", "port": port}
        if target is not None:
            ports["targetPort"] = target
        self.services[name] = {
            "kind": "Service",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {"app": name}, "ports": [ports], "clusterIP": "10.0.0.7"},
        }

    def add_pod(
        self,
        name: str,
        service: str,
        serves: Mapping[int, int],
        *,
        names: Mapping[str, int] | None = None,
        ready: bool = True,
    ) -> Pod:
        """A pod behind *service*."""
        self.pods[name] = Pod(
            name=name,
            labels={"app": service},
            serves=serves,
            names=names or {},
            ready=ready,
            number=next(self._numbers),
        )
        return self.pods[name]

    def delete_pod(self, name: str) -> None:
        """Let a pod be gone, and with it all that was connected to it."""
        for scope in self.pods.pop(name).forwards:
            scope.cancel()

    def vanish_when_listed(self, name: str) -> None:
        """Let a pod be gone as soon as somebody has been told that it is there."""
        self._vanishing = name

    def cut(self) -> None:
        """Break all port-forwards."""
        for pod in self.pods.values():
            for scope in pod.forwards:
                scope.cancel()

    def kubeconfig(self, path: Path, user: Mapping[str, Any] | None = None, **context: str) -> Path:
        """Write a kubeconfig with one context, ``dev``.

        :param user: how they log in; by default with a token.
        :param context: what the context says more, such as a namespace.
        """
        ca = base64.b64encode(self.authority.ca.read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "dev",
            "clusters": [
                {
                    "name": "here",
                    "cluster": {
                        "server": f"https://{HOST}:{self.port}",
                        "certificate-authority-data": ca,
                    },
                }
            ],
            "users": [{"name": "developer", "user": dict(user or {"token": TOKEN})}],
            "contexts": [{"name": "dev", "context": {"cluster": "here", "user": "developer", **context}}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    # --- what it answers ------------------------------------------------------------------------------------

    @web.middleware
    async def _admitted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Answer those who are known, and may do what they want to do."""
        transport = request.transport
        certificate = transport and transport.get_extra_info("peercert")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.broken is not None:
            status, body = self.broken
            return web.Response(status=status, text=body, content_type="text/html")
        if token not in self.tokens and not certificate:
            return _status(401, "Unauthorized")
        *_, resource = [part for part in request.path.split("/") if part in {"secrets", "services", "pods"}]
        resource += "/portforward" if request.path.endswith("/portforward") else ""
        name = request.match_info.get("name", "")
        verb = "get" if name else "list"
        if not self._may(verb, resource, name):
            what = f'{resource} "{name}" is' if name else f"{resource} is"
            user = f'User "developer" cannot {verb} resource "{resource}"'
            where = f'in API group "" in the namespace "{request.match_info["namespace"]}"'
            return _status(403, f"{what} forbidden: {user} {where}")
        response: web.StreamResponse = await handler(request)
        return response

    def _may(self, verb: str, resource: str, name: str) -> bool:
        if self.rules is None:
            return (verb, resource) not in self.forbidden
        # of a websocket, Kubernetes 1.35 asks whether it may be created, too
        verbs = {verb, "create"} if resource == "pods/portforward" else {verb}
        return any(
            verbs <= set(rule["verbs"])
            and resource in rule["resources"]
            and name in rule.get("resourceNames", [name])
            for rule in self.rules
        )

    async def _secret(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.match_info["namespace"] != NAMESPACE or name not in self.secrets:
            return _status(404, f'secrets "{name}" not found')
        data = {key: base64.b64encode(value).decode() for key, value in self.secrets[name].items()}
        metadata = {"name": name, "namespace": NAMESPACE}
        return web.json_response(
            {
                "kind": "Secret",
                "apiVersion": "v1",
                "metadata": metadata,
                "type": "kubernetes.io/tls",
                "data": data,
            }
        )

    async def _service(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if request.match_info["namespace"] != NAMESPACE or name not in self.services:
            return _status(404, f'services "{name}" not found')
        return web.json_response(self.services[name])

    async def _list_pods(self, request: web.Request) -> web.Response:
        wanted = dict(part.split("=") for part in request.query["labelSelector"].split(","))
        pods = [pod.described() for pod in self.pods.values() if wanted.items() <= pod.labels.items()]
        if self._vanishing in self.pods:
            self.delete_pod(self._vanishing)
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        pod = self.pods.get(name)
        if pod is None:
            return _status(404, f'pods "{name}" not found')
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return _status(400, "Upgrade request required")
        if not pod.ready:
            return _status(400, f"pod {name} does not have a host assigned")
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=[PORT_FORWARD])
        await socket.prepare(request)
        assert socket.ws_protocol == PORT_FORWARD
        with anyio.CancelScope() as scope:
            async with self._counted(pod, scope):
                for channel in (0, 1):
                    await socket.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
                await _forward(socket, pod, port)
                await socket.close()
        if scope.cancelled_caught and request.transport is not None:
            request.transport.abort()
        return socket

    @asynccontextmanager
    async def _counted(self, pod: Pod, scope: anyio.CancelScope) -> AsyncIterator[None]:
        pod.forwards.add(scope)
        self._happened.set()
        try:
            yield
        finally:
            pod.forwards.discard(scope)
            self._happened.set()


async def _forward(socket: web.WebSocketResponse, pod: Pod, port: int) -> None:
    """Pass on, as a kubelet does, until the pod or the client ends."""
    try:
        stream = await anyio.connect_tcp(HOST, pod.serves[port])
    except (KeyError, OSError):
        refused = f"dial tcp4 127.0.0.1:{port}: connect: connection refused"
        fault = f"error forwarding port {port} to pod {pod.name}, uid : failed to connect: {refused}"
        await socket.send_bytes(b"\x01" + fault.encode())
        return
    async with stream, anyio.create_task_group() as group:

        async def to_pod() -> None:
            with suppress(anyio.BrokenResourceError):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.BINARY and message.data[0] == 0:
                        await stream.send(message.data[1:])
            group.cancel_scope.cancel()

        group.start_soon(to_pod)
        with suppress(anyio.BrokenResourceError, ConnectionResetError):
            async for data in stream:
                await socket.send_bytes(b"\x00" + data)
        group.cancel_scope.cancel()


def _status(code: int, message: str) -> web.Response:
    """An error, as Kubernetes tells it."""
    return web.json_response(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": REASONS[code],
            "code": code,
        },
        status=code,
    )


def exec_user(folder: Path, token: str) -> dict[str, Any]:
    """A user who gets a token from a program: what stands in *folder* in a file ``token``, from now on."""
    (folder / "token").write_text(token)
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    body = json.dumps({**credential, "status": {"token": "TOKEN"}})
    program = folder / "log-in"
    program.write_text(
        f"#!/bin/sh\necho run >> {folder}/runs\nsed \"s/TOKEN/$(cat {folder}/token)/\" <<'E'\n{body}\nE\n"
    )
    program.chmod(0o700)
    return {"exec": {"apiVersion": credential["apiVersion"], "command": str(program), "args": []}}


def certificate_user(authority: Authority) -> dict[str, Any]:
    """A user who shows a certificate."""
    files = authority.files("developer")
    return {"client-certificate": files.certificate, "client-key": files.key}


def client_secret(authority: Authority, *, ends: dt.datetime | None = None) -> dict[str, bytes]:
    """The secret with what clients of a workspace manager need.

    :param ends: the end of the certificate's validity, where it matters.
    """
    issued = authority.issue("client-of-ws-manager", ends=ends)
    return {
        "ca.crt": authority.ca.read_bytes(),
        "tls.crt": b"".join(part.bytes() for part in issued.cert_chain_pems),
        "tls.key": issued.private_key_pem.bytes(),
    }
