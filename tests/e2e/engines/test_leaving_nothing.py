"""However a build ends, nothing of it is left: no process, no mount, no container, no file."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    EngineSettings,
)
from imgbuilder.standalone.engines.selection import ENGINES
from imgbuilder.standalone.engines.stores import store_size
from imgbuilder.standalone.processes import find_marked
from tests.e2e.engines.conftest import Found, Project
from tests.e2e.engines.traces import gone, mounts, runtime_containers, there

SLEEPING = "FROM BASE\nRUN dd if=/dev/zero of=/large bs=1M count=5; echo dozing off; sleep {}\n"

BUILD_AND_SLEEP = """
import json, sys, anyio
from pathlib import Path
from imgbuilder.core.permissions import basic_credentials
from imgbuilder.standalone.engines.protocol import BuildRequest, EngineSettings
from imgbuilder.standalone.engines.selection import ENGINES

async def main(name, data_dir, folder, registry, user, password):
    engine = ENGINES[name](EngineSettings(data_dir=Path(data_dir)))
    print(await engine.probe(), flush=True)
    request = BuildRequest(
        build_id="doomed", context=Path(folder) / "context", dockerfile=Path(folder) / "context" / "Dockerfile",
        scratch=Path(folder) / "scratch", pull_auth={registry: basic_credentials(user, password)},
        insecure=frozenset({registry}),
    )
    request.scratch.mkdir()
    await engine.build(request, lambda chunk: print(chunk.decode(errors="replace"), end="", flush=True))

anyio.run(main, *json.loads(sys.argv[1]))
"""


def unique_duration(project: Project) -> str:
    """Seconds to sleep that no other test sleeps, so that the process can be told from others."""
    return f"{600 + os.getpid() % 10_000}.{abs(hash(project.folder)) % 10**6}"


def assert_nothing_is_left(found: Found) -> None:
    """Of the engine's builds, on this machine."""
    data_dir = found.settings.data_dir
    assert find_marked(data_dir) == []
    assert runtime_containers(data_dir) == []
    assert mounts(data_dir) == []


async def test_cancelling_ends_everything(found: Found, project: Project) -> None:
    """A RUN step that sleeps ends at once, with its container; the next build works."""
    duration = unique_duration(project)
    project.write(SLEEPING.format(duration))
    request = project.request()
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(project.engine.build, request, project.said)
            await project.said.hears(b"dozing off\n")
            await there(f"sleep {duration}")
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    await gone(f"sleep {duration}")
    assert_nothing_is_left(found)
    assert list(request.scratch.iterdir()) == []
    project.write("FROM BASE\nRUN true\n")
    await project.build()


async def test_cancelling_at_any_moment_leaves_nothing(found: Found, project: Project) -> None:
    """While the engine starts, pulls, makes a container, runs it."""
    duration = unique_duration(project)
    project.write(SLEEPING.format(duration))
    for hundredths in (2, 8, 15, 22, 30, 38, 46):
        request = project.request()
        with anyio.move_on_after(hundredths / 100):
            await project.engine.build(request, project.said)
        await gone(f"sleep {duration}")
        assert_nothing_is_left(found)
        assert list(request.scratch.iterdir()) == []


async def test_an_export_that_is_cancelled_leaves_nothing(found: Found, project: Project) -> None:
    """The image is built by then; what the engine had mounted to read it goes all the same."""
    if found.engine.name not in {"buildah", "podman"}:
        pytest.skip(f"{found.engine.name} exports while it builds")
    project.write("FROM BASE\nRUN true\n")

    async def cancel_exporting(scope: anyio.CancelScope, request: BuildRequest, delay: float) -> None:
        await there(str(request.scratch / "image.tar"))
        await anyio.sleep(delay)
        scope.cancel()

    for hundredths in range(5):
        request = project.request()
        async with anyio.create_task_group() as group:
            group.start_soon(cancel_exporting, group.cancel_scope, request, hundredths / 100)
            # a build that is done before it is cancelled is as good
            await project.engine.build(request, project.said)
            group.cancel_scope.cancel()
        assert_nothing_is_left(found)


async def test_a_failed_build_leaves_nothing(found: Found, project: Project) -> None:
    """Neither an image nor a container: only the cache of the steps that went well."""
    project.write("FROM BASE\nRUN echo one\nRUN exit 3\n")
    request = project.request()
    with pytest.raises(BuildFailedError):
        await project.engine.build(request, project.said)
    assert_nothing_is_left(found)
    assert list(request.scratch.iterdir()) == []


async def test_a_probe_that_is_cancelled_leaves_nothing(found: Found) -> None:
    """At whatever moment; nor does one that finds nothing that works."""
    engine = ENGINES[found.engine.name](found.settings)
    for seconds in (0.05, 0.2, 0.4):
        with anyio.move_on_after(seconds):
            await engine.probe()
        assert_nothing_is_left(found)


@pytest.mark.parametrize("victims", ["parent", "parent and engine"])
async def test_what_a_killed_parent_leaves_is_swept(found: Found, project: Project, victims: str) -> None:
    """A kill -9 of the process that builds, and also of the engine's program with it: nothing runs on."""
    duration = unique_duration(project)
    project.write(SLEEPING.format(duration))
    base = project.base
    arguments = [
        *(found.engine.name, str(found.settings.data_dir), str(project.folder), base.registry),
        *(base.credentials.username, base.credentials.password.reveal()),
    ]
    command = [sys.executable, "-c", BUILD_AND_SLEEP, json.dumps(arguments)]
    async with await anyio.open_process(command, stderr=None, cwd=Path.cwd()) as parent:
        assert parent.stdout is not None
        said = b""
        with anyio.fail_after(20):
            while b"dozing off\n" not in said:
                said += await parent.stdout.receive()
        await there(f"sleep {duration}")
        if victims == "parent and engine":
            for pid in find_marked(found.settings.data_dir):
                with suppress(ProcessLookupError):  # it was a child of the one before, which took it along
                    os.kill(pid, signal.SIGKILL)
        parent.kill()
        await parent.wait()
    fresh = ENGINES[found.engine.name](found.settings)
    await fresh.sweep()
    await gone(f"sleep {duration}")
    assert_nothing_is_left(found)
    await anyio.Path(project.folder / "scratch").rmdir() if not list(
        (project.folder / "scratch").iterdir()
    ) else None
    assert isinstance(await fresh.probe(), Capabilities)


async def test_the_cache_is_bounded(found: Found, project: Project, tmp_path: Path) -> None:
    """What builds leave in the cache is pruned when it is too much, and builds go on."""
    if not found.capabilities.bounded_cache:
        pytest.skip(f"the cache of {found.engine.name} is its owner's to bound")
    settings = dataclasses.replace(found.settings, data_dir=tmp_path / "bounded", cache_limit=4_000_000)
    engine = ENGINES[found.engine.name](settings)
    assert isinstance(await engine.probe(), Capabilities)
    project.write("FROM BASE\nRUN dd if=/dev/zero of=/large bs=1M count=1\n")
    await engine.build(project.request(), project.said)
    folder = settings.data_dir / "engines" / engine.name
    kept = store_size(folder)
    assert 1_000_000 < kept <= settings.cache_limit
    project.write("FROM BASE\nRUN dd if=/dev/zero of=/large bs=1M count=9\n")
    await engine.build(project.request(), project.said)
    assert store_size(folder) < kept
    await engine.build(project.request(), project.said)


async def test_sweeping_where_nothing_was_built_does_nothing(tmp_path: Path) -> None:
    """It neither fails nor makes a folder."""
    for make in ENGINES.values():
        await make(EngineSettings(data_dir=tmp_path)).sweep()
    assert not (tmp_path / "engines").exists()
