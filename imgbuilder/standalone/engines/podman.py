"""podman: ``podman build`` is buildah under another name, with the same kind of store.

On Linux without its service, and with a store of its own. Elsewhere podman is the client of a service in a
virtual machine; what that keeps is its owner's, and is left alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from imgbuilder.standalone.engines.containers import ContainersEngine
from imgbuilder.standalone.engines.protocol import EngineSettings
from imgbuilder.standalone.engines.stores import Setup, storage_options

LONGEST_STATE: Final = 50


class _Podman:
    name: Final = "podman"
    passed_on: Final = ("CONTAINER_HOST", "CONTAINER_SSHKEY", "CONTAINER_CONNECTION")
    heredocs_since: Final = (4, 8)
    list_containers: Final = ("ps", "--all", "--external", "--quiet")
    remove_containers: Final = ("rm", "--force")
    prunings: Final = (("image", "prune", "--force"), ("image", "prune", "--all", "--force"))

    def program(self, folder: Path, setup: Setup) -> tuple[str, ...]:
        if setup.remote:
            return ("podman",)
        return (
            "podman",
            *storage_options(folder, setup, state=state_folder(folder)),
            *("--tmpdir", str(folder / "libpod")),
            *(("--runtime", setup.runtime) if setup.runtime else ()),
            # neither systemd nor its journal are needed, and both may be missing
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
        )

    def build(self, setup: Setup) -> tuple[str, ...]:  # noqa: ARG002  # all that differs is said before
        return ("build", "--pull=always")

    def export(self, image: str, archive: Path) -> tuple[str, ...]:
        return ("save", "--quiet", "--format", "docker-archive", "--output", str(archive), image)


def state_folder(folder: Path) -> Path:
    """Where podman, which takes no path of more than fifty characters for it, keeps what runs.

    In the engine's *folder* if that is short enough, else where such things are kept on this machine.
    """
    state = folder / "run"
    if len(str(state)) <= LONGEST_STATE:
        return state
    runtime = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else None)
    if runtime is None:
        return state
    return Path(runtime) / f"imgbuilder-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def podman(settings: EngineSettings) -> ContainersEngine:
    """The engine that runs podman."""
    return ContainersEngine(_Podman(), settings)
