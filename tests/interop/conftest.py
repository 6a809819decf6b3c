"""Other languages' clients, and the service as its users run it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ROOT / ".cache" / "bin"
NODE_CLIENT: Final = Path(__file__).parent / "node"


def program(name: str) -> str:
    """The path of a program; without it the test is skipped, except on a CI machine."""
    path = shutil.which(name, path=f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    return path or unavailable(f"{name} is not installed")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; run scripts/test-programs.sh")
    pytest.skip(reason)


@pytest.fixture
def grpcurl() -> str:
    """A client that knows no proto files: it asks the server for them."""
    return program("grpcurl")


@pytest.fixture
def node_client() -> tuple[str, str]:
    """Node.js and the client to run with it."""
    node = program("node")
    if not (NODE_CLIENT / "node_modules" / "@grpc" / "grpc-js").is_dir():
        unavailable("gRPC for Node.js is not installed")
    return node, str(NODE_CLIENT / "client.js")
