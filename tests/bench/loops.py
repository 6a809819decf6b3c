"""The event loop of what runs beside the service: the fast one, where it is installed, as the service has it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, Final

OPTIONS: Final[Mapping[str, Any]] = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
"""For `anyio.run`."""
