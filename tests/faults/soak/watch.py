"""Looks at the service from outside, every few seconds: memory, files, calls, tasks, and how long clients wait."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import httpx
import psutil

from tests.contract.service.conftest import series_of
from tests.faults.processes.programs import Service
from tests.faults.processes.wishes import SECRET
from tests.faults.soak.builds import Truth
from tests.faults.soak.load import Load

INTERVAL: Final = 5.0
WINDOW: Final = 120.0
"""Seconds of Build calls that a percentile is of."""

COUNTED: Final = (sys.executable, "-m", "tests.faults.soak.counted")


class CountedService(Service):
    """The service, whose log is looked at as it comes, and which says how many tasks it has.

    :ivar counted: what it said last of that.
    """

    truth: Truth
    counted: dict[str, Any]

    def _hear_error(self, line: bytes) -> None:
        if SECRET.encode() in line:
            self.truth.break_promise(f"the service's log has a secret: {line.decode(errors='replace')}")
        try:
            record = json.loads(line)
        except ValueError:
            record = {"level": "not a record", "message": line.decode(errors="replace")}
        self.truth.counts[f"log: {record.get('level')}"] += 1
        match record:
            case {"message": "counted"}:
                self.counted = record
            case {"message": "serving", "metrics_port": port}:
                self.metrics_port = port
                self._ready.set()
            case {"level": "error" | "critical" | "not a record"}:
                self.truth.break_promise(f"the service logs: {str(record)[:2000]}")


@dataclass(kw_only=True)
class Watch:
    """Samples.

    :ivar samples: what was seen, one for each look, by name.
    """

    service: CountedService
    truth: Truth
    load: Load
    began: float = field(default_factory=time.time)
    samples: list[dict[str, float]] = field(default_factory=list)
    kinds: list[dict[str, int]] = field(default_factory=list)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    async def run(self) -> None:
        """Look until `scope` is cancelled."""
        with self.scope:
            await self._run()

    async def _run(self) -> None:
        process = psutil.Process(self.service.pid)
        process.cpu_percent()
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            while True:
                await anyio.sleep(INTERVAL)
                self.truth.tidy()
                try:
                    answer = await client.get(f"http://127.0.0.1:{self.service.metrics_port}/metrics")
                    sample = self._sample(process, series_of(answer.text))
                except (httpx.HTTPError, psutil.NoSuchProcess) as error:
                    self.truth.break_promise(f"the service can't be looked at: {error!r}")
                    if self.service.died:
                        return
                    continue
                if SECRET in answer.text:
                    self.truth.break_promise("the metrics have a secret")
                self.samples.append(sample)

    def _sample(self, process: psutil.Process, series: dict[str, float]) -> dict[str, float]:
        counted = self.service.counted
        self.kinds.append(counted.get("kinds", {}))
        recent = [each for each in self.load.first_updates if each[0] > time.time() - WINDOW]
        calm = [took for _, took, is_calm in recent if is_calm]
        everything = [took for _, took, _ in recent]
        with process.oneshot():
            return {
                "time": time.time() - self.began,
                "rss_mib": process.memory_info().rss / 2**20,
                "cpu_percent": process.cpu_percent(),
                "threads": process.num_threads(),
                "fds": process.num_fds(),
                "tasks": counted.get("tasks", 0),
                "objects": counted.get("objects", 0),
                "open_streams": _sum(series, "grpc_server_started_total", "ImageBuilder")
                - _sum(series, "grpc_server_handled_total", "ImageBuilder"),
                "subscribers": series.get("imgbuilder_subscribers", 0.0),
                "builds_running": _sum(series, "imgbuilder_builds_running"),
                "spool_mib": series.get("imgbuilder_log_spool_bytes", 0.0) / 2**20,
                "first_update_p50_ms": 1000 * percentile(calm, 0.5),
                "first_update_p99_ms": 1000 * percentile(calm, 0.99),
                "first_update_p99_with_faults_ms": 1000 * percentile(everything, 0.99),
            }


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of *values* does not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _sum(series: dict[str, float], name: str, containing: str = "") -> float:
    return sum(value for key, value in series.items() if key.partition("{")[0] == name and containing in key)
