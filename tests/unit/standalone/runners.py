"""Builds that a test drives, and a manager that runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio

from imgbuilder.runtime.tasks import Tasks
from imgbuilder.standalone.buildtask import BuildTask
from imgbuilder.standalone.executing import Report
from imgbuilder.standalone.manager import Manager, ManagerSettings
from imgbuilder.standalone.state import Journal
from imgbuilder.standalone.terminal import Terminal
from imgbuilder.standalone.workspaces import ContentAwaited, Working

NOW = 1_700_000_000.0


@dataclass(slots=True)
class Running:
    """A build that was begun; the test says how it goes on."""

    task: BuildTask
    terminal: Terminal
    report: Report
    over: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    cancelled: bool = False
    tidied: anyio.Event = field(default_factory=anyio.Event)

    def work(self, what: str = "building the Dockerfile") -> None:
        """Get to the step *what*."""
        self.report(ContentAwaited())
        self.report(Working(what))

    def end(self, error: Exception | None = None) -> None:
        """Be done, or fail with *error*."""
        self.error = error
        self.over.set()


@dataclass(slots=True)
class Script:
    """A `Runner` whose builds do what the test tells them.

    :ivar builds: those that were begun, by id.
    :ivar tidying: seconds that a build which is cancelled takes to end.
    """

    builds: dict[str, Running] = field(default_factory=dict)
    tidying: float = 0.0
    _begun: anyio.Event = field(default_factory=anyio.Event)

    async def run(self, task: BuildTask, terminal: Terminal, report: Report) -> None:
        """Wait for the test."""
        running = self.builds[task.build_id] = Running(task, terminal, report)
        self._begun.set()
        self._begun = anyio.Event()
        try:
            await running.over.wait()
        except anyio.get_cancelled_exc_class():
            running.cancelled = True
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.tidying)
            raise
        finally:
            running.tidied.set()
        if running.error is not None:
            raise running.error

    async def begun(self, build_id: str) -> Running:
        """The build of this id, as soon as it has begun."""
        with anyio.fail_after(10):
            while build_id not in self.builds:
                await self._begun.wait()
        return self.builds[build_id]


@asynccontextmanager
async def managing(
    folder: Path,
    *,
    concurrency: int = 2,
    run: int = 1,
    address_of: Callable[[str], str] = lambda workspace_id: f"http://127.0.0.1:1/workspace/{workspace_id}",
) -> AsyncIterator[tuple[Manager, Script]]:
    """A manager and its runner; closed at the end."""
    script = Script()
    tokens = count(1)
    async with Tasks() as tasks:
        manager = Manager(
            runner=script,
            journal=Journal(folder, run=run),
            tasks=tasks,
            settings=ManagerSettings(concurrency=concurrency),
            address_of=address_of,
            clock=lambda: NOW,
            new_token=lambda: f"token-{next(tokens)}",
        )
        yield manager, script
        with anyio.fail_after(20):
            await manager.close()
