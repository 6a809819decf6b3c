"""``python -m tests.deploy.dashboard_picture``: a picture of the dashboard, of a real run of the service.

Two replicas build images in a test world for a few minutes; a Prometheus scrapes them, answers what the panels of
``config/monitoring/dashboard.json`` ask, and the answers are drawn. Prometheus is Debian's package of that name.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import matplotlib as mpl
from grpclib.exceptions import GRPCError

from tests.contract.service.client import Client, connected, everything, reference
from tests.deploy.rendering import ROOT
from tests.world.process import ServiceProcess, service_process
from tests.world.registries.httpd import Respond
from tests.world.registries.misbehaving import FakeRegistry
from tests.world.scripts import Stage, failing, succeeding
from tests.world.world import World

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHBOARD: Final = ROOT / "config/monitoring/dashboard.json"
PICTURE: Final = ROOT / "docs/pictures/dashboard.png"
COLUMNS: Final = 3
STEP: Final = 2
"""Seconds between two scrapes, and two points of the picture."""

RATE: Final = "20s"
CLIENTS: Final = 25


async def main(seconds: float, prometheus: str, port: int) -> None:
    """Run all of it, and draw."""
    random.seed(7)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-")))
        registry = FakeRegistry(authentication="token", users={"builder": "secret"}, latency=0.02)
        world = await stack.enter_async_context(World(script=_some_build, registry=registry, proxied=True))
        replicas = {
            name: await stack.enter_async_context(_replica(world, folder, name)) for name in ("a", "b")
        }
        http = await stack.enter_async_context(_prometheus(prometheus, port, folder, replicas))
        began = time.time()
        await _work(world, replicas.values(), seconds)
        answers = await _ask(http, began, time.time())
    _draw(answers, PICTURE)


async def _some_build(stage: Stage) -> None:
    """Most builds of this world succeed, after a while; some write much."""
    lines = [f"Step {number}: " + "x" * random.randint(20, 2000) for number in range(random.randint(5, 120))]
    script = random.choices((succeeding, failing), (85, 15))[0]
    await anyio.sleep(random.uniform(0.2, 3))
    await script(lines, pause=random.uniform(0.02, 0.3))(stage)


@asynccontextmanager
async def _replica(world: World, folder: Path, name: str) -> AsyncIterator[ServiceProcess]:
    place = folder / name
    place.mkdir()
    config = world.service_config(logs={"folder": str(place / "logs"), "retention": "1m0s"})
    async with service_process(config, place) as process:
        yield process


@asynccontextmanager
async def _prometheus(
    program: str, port: int, folder: Path, replicas: Mapping[str, ServiceProcess]
) -> AsyncIterator[httpx.AsyncClient]:
    targets = [
        {
            "targets": [f"127.0.0.1:{replica.metrics_port}"],
            "labels": {"namespace": "default", "pod": f"image-builder-{name}"},
        }
        for name, replica in replicas.items()
    ]
    config = {
        "global": {"scrape_interval": f"{STEP}s", "scrape_timeout": f"{STEP}s"},
        "scrape_configs": [{"job_name": "image-builder-mk3", "static_configs": targets}],
    }
    file = folder / "prometheus.json"
    file.write_text(json.dumps(config))  # JSON is YAML, too
    address = f"127.0.0.1:{port}"
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    process = await anyio.open_process(
        [program, *options, f"--web.listen-address={address}", "--log.level=error"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None,
    )
    async with process, httpx.AsyncClient(base_url=f"http://{address}", timeout=30) as http:
        try:
            await _until_ready(http)
            yield http
        finally:
            process.terminate()


async def _until_ready(http: httpx.AsyncClient) -> None:
    with anyio.fail_after(60):
        while True:
            try:
                if (await http.get("/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await anyio.sleep(0.2)


async def _work(world: World, replicas: Iterable[ServiceProcess], seconds: float) -> None:
    """Clients that build and watch, more of them in the middle."""
    refs = [world.seed_base_image(f"team-{number % 7}", f"v{number}") for number in range(400)]
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(connected(int(replica.host.rpartition(":")[2])))
            for replica in replicas
        ]
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:
                group.start_soon(_go_wrong, world, seconds)
                for number in range(CLIENTS):
                    delay = seconds * 0.5 * number / CLIENTS
                    group.start_soon(_user, clients[number % len(clients)], refs, delay)


async def _go_wrong(world: World, seconds: float) -> None:
    """A registry that fails for a while, and a workspace manager that is away for a moment."""
    await anyio.sleep(seconds * 0.55)
    world.registry.fail_next(*[Respond(503)] * 60, *[Respond(429)] * 20)
    await anyio.sleep(seconds * 0.2)
    world.network.cut()


async def _user(client: Client, refs: list[str], delay: float) -> None:
    await anyio.sleep(delay)
    while True:
        ref = random.choice(refs) if random.random() < 0.95 else refs[0] + "-nope"
        try:
            await client.resolve(ref, everything(), retry=True)
            responses = await client.build(
                reference(ref), auth=everything(), force_rebuild=random.random() < 0.6, use_retry_client=True
            )
            info = responses[0].info
            if info is not None and random.random() < 0.7:
                await client.log(build_id=info.build_id)
        except GRPCError:
            pass  # of an image that there is not: such users exist
        await anyio.sleep(random.uniform(0.1, 2))


Answer = tuple[str, dict[str, Any], list[tuple[str, list[tuple[float, float]]]]]
"""A panel's title, its fields' defaults, and its lines: legend, and points in time."""


async def _ask(http: httpx.AsyncClient, began: float, ended: float) -> list[Answer]:
    """What each panel shows of the time between *began* and *ended*."""
    answers: list[Answer] = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            continue
        lines = []
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", RATE)
            for variable in ("$job", "$namespace", "$pod"):
                text = text.replace(variable, ".*")
            parameters = {"query": text, "start": began, "end": ended, "step": STEP}
            answer = await http.get("/api/v1/query_range", params=parameters)
            answer.raise_for_status()
            for series in answer.json()["data"]["result"]:
                points = [(at - began, float(value)) for at, value in series["values"]]
                lines.append((_legend(target["legendFormat"], series["metric"]), points))
        answers.append((panel["title"], panel["fieldConfig"]["defaults"], lines))
    return answers


def _legend(form: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def _draw(answers: list[Answer], path: Path) -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  # once the backend is chosen

    height = math.ceil(len(answers) / COLUMNS)
    figure, plots = plt.subplots(height, COLUMNS, figsize=(15, 2.2 * height), layout="constrained")
    for plot, (title, defaults, lines) in zip(plots.flat, answers, strict=False):
        _plot(plot, title, defaults, lines)
    for plot in plots.flat[len(answers) :]:
        plot.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _plot(
    plot: Axes,
    title: str,
    defaults: Mapping[str, Any],
    lines: list[tuple[str, list[tuple[float, float]]]],
) -> None:
    unit = {"short": "", "percentunit": "", "reqps": "1/s", "Bps": "MB/s", "bytes": "MB"}.get(
        defaults["unit"], defaults["unit"]
    )
    scale = 1e6 if unit.startswith("MB") else 1
    plot.set_title(f"{title} ({unit})" if unit else title, fontsize=10, loc="left")
    drawn = [
        (legend, [(at, value / scale) for at, value in points if not math.isnan(value)])
        for legend, points in lines
    ]
    drawn = [(legend, points) for legend, points in drawn if points]
    if defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal" and drawn:
        times = sorted({at for _, points in drawn for at, _ in points})
        values = [[dict(points).get(at, 0.0) for at in times] for _, points in drawn]
        plot.stackplot(times, values, labels=[legend for legend, _ in drawn], alpha=0.6)
    else:
        for legend, points in drawn:
            plot.plot(*zip(*points, strict=True), label=legend, linewidth=1.2)
    top = max((value for _, points in drawn for _, value in points), default=0)
    plot.set_ylim(bottom=0, top=top * 1.4 or 1)
    plot.tick_params(labelsize=8)
    plot.grid(alpha=0.3)
    if drawn:
        plot.legend(fontsize=7, loc="upper left", ncols=3, frameon=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.dashboard_picture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="how long builds run")
    parser.add_argument("--prometheus", default=shutil.which("prometheus"), help="the program")
    parser.add_argument("--port", type=int, default=19090, help="where Prometheus listens, on this machine")
    chosen = parser.parse_args()
    if chosen.prometheus is None:
        parser.error("prometheus was not found; name it with --prometheus")
    anyio.run(main, chosen.seconds, chosen.prometheus, chosen.port)
