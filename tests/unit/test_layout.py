"""The layout is the architecture: every package has its layer, imports go down only, and little is brought along."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import imgbuilder

UNLAYERED = {"__main__"}

NOT_FOR_A_SERVICE = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "google.protobuf",
    "kubernetes_asyncio",
    "moto",
    "rich",
}
"""What a running service does without, or imports only when it is configured to need it."""

NOT_FOR_HELP = NOT_FOR_A_SERVICE - {"rich"} | {
    "anyio",
    "asyncio",
    "grpclib",
    "httpx",
    "prometheus_client",
    "pydantic",
    "starlette",
    "structlog",
    "uvicorn",
}


def imported_by(program: str) -> set[str]:
    """The modules that are there after a Python of its own ran *program*."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{program}\nimport json, sys\nprint('MODULES', json.dumps(sorted(sys.modules)))",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stdout.rpartition("MODULES ")[2]))


def test_every_package_has_a_layer() -> None:
    """Whoever adds one has to say where it belongs."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")]
    packages = {f"imgbuilder.{module.name}" for module in pkgutil.iter_modules(imgbuilder.__path__)}
    assert packages - {f"imgbuilder.{name}" for name in UNLAYERED} == set(layers)


def test_imports_go_down_only() -> None:
    """The contracts of pyproject.toml hold."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports_command as main; sys.exit(main(['--no-cache']))",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


def test_the_command_line_starts_without_the_service() -> None:
    """Help comes at once."""
    modules = imported_by("from imgbuilder.cli.main import execute; execute(['--help'])")
    assert not NOT_FOR_HELP & modules


@pytest.mark.skipif(
    importlib.util.find_spec("imgbuilder.cli.service") is None, reason="there is no service yet"
)
def test_a_service_brings_along_only_what_it_needs() -> None:
    """Start-up time and memory are promises."""
    modules = imported_by("from imgbuilder.cli.run import load_service; load_service()")
    assert "imgbuilder.cli.service" in modules
    assert not NOT_FOR_A_SERVICE & modules


def test_structlog_comes_without_rich() -> None:
    """The trick that keeps it out still works, and rich can be imported afterwards."""
    program = "from imgbuilder.cli.lean import import_without_rich as lean; lean('structlog')"
    modules = imported_by(program)
    assert "structlog.dev" in modules
    assert "rich" not in modules
    assert "rich.console" in imported_by(f"{program}\nimport rich.console")


def test_only_the_transport_starts_tasks_of_its_own() -> None:
    """All others have them from a task group, or from `Tasks`; the linter does not see a loop's method."""
    package = Path(imgbuilder.__file__).parent
    starting = {
        path.relative_to(package).parts[:2]
        for path in package.rglob("*.py")
        if ".create_task(" in path.read_text()
    }
    assert starting <= {("runtime", "grpc")}
