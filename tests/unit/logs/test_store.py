"""One log: what is appended can be read from anywhere, at any time, by any number, wherever it is kept."""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgbuilder.bus import Bus
from imgbuilder.orchestrator.logs.chunks import LARGEST
from imgbuilder.orchestrator.logs.reader import LogReader
from imgbuilder.orchestrator.logs.settings import LogSettings
from imgbuilder.orchestrator.logs.spool import Outcome, SpoolFolder
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.metrics import Metrics
from tests.unit.logs.conftest import MakeLog, faults, settled

NOTE = re.compile(rb"\n\[\.\.\. (\d+) bytes of output are left out here \.\.\.\]\n")
CONTENT = b"".join(b"%07d\n" % number for number in range(20_000))


async def read_all(log: BuildLog) -> bytes:
    """What a reader gets that comes now."""
    async with LogReader(log, metrics=Metrics()) as reader:
        return b"".join([chunk async for chunk in reader])


def files(folder: Path) -> list[Path]:
    """The files of logs."""
    return list(folder.glob("logs/run-*/*"))


async def test_a_reader_gets_what_is_there_and_then_what_comes(make_log: MakeLog) -> None:
    """The first bytes first, then each addition, then the end."""
    log = make_log()
    log.append(b"one ")
    async with LogReader(log, metrics=Metrics()) as reader:
        assert await anext(reader) == b"one "
        log.append(b"two ")
        assert await anext(reader) == b"two "
        log.append(b"three")
        log.close()
        assert await anext(reader) == b"three"
        with pytest.raises(StopAsyncIteration):
            await anext(reader)


async def test_a_log_that_is_discarded_is_freed_at_once(make_log: MakeLog) -> None:
    """Not only when garbage is looked for, which is seldom among what has been there for long."""
    log = make_log()
    log.append(b"output")
    log.discard()
    freed = weakref.ref(log)
    gc.disable()
    try:
        del log
        assert freed() is None
    finally:
        gc.enable()


async def test_a_waiting_reader_wakes_for_output_and_for_the_end(make_log: MakeLog) -> None:
    """A reader that has read everything sleeps until something happens."""
    log = make_log()
    read: list[bytes] = []

    async def follow() -> None:
        async for chunk in reader:
            read.append(chunk)  # noqa: PERF401  # it is looked at in between

    async with LogReader(log, metrics=Metrics()) as reader, anyio.create_task_group() as group:
        group.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        log.append(b"a")
        await anyio.wait_all_tasks_blocked()
        assert read == [b"a"]
        log.close()
    assert read == [b"a"]


async def test_a_cancelled_wait_loses_nothing(make_log: MakeLog) -> None:
    """Whoever gives up waiting can go on reading."""
    log = make_log()
    async with LogReader(log, metrics=Metrics()) as reader:
        with anyio.move_on_after(0):
            await anext(reader)
        log.append(b"a")
        assert await anext(reader) == b"a"


async def test_nothing_follows_the_end(make_log: MakeLog) -> None:
    """A log that was closed stays as it is."""
    log = make_log()
    log.append(b"a")
    log.close()
    log.append(b"b")
    log.close()
    assert await read_all(log) == b"a"


async def test_chunks_are_bounded_and_as_large_as_they_can_be(make_log: MakeLog, metrics: Metrics) -> None:
    """Small pieces are merged, and large ones cut at 64 KiB; what is handed out is counted."""
    log = make_log(memory=10_000_000)
    for start in range(0, len(CONTENT), 100):
        log.append(CONTENT[start : start + 100])
    log.close()
    async with LogReader(log, metrics=metrics) as reader:
        chunks = [chunk async for chunk in reader]
    assert b"".join(chunks) == CONTENT
    assert [len(chunk) for chunk in chunks[:-1]] == [LARGEST] * (len(chunks) - 1)
    assert metrics.registry.get_sample_value("imgbuilder_log_sent_bytes_total") == len(CONTENT)


@pytest.mark.parametrize("memory", [10, 10_000_000], ids=["disk", "memory"])
async def test_readers_at_the_same_place_get_the_same_object(
    make_log: MakeLog, tasks: Tasks, memory: int
) -> None:
    """What is sent can be encoded once for all of them, whether it is in memory or on disk."""
    log = make_log(memory=memory)
    log.append(CONTENT)
    log.close()
    await settled(tasks)
    async with LogReader(log, metrics=Metrics()) as one, LogReader(log, metrics=Metrics()) as other:
        for _ in range(3):
            assert await anext(one) is await anext(other)


async def test_a_reader_that_is_behind_catches_up_in_large_chunks(make_log: MakeLog) -> None:
    """Small chunks that others have read do not slow down whoever comes later."""
    log = make_log(memory=10_000_000)
    async with LogReader(log, metrics=Metrics()) as first, LogReader(log, metrics=Metrics()) as late:
        for start in range(0, 1000, 100):
            log.append(CONTENT[start : start + 100])
            await anext(first)
        assert await anext(late) == CONTENT[:1000]


@pytest.mark.looptime
async def test_readers_are_told_together(make_log: MakeLog) -> None:
    """While output comes in a row, a reader that has caught up gets it in portions; a full chunk at once."""
    log = make_log(gather=0.005, memory=10_000_000)
    started = anyio.current_time()

    def passed() -> float:
        return round(anyio.current_time() - started, 4)

    async with LogReader(log, metrics=Metrics()) as reader:
        log.append(b"first")
        assert (await anext(reader), passed()) == (b"first", 0)
        log.append(b"second")
        log.append(b"third")
        assert (await anext(reader), passed()) == (b"secondthird", 0.005)
        log.append(b"x" * LARGEST)
        assert (len(await anext(reader)), passed()) == (LARGEST, 0.005)
        log.append(b"last")
        log.close()
        assert (await anext(reader), passed()) == (b"last", 0.005)


async def test_memory_is_bounded_and_freed_at_the_end(
    make_log: MakeLog, tasks: Tasks, spool: SpoolFolder
) -> None:
    """While a build runs, its log's end is in memory; afterwards all of it is on disk."""
    log = make_log(memory=1000)
    for start in range(0, len(CONTENT), 100):
        log.append(CONTENT[start : start + 100])
        await settled(tasks)
        assert len(log._memory) <= 1000
    log.close()
    await settled(tasks)
    assert not log._memory
    assert spool.used == log.file_size == len(CONTENT)
    assert await read_all(log) == CONTENT


async def test_a_small_log_is_not_worth_a_file(make_log: MakeLog, tasks: Tasks, spool: SpoolFolder) -> None:
    """Thousands of builds that said little leave no files."""
    log = make_log()
    log.append(CONTENT[:900])
    log.close()
    await settled(tasks)
    assert spool.used == 0
    assert await read_all(log) == CONTENT[:900]


async def test_of_a_log_that_is_too_long_the_middle_is_left_out(make_log: MakeLog, tasks: Tasks) -> None:
    """A late reader gets the first half, a line that says how much is missing, and the last half."""
    log = make_log(max_size=20_000)
    for start in range(0, len(CONTENT), 1000):
        log.append(CONTENT[start : start + 1000])
        await settled(tasks)
    log.close()
    await settled(tasks)
    note = b"\n[... %d bytes of output are left out here ...]\n" % (len(CONTENT) - 20_000)
    assert await read_all(log) == CONTENT[:10_000] + note + CONTENT[-10_000:]
    assert log.file_size == 20_000


async def test_who_keeps_up_misses_nothing_of_a_log_that_is_too_long(make_log: MakeLog, tasks: Tasks) -> None:
    """The middle is left out only for those who come late."""
    log = make_log(max_size=20_000)
    read = []
    async with LogReader(log, metrics=Metrics()) as reader:
        for start in range(0, len(CONTENT), 1000):
            log.append(CONTENT[start : start + 1000])
            read.append(await anext(reader))
            await settled(tasks)
    assert b"".join(read) == CONTENT


async def test_a_discarded_log_leaves_nothing(
    make_log: MakeLog, tasks: Tasks, spool: SpoolFolder, tmp_path: Path
) -> None:
    """Memory and disk are free, and a reader that is still there comes to an end."""
    log = make_log()
    log.append(CONTENT)
    await settled(tasks)
    log.append(CONTENT)  # being moved while the log is discarded
    async with LogReader(log, metrics=Metrics()) as reader:
        log.discard()
        rest = b"".join([chunk async for chunk in reader])
    await settled(tasks)
    assert rest == b"\n[... %d bytes of output are left out here ...]\n" % (2 * len(CONTENT))
    assert spool.used == 0
    assert files(tmp_path) == []


async def test_a_folder_that_is_gone_costs_only_what_was_in_it(
    make_log: MakeLog, tasks: Tasks, metrics: Metrics, tmp_path: Path
) -> None:
    """The log goes on in memory; whoever needs the lost part is told how much it is."""
    log = make_log()
    log.append(CONTENT[:5000])
    await settled(tasks)
    shutil.rmtree(tmp_path / "logs")
    log.append(CONTENT[5000:8000])
    await settled(tasks)
    log.append(CONTENT[8000:8400])
    await settled(tasks)
    log.close()
    await settled(tasks)
    note = NOTE.match(await read_all(log))
    assert note is not None
    assert await read_all(log) == note[0] + CONTENT[int(note[1]) : 8400]
    assert 8400 - int(note[1]) >= 500
    assert faults(metrics)


@pytest.mark.parametrize("how", [Path.unlink, lambda file: os.truncate(file, 100)], ids=["removed", "cut"])
async def test_a_file_that_is_gone_is_not_read_as_zeros(
    make_log: MakeLog, tasks: Tasks, metrics: Metrics, tmp_path: Path, how: Callable[[Path], None]
) -> None:
    """What was in it is missing, and told so; what comes is kept again."""
    log = make_log()
    log.append(CONTENT[:5000])
    await settled(tasks)
    (file,) = files(tmp_path)
    how(file)
    log.append(CONTENT[5000:8000])
    await settled(tasks)
    log.close()
    await settled(tasks)
    text = await read_all(log)
    (lost,) = map(int, NOTE.findall(text))
    assert 4000 < lost <= 5000
    assert NOTE.sub(b"", text) == CONTENT[lost:8000]
    assert faults(metrics) == 1


class FullDisk(SpoolFolder):
    """A folder on a disk that can be full."""

    full = False

    def open_file(self, name: str, flags: int) -> int:
        """Fails for writing while the disk is full."""
        if self.full and flags & os.O_WRONLY:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().open_file(name, flags)


async def test_while_the_disk_is_full_a_part_is_lost_and_the_rest_is_kept(
    bus: Bus, tasks: Tasks, metrics: Metrics, tmp_path: Path
) -> None:
    """What was on disk stays, what could not be moved is missing, and afterwards all is as before."""
    folder = FullDisk(tmp_path, on_fault=metrics.log_disk_failed)
    await folder.open()
    log = BuildLog("b", bus=bus, tasks=tasks, spool=folder, settings=LogSettings(memory=1000, gather=0.0))
    for start in range(0, 30_000, 500):
        folder.full = 10_000 <= start < 20_000
        log.append(CONTENT[start : start + 500])
        await settled(tasks)
    log.close()
    await settled(tasks)
    text = await read_all(log)
    (lost,) = NOTE.findall(text)
    begin = text.index(b"\n[...")
    assert 8_000 < begin <= 10_000
    assert 8_000 < int(lost) <= 11_000
    assert NOTE.sub(b"", text) == CONTENT[:begin] + CONTENT[begin + int(lost) : 30_000]
    assert (faults(metrics) or 0) > 1
    await folder.close()


async def test_what_waits_for_a_slow_disk_is_bounded(
    make_log: MakeLog, tasks: Tasks, spool: SpoolFolder
) -> None:
    """A disk that hangs costs a part of the log for late readers, not memory without end."""
    log = make_log()
    released = anyio.Event()
    write = log._file.write

    async def hang(parts: list[tuple[int, bytes]]) -> Outcome:
        await released.wait()
        return await write(parts)

    log._file.write = hang  # type: ignore[method-assign,assignment]  # a disk that hangs
    read = b""
    async with LogReader(log, metrics=Metrics()) as reader:
        for _ in range(60):
            log.append(CONTENT)
            while len(read) < log.length:
                read += await anext(reader)
            await anyio.lowlevel.checkpoint()
            assert len(log._memory) < 5 * 1024 * 1024
    assert read == CONTENT * 60
    released.set()
    log.close()
    await settled(tasks)
    text = await read_all(log)
    kept = len(NOTE.sub(b"", text))
    assert kept + sum(map(int, NOTE.findall(text))) == len(CONTENT) * 60


Actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 400)),
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("disk"), st.booleans()),
        st.tuples(st.just("remove"), st.integers(0, 2)),
        st.just(("pause", 0)),
    ),
    max_size=40,
)


def disturb(folder: FullDisk, base: Path, action: str, kind: int) -> None:
    """Let the disk be full or not, or somebody remove the folder, or what is in it, or empty that."""
    if action == "disk":
        folder.full = bool(kind)
    if action != "remove":
        return
    for file in list(base.glob("run-*/*")):
        if kind:
            file.unlink(missing_ok=True)
        else:
            os.truncate(file, 0)
    if kind > 1:
        for path in list(base.glob("run-*")):
            shutil.rmtree(path, ignore_errors=True)


@settings(max_examples=80)
@given(actions=Actions, memory=st.integers(0, 300), max_size=st.sampled_from([2, 100, 1000, 100_000]))
async def test_every_reader_gets_each_byte_or_is_told_that_it_is_missing(
    actions: list[tuple[str, int]], memory: int, max_size: int
) -> None:
    """Whatever is moved, lost and overwritten in between: what is read is right, in order, and complete."""
    with tempfile.TemporaryDirectory() as base:
        folder = FullDisk(Path(base))
        await folder.open()
        async with Tasks() as tasks:
            chosen = LogSettings(memory=memory, max_size=max_size, gather=0.0)
            log = BuildLog("b", bus=Bus(), tasks=tasks, spool=folder, settings=chosen)
            offsets = [0, 0, 0, 0]
            written = 0

            async def read(reader: int) -> None:
                offset = offsets[reader]
                chunk, after = await log.read(offset)
                note = NOTE.fullmatch(chunk)
                if note:
                    assert int(note[1]) == after - offset
                else:
                    assert chunk == CONTENT[offset:after]
                offsets[reader] = after

            for action, number in actions:
                match action:
                    case "append":
                        log.append(CONTENT[written : written + number])
                        written += number
                    case "read" if offsets[number] < log.length:
                        await read(number)
                    case "pause":
                        await settled(tasks)
                    case _:
                        disturb(folder, Path(base), action, number)
            log.close()
            for reader in range(4):
                while offsets[reader] < log.length:
                    await read(reader)
            assert offsets == [written] * 4
            await settled(tasks)
        await folder.close()
