"""buildah and podman, with programs that only pretend: which setups are tried, and what they are told."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imgbuilder.standalone.engines.buildah import buildah
from imgbuilder.standalone.engines.containers import ContainersEngine, registries_conf
from imgbuilder.standalone.engines.layouts import open_layout
from imgbuilder.standalone.engines.podman import LONGEST_STATE, podman, state_folder
from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    EngineError,
    EngineSettings,
    Unavailable,
)
from imgbuilder.standalone.engines.stores import store_size
from imgbuilder.standalone.processes import Tail
from tests.unit.standalone.engines import images
from tests.unit.standalone.engines.conftest import PASSWORD
from tests.unit.standalone.engines.programs import Programs, auths
from tests.unit.standalone.engines.test_layouts import digest

VERSIONS = 'case "$1" in --version) echo "NAME version NUMBER (image-spec 1.1.0)"; exit 0 ;; esac\n'
BUILDS = 'file="$(after --iidfile "$@")"; [ -z "$file" ] || printf sha256:4711 > "$file"\n'
EXPORTS = """\
[ -n "$archive" ] || archive="$(after --output "$@")"
[ -z "$archive" ] || cp 'ARCHIVE' "$archive"
"""

Make = Callable[[EngineSettings], ContainersEngine]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What the programs export."""
    tar = images.layer("file", b"hello")
    return images.archive(tmp_path / "archive.tar", [tar], [digest(tar)])


class Machine:
    """A machine that has some programs."""

    def __init__(self, programs: Programs, archive: Path) -> None:
        self.programs = programs
        self.archive = archive

    def has(self, *runtimes: str, engine: str = "buildah", script: str = "", version: str = "9.9.1") -> None:
        """Install *engine*, which does *script* before it works, and *runtimes*."""
        text = VERSIONS.replace("NAME", engine).replace("NUMBER", version) + script + BUILDS
        self.programs.add(engine, text + EXPORTS.replace("ARCHIVE", str(self.archive)))
        for runtime in runtimes:
            self.programs.add(runtime, "")
        for runtime in {"crun", "runc"} - set(runtimes):
            (self.programs.folder / runtime).unlink(missing_ok=True)


@pytest.fixture
def machine(programs: Programs, archive: Path) -> Machine:
    """A machine without programs."""
    return Machine(programs, archive)


def tried(programs: Programs) -> list[tuple[str, str, str, bool]]:
    """The setups of the builds so far: driver, isolation, runtime, and whether with limits."""
    setups = []
    for call in programs.calls_of("--iidfile"):
        options = dict(itertools.pairwise(call))
        setups.append(
            (
                options["--storage-driver"],
                options["--isolation"],
                options.get("--runtime", ""),
                "--memory" in options,
            ),
        )
    return setups


# --- probing ---


async def test_a_program_that_is_not_there_is_no_engine(programs: Programs, settings: EngineSettings) -> None:
    """And what to do about it is said."""
    assert programs.calls == []
    found = await buildah(settings).probe()
    assert found == Unavailable(reason="buildah is not installed", hint="install buildah, and runc or crun")


async def test_the_best_setup_that_works_is_taken(machine: Machine, settings: EngineSettings) -> None:
    """The first that is tried, where everything works."""
    machine.has("crun", "runc")
    found = await buildah(settings).probe()
    assert isinstance(found, Capabilities)
    assert (found.name, found.version, found.limits) == ("buildah", "9.9.1", True)
    assert "containers of crun" in found.isolation
    assert tried(machine.programs) == [("overlay", "oci", "crun", True)]


async def test_what_does_not_work_is_passed_over(
    machine: Machine, settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runtimes, limits and drivers, the dearest to lose last."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    script = """
case "$*" in
    *"driver overlay"*|*" crun "*|*--memory*) echo "Error: that does not work here" >&2; exit 125 ;;
esac
"""
    machine.has("crun", "runc", script=script)
    found = await buildah(settings).probe()
    assert isinstance(found, Capabilities)
    assert not found.limits
    assert tried(machine.programs) == [
        ("overlay", "rootless", "crun", True),
        ("overlay", "rootless", "runc", True),
        ("overlay", "rootless", "crun", False),
        ("overlay", "rootless", "runc", False),
        ("vfs", "rootless", "crun", True),
        ("vfs", "rootless", "runc", True),
        ("vfs", "rootless", "crun", False),
        ("vfs", "rootless", "runc", False),
    ]


async def test_weak_isolation_is_taken_only_where_allowed(machine: Machine, settings: EngineSettings) -> None:
    """A machine without a runtime has nothing better."""
    machine.has()
    found = await buildah(settings).probe()
    assert found == Unavailable(
        reason="there is neither crun nor runc", hint="install runc or crun, or allow weak isolation"
    )
    assert tried(machine.programs) == []
    found = await buildah(dataclasses.replace(settings, allow_weak_isolation=True)).probe()
    assert isinstance(found, Capabilities)
    assert found.isolation.startswith("none worth the name")
    assert tried(machine.programs) == [("overlay", "chroot", "", False)]


async def test_an_engine_that_hangs_is_given_up(machine: Machine, settings: EngineSettings) -> None:
    """In each setup."""
    machine.has("runc", script='case "$*" in *--iidfile*) exec sleep 60 ;; esac\n')
    found = await buildah(dataclasses.replace(settings, probe_limit=0.2)).probe()
    assert isinstance(found, Unavailable)
    assert found.reason.count("takes too long") == 4


async def test_an_engine_is_not_used_before_it_was_seen_to_work(
    machine: Machine, settings: EngineSettings, request_: BuildRequest
) -> None:
    """Nor after it was seen not to."""
    machine.has("runc")
    engine = buildah(settings)
    with pytest.raises(EngineError, match="was not found to work"):
        await engine.build(request_, Tail())
    await engine.probe()
    machine.has("runc", script="exit 1\n")
    assert isinstance(await engine.probe(), Unavailable)
    with pytest.raises(EngineError, match="was not found to work"):
        await engine.build(request_, Tail())


# --- building ---


@pytest.fixture(params=["buildah", "podman"])
async def engine(
    request: pytest.FixtureRequest, machine: Machine, settings: EngineSettings
) -> ContainersEngine:
    """Each of the two, after its probe."""
    machine.has("runc", engine=request.param)
    make: Make = {"buildah": buildah, "podman": podman}[request.param]
    engine = make(settings)
    assert isinstance(await engine.probe(), Capabilities)
    machine.programs.record.unlink()
    return engine


async def test_is_told_everything_that_matters(
    engine: ContainersEngine, machine: Machine, request_: BuildRequest, settings: EngineSettings
) -> None:
    """In a store of its own, with nothing of this machine's, and no way around the registry."""
    layout = await engine.build(dataclasses.replace(request_, network="none", no_cache=True), Tail())
    assert open_layout(request_.scratch / "layout") == layout
    build, export = machine.programs.calls_of(engine.name)
    options = dict(itertools.pairwise(build))
    folder = settings.data_dir / "engines" / engine.name
    assert options["--root"] == str(folder / "storage")
    assert options["--storage-driver"] == "overlay"
    assert options["--runtime"] == "runc"
    assert options["--runtime-flag"] == f"root={folder / 'runtime' / 'runc'}"
    assert options["--file"] == str(request_.dockerfile)
    assert options["--format"] == "docker"
    assert options["--network"] == "none"
    assert options["--memory"] == "1000000b"
    assert (options["--cpu-period"], options["--cpu-quota"]) == ("100000", "150000")
    assert {"--layers", "--force-rm", "--http-proxy=false", "--no-cache"} <= set(build)
    assert {"--pull-always", "--pull=always"} & set(build)
    assert build[-1] == str(request_.context)
    assert "sha256:4711" in export
    assert str(settings.data_dir) in options["--runroot"] or len(options["--runroot"]) <= LONGEST_STATE


async def test_credentials_are_in_a_file_for_as_long_as_the_build_runs(
    engine: ContainersEngine, machine: Machine, request_: BuildRequest, tmp_path: Path
) -> None:
    """And plain HTTP is spoken only to those it may be spoken to."""
    seen, conf = tmp_path / "seen.json", tmp_path / "registries"
    keep = f"""
file="$(after --authfile "$@")"; [ -z "$file" ] || cp "$file" '{seen}'
cp "$CONTAINERS_REGISTRIES_CONF" '{conf}'; ls -d "$TMPDIR" >&2
"""
    machine.has("runc", engine=engine.name, script=keep)
    said = Tail()
    await engine.build(request_, said)
    assert auths(seen.read_text())["registry.example"] == {"auth": "dXNlcjpwYXNzLTdmM2E="}
    assert str(request_.scratch) in said.text()
    assert not [word for call in machine.programs.calls for word in call if PASSWORD in word]
    assert [entry.name for entry in request_.scratch.iterdir()] == ["layout"]
    assert conf.read_text() == (
        'unqualified-search-registries = ["docker.io"]\n\n'
        '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n'
    )
    assert registries_conf(frozenset()) == 'unqualified-search-registries = ["docker.io"]\n'


async def test_a_failed_build_leaves_nothing_and_is_tidied_up_after(
    engine: ContainersEngine, machine: Machine, request_: BuildRequest, settings: EngineSettings
) -> None:
    """Containers of builds that ended badly are removed when no other runs."""
    script = """
case "$*" in *--iidfile*)
    mkdir "$TMPDIR/buildah123"
    echo 'Error: building: while running runtime: exit status 9' >&2
    exit 9
esac
case "$*" in *containers*|*"ps --all"*) echo container-1; echo container-2; exit 0 ;; esac
"""
    machine.has("runc", engine=engine.name, script=script)
    running = settings.data_dir / "engines" / engine.name / "runtime" / "runc" / "buildah-buildah123"
    running.mkdir(parents=True)
    other = running.with_name("buildah-buildah456")
    other.mkdir()
    (running / "state.json").write_text(f'{{"bundle": "{request_.scratch}/temporary/buildah123"}}')
    (other / "state.json").write_text('{"bundle": "/elsewhere/buildah456"}')
    said = Tail()
    with pytest.raises(BuildFailedError) as failed:
        await engine.build(request_, said)
    assert failed.value.exit_status == 9
    assert "exit status 9" in said.text()
    assert list(request_.scratch.iterdir()) == []
    deleted = [call[-1] for call in machine.programs.calls_of("runc", "delete", "--force")]
    assert deleted == [
        "buildah-buildah123",
        "buildah-buildah456",
    ]  # its own first, the rest with nothing running
    assert not running.exists()
    assert machine.programs.calls_of("rm", "container-1", "container-2")


async def test_a_killed_engine_is_engine_trouble(
    engine: ContainersEngine, machine: Machine, request_: BuildRequest
) -> None:
    """The kernel kills what takes too much memory."""
    machine.has("runc", engine=engine.name, script="kill -9 $$\n")
    with pytest.raises(EngineError, match="was ended by SIGKILL"):
        await engine.build(request_, Tail())


async def test_a_full_disk_is_engine_trouble(
    engine: ContainersEngine, machine: Machine, request_: BuildRequest
) -> None:
    """Also when the image is exported."""
    script = (
        'case "$*" in *docker-archive*) echo "Error: write: no space left on device" >&2; exit 125; esac\n'
    )
    machine.has("runc", engine=engine.name, script=script)
    with pytest.raises(EngineError, match="no space left on device"):
        await engine.build(request_, Tail())
    assert list(request_.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "version", "knows"),
    [(buildah, "1.28.2", False), (buildah, "1.33.0", True), (podman, "4.3.1", False), (podman, "5.0", True)],
)
async def test_old_versions_know_no_here_documents(
    machine: Machine, settings: EngineSettings, request_: BuildRequest, make: Make, version: str, knows: bool
) -> None:
    """They would take them for instructions, or run something else."""
    engine = make(settings)
    machine.has("runc", engine=engine.name, version=version)
    await engine.probe()
    request_.dockerfile.write_text("FROM scratch\nCOPY <<EOF /x\nEOF\n")
    if knows:
        await engine.build(request_, Tail())
        return
    with pytest.raises(BuildFailedError, match="here-documents") as failed:
        await engine.build(request_, Tail())
    assert version in failed.value.fault


# --- the store ---


def test_the_size_of_a_store_is_what_it_says(tmp_path: Path) -> None:
    """Or what its files take, where it says nothing."""
    layers = tmp_path / "storage" / "overlay-layers"
    layers.mkdir(parents=True)
    (tmp_path / "storage" / "file").write_bytes(b"x" * 123)
    assert store_size(tmp_path) == 123
    (layers / "layers.json").write_text(json.dumps([{"diff-size": 1000}, {"diff-size": 500}, {"id": "x"}]))
    assert store_size(tmp_path) == 1500
    (layers / "layers.json").write_text("nonsense")
    assert store_size(tmp_path) == 123 + len("nonsense")
    assert store_size(tmp_path / "nowhere") == 0


async def test_a_cache_that_is_too_large_is_pruned(
    engine: ContainersEngine, machine: Machine, settings: EngineSettings, request_: BuildRequest
) -> None:
    """Mildly if that suffices; after the build, when no other runs."""
    make: Make = {"buildah": buildah, "podman": podman}[engine.name]
    bounded = make(dataclasses.replace(settings, cache_limit=1000))
    await bounded.probe()
    file = settings.data_dir / "engines" / engine.name / "storage" / "blob"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 2000)
    script = f"""case "$*" in *prune*) printf x > '{file}' ;; *--all*--force*) rm '{file}' ;; esac\n"""
    machine.has("runc", engine=engine.name, script=script)
    await bounded.build(request_, Tail())
    assert store_size(file.parent.parent) == 1
    pruned = [call for call in machine.programs.calls if "prune" in call or "--prune" in call]
    assert len(pruned) == 1


@pytest.mark.parametrize("make", [buildah, podman])
async def test_sweeping_removes_what_runtimes_still_run(
    machine: Machine, settings: EngineSettings, make: Make
) -> None:
    """By its name in the folder of each."""
    engine = make(settings)
    machine.has("runc", engine=engine.name)
    folder = settings.data_dir / "engines" / engine.name
    (folder / "runtime" / "runc" / "buildah-1").mkdir(parents=True)
    (folder / "probes" / "probe-x").mkdir(parents=True)
    await engine.sweep()
    state = str(folder / "runtime" / "runc")
    assert ["runc", "--root", state, "delete", "--force", "buildah-1"] in machine.programs.calls
    assert not (folder / "probes" / "probe-x").exists()


async def test_sweeping_goes_on_when_something_fails(machine: Machine, settings: EngineSettings) -> None:
    """A program that is gone is no reason not to start."""
    machine.has("runc", script="echo 'Error: no' >&2; exit 1\n")
    folder = settings.data_dir / "engines" / "buildah"
    (folder / "runtime" / "crun" / "buildah-1").mkdir(parents=True)
    await buildah(settings).sweep()


def test_podman_gets_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no longer one; two data folders never share one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    short = Path("/data/engines/podman")
    assert state_folder(short) == short / "run"
    long, other = (Path("/data") / ("x" * 60) / name for name in "ab")
    assert len(str(state_folder(long))) <= LONGEST_STATE
    assert state_folder(long) == state_folder(long)
    assert state_folder(long) != state_folder(other)
    assert state_folder(long).parent == Path("/run/user/1000")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_folder(long).parent == Path("/run")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state_folder(long) == long / "run"


# --- where podman is a client ---


async def test_podman_is_a_client_where_there_is_no_linux(
    machine: Machine, settings: EngineSettings, request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told of stores, and what is in the service's is left alone."""
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("CONTAINER_HOST", "ssh://core@127.0.0.1:22/podman.sock")
    fail = 'case "$*" in *--no-cache*) echo "at $CONTAINER_HOST"; exit 1 ;; esac\n'
    machine.has(engine="podman", script=fail)
    engine = podman(settings)
    found = await engine.probe()
    assert isinstance(found, Capabilities)
    assert (found.limits, found.bounded_cache) == (False, False)
    await engine.build(request_, Tail())
    said = Tail()
    with pytest.raises(BuildFailedError):
        await engine.build(dataclasses.replace(request_, no_cache=True), said)
    await engine.sweep()
    assert "at ssh://core@127.0.0.1:22/podman.sock" in said.text()
    subcommands = [call[1] for call in machine.programs.calls]
    assert set(subcommands) == {"--version", "build", "save"}
    assert "--tls-verify=false" in machine.programs.calls_of("build")[-1]
    assert isinstance(await buildah(settings).probe(), Unavailable)
