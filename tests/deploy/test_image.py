"""The container image of the service: what it is made of, that it is the same each time, and that it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest

from tests.contract.service.client import connected, reference, statuses
from tests.deploy.containers import Buildah, Container, is_root
from tests.deploy.python_base import make_python_base
from tests.deploy.rendering import NAME, ROOT, Rendered
from tests.interop.conftest import program, unavailable
from tests.world.process import service_process
from tests.world.world import World

CONTEXT: Final = ("Dockerfile", ".dockerignore", "LICENSE", "imgbuilder", "requirements-service.lock")
MOST: Final = 200 * 10**6
"""Bytes that we add to the base image."""

ROOM: Final = 6 * 2**30
"""Bytes of memory that there must be, to use a few hundred megabytes of it as a disk."""

SECRET: Final = "correct-horse-battery-7f3a91"
UNCHECKED_HASH: Final = 1
"""The flags of bytecode that is tied to a hash of its source, and is used without a look at that."""

pytestmark = pytest.mark.timeout(600)  # images are built in the first test, on a machine that may be busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An image that was built, and what the same inputs gave a second time."""

    buildah: Buildah
    base: dict[str, Any]
    image: dict[str, Any]
    again: dict[str, Any]
    root: Path


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for images: in memory where there is enough, since half of the time goes into writing files."""
    memory = Path("/dev/shm")
    folder = tmp_path_factory.mktemp("image")
    if memory.is_dir() and min(shutil.disk_usage(memory).free, psutil.virtual_memory().available) > ROOM:
        folder = Path(tempfile.mkdtemp(prefix="imgbuilder-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def built(storage: Path) -> Iterator[Built]:
    """The image, on a base that is made of this machine's Python, out of packages that were downloaded before."""
    if not is_root():
        unavailable("only root can build container images here")
    wheels = ROOT / ".cache" / "wheels"
    if not (wheels / "complete").exists():
        unavailable("the packages of the service have not been downloaded")
    program("runc")
    context = storage / "context"
    context.mkdir()
    for name in CONTEXT:  # as it is now: others may be working on it
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, context / name)
    secret = storage / "pip.conf"
    secret.write_text(f"[global]\nno-index = true\nfind-links = /wheels\n# {SECRET}\n")
    buildah = Buildah(program=program("buildah"), folder=storage)
    try:
        base = buildah.image_of(make_python_base(storage / "base", program("busybox")), "python-base")

        def build(name: str) -> dict[str, Any]:
            buildah.run(
                *("build", "--isolation", "oci", "--runtime", "runc", "--network", "none"),
                *("--timestamp", "0", "--secret", f"id=pip.conf,src={secret}"),
                *("--volume", f"{wheels}:/wheels:ro", "--build-arg", f"PYTHON_IMAGE={base}"),
                *("--tag", name, str(context)),
            )
            return buildah.inspect(f"localhost/{name}")

        with ThreadPoolExecutor(2) as threads:
            image, again = threads.map(build, ("imgbuilder", "again"))
        with buildah.mounted("localhost/imgbuilder") as root:
            yield Built(buildah=buildah, base=buildah.inspect(base), image=image, again=again, root=root)
    finally:
        buildah.clear()


def test_the_same_inputs_give_the_same_image(built: Built) -> None:
    """To the bit: its id is the digest of all that it is."""
    assert built.image["FromImageID"] == built.again["FromImageID"]
    assert built.image["OCIv1"] == built.again["OCIv1"]


def test_the_image_is_small(built: Built) -> None:
    """What we add to the base; the figures are shown."""
    added = [
        file for folder in ("opt/imgbuilder", "usr/share/doc") for file in (built.root / folder).rglob("*")
    ]
    size = sum(file.lstat().st_size for file in added)
    print(f"{size / 1e6:.0f} MB in {len(added)} files")  # noqa: T201  # for the record
    assert 20 * 10**6 < size < MOST
    layers = built.image["OCIv1"]["rootfs"]["diff_ids"]
    assert layers[0] == built.base["OCIv1"]["rootfs"]["diff_ids"][0]


def test_no_secret_ends_in_the_image(built: Built) -> None:
    """Neither in a file nor in what the image tells of itself."""
    found = [
        file
        for file in built.root.rglob("*")
        if file.is_file() and not file.is_symlink() and SECRET.encode() in file.read_bytes()
    ]
    assert not found
    assert SECRET not in str(built.image)
    assert not list(built.root.rglob("pip.conf"))


def test_only_what_runs_is_in_the_image(built: Built) -> None:
    """No package manager, no tests, no sources of ours beside the package, no libraries of clusters."""
    (packages,) = (built.root / "opt/imgbuilder/lib").glob("python3.*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"imgbuilder", "aiobotocore", "uvloop"} <= names
    assert not {"pip", "setuptools", "pytest", "kubernetes_asyncio", "moto", "matplotlib"} & names
    services = {path.name for path in (packages / "botocore/data").iterdir() if path.is_dir()}
    assert services == {"ecr", "ecr-public", "sts"}
    assert not (built.root / "src").exists()


def test_bytecode_is_tied_to_no_time(built: Built) -> None:
    """Of every module: where nothing can be written, it could not be made at the start; nor is it looked at again."""
    sources = {
        path for path in (built.root / "opt/imgbuilder/lib").rglob("*.py") if not path.name.startswith(".")
    }
    compiled = {}
    for path in (built.root / "opt/imgbuilder/lib").rglob("*.pyc"):
        with path.open("rb") as file:
            compiled[path.parent.parent / f"{path.name.partition('.')[0]}.py"] = file.read(8)
    assert len(sources) > 1000
    assert sources - compiled.keys() == set()
    assert {int.from_bytes(header[4:8], "little") for header in compiled.values()} == {UNCHECKED_HASH}


def test_nothing_in_the_image_can_be_changed_by_the_service(built: Built) -> None:
    """All files are root's, and of no time."""
    for file in (built.root / "opt/imgbuilder").rglob("*"):
        status = file.lstat()
        assert (status.st_uid, status.st_gid, status.st_mtime) == (0, 0, 0), file
        assert file.is_symlink() or not status.st_mode & 0o022, file


def test_what_the_image_says_of_itself(built: Built, rendered: Rendered) -> None:
    """The user is the one that the deployment names, and its program takes the deployment's arguments."""
    config = built.image["OCIv1"]["config"]
    context = rendered.pod["spec"]["securityContext"]
    assert config["User"] == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert config["Entrypoint"] == ["/opt/imgbuilder/bin/imgbuilder"]
    assert config["Cmd"] == rendered.service["args"]
    ports = {f"{port['containerPort']}/tcp" for port in rendered.service["ports"]}
    assert {port if "/" in port else f"{port}/tcp" for port in config["ExposedPorts"]} == ports
    assert config["StopSignal"] == "SIGTERM"


def check_confinement(process: Path) -> None:
    """What the kernel says of *process*: its user, its rights, its root file system."""
    status = (process / "status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == fields["Gid"].split() == ["33333"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    (root,) = (mount for mount in mounts if mount[4] == "/")
    assert "ro" in root[5].split(",")


async def test_the_service_runs_in_its_container(built: Built, world: World, tmp_path: Path) -> None:
    """As the deployment's user, without capabilities, on a root that can't be written: probes, health, a build."""
    ref = world.seed_base_image()
    config = world.service_config(logs={"folder": "/spool/logs"})
    container = Container(
        name=f"imgbuilder-{os.getpid()}",
        runtime=program("runc"),
        folder=tmp_path / "bundle",
        root=built.root,
        image=built.image,
        user=33333,
        writable=("/tmp", "/spool"),
    )
    settings = world.folder / "settings"
    settings.mkdir()
    world.folder.chmod(0o755)
    arguments = ["run", "--config", str(settings / "service.json"), "--json-log"]
    command = container.command(arguments, shown=[world.folder])
    async with service_process(config, settings, command=command) as service:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.probes_port}") as http:
            assert (await http.get("/live")).status_code == 200
            async with connected(int(service.host.rpartition(":")[2])) as client:
                assert await client.serves()
                responses = await client.build(reference(ref))
                assert statuses(responses)[-1] == "done_success"
                assert await client.log(build_id=responses[0].info.build_id)  # type: ignore[union-attr]  # is set
            assert (await http.get("/ready")).json() == {"ready": True, "reasons": []}
        check_confinement(Path("/proc") / str(container.pid()))
        service.process.terminate()
        assert await service.wait() == 0
    assert not [record for record in service.records if record["level"] in {"warning", "error"}]


def test_what_is_not_needed_is_no_part_of_the_context() -> None:
    """Sources that change do not count unless they are in the image; secrets that lie about are not sent."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(CONTEXT) - {
        "Dockerfile",
        ".dockerignore",
    }


def test_the_name_of_the_deployments_image_is_free_to_choose(rendered: Rendered) -> None:
    """Every container but the proxy runs this image, under the name that the overlay gives it."""
    images = {name: container["image"] for name, container in rendered.containers.items()}
    assert images[NAME] == "registry.example.com/imgbuilder:0.1.0"


def test_the_scripts_of_the_image_are_not_run_by_a_shell_of_ours(built: Built) -> None:
    """The program's first line names the image's own Python."""
    first = (built.root / "opt/imgbuilder/bin/imgbuilder").read_text().splitlines()[0]
    assert first == "#!/opt/imgbuilder/bin/python"
    done = subprocess.run(
        ["chroot", "--userspec", "33333:33333", str(built.root), "/opt/imgbuilder/bin/imgbuilder", "version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("imgbuilder ")


def test_what_is_left_of_botocore_is_enough(built: Built) -> None:
    """For all that asks AWS for tokens: the role of a service account, private and public registries."""
    program = (
        "import botocore.session as b; s = b.get_session();"
        " print(*(s.create_client(name, region_name='us-east-1', aws_access_key_id='a',"
        " aws_secret_access_key='b').meta.endpoint_url for name in ('sts', 'ecr', 'ecr-public')))"
    )
    python = "/opt/imgbuilder/bin/python"
    done = subprocess.run(
        ["chroot", "--userspec", "33333:33333", str(built.root), python, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("https://") == 3
