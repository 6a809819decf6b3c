"""The objects that an overlay renders to, and what tests look up in them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imgbuilder.config.loading import Loaded, parse
from tests.deploy.documents import Document, documents

ROOT: Final = Path(__file__).parents[2]
KUBERNETES: Final = ROOT / "config" / "kubernetes"
OVERLAYS: Final = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
NAME: Final = "image-builder-mk3"
LABELS: Final = {"app": "gitpod", "component": NAME}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The objects of one overlay."""

    overlay: str
    objects: tuple[Document, ...]

    def all(self, kind: str) -> list[Document]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Document:
        """The only object of a kind."""
        (found,) = self.all(kind)
        return found

    @property
    def pod(self) -> Document:
        """What the deployment says of its pods."""
        return dict(self.one("Deployment")["spec"]["template"])

    @property
    def containers(self) -> dict[str, Document]:
        """The containers of a pod, by name."""
        return {container["name"]: container for container in self.pod["spec"]["containers"]}

    @property
    def service(self) -> Document:
        """The container that the image builder runs in."""
        return self.containers[NAME]

    @property
    def mounts(self) -> dict[str, tuple[Document, Document]]:
        """By path in the image builder's container: the mount, and its volume."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"]["volumes"]}
        return {mount["mountPath"]: (mount, volumes[mount["name"]]) for mount in self.service["volumeMounts"]}

    def port(self, name: str, container: str = NAME) -> int:
        """The number of a named port."""
        ports = {port["name"]: port["containerPort"] for port in self.containers[container]["ports"]}
        return int(ports[name])

    @property
    def loaded(self) -> Loaded:
        """The service's configuration, as the service reads it."""
        data = self.one("ConfigMap")["data"]
        (path,) = (argument for argument in self.service["args"] if argument.endswith(".json"))
        return parse(path, data[Path(path).name].encode())


def render(kustomize: str, folder: Path) -> tuple[Document, ...]:
    """The objects that *folder* describes."""
    done = subprocess.run([kustomize, "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "kustomize warns"
    return tuple(documents(done.stdout))


def identity(each: Document) -> str:
    """What names an object to a reader of a test's result."""
    return json.dumps([each["apiVersion"], each["kind"], each["metadata"]["name"]])
