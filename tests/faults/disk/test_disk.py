"""Whatever becomes of the disk: builds go on, readers get what there is and are told what is not, once it is logged."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import pytest

from tests.faults.reading import BEGINNING, Reading, read
from tests.faults.trial import MEBIBYTE, PATIENCE, Trial, trial
from tests.world.world import World

pytestmark = pytest.mark.timeout(PATIENCE + 10)

SIZE: Final = 2 * MEBIBYTE
FAULTS: Final = "imgbuilder_log_disk_faults_total"
FAILING: Final = "build logs can't be kept on disk"
WORKING: Final = "build logs can be kept on disk again"


def _namespaces() -> bool:
    """Whether a process can have mounts of its own, which are gone when it is."""
    try:
        return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


in_its_own_namespace = pytest.mark.skipif(
    not _namespaces(), reason="mounts of a process's own need root and util-linux's unshare"
)


@asynccontextmanager
async def serving(world: World, folder: Path, *under: str, **logs: Any) -> AsyncIterator[Trial]:
    """A service that keeps little of a log in memory."""
    async with trial(folder, world, under=under, logs={"memory": "64KiB", **logs}) as found:
        yield found


def records(disk: Trial, text: str) -> list[dict[str, Any]]:
    """What the service has logged in these words."""
    return [record for record in disk.service.records if record["message"] == text]


async def faults(disk: Trial) -> float:
    """How often the disk has failed."""
    return (await disk.metrics())[FAULTS]


async def read_late(disk: Trial, build_id: str) -> Reading:
    """What a reader gets who comes now."""
    reading = Reading()
    await read(disk.client, build_id, reading)
    return reading


async def test_a_file_that_may_not_grow(world: World, tmp_path: Path) -> None:
    """As with a quota: the beginning is kept and the end; who reads along misses nothing; other logs are kept."""
    along = Reading()
    async with serving(
        world, tmp_path, "bash", "-c", 'ulimit -f 512 && exec "$@"', "-", memory="256KiB"
    ) as disk:
        with anyio.fail_after(PATIENCE):
            async with disk.building() as (call, build_id), anyio.create_task_group() as group:
                await disk.listened(build_id)
                group.start_soon(read, disk.client, build_id, along)
                for start in range(0, SIZE, 64 * 1024):
                    await disk.write(build_id, start, start + 64 * 1024)
                    await along.reach(start)
                await disk.succeed(call, build_id)
            late = await read_late(disk, build_id)
            assert len(records(disk, FAILING)) == 1
            await disk.another_build()
        assert (along.place, along.left_out) == (SIZE, 0)
        assert late.place == SIZE
        assert SIZE // 2 < late.left_out < SIZE - 256 * 1024
        assert records(disk, FAILING)[0]["reason"] == "File too large"
        assert await faults(disk) > 1


@in_its_own_namespace
async def test_a_disk_that_is_full(world: World, tmp_path: Path) -> None:
    """The first log takes it all; the second is kept in memory, as far as that goes; builds go on."""
    (world.folder / "logs").mkdir()
    mounted = f"mount -t tmpfs -o size=1m tmpfs '{world.folder}/logs' && exec \"$@\""
    async with serving(world, tmp_path, "unshare", "-m", "sh", "-c", mounted, "-") as disk:
        with anyio.fail_after(PATIENCE):
            for _ in range(2):
                async with disk.building() as (call, build_id):
                    await disk.listened(build_id)
                    await disk.write(build_id, 0, SIZE)
                    await disk.succeed(call, build_id)
                late = await read_late(disk, build_id)
                assert late.place == SIZE
                assert late.left_out > SIZE // 3
            await disk.another_build()
        assert len(records(disk, FAILING)) == 1
        assert records(disk, FAILING)[0]["reason"] == "No space left on device"
        assert await faults(disk) > 2
        assert not list((world.folder / "logs").iterdir())  # the mount was its own


@in_its_own_namespace
async def test_a_disk_that_becomes_read_only(world: World, tmp_path: Path) -> None:
    """As after an error of the disk: what was written can be read; what follows is told to be missing."""
    logs = world.folder / "logs"
    logs.mkdir()
    mounted = f"mount -t tmpfs tmpfs '{logs}' && exec \"$@\""
    async with serving(world, tmp_path, "unshare", "-m", "sh", "-c", mounted, "-") as disk:
        with anyio.fail_after(PATIENCE):
            async with disk.building() as (call, build_id):
                await disk.listened(build_id)
                await disk.write(build_id, 0, SIZE // 2)
                pid = disk.service.process.pid
                await until_kept(Path(f"/proc/{pid}/root{logs}"), SIZE // 4)
                enter = ["nsenter", "-t", str(pid), "-m"]
                await anyio.run_process([*enter, "mount", "-o", "remount,ro", str(logs)])
                await disk.write(build_id, SIZE // 2, SIZE)
                await disk.succeed(call, build_id)
            late = await read_late(disk, build_id)
            await disk.another_build()
        assert late.place == SIZE
        assert SIZE // 4 < late.left_out < SIZE
        assert len(records(disk, FAILING)) == 1
        assert records(disk, FAILING)[0]["reason"] == "Read-only file system"
        assert await faults(disk) > 1


async def test_a_folder_that_somebody_removes(world: World, tmp_path: Path) -> None:
    """What was in it is told to be missing, and not read as zeros; what follows is kept again."""
    async with serving(world, tmp_path) as disk:
        with anyio.fail_after(PATIENCE):
            async with disk.building() as (call, build_id):
                await disk.listened(build_id)
                await disk.write(build_id, 0, SIZE // 2)
                await until_kept(world.folder / "logs", SIZE // 4)
                shutil.rmtree(world.folder / "logs")
                await disk.write(build_id, SIZE // 2, SIZE)
                await disk.succeed(call, build_id)
            late = await read_late(disk, build_id)
            await disk.another_build()
        assert late.place == SIZE
        assert SIZE // 4 < late.left_out <= SIZE // 2 + len(BEGINNING)
        assert len(records(disk, FAILING)) == len(records(disk, WORKING)) == 1
        assert await faults(disk) == 1


async def test_a_folder_that_can_not_be_made(world: World, tmp_path: Path) -> None:
    """The service starts without: of long logs the end is kept, in memory."""
    (world.folder / "logs").write_text("in its place")
    async with serving(world, tmp_path) as disk:
        with anyio.fail_after(PATIENCE):
            async with disk.building() as (call, build_id):
                await disk.listened(build_id)
                await disk.write(build_id, 0, SIZE)
                await disk.succeed(call, build_id)
            late = await read_late(disk, build_id)
            await disk.another_build()
        assert late.place == SIZE
        assert SIZE // 2 < late.left_out < SIZE
        assert len(records(disk, FAILING)) == 1
        assert await faults(disk) > 1


async def until_kept(logs: Path, size: int) -> None:
    """Wait until so much has been written to the files of a service's folder."""
    while size_of(logs) < size:  # noqa: ASYNC110  # the system does not tell
        await anyio.sleep(0.02)


def size_of(logs: Path) -> int:
    """How much there is in a folder of logs."""
    return sum(file.stat().st_size for file in logs.glob("run-*/*"))
