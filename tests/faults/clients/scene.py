"""A service as a process, what it costs, and what it does while it is attacked."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import psutil

from tests.contract.service.conftest import get, series_of
from tests.faults.clients.offender import PATIENCE
from tests.faults.clients.witness import Witness, witness
from tests.world.process import ServiceProcess, service_process
from tests.world.world import World

MIB: Final = 1 << 20
MEMORY: Final = 100 * MIB
"""How much the service may grow in an attack, if the test does not say otherwise."""

FEW: Final = 25
"""Lines that the service may log meanwhile, those of the builds of good clients included."""

CUT_OFF: Final = {"a connection was cut off", "more connections were cut off"}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A service that runs, and those who use it.

    :ivar options: of the channels of good clients.
    """

    world: World
    service: ServiceProcess
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it serves."""
        return int(self.service.host.rpartition(":")[2])

    @property
    def memory(self) -> int:
        """Bytes that its process takes."""
        return int(psutil.Process(self.service.process.pid).memory_info().rss)

    async def metric(self, name: str) -> float:
        """One of its metrics, by name and labels; 0 if there is none."""
        answer = await get(self.service.metrics_port, "/metrics")
        return series_of(answer.text).get(name, 0)

    async def cut_offs(self, reason: str) -> float:
        """How many connections were cut off for *reason*."""
        return await self.metric(f'imgbuilder_peers_cut_off_total{{reason="{reason}"}}')


class Attack:
    """What happens during an attack.

    :ivar witness: a good client.
    """

    def __init__(self, scene: Scene, seen: Witness, counted: Mapping[str, float]) -> None:
        self.witness = seen
        self.seconds: float | None = None
        self._scene = scene
        self._counted = counted
        self._began = anyio.current_time()
        self._memory = self._most = scene.memory
        self._records = len(scene.service.records)

    @property
    def growth(self) -> int:
        """Bytes by which the service has grown at most."""
        return self._most - self._memory

    def over(self) -> None:
        """The offender has been stopped."""
        self.seconds = anyio.current_time() - self._began

    async def counted(self, reason: str, *, times: int = 1) -> None:
        """Wait until as many offenders as *times* were counted, and told of."""
        with anyio.fail_after(PATIENCE):
            # nobody tells of a count, or of a line
            while await self._scene.cut_offs(reason) < self._counted[reason] + times:  # noqa: ASYNC110
                await anyio.sleep(0.05)
            # it may have been told of not long ago, in another test
            while not any(record.get("reason") == reason for record in self._scene.service.records):  # noqa: ASYNC110
                await anyio.sleep(0.05)

    async def sample(self) -> None:
        """Look at the memory again and again."""
        while True:
            self._most = max(self._most, self._scene.memory)
            await anyio.sleep(0.05)

    def check(self, memory: int) -> None:
        """Whether others were served, and it cost no more than *memory* bytes and a few lines in the log."""
        self.witness.check()
        assert self.growth <= memory, f"it has grown by {self.growth / MIB:.0f} MiB"
        records = self._scene.service.records[self._records :]
        assert len(records) <= FEW, records
        assert sum(record.get("message") in CUT_OFF for record in records) <= 4


@asynccontextmanager
async def attacked(scene: Scene, name: str, *, memory: int = MEMORY) -> AsyncIterator[Attack]:
    """Attack the service in this block, and see how others fare.

    :param name: for the figures, which are appended to the file that HOSTILE_CLIENTS_FIGURES names.
    :param memory: bytes by which the service may grow.
    """
    counted = await _all_cut_offs(scene)
    async with witness(scene.world, scene.port, options=scene.options) as seen:
        attack = Attack(scene, seen, counted)
        async with anyio.create_task_group() as group:
            group.start_soon(attack.sample)
            seen.attacked()
            yield attack
            await seen.until(6)
            group.cancel_scope.cancel()
    _note(name, attack)
    attack.check(memory)


async def _all_cut_offs(scene: Scene) -> Mapping[str, float]:
    return _Counted(series_of((await get(scene.service.metrics_port, "/metrics")).text))


class _Counted(dict[str, float]):
    """How many were cut off, by reason."""

    def __init__(self, series: Mapping[str, float]) -> None:
        super().__init__(
            {
                name.split('"')[1]: number
                for name, number in series.items()
                if name.startswith("imgbuilder_peers_cut_off_total{")
            }
        )

    def __missing__(self, _: str) -> float:
        return 0.0


def _note(name: str, attack: Attack) -> None:
    path = os.environ.get("HOSTILE_CLIENTS_FIGURES")
    if path:
        figures = {
            "name": name,
            "seconds": attack.seconds,
            "growth": attack.growth / MIB,
            "before": attack.witness.before.figures(),
            "during": attack.witness.during.figures(),
        }
        with Path(path).open("a") as file:
            file.write(json.dumps(figures) + "\n")


@asynccontextmanager
async def serving(*, options: Mapping[str, Any] | None = None, **overrides: Any) -> AsyncIterator[Scene]:
    """A service in a world of its own, whose builds do what a test says.

    :param options: of the channels of good clients.
    :param overrides: of its configuration.
    """

    async def nothing(_: Any) -> None:
        """The witness drives its workspace."""

    async with (
        World(script=nothing) as world,
        service_process(world.service_config(shutdown={"drain": "1s"}, **overrides), world.folder) as service,
    ):
        yield Scene(world=world, service=service, options=options or {})
