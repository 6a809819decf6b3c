"""What the workspace manager needs of a build engine, and what it gives one.

States the contract that every adapter keeps; runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.permissions import Credentials

Output = Callable[[bytes], None]
"""Takes a piece of what a build says, as it comes: any length, not cut at lines. Must not block."""

Network = Literal["host", "none"]
"""What RUN steps see of the network: what this machine sees, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One Dockerfile to build.

    :ivar context: the folder that COPY and ADD read. Checked by `imgbuilder.standalone.dockerfile` before.
    :ivar dockerfile: an existing file, anywhere. Checked likewise.
    :ivar scratch: an existing folder that is this build's alone: for its image, temporary files and
        credentials. The engine leaves only the image in it; whoever made the folder deletes it.
    :ivar pull_auth: what base images are pulled with, by registry as references spell it. RUN steps never see
        it, nor does it appear on a command line, in an environment or in the output.
    :ivar insecure: registries that are spoken to over plain HTTP.
    :ivar memory: bytes that a RUN step may use; None for no limit. Kept where the engine can, see
        `Capabilities.limits`.
    :ivar cpus: processors that a RUN step may use, likewise.
    """

    build_id: str
    context: Path
    dockerfile: Path
    scratch: Path
    pull_auth: Mapping[str, Credentials] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    network: Network = "host"
    memory: int | None = None
    cpus: float | None = None
    no_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OciLayout:
    """An image in a folder of the form that the OCI image specification calls an image layout.

    :ivar digest: of the image's manifest (never of an index).
    :ivar media_type: the manifest's.
    """

    path: Path
    digest: str
    media_type: str

    def blob(self, digest: str) -> Path:
        """Where the manifest, the configuration or a layer with this *digest* is."""
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine that works on this machine can do.

    :ivar isolation: what stands between a RUN step and this machine, in words for its owner.
    :ivar limits: whether it keeps `BuildRequest.memory` and `BuildRequest.cpus`.
    :ivar bounded_cache: whether it keeps its cache within `EngineSettings.cache_limit` by itself; if not,
        that is up to whoever runs the engine's service.
    """

    name: str
    version: str
    isolation: str
    limits: bool
    bounded_cache: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """Why an engine can't be used here, and what its owner could do about it."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What is the same for all builds of an engine.

    :ivar data_dir: the workspace manager's data folder. An engine keeps what it needs below ``engines/`` of
        it, and takes what it finds there, and what runs from there, as its own.
    :ivar allow_weak_isolation: whether an engine may be used whose RUN steps could take over this machine.
    :ivar cache_limit: bytes that layers kept between builds may take.
    :ivar probe_limit: seconds that finding out whether one engine works may take.
    """

    data_dir: Path
    allow_weak_isolation: bool = False
    cache_limit: int = 10 * 1024**3
    probe_limit: float = 20.0


class BuildFailedError(ImgbuilderError):
    """The Dockerfile, what it builds on or a program it runs is at fault. The output says more.

    :ivar exit_status: the RUN step's where one failed, else the engine's; never 0.
    :ivar fault: what the engine says, in one line.
    """

    def __init__(self, exit_status: int, fault: str) -> None:
        super().__init__(fault)
        self.exit_status = exit_status
        self.fault = fault


class EngineError(ImgbuilderError):
    """The engine is at fault, or the machine: another Dockerfile would have failed as well."""


class Engine(Protocol):
    """Makes images of Dockerfiles."""

    @property
    def name(self) -> str:
        """How its owner chooses it: ``docker``, ``podman``, ``buildkit`` or ``buildah``."""
        ...

    async def probe(self) -> Capabilities | Unavailable:
        """Find out whether the engine works, by building something tiny. To be awaited before `build`."""
        ...

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """Build an image; it is in the request's scratch folder then. Any number may run at once.

        Cancelling ends it with all that it started: first asked to end, after 10 s made to.

        :param output: called with what the build says, in order, until this returns or raises.
        :raises BuildFailedError: if what is to be built is at fault.
        :raises EngineError: if it could not be built here.
        """
        ...

    async def sweep(self) -> None:
        """Remove what a crash left: processes, containers, mounts, temporary files. The cache stays.

        Only what belongs to the data folder of the settings, and only while no build runs. To be awaited at
        start, before `probe`.
        """
        ...
