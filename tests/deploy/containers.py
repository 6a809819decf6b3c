"""Images that are built, and containers that run, without a daemon: buildah and runc, as root of this machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.engines.traces import mounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Buildah:
    """Images in a storage of its own, in *folder*."""

    program: str
    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """What runs it."""
        places = ["--root", str(self.folder / "images"), "--runroot", str(self.folder / "run")]
        return [self.program, *places, "--storage-driver", "overlay", *arguments]

    def run(self, *arguments: str) -> str:
        """What it answers."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def image_of(self, root: Path, name: str) -> str:
        """An image with one layer, the files under *root*."""
        container = self.run("from", "scratch")
        self.run("copy", "--quiet", container, str(root), "/")
        self.run("commit", "--quiet", "--timestamp", "0", container, name)
        self.run("rm", container)
        return f"localhost/{name}"

    def inspect(self, image: str) -> dict[str, Any]:
        """What the image says of itself."""
        return dict(json.loads(self.run("inspect", "--type", "image", image)))

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The files of *image*; what is written there is gone afterwards."""
        container = self.run("from", "--pull-never", image)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("umount", container)
            self.run("rm", container)

    def clear(self) -> None:
        """Leave nothing mounted, so that the folder can be removed."""
        for mount in mounts(self.folder):
            subprocess.run(["umount", "--lazy", str(mount)], check=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of *image* as Kubernetes runs it, by what the deployment says: see `command`."""

    name: str
    runtime: str
    folder: Path
    root: Path
    image: Mapping[str, Any]
    user: int
    writable: Sequence[str]

    def command(self, arguments: Sequence[str], *, shown: Sequence[Path]) -> list[str]:
        """What runs the image's program with *arguments* in it, until the program ends.

        It has the machine's network, no capabilities, a root that can't be written, memory in the place of the
        *writable* folders, and the folders *shown*, under their own names, to read.
        """
        config = self.image["OCIv1"]["config"]
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": self.user, "gid": self.user},
                "args": [*config["Entrypoint"], *arguments],
                "env": config["Env"],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                *(_memory(path) for path in ("/dev", *self.writable)),
                *(_shown(path) for path in shown),
            ],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount")]},
        }
        self.folder.mkdir()
        (self.folder / "config.json").write_text(json.dumps(spec))
        return [*self._runtime, "run", "--bundle", str(self.folder), self.name]

    @property
    def _runtime(self) -> list[str]:
        return [self.runtime, "--root", str(self.folder / "state")]

    def pid(self) -> int:
        """The process id of its program, on this machine."""
        command = [*self._runtime, "state", self.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout)["pid"])


def _memory(path: str) -> dict[str, Any]:
    options = ["nosuid", "mode=1777", "size=64m"]
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}


def _shown(path: Path) -> dict[str, Any]:
    return {"destination": str(path), "type": "bind", "source": str(path), "options": ["rbind", "ro"]}


def is_root() -> bool:
    """Whether containers can be run here."""
    return os.geteuid() == 0
