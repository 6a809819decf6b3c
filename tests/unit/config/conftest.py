"""A configuration that has only what must be there."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MINIMAL: dict[str, Any] = {
    "orchestrator": {
        "wsman": {"address": "ws-manager:8080"},
        "baseImageRepository": "registry.example.com/base-images",
        "workspaceImageRepository": "registry.example.com/workspace-images",
        "builderImage": "registry.example.com/builder:1",
    },
    "server": {"services": {"grpc": {"address": ":8080"}}},
}

Changed = Callable[..., bytes]


@pytest.fixture
def changed() -> Changed:
    """Makes the minimal configuration's text with changes: ``changed({"refCache.interval": "1h"})``."""

    def make(changes: dict[str, Any] | None = None, /) -> bytes:
        config = copy.deepcopy(MINIMAL)
        for path, value in (changes or {}).items():
            *sections, name = path.split(".")
            place = config
            for section in sections:
                place = place.setdefault(section, {})
            if value is ...:
                del place[name]
            else:
                place[name] = value
        return json.dumps(config).encode()

    return make


@pytest.fixture
def written(tmp_path: Path, changed: Changed) -> Callable[..., str]:
    """The same, as a file: its path."""

    def write(changes: dict[str, Any] | None = None, /) -> str:
        path = tmp_path / "config.json"
        path.write_bytes(changed(changes))
        return str(path)

    return write
