"""Keeps out of the process what a service never uses."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast


def import_without_rich(*names: str) -> None:
    """Import modules that take rich along, where it is installed, without it.

    structlog wants it for colourful tracebacks, httpx for its command line; a service logs plain tracebacks,
    without the values of variables, and has a command line of its own. Rich would cost it 5 MiB and 45 ms. To be
    called before anything else imports the modules; does nothing for those that are there already.
    """
    if "rich" in sys.modules:
        return
    # Python's way to say that a module is not to be had. The modules look for it once, when they are imported.
    cast("dict[str, Any]", sys.modules)["rich"] = None
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        del sys.modules["rich"]
