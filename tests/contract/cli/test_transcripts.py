"""The transcripts of docs/cli.md are what happens. With UPDATE_TRANSCRIPTS=1 they are written anew."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import pytest

from imgbuilder.pb.builder import BuildRequest, LogsRequest
from tests.contract.cli.conftest import UUID, Cli, started
from tests.contract.service.client import reference
from tests.contract.service.conftest import Served
from tests.world.scripts import failing, succeeding, waiting
from tests.world.world import World

PAGE: Final = Path(__file__).parents[3] / "docs" / "cli.md"
BLOCK: Final = re.compile(r"<!-- transcript: (\w+) -->\n\n```console\n(.*?)```\n", re.DOTALL)
REGISTRY: Final = "hub.example.com"
"""Stands for the registry in the page. It is as long as the real one's host and port, so that tables look the same."""

LINES: Final = ("Step 1/2 : FROM ubuntu:24.04", "Step 2/2 : RUN make", "Successfully built")
BROKEN: Final = ("Step 1/2 : FROM broken:1", "Step 2/2 : RUN make", "make: *** No targets specified.  Stop.")

STATUS: Final = '{"type": "status"'
VARIES: Final = (
    (UUID, "<id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    (re.compile(r"\b[0-9a-f]{12}…"), "<hash>…"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r'"logUrl": "[^"]*"'), '"logUrl": "<address>"'),
    (re.compile(r"\b\d+(\.\d)?s\b"), "<seconds>"),
    (re.compile(r" +"), " "),  # columns are as wide as what is in them
)


@dataclass
class Session:
    """What a user does, one command after the other."""

    cli: Cli
    world: World
    folder: Path
    status: int = 0
    said: list[str] = field(default_factory=list)

    def now(self, command: str) -> str:
        """*command* of the page, for the build that was started last, if it names one."""
        return UUID.sub(started(self.world)[-1], command) if UUID.search(command) else command

    async def run(self, command: str) -> str:
        """What *command* prints; with the page's names for what there is."""
        words = shlex.split(command.replace(REGISTRY, self.world.registry.host))
        if words == ["echo", "$?"]:
            return f"{self.status}\n"
        if words[0] == "cat":
            return self.shown((self.folder / words[1]).read_text())
        assert words[0] == "imgbuilder"
        ran = await self.cli(*words[1:])
        self.status = ran.status
        return self.shown(ran.out + ran.err)

    def shown(self, text: str) -> str:
        """*text* with the page's name for the registry."""
        return text.replace(self.world.registry.host, REGISTRY)


def same(text: str) -> list[str]:
    """The lines of *text* without what is different each time."""
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    lines = [line.rstrip() for line in text.splitlines()]
    # Whether the log's address is told at once or a moment later is chance: then the build is told twice.
    return [line for at, line in enumerate(lines) if not line.startswith(STATUS) or line not in lines[:at]]


@asynccontextmanager
async def stage(name: str, world: World, served: Served) -> AsyncIterator[None]:
    """What is the case while the commands of the block *name* run."""
    world.script = failing(BROKEN) if name == "fails" else succeeding(LINES)
    if name != "list":
        yield
        return
    finish = anyio.Event()
    world.script = waiting(finish, LINES)
    ref = world.seed_base_image("ubuntu", "22.04")
    async with served.client.open(BuildRequest(source=reference(ref))) as call:
        await call.next()
        async with served.client.open(LogsRequest(build_id=started(world)[-1])) as log:
            data = b""
            while LINES[-1].encode() not in data:
                data += (await log.next()).content
        yield
        finish.set()
        await call.rest()


def prepare(world: World, folder: Path) -> None:
    """The images and files that the page speaks of."""
    for repository, tag in (("ubuntu", "24.04"), ("debian", "12"), ("broken", "1")):
        world.seed_base_image(repository, tag)
    host = world.registry.host
    git = {
        "remoteUri": "https://git.example.com/app.git",
        "targetMode": "REMOTE_COMMIT",
        "cloneTaget": "5d1c9f4",
    }
    source = {
        "file": {"source": {"git": git}, "dockerfileVersion": "5d1c9f4", "dockerfilePath": "Dockerfile"}
    }
    (folder / "source.json").write_text(json.dumps(source, indent=2) + "\n")
    (folder / "wrong.json").write_text(
        '{"file": {"source": {"git": {"remoteUrl": "https://git.example.com"}}}}'
    )
    (folder / "images.txt").write_text(
        f"# what we use\n{host}/debian:12\n{host}/ubuntu:24.04   # exists\n{host}/nope:1\n"
    )


async def test_the_page_tells_what_happens(
    ask: Cli, world: World, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the page, in its order."""
    monkeypatch.chdir(tmp_path)
    prepare(world, tmp_path)
    session = Session(ask, world, tmp_path)
    page = PAGE.read_text()
    written = page
    for block in BLOCK.finditer(page):
        told = ""
        async with stage(block[1], world, served):
            for line in block[2].splitlines():
                if line.startswith("$ "):
                    command = session.now(line[2:])
                    told += f"$ {command}\n{await session.run(command)}"
        written = written.replace(block[2], told, 1)
        if "UPDATE_TRANSCRIPTS" not in os.environ:
            assert same(block[2]) == same(told), (
                f"docs/cli.md, {block[1]}: run this with UPDATE_TRANSCRIPTS=1"
            )
    if "UPDATE_TRANSCRIPTS" in os.environ:
        PAGE.write_text(written)


async def test_every_option_that_the_page_names_exists(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the help of some command."""
    monkeypatch.setenv("COLUMNS", "200")
    helps = ""
    for command in ("build", "build-batch", "list", "logs", "resolve base-image", "health", "standalone"):
        helps += (await cli(*command.split(), "--help")).out
    named = set(re.findall(r"--[a-z][a-z-]+", BLOCK.sub("", PAGE.read_text())))
    assert {option for option in named if option not in helps} == set()
