"""The memory of the program that serves."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from imgbuilder.runtime.memory import THRESHOLDS

COLLECTOR = """
import gc
from imgbuilder.runtime.memory import settle
imported = len(gc.get_objects())
settle()
print(gc.isenabled(), *gc.get_threshold(), gc.get_freeze_count() >= imported, len(gc.get_objects()) < imported / 10)
"""

HOLES = """
from imgbuilder.runtime.memory import settle
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
settle()
bytes(16 << 20)  # freed at once: blocks of this size are common, glibc would say from now on
before = resident()
blocks, between = [], []
for _ in range(200):
    blocks.append(b"x" * (300 << 10))
    between.append(b"x" * (60 << 10))
full = resident()
del blocks
print(full - before > (60 << 20), resident() - before < (25 << 20))
"""


def run(program: str) -> list[str]:
    """The words that *program* prints in a Python of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_what_is_imported_is_not_looked_at_again() -> None:
    """And what comes later is, but seldom."""
    assert run(COLLECTOR) == ["True", *map(str, THRESHOLDS), "True", "True"]


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="this is not glibc"
)
def test_large_blocks_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is something small behind each that stays."""
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert run(HOLES) == ["True", "True"]
