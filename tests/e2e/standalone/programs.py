"""``imgbuilder standalone`` as its users run it, and what it takes to build something with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.engines.traces import mounts
from tests.world.process import PROGRAM

FREE_PORTS: Final = (
    *("--image-builder-port", "0"),
    *("--wsman-port", "0"),
    *("--supervisor-port", "0"),
    *("--registry-port", "0"),
)
LAST_LINE: Final = "Stop it with Ctrl-C."
START_LIMIT: Final = 60
STOP_LIMIT: Final = 30


def need(*programs: str) -> None:
    """Skip a test that needs programs which are not there; on a CI machine that is an error."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneProcess:
    """One that runs.

    :ivar text: what it said when it was ready.
    :ivar log: the file with its log.
    """

    process: subprocess.Popen[str]
    data_dir: Path
    log: Path
    text: str
    addresses: dict[str, str]

    @property
    def registry(self) -> str:
        """The registry, as references spell it."""
        return self.addresses["registry"]

    def port(self, name: str) -> int:
        """The port of ``imageBuilder`` or ``workspaceManager``."""
        return int(self.addresses[name].rpartition(":")[2])

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait(STOP_LIMIT)


@contextmanager
def standalone_process(data_dir: Path, *arguments: str) -> Iterator[StandaloneProcess]:
    """One that runs inside the block, on free ports; at the end it is asked to stop, and has to."""
    log = data_dir.with_name(f"{data_dir.name}.log")
    command = [str(PROGRAM), "standalone", "--data-dir", str(data_dir), *FREE_PORTS, "--json-log", *arguments]
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            text = _ready(process, log)
            addresses = json.loads((data_dir / "addresses.json").read_bytes())
            yield StandaloneProcess(
                process=process, data_dir=data_dir, log=log, text=text, addresses=addresses
            )
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(STOP_LIMIT) == 0
        except BaseException:
            print(log.read_text())  # noqa: T201  # pytest shows it with the failure
            raise
        finally:
            process.kill()
            process.wait(STOP_LIMIT)
            _unmount(data_dir)


def _unmount(folder: Path) -> None:
    """Detach what a test that failed left mounted: otherwise nobody could delete its folder."""
    for mount in mounts(folder):
        subprocess.run(["umount", "--lazy", str(mount)], check=False)


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    """What it says when it is ready."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.strip() == LAST_LINE:
            return "".join(lines)
    raise AssertionError(f"it did not start: {log.read_text()}")


def refused_start(data_dir: Path, *arguments: str) -> str:
    """What one says that does not start; it must be one line, with exit status 1."""
    command = [str(PROGRAM), "standalone", "--data-dir", str(data_dir), *FREE_PORTS, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_LIMIT, check=False)
    assert done.returncode == 1
    assert not done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    return lines[0]
