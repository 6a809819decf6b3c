"""The world of a test, whose workspace manager and supervisors can be killed: it remembers for them."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
from anyio.abc import ByteSendStream, TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from imgbuilder.pb.wsman import StartWorkspaceRequest, WorkspaceConditionBool, WorkspacePhase, WorkspaceStatus
from tests.faults.processes.frontends import encoded
from tests.faults.processes.programs import Program
from tests.world.supervisor import Supervisors
from tests.world.workspaces import Workspace, WorkspaceManager

FRONTENDS: Final = "tests.faults.processes.frontends"
Message = dict[str, Any]


class Frontend(Program):
    """A process that shows a part of the world.

    :ivar present: tells all that there is, for one that is started.
    :ivar on_question: answers what it asks.
    """

    def __init__(self, kind: str, port: int, group: TaskGroup) -> None:
        super().__init__(kind, [sys.executable, "-m", FRONTENDS, kind, str(port)], group)
        self.present: Callable[[], Sequence[Message]] = list
        self.on_question: Callable[[Message], Message] = dict
        self._sender: MemoryObjectSendStream[Message] | None = None
        self._unsent: MemoryObjectReceiveStream[Message] | None = None

    async def start(self) -> None:
        """Start it, with all that there is now."""
        self._sender, self._unsent = anyio.create_memory_object_stream[Message](math.inf)
        for message in (*self.present(), {"serve": True}):
            self.tell(message)
        await super().start()

    def tell(self, message: Message) -> None:
        """Tell it of a change. Does nothing while it does not run."""
        if self._sender is not None:
            with contextlib.suppress(anyio.BrokenResourceError):  # it has just been killed
                self._sender.send_nowait(message)

    async def _gone(self) -> int:
        if self._sender is not None:
            self._sender.close()
            self._sender = None
        return await super()._gone()

    async def _speak(self, stdin: ByteSendStream) -> None:
        assert self._unsent is not None
        with self._unsent as unsent:
            try:
                async for message in unsent:
                    await stdin.send(json.dumps(message).encode() + b"\n")
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # it was killed
            finally:
                await stdin.aclose()

    def _hear(self, line: bytes) -> None:
        message = json.loads(line)
        if "serving" in message:
            self._ready.set()
        else:
            self.tell({"answer": message.pop("ask"), **self.on_question(message)})


class KilledManager(WorkspaceManager):
    """A workspace manager whose process comes and goes; what runs in the cluster goes on.

    :ivar process: it.
    :ivar history: all workspaces there ever were, in order.
    :ivar on_asked: is called when a start was asked for, was or was not taken in, and was not answered yet.
    """

    def __init__(self, *, port: int, group: TaskGroup) -> None:
        super().__init__(port=port)
        self.process = Frontend("manager", port, group)
        self.process.present = self._present
        self.process.on_question = self._answer
        self.history: list[Workspace] = []
        self.on_asked: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Start its process."""
        await self.process.start()

    async def stop(self) -> None:
        """Kill its process."""
        await self.process.kill()

    def live(self, ref: str) -> list[Workspace]:
        """The workspaces of an image that are there now."""
        return [workspace for workspace in self.workspaces.values() if workspace.ref == ref]

    def _present(self) -> list[Message]:
        return [_status(workspace.status) for workspace in self.workspaces.values()]

    def _publish(self, status: WorkspaceStatus) -> None:
        self.process.tell(_status(status))
        self._notify()

    def _forget(self, workspace_id: str) -> None:
        self.process.tell({"gone": workspace_id})
        super()._forget(workspace_id)

    def _answer(self, question: Message) -> Message:
        match question:
            case {"start": text}:
                return self._start(StartWorkspaceRequest.parse(base64.b64decode(text)))
            case {"stop": workspace_id}:
                return self._stop(workspace_id)
        raise AssertionError(question)

    def _start(self, request: StartWorkspaceRequest) -> Message:
        if request.id in self.workspaces:
            return {"error": "ALREADY_EXISTS"}
        workspace = self.add(request)
        self.history.append(workspace)
        self.on_start(workspace)
        self.on_asked()
        return {"url": workspace.url, "token": workspace.owner_token}

    def _stop(self, workspace_id: str) -> Message:
        if workspace_id not in self.workspaces:
            return {"error": "NOT_FOUND"}
        by_request = WorkspaceConditionBool.TRUE
        self.advance(workspace_id, WorkspacePhase.STOPPING, stopped_by_request=by_request)
        self.advance(workspace_id, WorkspacePhase.STOPPED)
        return {}


class KilledSupervisors(Supervisors):
    """Supervisors whose process comes and goes; their terminals' memory stays.

    :ivar printed: all that each task ever printed.
    """

    def __init__(self, *, port: int, group: TaskGroup) -> None:
        super().__init__(port=port)
        self.process = Frontend("supervisors", port, group)
        self.process.present = self._present
        self.printed: dict[str, bytearray] = {}

    async def start(self) -> None:
        """Start their process."""
        await self.process.start()

    async def stop(self) -> None:
        """Kill their process."""
        await self.process.kill()

    def add(self, workspace_id: str, owner_token: str) -> str:
        """There is a workspace, whose supervisor is coming up; tells its address."""
        self.process.tell({"add": workspace_id, "token": owner_token})
        self.printed[workspace_id] = bytearray()
        return super().add(workspace_id, owner_token)

    def remove(self, workspace_id: str) -> None:
        """The workspace is gone."""
        self.process.tell({"remove": workspace_id})
        super().remove(workspace_id)

    def open_terminal(self, workspace_id: str, alias: str = "1b2c3d") -> None:
        """The task begins."""
        super().open_terminal(workspace_id, alias)
        self.process.tell({"open": workspace_id})

    def write(self, workspace_id: str, data: bytes) -> None:
        """The task prints *data*."""
        super().write(workspace_id, data)
        self.printed[workspace_id] += data
        self.process.tell({"write": workspace_id, "data": encoded(data)})

    def exit(self, workspace_id: str, code: int) -> None:
        """The task ends."""
        super().exit(workspace_id, code)
        self.process.tell({"exit": workspace_id, "code": code})

    def break_streams(self, workspace_id: str | None = None) -> None:
        """Cut all listen streams."""
        self.process.tell({"break": workspace_id})

    def _present(self) -> list[Message]:
        messages: list[Message] = []
        for name, workspace in self.workspaces.items():
            messages.append({"add": name, "token": workspace.owner_token})
            if workspace.terminal:
                messages.append({"open": name})
                messages.append({"write": name, "data": encoded(bytes(workspace.remembered))})
            if workspace.exit_code is not None:
                messages.append({"exit": name, "code": workspace.exit_code})
        return messages


def _status(status: WorkspaceStatus) -> Message:
    return {"status": encoded(bytes(status))}
