"""Supervisors of build workspaces over HTTP, all on one port, that behave like the real one and misbehave on demand.

Each workspace has an address of its own under a common server. What happens in it is decided by whoever drives
it: `Supervisors.open_terminal`, `write` and `exit` are what a task does; the rest is what goes wrong. All of
that is synchronous; `until` waits for what others do.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote

import anyio

HOST: Final = "127.0.0.1"
REMEMBERED: Final = 256 * 1024
"""Bytes of output that a terminal remembers for new listeners."""

LARGEST_VALUE: Final = 4 * 1024
"""Bytes of output in one line of a listen stream."""

COMING_UP: Final = 503
_TASKS: Final = "/_supervisor/v1/status/tasks"
_LISTEN: Final = "/_supervisor/v1/terminal/listen/"


@dataclass(slots=True)
class Workspace:
    """One workspace, as its supervisor sees it.

    :ivar terminal: alias of the task's terminal; empty until it is open.
    :ivar status: is answered to every request with the right token; None for a proper answer.
    :ivar silent: whether connections are accepted and requests never answered.
    """

    owner_token: str
    terminal: str = ""
    status: int | None = COMING_UP
    silent: bool = False
    remembered: bytearray = field(default_factory=bytearray)
    exit_code: int | None = None
    listeners: list[_Connection] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that came in; *path* is without the workspace's address."""

    workspace_id: str
    path: str
    headers: dict[str, str]


class Supervisors:
    """Use as an async context manager: it serves from entering to leaving.

    :param port: 0 for any that is free; known as *port* once it serves.
    :param tls: the server's side of TLS; None for plain HTTP.
    :param remembered: bytes of output that terminals remember.
    :ivar requests: every request so far.
    """

    def __init__(
        self, *, port: int = 0, tls: ssl.SSLContext | None = None, remembered: int = REMEMBERED
    ) -> None:
        self.port = port
        self.workspaces: dict[str, Workspace] = {}
        self.requests: list[Request] = []
        self._tls = tls
        self._remembered = remembered
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._happened = anyio.Event()

    # --- its life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve, on the same port as before if there was one. Terminals remember what they did."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), HOST, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be gone at once, as a process that is killed. Does nothing if it is gone."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self.until(lambda: not self._connections)
        await self._server.wait_closed()
        self._server = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is looked at whenever a client does something."""
        while not condition():
            await self._happened.wait()

    # --- what happens in a workspace --------------------------------------------------------------------

    def url(self, workspace_id: str) -> str:
        """Where the supervisor of a workspace is, there or not."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{HOST}:{self.port}/{quote(workspace_id, safe='')}"

    def add(self, workspace_id: str, owner_token: str) -> str:
        """There is a workspace, whose supervisor is coming up; tells its address."""
        self.workspaces[workspace_id] = Workspace(owner_token)
        return self.url(workspace_id)

    def remove(self, workspace_id: str) -> None:
        """The workspace is gone, and what was connected to it. Does nothing if there is none."""
        workspace = self.workspaces.pop(workspace_id, None)
        if workspace is not None:
            _abort(workspace)

    def come_up(self, workspace_id: str) -> None:
        """The supervisor answers; the task has no terminal yet."""
        self.workspaces[workspace_id].status = None

    def open_terminal(self, workspace_id: str, alias: str = "1b2c3d") -> None:
        """The task begins; its terminal is new, and has printed nothing."""
        workspace = self.workspaces[workspace_id]
        workspace.status = None
        workspace.terminal = alias
        workspace.remembered.clear()
        workspace.exit_code = None

    def write(self, workspace_id: str, data: bytes) -> None:
        """The task prints *data*."""
        workspace = self.workspaces[workspace_id]
        workspace.remembered += data
        del workspace.remembered[: -self._remembered]
        for line in _lines_of(data):
            self.send(workspace_id, line)

    def exit(self, workspace_id: str, code: int) -> None:
        """The task ends, and with it the listen streams."""
        workspace = self.workspaces[workspace_id]
        workspace.exit_code = code
        self.send(workspace_id, _line({"result": {"exitCode": code}}))
        self.end_streams(workspace_id)

    def set_title(self, workspace_id: str, title: str) -> None:
        """The task gives its terminal a title."""
        self.send(workspace_id, _line({"result": {"title": title, "titleSource": "process"}}))

    async def drain(self, workspace_id: str) -> None:
        """Wait until the listeners have taken nearly all that was written: for who writes a lot."""
        listeners = self.workspaces[workspace_id].listeners
        await self.until(lambda: not any(listener.full for listener in listeners))

    # --- what goes wrong --------------------------------------------------------------------------------

    def send(self, workspace_id: str, line: bytes) -> None:
        """Put *line* into the listen streams as it is, whatever it is."""
        for listener in self.workspaces[workspace_id].listeners:
            listener.send_chunk(line)

    def fail(self, workspace_id: str, message: str) -> None:
        """End the listen streams with an error value."""
        self.send(workspace_id, _line({"error": {"code": 13, "message": message}}))
        self.end_streams(workspace_id)

    def end_streams(self, workspace_id: str) -> None:
        """End the listen streams of a workspace as complete answers."""
        for listener in list(self.workspaces[workspace_id].listeners):
            listener.finish()

    def break_streams(self, workspace_id: str | None = None) -> None:
        """Cut the listen streams of a workspace, or of all."""
        for name, workspace in self.workspaces.items():
            if workspace_id in (None, name):
                _abort(workspace)

    # --- inside -----------------------------------------------------------------------------------------

    def happened(self) -> None:
        """Something has changed that `until` may wait for."""
        self._happened.set()
        self._happened = anyio.Event()

    def connected(self, connection: _Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)
        self.happened()

    def disconnected(self, connection: _Connection) -> None:
        """A connection is no more."""
        self._connections.discard(connection)
        for workspace in self.workspaces.values():
            if connection in workspace.listeners:
                workspace.listeners.remove(connection)
        self.happened()

    def answer(self, connection: _Connection, target: str, headers: dict[str, str]) -> None:
        """Answer one request."""
        name, slash, path = target.removeprefix("/").partition("/")
        name, path = unquote(name), slash + path
        self.requests.append(Request(name, path, headers))
        workspace = self.workspaces.get(name)
        if workspace is None:
            connection.answer(404, {"message": "no such workspace"})
        elif headers.get("x-gitpod-owner-token") != workspace.owner_token:
            connection.answer(403, {"message": "wrong token"})
        elif workspace.status is not None:
            connection.answer(workspace.status, {"message": "not now"}, location=self.url("elsewhere"))
        elif workspace.silent:
            pass
        elif path == _TASKS:
            task = {"id": "0", "state": "running", "terminal": workspace.terminal}
            connection.answer(200, {"result": {"tasks": [task]}})
        elif path.startswith(_LISTEN) and unquote(path.removeprefix(_LISTEN)) == workspace.terminal:
            self._listen(connection, workspace)
        else:
            connection.answer(404, {"code": 5, "message": "not found"})
        self.happened()

    def _listen(self, connection: _Connection, workspace: Workspace) -> None:
        connection.begin_stream()
        for line in _lines_of(bytes(workspace.remembered)):
            connection.send_chunk(line)
        if workspace.exit_code is None:
            workspace.listeners.append(connection)
        else:
            connection.send_chunk(_line({"result": {"exitCode": workspace.exit_code}}))
            connection.finish()


class _Connection(asyncio.Protocol):
    """One connection of a client, for one request."""

    def __init__(self, owner: Supervisors) -> None:
        self._owner = owner
        self._received = b""
        self._transport: asyncio.Transport
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # streams have a full transport
        self._owner.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.disconnected(self)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._owner.happened()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, self._received = self._received.partition(b"\r\n\r\n")
        if not end:
            self._received = head
            return
        request, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self._owner.answer(self, request.split(" ")[1], headers)

    def answer(self, status: int, value: dict[str, Any], **headers: str) -> None:
        body = json.dumps(value).encode()
        self._begin(status, **{"content-length": str(len(body))}, **headers)
        self._transport.write(body)
        self._transport.close()

    def begin_stream(self) -> None:
        self._begin(200, **{"transfer-encoding": "chunked"})

    def send_chunk(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _begin(self, status: int, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Status", "content-type: application/json", "connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


def _abort(workspace: Workspace) -> None:
    for listener in list(workspace.listeners):
        listener.abort()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _lines_of(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), LARGEST_VALUE):
        # By hand: benchmarks measure who reads this, and should not wait for who writes it.
        yield b'{"result":{"data":"%b"}}\n' % base64.b64encode(data[start : start + LARGEST_VALUE])
