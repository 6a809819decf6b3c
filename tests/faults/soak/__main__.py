"""Run the soak: ``python -m tests.faults.soak --minutes 30 --out docs/pictures/soak.png``."""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import anyio
import psutil

from tests.faults.processes.clients import Server
from tests.faults.processes.programs import free_port
from tests.faults.processes.wishes import SECRET
from tests.faults.processes.world import KilledManager, KilledSupervisors
from tests.faults.soak.builds import Truth
from tests.faults.soak.faults import Disturbances
from tests.faults.soak.growth import THRESHOLDS, Trend, trend
from tests.faults.soak.load import LONGEST_CALL, Load
from tests.faults.soak.picture import draw
from tests.faults.soak.watch import COUNTED, CountedService, Watch
from tests.world.proxy import TcpProxy
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.world import World

LEAST: Final = 10.0
"""Minutes from which on growth counts: in fewer, caches and what is kept for a time still fill."""

RETENTION: Final = "1m30s"
"""How long ended builds are kept here: short, so that what is kept is in balance with what comes soon."""


def main() -> None:
    """Run, tell, and fail if anything grew or was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long")
    parser.add_argument("--out", type=Path, default=Path(".cache/soak.png"), help="where the picture goes")
    parser.add_argument("--figures", type=Path, default=Path(".cache/soak.json"), help="where all figures go")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="decides what is drawn")
    options = parser.parse_args()
    truth, watch, disturbances = anyio.run(soak, options.minutes, options.seed)
    samples = watch.samples
    times = [sample["time"] for sample in samples]
    trends = [trend(name, times, [sample[name] for sample in samples]) for name in THRESHOLDS]
    faults = [(when - watch.began, name) for when, name in disturbances.struck]
    title = (
        f"{options.minutes:g} minutes, {truth.counts['builds']} builds, "
        f"{truth.counts['Build calls']} Build calls, {len(faults)} faults"
    )
    draw(options.out, title, samples, faults, trends)
    figures = {
        "machine": f"{platform.platform()}, {psutil.cpu_count()} processors, Python {platform.python_version()}",
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(watch.began)),
        "minutes": options.minutes,
        "seed": options.seed,
        "counts": dict(sorted(truth.counts.items())),
        "trends": {each.name: _row(each) for each in trends},
        "broken": truth.broken,
        "kinds": {"middle": watch.kinds[len(watch.kinds) // 2], "end": watch.kinds[-1]},
        "faults": faults,
        "samples": samples,
    }
    options.figures.parent.mkdir(parents=True, exist_ok=True)
    options.figures.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(_table(trends) + "\n\n")
    sys.stdout.write("\n".join(f"{count:8}  {name}" for name, count in sorted(truth.counts.items())) + "\n")
    growing = [each.name for each in trends if each.grows] if options.minutes >= LEAST else []
    for what in (*(f"grows: {name}" for name in growing), *truth.broken[:50]):
        sys.stdout.write(f"FAILED  {what}\n")
    sys.exit(bool(growing or truth.broken))


async def soak(minutes: float, seed: int) -> tuple[Truth, Watch, Disturbances]:
    """Run it."""
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        group = await stack.enter_async_context(anyio.create_task_group())
        registry = FakeRegistry(authentication="token", users={"service": f"{SECRET}-own"})
        manager = KilledManager(port=free_port(), group=group)
        supervisors = KilledSupervisors(port=free_port(), group=group)
        world = World(registry=registry, manager=manager)
        world.supervisors = supervisors
        truth = Truth(world=world, manager=manager, supervisors=supervisors, chance=chance)
        world.script = truth.script
        manager.on_asked = truth.started
        await stack.enter_async_context(world)
        config = world.service_config(
            logs={"folder": str(folder / "logs"), "retention": RETENTION, "memory": "64KiB"},
            builds={"keepEnded": 300},
        )
        service = CountedService(config, folder, group, name="service", port=free_port(), program=COUNTED)
        service.truth, service.counted = truth, {}
        stack.callback(service.send_signal, signal.SIGKILL)  # does nothing where it has ended as it should
        await service.start()
        network = await stack.enter_async_context(TcpProxy(service.port))
        load = Load(truth=truth, servers=[Server(service.port, 4), Server(network.port, 4)], chance=chance)
        disturbances = Disturbances(truth=truth, load=load, network=network, chance=chance)
        watch = Watch(service=service, truth=truth, load=load)
        until = time.time() + 60 * minutes
        group.start_soon(disturbances.run, until)
        group.start_soon(watch.run)
        async with anyio.create_task_group() as clients:
            clients.start_soon(load.run)
            while time.time() < until and not service.died:  # noqa: ASYNC110  # the clock does not tell
                await anyio.sleep(1.0)
            load.over = True
            clients.cancel_scope.deadline = anyio.current_time() + 2 * LONGEST_CALL
        if clients.cancel_scope.cancelled_caught:
            truth.break_promise("some calls did not end")
        watch.scope.cancel()
        if service.died or await service.stop() != 0:
            truth.break_promise("the service did not end well")
        for server in load.servers:
            await server.close()
        group.cancel_scope.cancel()
    return truth, watch, disturbances


def _row(each: Trend) -> dict[str, float | bool]:
    return {
        "first half": round(each.first, 2),
        "second half": round(each.second, 2),
        "growth in the second half": round(each.growth, 2),
        "allowed": round(each.allowed, 2),
        "grows": each.grows,
    }


def _table(trends: list[Trend]) -> str:
    lines = [f"{'':24}{'1st half':>12}{'2nd half':>12}{'growth':>12}{'allowed':>12}"]
    lines += [
        f"{each.name:24}{each.first:12.1f}{each.second:12.1f}{each.growth:+12.1f}{each.allowed:12.1f}"
        f"{'  GROWS' if each.grows else ''}"
        for each in trends
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
