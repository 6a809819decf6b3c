"""That mechanisms are missed when they are switched off can be shown again; a few are here, all in the page's table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]


def tried(*names: str) -> subprocess.CompletedProcess[str]:
    """Switch off what is named."""
    command = [sys.executable, "-m", "tests.faults.mutations", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.timeout(240)
def test_a_mechanism_that_is_switched_off_is_missed_by_the_test_that_is_named() -> None:
    """One of the simulation's, and some of the others."""
    ended = tried("no_censoring", "a_cursor_that_is_off_by_one", "no_redaction_of_what_is_logged")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    simulated, by_test, by_another = ended.stdout.splitlines()
    assert simulated == "5 no_censoring: simulation, seed 1: a log is what was printed"
    assert by_test.endswith("test_store.py::test_a_reader_gets_what_is_there_and_then_what_comes`")
    assert by_another.endswith("test_redaction.py::test_credentials_in_texts_are_hidden`")


@pytest.mark.timeout(240)
def test_a_mutation_that_is_none_is_told() -> None:
    """Or a name that is misspelled would count as missed."""
    ended = tried("no_such_mechanism")
    assert ended.returncode == 2
    assert "there is no mutation no_such_mechanism" in ended.stderr
