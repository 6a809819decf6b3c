"""What happens in the build workspaces of the test world, as scripts: small coroutines that drive one build.

A script is stopped when its workspace is: by a StopWorkspace call, or because it vanishes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import anyio

from imgbuilder.pb.wsman import WorkspacePhase
from tests.world.workspaces import Workspace

FAILURE: Final = "headless task failed: exit status 1"
"""What the workspace manager says of a build whose task failed."""

LINES: Final = ("Step 1/2 : FROM base", "Step 2/2 : RUN make", "Successfully built")


class Stage(Protocol):
    """What a script can do to its build."""

    workspace: Workspace

    def advance(self, phase: WorkspacePhase, *, message: str = "", **conditions: Any) -> None:
        """Change the workspace and tell the subscribers."""
        ...

    async def heard(self) -> None:
        """Wait until somebody listens to the terminal."""
        ...

    def write(self, text: str) -> None:
        """Let the task write *text* to its terminal."""
        ...

    def exit(self, code: int) -> None:
        """End the task."""
        ...

    def push(self) -> None:
        """Put an image under the workspace ref into the registry."""
        ...

    def vanish(self) -> None:
        """Lose the workspace without telling anybody."""
        ...


Script = Callable[[Stage], Awaitable[None]]


def succeeding(lines: Sequence[str] = LINES, *, pause: float = 0.0, heard: bool = False) -> Script:
    """A build that writes *lines*, with a pause in seconds before each, and leaves its image.

    :param heard: whether it writes only when somebody listens.
    """

    async def script(stage: Stage) -> None:
        await _run(stage, lines, pause, heard=heard)
        stage.push()
        await _end(stage, 0)

    return script


def failing(
    lines: Sequence[str] = LINES[:2],
    *,
    pause: float = 0.0,
    heard: bool = False,
    failure: str = FAILURE,
) -> Script:
    """A build whose task fails."""

    async def script(stage: Stage) -> None:
        await _run(stage, lines, pause, heard=heard)
        await _end(stage, 1, headless_task_failed=failure)

    return script


def leaving_no_image(lines: Sequence[str] = LINES) -> Script:
    """A build that ends without a failure, and without an image."""

    async def script(stage: Stage) -> None:
        await _run(stage, lines)
        await _end(stage, 0)

    return script


def waiting(finish: anyio.Event, lines: Sequence[str] = LINES) -> Script:
    """A build that writes *lines*, runs until *finish* is set, and then succeeds."""

    async def script(stage: Stage) -> None:
        await _run(stage, lines)
        await finish.wait()
        stage.push()
        await _end(stage, 0)

    return script


def vanishing(lines: Sequence[str] = LINES, *, image: bool = False) -> Script:
    """A build that is gone while it runs, without a word; perhaps it has left its *image*."""

    async def script(stage: Stage) -> None:
        await _run(stage, lines)
        if image:
            stage.push()
        stage.vanish()

    return script


async def idle(_: Stage) -> None:
    """Nothing happens: the test drives the workspace itself."""


async def _run(stage: Stage, lines: Sequence[str], pause: float = 0.0, *, heard: bool = False) -> None:
    for phase in (WorkspacePhase.CREATING, WorkspacePhase.INITIALIZING, WorkspacePhase.RUNNING):
        stage.advance(phase)
        await anyio.lowlevel.checkpoint()
    if heard:
        await stage.heard()
    for line in lines:
        await anyio.sleep(pause)
        stage.write(line + "\r\n")


async def _end(stage: Stage, code: int, **conditions: Any) -> None:
    stage.exit(code)
    stage.advance(WorkspacePhase.STOPPING, **conditions)
    await anyio.lowlevel.checkpoint()
    stage.advance(WorkspacePhase.STOPPED)
