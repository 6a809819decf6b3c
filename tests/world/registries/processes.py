"""Debian's ``docker-registry``, the reference implementation, as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import bcrypt
import httpx
import orjson
import pytest
from anyio.abc import ByteReceiveStream

from imgbuilder.runtime.tasks import Tasks
from tests.world.registries.contents import Manifest

PROGRAM = "docker-registry"
_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerRegistry:
    """A registry that runs, at *host*."""

    host: str

    @property
    def url(self) -> str:
        """Where it is, as an address."""
        return f"http://{self.host}"


@asynccontextmanager
async def docker_registry(
    folder: Path, auth: Mapping[str, Any] | None = None
) -> AsyncIterator[DockerRegistry]:
    """Run a registry that keeps its things in *folder*.

    :param auth: the section of that name of its configuration.
    """
    if shutil.which(PROGRAM) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{PROGRAM} is not installed")
        pytest.skip(f"{PROGRAM} is not installed (Debian has a package of that name)")
    settings: dict[str, Any] = {
        "version": "0.1",
        "log": {"accesslog": {"disabled": True}, "level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0"},
    }
    if auth is not None:
        settings["auth"] = auth
    file = folder / "config.yml"
    file.write_bytes(orjson.dumps(settings))  # JSON is YAML
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    command = [PROGRAM, "serve", str(file)]
    async with (
        await anyio.open_process(command, env=environment, stdout=DEVNULL) as process,
        Tasks() as tasks,
    ):
        try:
            assert process.stderr is not None
            with anyio.fail_after(10):
                port = await _port(process.stderr)
            tasks.spawn(_drain, process.stderr, name="read the log of the registry")
            yield DockerRegistry(host=f"127.0.0.1:{port}")
        finally:
            process.kill()


def htpasswd(users: Mapping[str, str]) -> str:
    """The contents of a file of *users*, name to password, as the registry reads it."""
    lines = [
        f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()}"
        for user, password in users.items()
    ]
    return "\n".join(lines) + "\n"


async def push(
    registry: DockerRegistry,
    repository: str,
    tag: str,
    manifest: Manifest,
    *,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Push *manifest* with its blobs; its digest.

    :param headers: what lets us in.
    """
    async with httpx.AsyncClient(base_url=f"{registry.url}/v2/{repository}/", headers=headers) as client:
        for digest, blob in manifest.blobs.items():
            begun = await client.post("blobs/uploads/")
            begun.raise_for_status()
            address = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
            (await client.put(address, content=blob)).raise_for_status()
        answer = await client.put(
            f"manifests/{tag}",
            content=manifest.body,
            headers={"Content-Type": manifest.media_type},
        )
        answer.raise_for_status()
    return manifest.digest


async def _drain(log: ByteReceiveStream) -> None:
    async for _ in log:
        pass


async def _port(log: ByteReceiveStream) -> int:
    """The port that the registry writes into its log that it listens to."""
    seen = bytearray()
    async for chunk in log:
        seen += chunk
        found = _LISTENING.search(seen)
        if found is not None:
            return int(found[1])
    raise AssertionError(f"{PROGRAM} ended: {seen.decode(errors='replace')}")
