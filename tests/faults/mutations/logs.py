"""Mechanisms that keep logs whole, in order and ending."""

from __future__ import annotations

from imgbuilder.orchestrator.logs.chunks import Chunks
from imgbuilder.orchestrator.logs.keeper import LogKeeper
from imgbuilder.orchestrator.logs.layout import Layout
from imgbuilder.orchestrator.logs.pulse import Pulse
from imgbuilder.orchestrator.logs.reader import LogReader
from imgbuilder.orchestrator.logs.spool import SpoolFile
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.wsman.http_answer import HttpAnswerDecoder
from tests.faults.mutations.mutation import Patch, caught_by


@caught_by("unit/logs/test_store.py::test_a_reader_gets_what_is_there_and_then_what_comes", promise=4)
def a_cursor_that_is_off_by_one(patch: Patch) -> None:
    """After each chunk a reader goes on one byte too late."""
    original = BuildLog.read

    async def read(self: BuildLog, offset: int) -> tuple[bytes, int]:
        chunk, after = await original(self, offset)
        return chunk, after + 1

    patch.setattr(BuildLog, "read", read)


@caught_by("contract/service/test_logs.py::test_a_late_reader_gets_the_log_from_its_first_byte", promise=4)
def readers_that_begin_now(patch: Patch) -> None:
    """A reader gets what comes from now on."""
    original = LogReader.__aenter__

    async def late(self: LogReader) -> LogReader:
        self._offset = self._log.length
        return await original(self)

    patch.setattr(LogReader, "__aenter__", late)


@caught_by("unit/logs/test_store.py::test_of_a_log_that_is_too_long_the_middle_is_left_out", promise=4)
def gaps_that_are_not_told(patch: Patch) -> None:
    """Where something is missing, the log just goes on."""
    original = BuildLog.read

    async def read(self: BuildLog, offset: int) -> tuple[bytes, int]:
        chunk, after = await original(self, offset)
        return (b"" if chunk.startswith(b"\n[... ") else chunk), after

    patch.setattr(BuildLog, "read", read)


@caught_by("unit/logs/test_layout.py::TestFiles", promise=4)
def what_was_overwritten_is_read(patch: Patch) -> None:
    """The ring of a log's file has no end: what has taken the place of older output is read in its stead."""
    patch.setattr(Layout, "_missing_until", lambda _, offset: offset)


@caught_by("unit/logs/test_store.py::test_a_file_that_is_gone_is_not_read_as_zeros", promise=4)
def files_that_may_be_emptied(patch: Patch) -> None:
    """Nobody notices that a log's file is shorter than it was."""
    patch.setattr(SpoolFile, "_written", property(lambda _: 0, lambda _, __: None), raising=False)


@caught_by("unit/logs/test_store.py::test_a_waiting_reader_wakes_for_output_and_for_the_end", promise=4)
def ends_that_are_not_told(patch: Patch) -> None:
    """Who waits for output is not told that there will be none."""
    original = BuildLog.close

    def close(self: BuildLog) -> None:
        with Patch.context() as silent:
            silent.setattr(Pulse, "now", Pulse.stop)
            original(self)

    patch.setattr(BuildLog, "close", close)


@caught_by("unit/logs/test_keeper.py::test_a_log_is_not_complete_before_the_build_has_ended", promise=4)
def logs_that_end_with_their_stream(patch: Patch) -> None:
    """A log is complete when its listen stream has ended, whatever the build does."""
    original = LogKeeper._run

    async def run(self: LogKeeper, kept: object, follower: object) -> None:
        await original(self, kept, follower)  # type: ignore[arg-type]  # the keeper's own
        kept.log.close()  # type: ignore[attr-defined]

    patch.setattr(LogKeeper, "_run", run)


@caught_by("unit/logs/test_store.py::test_a_reader_that_is_behind_catches_up_in_large_chunks", promise=4)
def chunks_of_another_place(patch: Patch) -> None:
    """Readers share the newest chunk, wherever they are."""

    def newest(self: Chunks, _: int, __: int) -> bytes | None:
        return next(reversed(self._chunks.values()), None)

    patch.setattr(Chunks, "find", newest)


@caught_by("unit/wsman/test_http_answer.py::test_an_answer_that_is_cut_off_is_told", promise=4)
def breaks_that_count_as_ends(patch: Patch) -> None:
    """A connection that breaks in the midst of an answer has ended it."""
    patch.setattr(HttpAnswerDecoder, "end", lambda _: None)
