"""What a workspace's supervisor answers over HTTP: the task of its build, and that task's output as it comes.

Every request must show the owner token of the workspace that it is about. Reads terminals, and writes nothing.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import Final

import anyio
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imgbuilder.standalone.live import Live, WorkspaceUnknownError
from imgbuilder.standalone.terminal import ListenerLagsError, Terminal

OWNER_HEADER: Final = "x-gitpod-owner-token"
TASK: Final = "build"
TERMINAL: Final = "build"
"""The alias of the one terminal that a workspace has."""

Find = Callable[[str], Live]
"""The workspace of an id; raises `WorkspaceUnknownError`."""


def supervisor_path(workspace_id: str) -> str:
    """Where the supervisor of a workspace is on the server."""
    return f"/workspace/{workspace_id}"


def supervisor_app(find: Find) -> Starlette:
    """Answers for the supervisors of all workspaces that *find* knows."""

    def admit(request: Request) -> Live | Response:
        """The workspace that *request* is about, if it may see it."""
        try:
            live = find(request.path_params["workspace_id"])
        except WorkspaceUnknownError:
            return _error(404, "workspace not found")
        expected = live.workspace.owner_token.reveal()
        shown = request.headers.get(OWNER_HEADER, "")
        if not expected or not hmac.compare_digest(expected.encode(), shown.encode()):
            return _error(403, "the owner token is missing or wrong")
        return live

    async def tasks(request: Request) -> Response:
        live = admit(request)
        return live if isinstance(live, Response) else JSONResponse({"result": {"tasks": [_task(live)]}})

    async def listen(request: Request) -> Response | TerminalStream:
        live = admit(request)
        if isinstance(live, Response):
            return live
        if request.path_params["alias"] != TERMINAL:
            return _error(404, "terminal not found")
        return TerminalStream(live.terminal)

    base = supervisor_path("{workspace_id}") + "/_supervisor/v1"
    return Starlette(
        routes=[
            Route(f"{base}/status/tasks", tasks),
            Route(f"{base}/terminal/listen/{{alias}}", listen),
        ],
    )


class TerminalStream:
    """An answer that goes on until the terminal is closed: one JSON value a line, sent as output comes.

    A listener that leaves is noticed at once, also while there is nothing to send.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Answer, as an ASGI application."""
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_when_left, receive, group.cancel_scope)
            await self._send_all(send)
            group.cancel_scope.cancel()

    async def _send_all(self, send: Send) -> None:
        async def put(value: dict[str, object]) -> None:
            await send({"type": "http.response.body", "body": orjson.dumps(value) + b"\n", "more_body": True})

        with self._terminal.listen() as listener:
            try:
                async for piece in listener:
                    await put({"result": {"data": base64.b64encode(piece).decode()}})
                await put({"result": {"exitCode": self._terminal.exit_code}})
            except ListenerLagsError as error:
                await put({"error": {"grpc_code": 8, "http_code": 429, "message": str(error)}})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            self._terminal.finished(listener)


async def _cancel_when_left(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _task(live: Live) -> dict[str, str]:
    started = live.workspace.phase > 1  # PENDING: nothing of it runs yet
    state = "opening" if not started else "running" if live.terminal.exit_code is None else "closed"
    return {"id": TASK, "state": state, "terminal": TERMINAL if started else ""}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)
