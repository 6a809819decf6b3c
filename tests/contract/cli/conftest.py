"""A service in this process, in a test world, and the command line that asks it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
import pytest
import structlog

from imgbuilder.cli.main import execute
from tests.contract.service.conftest import Served, serving, unobserved
from tests.helpers import in_own_task
from tests.world.certificates import Authority
from tests.world.world import World

LIMIT: Final = 50
"""Seconds after which a command hangs."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of a command."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What it printed, where that are lines of JSON."""
        return [json.loads(line) for line in self.lines]


class Cli(Protocol):
    """Runs ``imgbuilder`` with these arguments, in this process."""

    def __call__(self, *arguments: str, stdin: str = "") -> Awaitable[Ran]:
        """What becomes of it."""
        ...


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom all trust here."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(autouse=True)
def _environment(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Little to trust, which is read faster; no variables of whoever runs this; and nothing logged among the output."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    for name in ("HOST", "TLS_CA", "TLS_CERT", "TLS_KEY", "AUTH_FILE", "OWNER"):
        monkeypatch.delenv(f"IMGBUILDER_{name}", raising=False)

    def drop(*_: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[drop])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def served(world: World) -> AsyncIterator[Served]:
    """A service in the world of the test."""
    async with in_own_task(serving(unobserved(world))) as served:
        yield served


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line; what it prints must be read before another one runs."""

    async def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with anyio.fail_after(LIMIT):
            status = await anyio.to_thread.run_sync(partial(execute, list(arguments)), abandon_on_cancel=True)
        out, err = capsys.readouterr()
        return Ran(status=status, out=out, err=err)

    return run


@pytest.fixture
def ask(cli: Cli, served: Served, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, which finds the service by the variable."""
    monkeypatch.setenv("IMGBUILDER_HOST", f"127.0.0.1:{served.running.address.port}")
    return cli


def one_line(ran: Ran, words: str) -> None:
    """Make sure that *ran* was ended with one line on standard error that has *words*."""
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err


def written(path: Path, document: Any) -> str:
    """The name of a file with *document* in JSON."""
    path.write_text(json.dumps(document))
    return str(path)


def started(world: World) -> list[str]:
    """The ids of all builds that were started."""
    return [request.id for request in world.manager.received("StartWorkspace")]


UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
