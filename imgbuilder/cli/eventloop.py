"""Which event loop a service runs on: uvloop where it is installed, unless the environment says otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

VARIABLE: Final = "IMGBUILDER_EVENT_LOOP"
LOOPS: Final = ("asyncio", "uvloop")


class EventLoopError(ImgbuilderError):
    """The environment asks for an event loop that is not to be had."""


def uses_uvloop(environ: Mapping[str, str]) -> bool:
    """Whether to run on uvloop.

    :raises EventLoopError: if the environment asks for it and it is not installed, or for one that nobody knows.
    """
    wanted = environ.get(VARIABLE, "")
    installed = importlib.util.find_spec("uvloop") is not None
    if wanted and wanted not in LOOPS:
        raise EventLoopError(f"{VARIABLE} must be one of {', '.join(LOOPS)}, not {wanted!r}")
    if wanted == "uvloop" and not installed:
        raise EventLoopError(
            f"{VARIABLE} asks for uvloop, which is not installed: pip install imgbuilder[speed]"
        )
    return installed and wanted != "asyncio"
