"""What scenarios work with: worlds, services, load generators and bare servers, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.bench.bare import SEND
from tests.bench.calls import CONTENT, Client
from tests.bench.children import SEEN, Child
from tests.bench.loading import Load, LoadProgram, Task
from tests.bench.rows import Effort, Measured, Row

PREFERRED: Final = -5
"""As `nice` counts."""

FEW: Final = 3


class World(Child):
    """The test world in a process of its own; see `tests.bench.worldapart` for what it can be told.

    :ivar config: of a service in it.
    :ivar manager, registry: where they are.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("the world", [sys.executable, "-m", "tests.bench.worldapart", json.dumps(options)])
        self.config: dict[str, Any] = {}
        self.manager = ""
        self.registry = ""

    def started(self) -> None:
        """Wait until it serves."""
        serving = self.expect("event", "serving")
        self.config = serving["config"]
        self.manager = serving["manager"]
        self.registry = serving["registry"]

    def do(self, name: str, **arguments: Any) -> Any:
        """Let it do something; what comes of it."""
        self.begin(name, **arguments)
        return self.done()

    def begin(self, name: str, **arguments: Any) -> None:
        """Let it do something, and do not wait; `done` has to follow."""
        self.send({"do": name, **arguments})

    def done(self) -> Any:
        """Wait for what was begun; what comes of it."""
        return self.expect("event", "did")["value"]


class Service(Child):
    """The service in a process of its own.

    :param on_end: is told what it has had of the machine since it served.
    :ivar target: host and port.
    :ivar starting: seconds from the start of the process until it served.
    :ivar start_effort: what it has had of the machine until then.
    """

    def __init__(self, tree: Path, config: Path, on_end: Callable[[Effort], None]) -> None:
        super().__init__(
            "the service",
            [sys.executable, "-m", "imgbuilder", "run", "--config", config, "--json-log"],
            folder=tree,
            environment={**os.environ, "PYTHONPATH": str(tree), "PYTHONUNBUFFERED": "1"},
        )
        self._on_end = on_end
        self.target = ""
        self.starting = 0.0
        self.start_effort = Effort(0.0)

    def started(self) -> None:
        """Wait until it serves."""
        serving = self.expect("message", "serving")
        self.starting = serving[SEEN] - self.begun
        self.target = "127.0.0.1:" + serving["address"].rpartition(":")[2]
        self.start_effort = self.effort()

    def end(self) -> None:
        """End it."""
        with suppress(OSError):  # it may have ended by itself
            self._on_end(self.effort() - self.start_effort)
        super().end()


class Bare(Child):
    """The bare server; see `tests.bench.bare` for what it can be asked."""

    def __init__(self) -> None:
        super().__init__("the bare server", [sys.executable, "-m", "tests.bench.bare"])
        self.target = ""
        self.starting = 0.0

    def started(self) -> None:
        """Wait until it serves."""
        serving = self.expect("event", "serving")
        self.starting = serving[SEEN] - self.begun
        self.target = f"127.0.0.1:{serving['port']}"

    def sending(self, size: int, total: int, *, until: str, copies: int = 1, connections: int = 1) -> Task:
        """The task of reading *total* bytes by each of *copies* readers, in messages of *size* bytes."""
        request = {"size": size, "count": max(0, total // size - 1), "until": until}
        return Task(
            target=self.target,
            method=SEND,
            requests=[json.dumps(request).encode()],
            copies=copies,
            connections=connections,
            content=CONTENT,
            until=until,
        )


class Stage:
    """Makes what a scenario needs.

    :param tree: the checkout whose service is measured.
    :param folder: for files; removed by whoever made it.
    :ivar generator: the load generator.
    :ivar rounds: how often a measurement is repeated where that is cheap.
    :ivar seconds: how long a steady load is kept up.
    :ivar floors: whether floors are measured as well.
    """

    def __init__(
        self,
        *,
        tree: Path,
        folder: Path,
        generator: LoadProgram,
        rounds: int,
        seconds: float,
        floors: bool,
    ) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self.floors = floors
        self.folder = folder
        self._tree = tree
        self._ended: list[Effort] = []
        """Of each service that is no more."""
        self.generator = generator

    def world(self, **options: Any) -> World:
        """A world whose registry has *options*."""
        return World(**options)

    def service(self, world: World, **sections: dict[str, Any]) -> Service:
        """A service in *world*, with *sections* of its configuration changed."""
        config = world.config
        for name, section in sections.items():
            config = {**config, name: {**config.get(name, {}), **section}}
        path = self.folder / "service.json"
        path.write_text(json.dumps(config))
        return Service(self._tree, path, self._ended.append)

    @contextmanager
    def client(self, service: Service) -> Iterator[Client]:
        """A client of *service*."""
        client = Client(service.target)
        try:
            yield client
        finally:
            client.close()

    def bare(self) -> Bare:
        """A bare server."""
        return Bare()

    def load(self, task: Task) -> Load:
        """A load generator at work on *task*."""
        return Load(self.generator.command, task)

    @property
    def few(self) -> int:
        """How often a measurement is repeated that takes long."""
        return min(self.rounds, FEW)

    def measured(
        self,
        row: Row,
        measure: Callable[[], float],
        *,
        floor: Callable[[], float] | None = None,
        service: Service | None = None,
        slow: bool = False,
    ) -> Measured:
        """*measure* and *floor* in turns, `rounds` times: what else the machine does hits both alike.

        :param service: that which is measured; None where *measure* starts one of its own.
        :param slow: whether `few` times are enough.
        """
        values, floors, efforts = [], [], []
        for _ in range(self.few if slow else self.rounds):
            self._ended.clear()
            before = service.effort() if service else Effort(0.0)
            values.append(measure())
            efforts.append(service.effort() - before if service else sum(self._ended, start=Effort(0.0)))
            if floor and self.floors:
                floors.append(floor())
        return Measured(row=row, values=tuple(values), floors=tuple(floors), efforts=tuple(efforts))


def be_preferred() -> None:
    """Let this and what it starts go before others on the machine, where that is allowed."""
    with suppress(PermissionError):
        os.nice(min(0, PREFERRED - os.nice(0)))
