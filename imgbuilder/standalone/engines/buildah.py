"""buildah, with runc or crun for its RUN steps: needs no service, and works for a plain user as well."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imgbuilder.standalone.engines.containers import ContainersEngine
from imgbuilder.standalone.engines.protocol import EngineSettings
from imgbuilder.standalone.engines.stores import Setup, storage_options


class _Buildah:
    name: Final = "buildah"
    passed_on: Final = ()
    heredocs_since: Final = (1, 33)
    list_containers: Final = ("containers", "--quiet", "--noheading")
    remove_containers: Final = ("rm",)
    prunings: Final = (("rmi", "--prune"), ("rmi", "--all", "--force"))

    def program(self, folder: Path, setup: Setup) -> tuple[str, ...]:
        return (
            "buildah",
            *storage_options(folder, setup, state=folder / "run"),
        )

    def build(self, setup: Setup) -> tuple[str, ...]:
        # the long name of this subcommand is younger
        runtime = ("--runtime", setup.runtime) if setup.runtime else ()
        return ("bud", "--pull-always", *runtime)

    def export(self, image: str, archive: Path) -> tuple[str, ...]:
        return ("push", "--quiet", image, f"docker-archive:{archive}")


def buildah(settings: EngineSettings) -> ContainersEngine:
    """The engine that runs buildah."""
    return ContainersEngine(_Buildah(), settings)
