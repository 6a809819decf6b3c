"""podman, without its service: ``podman build`` is buildah under another name, with the same store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from imgbuilder.standalone.engines.containers import ContainersEngine
from imgbuilder.standalone.engines.protocol import EngineSettings
from imgbuilder.standalone.engines.stores import Setup, storage_options


class _Podman:
    name: Final = "podman"
    heredocs_since: Final = (4, 8)
    list_containers: Final = ("ps", "--all", "--external", "--quiet")
    remove_containers: Final = ("rm", "--force")
    prunings: Final = (("image", "prune", "--force"), ("image", "prune", "--all", "--force"))

    def program(self, folder: Path, setup: Setup) -> tuple[str, ...]:
        return (
            "podman",
            *storage_options(folder, setup),
            *("--tmpdir", str(folder / "libpod")),
            *(("--runtime", setup.runtime) if setup.runtime else ()),
            # neither systemd nor its journal are needed, and both may be missing
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
        )

    def build(self, setup: Setup) -> tuple[str, ...]:  # noqa: ARG002  # all that differs is said before
        return ("build", "--pull=always")

    def export(self, image: str, archive: Path) -> tuple[str, ...]:
        return ("save", "--quiet", "--format", "docker-archive", "--output", str(archive), image)


def podman(settings: EngineSettings) -> ContainersEngine:
    """The engine that runs podman."""
    return ContainersEngine(_Podman(), settings)
