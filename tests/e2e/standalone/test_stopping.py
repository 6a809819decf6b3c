"""A start that is broken off: whenever that is, it ends at once and leaves nothing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.engines.traces import processes_with
from tests.e2e.standalone.programs import FREE_PORTS, need
from tests.world.process import PROGRAM


@pytest.mark.parametrize("words", ["started a program", "Started server process", "serving"])
def test_a_start_can_be_broken_off(tmp_path: Path, words: str) -> None:
    """Told to stop as soon as *words* are in its log."""
    need("docker-registry")
    data = tmp_path / "data"
    command = [str(PROGRAM), "standalone", "--data-dir", str(data), *FREE_PORTS, "--engine", "docker", "-v"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if words in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(20) == 0, rest
    assert "Traceback" not in rest
    assert not processes_with(str(data))
