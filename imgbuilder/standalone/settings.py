"""What the standalone workspace manager can be told."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imgbuilder.core.manifests import Platform
from imgbuilder.standalone.engines.protocol import Network

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StandaloneSettings:
    """
    :ivar data_dir: where everything is kept; may be deleted while nothing runs.
    :ivar host: what is listened on. Anything but the loopback lets others run programs here.
    :ivar wsman_port: of the workspace manager; 0 for any that is free, like all ports.
    :ivar supervisor_port: of the builds' supervisors.
    :ivar registry: one that runs, as references spell it; None to have one.
    :ivar registry_port: of the registry that is started, if one is.
    :ivar insecure: registries that are spoken to over plain HTTP, beside one on this machine.
    :ivar engine: what builds Dockerfiles; None for the first that works.
    :ivar concurrency: how many builds run at once.
    :ivar pull_secret_file: the credentials for base and workspace images, in the form of Docker's config.json.
    :ivar network: what RUN steps see of the network.
    :ivar memory: bytes that a RUN step may use; None for no limit. Likewise *cpus*.
    :ivar cache_limit: bytes that layers kept between builds may take.
    :ivar allow_file_urls: whether ``file://`` repositories of this machine may be cloned.
    :ivar platform: whose image an index is resolved to.
    """  # noqa: D205, D212  # only variables to describe

    data_dir: Path
    host: str = "127.0.0.1"
    wsman_port: int = 12001
    supervisor_port: int = 12002
    registry: str | None = None
    registry_port: int = 5000
    insecure: frozenset[str] = frozenset()
    engine: str | None = None
    allow_weak_isolation: bool = False
    concurrency: int
    pull_secret_file: Path | None = None
    network: Network = "host"
    memory: int | None = None
    cpus: float | None = None
    cache_limit: int = 10 * 1024**3
    allow_file_urls: bool = False
    platform: Platform


def default_data_dir(environ: Mapping[str, str] | None = None) -> Path:
    """Where state belongs on this machine, by the XDG rules."""
    variables = os.environ if environ is None else environ
    state = variables.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "imgbuilder" / "standalone"


def default_concurrency() -> int:
    """As many builds as there are processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def default_platform() -> Platform:
    """What this machine's engine builds for."""
    machine = platform.machine()
    return Platform(os="linux", architecture=_ARCHITECTURES.get(machine, machine))
