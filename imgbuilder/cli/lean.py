"""Keeps out of the process what a service never uses."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

UNWANTED: Final = ("rich", "httpx._main")
"""structlog wants rich for colourful tracebacks, httpx for its command line, which brings pygments along.

A service logs plain tracebacks, without the values of variables, and has a command line of its own. Together they
would cost it 6 MiB and 50 ms.
"""

NO_PLUGINS: Final = "PYDANTIC_DISABLE_PLUGINS"
"""pydantic's switch; otherwise it reads the metadata of every package that is installed, to look for plugins."""


def import_without_rich(*names: str) -> None:
    """Import modules without what is unwanted, where they would take it along.

    To be called before anything else imports the modules; does nothing for those that are there already.
    """
    with _unwanted_missing(), _no_plugins():
        for name in names:
            importlib.import_module(name)


@contextmanager
def _unwanted_missing() -> Iterator[None]:
    hidden = [name for name in UNWANTED if name not in sys.modules]
    # Python's way to say that a module is not to be had. Who wants it looks once, when it is imported itself.
    modules = cast("dict[str, Any]", sys.modules)
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _no_plugins() -> Iterator[None]:
    before = os.environ.get(NO_PLUGINS)
    os.environ[NO_PLUGINS] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_PLUGINS]
        else:
            os.environ[NO_PLUGINS] = before
