"""A workspace that is known, with what belongs to it, and what can be wrong with asking for one."""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.standalone.buildtask import BuildTask
from imgbuilder.standalone.terminal import Terminal
from imgbuilder.standalone.workspaces import Workspace


class WorkspaceKnownError(ImgbuilderError):
    """There is a workspace of this id."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__(f"workspace {workspace_id} exists already")


class WorkspaceUnknownError(ImgbuilderError):
    """There is no workspace of this id."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__(f"workspace {workspace_id} does not exist")


class ManagerClosedError(ImgbuilderError):
    """The workspace manager is being stopped: it starts nothing any more."""

    def __init__(self) -> None:
        super().__init__("the workspace manager is shutting down")


@dataclass(slots=True, kw_only=True)
class Live:
    """A workspace and what belongs to it while it is known.

    :ivar scope: ends its build when it is cancelled.
    :ivar lingering: ends, when it is cancelled, the wait for those who read its output.
    """

    workspace: Workspace
    task: BuildTask | None = None
    terminal: Terminal = field(default_factory=Terminal)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    lingering: anyio.CancelScope = field(default_factory=anyio.CancelScope)
