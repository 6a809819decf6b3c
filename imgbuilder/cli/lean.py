"""Keeps out of the process what a service never uses."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast


def import_structlog() -> None:
    """Import structlog without rich, which it takes along, where it is installed, to show colourful tracebacks.

    A service logs plain ones, without the values of variables; rich would cost it 5 MiB and 45 ms. To be called
    before anything else imports structlog; does nothing after that.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    # Python's way to say that a module is not to be had. structlog looks for rich once, when it is imported.
    cast("dict[str, Any]", sys.modules)["rich"] = None
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
