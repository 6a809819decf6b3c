"""The garbage collector of the program that serves."""

from __future__ import annotations

import subprocess
import sys

from imgbuilder.runtime.garbage import THRESHOLDS

PROGRAM = """
import gc
from imgbuilder.runtime.garbage import settle
imported = len(gc.get_objects())
settle()
print(gc.isenabled(), *gc.get_threshold(), gc.get_freeze_count() >= imported, len(gc.get_objects()) < imported / 10)
"""


def test_what_is_imported_is_not_looked_at_again() -> None:
    """And what comes later is, but seldom."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", *map(str, THRESHOLDS), "True", "True"]
