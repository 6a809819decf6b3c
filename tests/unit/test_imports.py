"""What a service imports: the time until it serves, and half of its memory, is that of its imports.

Counted, not timed, in a Python of its own that does all that ``imgbuilder run`` does until its event loop starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

LIMIT: int = 580
"""Modules of others, Python among them. There are 535 with Python 3.11; who needs more should know why."""

FOR_OTHERS = {
    "aiobotocore",  # asks AWS for credentials, where that is turned on
    "aiohttp",
    "botocore",
    "email_validator",
    "google.protobuf",
    "imgbuilder.cli.client",
    "imgbuilder.client",
    "imgbuilder.kube",
    "imgbuilder.standalone",
    "jinja2",
    "jsonpath",
    "kubernetes_asyncio",
    "moto",
    "numpy",
    "opentelemetry",  # where the environment asks for traces
    "pydantic.v1",
    "pygments",
    "rich",
    "starlette",
    "unittest",
    "xml",
    "yaml",
}
"""What other commands need, or a service that is configured to need it; with all that is in these packages."""

PROGRAM = """
import json, sys
import anyio
import imgbuilder.cli.run
from imgbuilder.cli.main import execute
anyio.run = lambda *_, **__: imgbuilder.cli.run.load_service()
status = execute(["run", "--config", sys.argv[1]])
print("IMPORTED", json.dumps([status, sorted(sys.modules)]))
"""

CONFIG = {
    "orchestrator": {
        "wsman": {"address": "127.0.0.1:1"},
        "baseImageRepository": "registry.test/base-images",
        "workspaceImageRepository": "registry.test/workspace-images",
        "builderImage": "registry.test/builder:1",
    },
    "server": {"services": {"grpc": {"address": "127.0.0.1:0"}}},
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Collection[str]:
    """The modules of a service that is about to start."""
    config = tmp_path_factory.mktemp("imports") / "service.json"
    config.write_text(json.dumps(CONFIG))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, config], capture_output=True, text=True, check=True, timeout=60
    )
    status, modules = json.loads(done.stdout.rpartition("IMPORTED ")[2])
    assert status == 0, done.stderr
    assert "imgbuilder.cli.service" in modules
    return frozenset(modules)


def test_a_service_imports_nothing_that_others_need(imported: Collection[str]) -> None:
    """Neither by itself, nor through a library that takes along what it can find."""
    unwanted = [
        name
        for name in imported
        if any(name == other or name.startswith(f"{other}.") for other in FOR_OTHERS)
    ]
    assert not unwanted


def test_a_service_imports_only_so_much(imported: Collection[str]) -> None:
    """A new library shows here, also one that a library brings along."""
    others = [name for name in imported if name.partition(".")[0] != "imgbuilder"]
    packages = sorted({name.partition(".")[0] for name in others})
    assert len(others) <= LIMIT, f"{len(others)} modules, of these packages: {packages}"


def test_the_switch_of_plugins_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Programs that the service starts get the environment that it got."""
    program = (
        "import os\nfrom imgbuilder.cli.lean import NO_PLUGINS, import_without_rich\n"
        "import_without_rich('imgbuilder.config')\nprint(os.environ.get(NO_PLUGINS), end='')"
    )
    for value, expected in ((None, "None"), ("__none__", "__none__")):
        if value is None:
            monkeypatch.delenv("PYDANTIC_DISABLE_PLUGINS", raising=False)
        else:
            monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", value)
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout == expected
