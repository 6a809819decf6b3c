"""What a workspace does: comes up, prints, pushes an image or fails, and goes. Drawn when it is started."""

from __future__ import annotations

import enum
import random
from typing import TYPE_CHECKING, Final

from imgbuilder.core.builds import LogSource

if TYPE_CHECKING:
    from tests.faults.simulation.world import Workspace, World


class Outcome(enum.Enum):
    """How a build goes, as long as nobody stops it."""

    IMAGE = "makes the image"
    TASK_FAILED = "its task fails"
    FAILED = "its workspace fails"
    FAILED_EARLY = "its workspace fails before it runs"
    NO_IMAGE = "ends well but makes no image"
    VANISHED = "its workspace is lost"
    VANISHED_WITH_IMAGE = "its workspace is lost after the image was made"
    ENDLESS = "never ends"


OUTCOMES: Final = (
    *(Outcome.IMAGE,) * 10,
    *(Outcome.TASK_FAILED,) * 3,
    Outcome.FAILED,
    Outcome.FAILED_EARLY,
    Outcome.NO_IMAGE,
    Outcome.VANISHED,
    Outcome.VANISHED_WITH_IMAGE,
    Outcome.ENDLESS,
)


class Work:
    """Lets a workspace do what it is there for, step by step."""

    def __init__(self, world: World, workspace: Workspace, source: LogSource, chance: random.Random) -> None:
        self._world = world
        self._workspace = workspace
        self._source = source
        self._chance = chance

    def begin(self) -> None:
        """Pull images, make the workspace, run."""
        chance = self._chance
        pace = chance.choice((0.05, 1.0, 5.0))
        self._world.later(chance.uniform(0.1, 1.0) * pace, self._create, self._workspace)
        ready = chance.uniform(1.0, 2.0) * pace
        self._world.later(ready, self._run, self._workspace)
        ends = ready + chance.choice((0.1, 1.0, 10.0, 60.0)) * chance.uniform(0.5, 1.5)
        if self._workspace.outcome is Outcome.FAILED_EARLY:
            ends = ready * 0.9
        if self._workspace.outcome is not Outcome.ENDLESS:
            self._world.later(ends, self._end, self._workspace)
        lines = 400 if self._world.scenario.chatty else chance.choice((0, 3, 20, 60))
        for _ in range(lines):
            self._world.later(chance.uniform(ready, ends), self._print, self._workspace)

    def _create(self, workspace: Workspace) -> None:
        if workspace.building:
            self._world.change(workspace, phase="CREATING", log_source=self._source, message="pulling images")

    def _run(self, workspace: Workspace) -> None:
        if workspace.building:
            workspace.terminal.opened = True
            self._world.change(workspace, phase="RUNNING", log_source=self._source, message="")

    def _print(self, workspace: Workspace) -> None:
        terminal = workspace.terminal
        if workspace.building and terminal.opened and not terminal.ended:
            terminal.output += f"{len(terminal.output)}:{self._text()}\r\n".encode()
            terminal.printed_at = self._world.now()
            terminal.tell()

    def _text(self) -> str:
        """Something that the terminal has not printed before; now and then with what nobody must read."""
        longest = 4 if self._world.scenario.chatty else 100
        text = self._chance.randbytes(min(longest, self._chance.choice((1, 10, 100)))).hex()
        if self._world.scenario.window < 1000:
            return text  # where a part is forgotten, a part of a word can't be told from other text
        status = self._workspace.status
        return text + self._chance.choice(("", "", status.ref, f"<{status.base_ref}>", status.ref[:-1]))

    def _end(self, workspace: Workspace) -> None:
        world, outcome = self._world, workspace.outcome
        if not workspace.building:
            return
        if outcome in (Outcome.IMAGE, Outcome.VANISHED_WITH_IMAGE):
            world.push(workspace)
        workspace.terminal.ended = True
        workspace.terminal.tell()
        linger = self._chance.choice((0.0, 0.01, 1.0, 20.0))
        if outcome in (Outcome.VANISHED, Outcome.VANISHED_WITH_IMAGE):
            world.later(linger, world.vanish, workspace)
            return
        failure = {
            Outcome.TASK_FAILED: "headless task failed: exit status 1",
            Outcome.FAILED: "the node is lost",
            Outcome.FAILED_EARLY: "cannot pull image",
        }.get(outcome, "")
        early = self._chance.random() < 0.8
        world.later(
            linger, lambda it: world.enter(it, "STOPPING", failure=failure if early else ""), workspace
        )
        linger += self._chance.choice((0.0, 0.1, 5.0, 30.0))
        world.later(linger, lambda it: world.stopped(it, failure), workspace)
