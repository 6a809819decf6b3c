"""The registry that images are kept in: one that runs already, or a child of ours, watched and started again.

Looks at addresses and starts programs; what is in the registry is no business of this module.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import httpx
import structlog

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.standalone.processes import Command, ProgramNotFoundError, Tail, environment, run

log = structlog.get_logger(__name__)

LOOPBACK: Final = "127.0.0.1"
"""A registry of ours has no authentication: nobody else gets to see it."""

PROBE_LIMIT: Final = 3.0
"""Seconds that a registry may take to say that it is one."""

READY_LIMIT: Final = 20.0
"""Seconds that a registry of ours may take to begin to answer; a container's image may have to be pulled."""

PULL_LIMIT: Final = 180.0
INTERVAL: Final = 0.05
LONGEST_PAUSE: Final = 30.0

PROGRAMS: Final = ("docker-registry", "registry")
CONTAINERS: Final = ("docker", "podman")
IMAGE: Final = "docker.io/library/registry:2"

INSTALL: Final = (
    "no registry program: install docker-registry (Debian and Ubuntu have a package), docker or podman,"
    " or use a registry that runs with --registry HOST:PORT"
)


class RegistryStartError(ImgbuilderError):
    """There is no registry to use, and none can be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPlace:
    """A registry that answers.

    :ivar host: as references spell it.
    :ivar insecure: whether it is spoken to over plain HTTP.
    :ivar source: where it comes from, for people.
    """

    host: str
    insecure: bool
    source: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A way of running a registry."""

    name: str
    command: Command
    limit: float


@dataclass(slots=True)
class _Child:
    """A registry of ours that may have ended."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    said: Tail = field(default_factory=Tail)
    missing: bool = False

    async def run(self, command: Command) -> None:
        """Run it until it ends, or until cancelled."""
        try:
            await run(command, self.said)
        except ProgramNotFoundError:
            self.missing = True
        finally:
            self.ended.set()

    @property
    def last_words(self) -> str:
        """Why it ended, as far as it said."""
        lines = [line for line in self.said.text().splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"


async def find_registry(host: str, *, insecure: bool) -> RegistryPlace:
    """The registry at *host*, which somebody else runs.

    :param insecure: whether it may be spoken to over plain HTTP. On this machine it may anyway.
    :raises RegistryStartError: if none answers there.
    """
    if (insecure or is_loopback(host)) and await answers_as_registry(f"http://{host}"):
        return RegistryPlace(host=host, insecure=True, source="as given")
    if await answers_as_registry(f"https://{host}"):
        return RegistryPlace(host=host, insecure=False, source="as given")
    raise RegistryStartError(f"no registry answers at {host}")


@asynccontextmanager
async def running_registry(folder: Path, port: int) -> AsyncIterator[RegistryPlace]:
    """A registry on the loopback, inside the block: one that answers there already, else one of ours.

    One of ours is started again when it ends.

    :param folder: where one of ours keeps everything.
    :param port: 0 for any that is free.
    :raises RegistryStartError: if something else is there, or no program to start one.
    """
    host = f"{LOOPBACK}:{port}"
    if port and await answers_as_registry(f"http://{host}"):
        yield RegistryPlace(host=host, insecure=True, source="it was running already")
        return
    host = f"{LOOPBACK}:{_free_port(port)}"
    candidates = _candidates(folder, host)
    async with anyio.create_task_group() as group:
        started = await group.start(_keep_running, candidates, host)
        try:
            yield RegistryPlace(host=host, insecure=True, source=f"started with {started}")
        finally:
            group.cancel_scope.cancel()


async def answers_as_registry(url: str) -> bool:
    """Whether something at *url* says that it is a registry."""
    try:
        async with httpx.AsyncClient(timeout=PROBE_LIMIT, trust_env=False) as client:
            answer = await client.get(f"{url}/v2/")
    except httpx.HTTPError:
        return False
    version = answer.headers.get("docker-distribution-api-version", "")
    return answer.status_code in {200, 401} and (
        version.startswith("registry/2") or "www-authenticate" in answer.headers
    )


def is_loopback(host: str) -> bool:
    """Whether *host*, with or without a port, is this machine under a name that never leaves it."""
    name = host.rpartition(":")[0] or host
    return name in {"localhost", "[::1]"} or name.startswith("127.")


def names_of(host: str) -> frozenset[str]:
    """What people call the registry at *host*: one at ``127.0.0.1:5000`` also ``localhost:5000``, and the reverse."""
    name, _, port = host.rpartition(":")
    names = {LOOPBACK, "localhost"}
    return frozenset(f"{one}:{port}" for one in names) if name in names else frozenset({host})


async def _keep_running(
    candidates: Sequence[_Candidate],
    host: str,
    *,
    task_status: anyio.abc.TaskStatus[str],
) -> None:
    """Run the first candidate that works, and run it again whenever it ends. Tells which once it answers."""
    chosen: _Candidate | None = None
    failures = 0
    while True:
        for candidate in candidates if chosen is None else [chosen]:
            child = _Child()
            async with anyio.create_task_group() as group:
                group.start_soon(child.run, candidate.command, name=f"registry {host}")
                if await _ready(child, host, candidate.limit):
                    failures = 0
                    if chosen is None:
                        chosen = candidate
                        task_status.started(candidate.name)
                    await child.ended.wait()
                group.cancel_scope.cancel()
            if not child.missing:
                log.warning("the registry ended", program=candidate.name, fault=child.last_words)
        if chosen is None:
            raise RegistryStartError(INSTALL)
        failures += 1
        await anyio.sleep(min(LONGEST_PAUSE, 2.0**failures / 4))


async def _ready(child: _Child, host: str, limit: float) -> bool:
    """Wait until the registry answers; False if it ends before, or takes too long."""
    with anyio.move_on_after(limit):
        while not child.ended.is_set():
            if await answers_as_registry(f"http://{host}"):
                return True
            with anyio.move_on_after(INTERVAL):
                await child.ended.wait()
    return False


def _candidates(folder: Path, host: str) -> list[_Candidate]:
    config = folder / "config.yml"
    config.write_text(json.dumps(_configuration(folder, host)))  # JSON is YAML
    env = environment(folder, OTEL_TRACES_EXPORTER="none")
    found = [
        _Candidate(program, Command(argv=(program, "serve", str(config)), env=env), READY_LIMIT)
        for program in PROGRAMS
        if shutil.which(program, path=env["PATH"])
    ]
    name = f"imgbuilder-registry-{host.rpartition(':')[2]}"
    for program in CONTAINERS:
        if shutil.which(program, path=env["PATH"]):
            options = ("--rm", "--name", name, "--publish", f"{host}:5000")
            volume = ("--volume", f"{folder / 'data'}:/var/lib/registry")
            argv = (program, "run", *options, *volume, IMAGE)
            found.append(_Candidate(f"{program} and {IMAGE}", Command(argv=argv, env=env), PULL_LIMIT))
    return found


def _configuration(folder: Path, host: str) -> dict[str, object]:
    return {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}, "level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": host},
    }


def _free_port(port: int) -> int:
    """*port*, or one that is free if it is 0.

    :raises RegistryStartError: if it is taken.
    """
    try:
        with socket.create_server((LOOPBACK, port)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        raise RegistryStartError(
            f"cannot start a registry on {LOOPBACK}:{port}: {error.strerror}, and no registry answers there;"
            " choose another port with --registry-port, or a registry that runs with --registry HOST:PORT",
        ) from error
