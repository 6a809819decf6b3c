"""Which build engine to use: the first one that shows that it works, or the one that was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.standalone.engines.buildah import buildah
from imgbuilder.standalone.engines.buildkit import BuildKitEngine
from imgbuilder.standalone.engines.docker import DockerEngine
from imgbuilder.standalone.engines.podman import podman
from imgbuilder.standalone.engines.protocol import Capabilities, Engine, EngineSettings, Unavailable

log = structlog.get_logger(__name__)

ENGINES: Final[Mapping[str, Callable[[EngineSettings], Engine]]] = MappingProxyType(
    {
        "docker": DockerEngine,  # what most machines have, and have set up
        "podman": podman,
        "buildkit": BuildKitEngine,
        "buildah": buildah,
    },
)
"""How each engine is made, by name, in the order in which they are tried."""

NO_ENGINE: Final = "no Dockerfile engine: install docker, podman or buildah"
"""What a Dockerfile build fails with where no engine works (contract)."""


class UnknownEngineError(ImgbuilderError):
    """The chosen engine is none that there is."""

    def __init__(self, choice: str) -> None:
        super().__init__(f"unknown build engine {choice!r}: there are {', '.join(ENGINES)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What came of looking for an engine.

    :ivar engine: one that works, or None.
    :ivar capabilities: of that engine.
    :ivar unavailable: those that were tried before, in order, and what is wrong with each.
    """

    engine: Engine | None
    capabilities: Capabilities | None
    unavailable: Mapping[str, Unavailable]


async def select_engine(choice: str | None, settings: EngineSettings) -> Selection:
    """Find an engine that works, and remove what a crash left of any of them.

    Takes as long as the probes do: a second or so where something works. To be awaited before anything is
    built in the data folder of *settings*.

    :param choice: the only engine to try; all of them if None.
    :raises UnknownEngineError: if there is no engine of that name.
    """
    if choice is not None and choice not in ENGINES:
        raise UnknownEngineError(choice)
    engines = {name: make(settings) for name, make in ENGINES.items()}
    for engine in engines.values():  # the one that crashed need not be the one that will be used
        await engine.sweep()
    return await first_that_works([engines[name] for name in engines if choice in {None, name}])


async def first_that_works(engines: Sequence[Engine]) -> Selection:
    """Probe *engines* until one works."""
    unavailable: dict[str, Unavailable] = {}
    for engine in engines:
        found = await engine.probe()
        if isinstance(found, Capabilities):
            log.info("found a build engine", engine=found.name, version=found.version, limits=found.limits)
            return Selection(engine=engine, capabilities=found, unavailable=unavailable)
        log.info("a build engine is not available", engine=engine.name, reason=found.reason)
        unavailable[engine.name] = found
    return Selection(engine=None, capabilities=None, unavailable=unavailable)
