"""The service as its users run it: ``imgbuilder run --config FILE`` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

PROGRAM: Final = Path(sys.executable).parent / "imgbuilder"
START_LIMIT: Final = 30.0
STOP_LIMIT: Final = 30.0
LONGEST_LINE: Final = 1 << 20


@dataclass(kw_only=True)
class ServiceProcess:
    """A service that runs. Its log is read all the time, so that it never waits for us.

    :ivar host: of its gRPC address, for clients on this machine.
    :ivar records: its log so far, a record a line.
    """

    process: Process
    host: str
    metrics_port: int
    probes_port: int
    records: list[dict[str, Any]] = field(default_factory=list)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Wait until it has ended; its exit status."""
        with anyio.fail_after(STOP_LIMIT):
            return await self.process.wait()


@asynccontextmanager
async def service_process(
    config: Mapping[str, Any],
    folder: Path,
    *arguments: str,
    command: Sequence[str] = (),
) -> AsyncIterator[ServiceProcess]:
    """A service with *config*, which is written into *folder*; at the end it is asked to stop, and has to.

    :param command: in the place of the installed program with its arguments: what runs it in another way.
    """
    path = folder / "service.json"
    path.write_text(json.dumps(config))
    process = await anyio.open_process(
        command or [str(PROGRAM), "run", "--config", str(path), "--json-log", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    lines = BufferedByteReceiveStream(process.stderr)
    async with process, anyio.create_task_group() as group:
        records: list[dict[str, Any]] = []
        try:
            with anyio.fail_after(START_LIMIT):
                serving = await _serving(lines, records)
            port = serving["address"].rpartition(":")[2]
            service = ServiceProcess(
                process=process,
                host=f"127.0.0.1:{port}",
                metrics_port=serving["metrics_port"],
                probes_port=serving["probes_port"],
                records=records,
            )
            group.start_soon(_read_on, lines, records)
            yield service
        except BaseException:
            print(*map(json.dumps, records), sep="\n")  # noqa: T201  # pytest shows it with the failure
            raise
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_LIMIT):
                if process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                await process.wait()
            if process.returncode is None:
                process.kill()
        group.cancel_scope.cancel()


async def _serving(lines: BufferedByteReceiveStream, records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record that says that the service serves."""
    while True:
        try:
            line = await lines.receive_until(b"\n", LONGEST_LINE)
        except anyio.IncompleteRead:
            raise AssertionError(f"the service did not start: {records}") from None
        try:
            record = json.loads(line)
        except ValueError:
            record = {"message": line.decode(errors="replace")}
        records.append(record)
        if record.get("message") == "serving":
            return dict(record)


async def _read_on(lines: BufferedByteReceiveStream, records: list[dict[str, Any]]) -> None:
    try:
        while True:
            line = await lines.receive_until(b"\n", LONGEST_LINE)
            try:
                records.append(json.loads(line))
            except ValueError:
                records.append({"message": line.decode(errors="replace")})
    except (anyio.IncompleteRead, anyio.ClosedResourceError):
        return
