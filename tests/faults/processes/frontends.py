"""Workspace manager and supervisors as processes that show a world which another process keeps.

``python -m tests.faults.processes.frontends manager|supervisors PORT`` is told of the world on its standard input,
a JSON object a line, and asks on its standard output. It ends with its input, so that nothing is left over
whatever becomes of the process that started it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from imgbuilder.pb.wsman import (
    StartWorkspaceRequest,
    StartWorkspaceResponse,
    StopWorkspaceRequest,
    StopWorkspaceResponse,
    WorkspacePhase,
    WorkspaceStatus,
)
from imgbuilder.runtime.grpc.codec import ProtoCodec
from tests.world.service import WorkspaceService
from tests.world.serving import GrpcServer
from tests.world.supervisor import Supervisors
from tests.world.workspaces import Workspace, WorkspaceManager

LONGEST_LINE: Final = 1 << 24


def encoded(data: bytes) -> str:
    """*data* as JSON can have it."""
    return base64.b64encode(data).decode()


class ManagerFrontend(WorkspaceManager):
    """Shows the workspaces that it is told of. Who keeps them decides what is started."""

    def __init__(self, port: int) -> None:
        super().__init__(port=port)
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Serve."""
        self._server = GrpcServer([FrontendService(self)], codec=ProtoCodec())
        self.port = await self._server.listen(self.port)

    def record(self, method: str, request: Any) -> None:
        """Who keeps the world keeps the records, too."""

    def take(self, command: dict[str, Any]) -> None:
        """Take in what has changed, or was answered."""
        match command:
            case {"status": text}:
                status = WorkspaceStatus.parse(base64.b64decode(text))
                if status.phase is not WorkspacePhase.STOPPED:
                    self.workspaces[status.id] = Workspace(
                        request=StartWorkspaceRequest(), status=status, url="", owner_token=""
                    )
                self._publish(status)
            case {"gone": workspace_id}:
                self.workspaces.pop(workspace_id, None)
            case {"answer": number, **rest}:
                future = self._asked.pop(number)
                if not future.done():  # else whoever asked has gone
                    future.set_result(rest)

    async def ask(self, **question: str) -> dict[str, Any]:
        """Ask who keeps the world.

        :raises GRPCError: if that is the answer.
        """
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        _say(ask=number, **question)
        answered = await self._asked[number]
        if "error" in answered:
            raise GRPCError(Status[answered["error"]], "says who keeps the world")
        return answered


class FrontendService(WorkspaceService):
    """Passes on what changes the world."""

    def __init__(self, manager: ManagerFrontend) -> None:
        super().__init__(manager)
        self._ask = manager.ask

    async def start_workspace(self, message: StartWorkspaceRequest) -> StartWorkspaceResponse:
        """StartWorkspace."""
        answer = await self._ask(start=encoded(bytes(message)))
        return StartWorkspaceResponse(url=answer["url"], owner_token=answer["token"])

    async def stop_workspace(self, message: StopWorkspaceRequest) -> StopWorkspaceResponse:
        """StopWorkspace."""
        await self._ask(stop=message.id)
        return StopWorkspaceResponse()


class SupervisorsFrontend(Supervisors):
    """Shows the terminals that it is told of."""

    def take(self, command: dict[str, Any]) -> None:
        """Take in what has happened in a workspace."""
        self.requests.clear()
        match command:
            case {"add": workspace_id, "token": token}:
                self.add(workspace_id, token)
            case {"remove": workspace_id}:
                self.remove(workspace_id)
            case {"come_up": workspace_id}:
                self.come_up(workspace_id)
            case {"open": workspace_id}:
                self.open_terminal(workspace_id)
            case {"write": workspace_id, "data": text}:
                self.write(workspace_id, base64.b64decode(text))
            case {"exit": workspace_id, "code": code}:
                self.exit(workspace_id, code)
            case {"break": _}:
                self.break_streams()


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _commands() -> AsyncIterator[dict[str, Any]]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def _run(kind: str, port: int) -> None:
    frontend: ManagerFrontend | SupervisorsFrontend
    frontend = ManagerFrontend(port) if kind == "manager" else SupervisorsFrontend(port=port)
    async for command in _commands():
        if "serve" in command:
            await frontend.start()
            _say(serving=frontend.port)
        else:
            frontend.take(command)
    await frontend.stop()


if __name__ == "__main__":
    anyio.run(_run, sys.argv[1], int(sys.argv[2]))
