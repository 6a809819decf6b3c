"""One build to its end, and what that end means: every way of failing becomes an outcome with a text."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, Protocol

import anyio
import structlog

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.standalone.buildtask import BuildTask
from imgbuilder.standalone.engines.protocol import BuildFailedError
from imgbuilder.standalone.live import Live
from imgbuilder.standalone.terminal import Terminal
from imgbuilder.standalone.workspaces import Event, Failed, Outcome, Succeeded, TaskFailed, TimedOut

log = structlog.get_logger(__name__)

INTERNAL: Final = Failed("internal error of the workspace manager; its log says more")


Report = Callable[[Event], None]
"""Told where a build stands."""


class Runner(Protocol):
    """Does builds."""

    async def run(self, task: BuildTask, terminal: Terminal, report: Report) -> None:
        """Do one, to its end. Cancelling ends all that it has started, which may take some seconds.

        :raises BuildFailedError: if what is to be built is at fault.
        :raises ImgbuilderError: if it can't be done for another reason; its text is for the user.
        :raises OSError: if the machine is at fault.
        """
        ...


async def execute(live: Live, runner: Runner, report: Report) -> Outcome:
    """Run the build of *live* in its scope and time limit; how it ended.

    Cancelling the scope ends it; whoever does that says why in the workspace before.
    """
    task, outcome = live.task, live.workspace.outcome
    if task is None or outcome is not None:
        return outcome or INTERNAL
    with live.scope:
        with anyio.move_on_after(task.timeout) as limit:
            outcome = await _outcome(task, live, runner, report)
        if limit.cancelled_caught:
            outcome = TimedOut(task.timeout_text)
    return live.workspace.outcome or outcome or INTERNAL


async def _outcome(task: BuildTask, live: Live, runner: Runner, report: Report) -> Outcome:
    try:
        await runner.run(task, live.terminal, report)
    except BuildFailedError as error:
        live.terminal.line(f"build failed: {error.fault}")
        return TaskFailed(error.exit_status)
    except ImgbuilderError as error:
        return Failed(str(error))
    except OSError as error:
        log.warning("a build failed because of the machine", build_id=task.build_id, exc_info=True)
        return Failed(_machine_fault(error))
    except Exception:
        log.exception("a build failed unexpectedly", build_id=task.build_id)
        return INTERNAL
    return Succeeded()


def _machine_fault(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "no space left on the disk of the workspace manager"
    return f"the workspace manager's machine is at fault: {error.strerror or type(error).__name__}"
