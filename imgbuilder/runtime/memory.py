"""Python's garbage collector and the C library's memory, set up for a process that runs long and has much in memory.

Neither changes what a program does, only how long it takes and what it keeps from the system.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

THRESHOLDS: Final = (5_000, 10, 10)
"""New containers until the youngest are looked at, and how often that happens until older ones are.

Nearly nothing here is left in cycles, and reference counts free the rest at once. With Python's own settings, looking
for cycles took a sixth of the time that a burst of builds takes.
"""

LARGE: Final = 128 * 1024
"""Bytes of blocks that are got from the system one by one, and given back when they are freed.

It is glibc's own limit in the beginning, which it raises up to 32 MiB for a program that frees larger blocks. The tails
of logs, which grow and shrink, leave holes then: builds with much output held four times as much memory as they used.
"""

_M_MMAP_THRESHOLD: Final = -3  # malloc.h


def settle() -> None:
    """Take all that is there now for lasting, look for garbage seldom, and give large blocks back, from now on.

    To be called once, when everything is imported: a full collection then passes over what modules consist of, a
    hundred thousand objects.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    _give_back_large_blocks()


def _give_back_large_blocks() -> None:
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return  # whoever set it knows why
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library, with ways of its own
    mallopt(_M_MMAP_THRESHOLD, LARGE)
