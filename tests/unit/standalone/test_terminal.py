"""What a terminal remembers, and for whom."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.standalone.terminal import BACKLOG, BLOCK, ListenerLagsError, Terminal

pytestmark = pytest.mark.looptime


async def read_all(terminal: Terminal) -> bytes:
    """Everything that a listener gets, to the end."""
    with terminal.listen() as listener:
        read = b"".join([piece async for piece in listener])
        terminal.finished(listener)
    return read


async def test_a_listener_gets_what_was_and_what_comes() -> None:
    """Output before and after the listener came is read in order, and the end ends it."""
    terminal = Terminal()
    terminal.write(b"one ")
    got: list[bytes] = []

    async def listen() -> None:
        got.append(await read_all(terminal))

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.sleep(1)
        terminal.write(b"two ")
        await anyio.sleep(1)
        terminal.line("three")
        terminal.close(3)
        terminal.write(b"too late")
    assert got == [b"one two three\n"]
    assert terminal.exit_code == 3


async def test_output_comes_as_it_is_written() -> None:
    """Nothing waits for the end of a line or for more."""
    terminal = Terminal()
    with terminal.listen() as listener:
        pieces = aiter(listener)
        for part in (b"a", b"", b"b\nc"):
            terminal.write(part)
            if part:
                assert await anext(pieces) == part


@given(st.lists(st.integers(0, 3 * BLOCK), max_size=12))
async def test_who_comes_late_gets_the_last_part(sizes: list[int]) -> None:
    """At most the backlog, and exactly the end of what was written."""
    terminal = Terminal()
    written = b""
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        written += data
        terminal.write(data)
    terminal.close(0)
    assert await read_all(terminal) == written[-BACKLOG:]


@given(st.lists(st.integers(1, 2 * BLOCK), max_size=20), st.data())
async def test_who_listens_from_the_start_gets_everything(sizes: list[int], data: st.DataObject) -> None:
    """However slowly it reads, within the lag that is allowed, nothing is lost and nothing comes twice."""
    terminal = Terminal(backlog=10)
    written, got = b"", b""
    with terminal.listen() as listener:
        pieces = aiter(listener)
        for number, size in enumerate(sizes):
            part = bytes([number]) * size
            written += part
            terminal.write(part)
            if len(got) < len(written) and data.draw(st.booleans()):
                piece = await anext(pieces)
                assert 0 < len(piece) <= BLOCK
                got += piece
        terminal.close(0)
        async for piece in pieces:
            got += piece
    assert got == written


async def test_who_lags_too_far_is_cut_off_and_others_are_not() -> None:
    """A listener that does not read learns so when it does; the terminal kept no more than it may."""
    terminal = Terminal(backlog=BLOCK, longest_lag=3 * BLOCK)
    with terminal.listen() as slow, terminal.listen() as fast:
        pieces = aiter(fast)
        for _ in range(10):
            terminal.write(b"x" * BLOCK)
            await anext(pieces)
        with pytest.raises(ListenerLagsError):
            await anext(aiter(slow))
        assert terminal.kept <= 4 * BLOCK
    terminal.write(b"x" * BLOCK * 4)
    assert terminal.kept <= 2 * BLOCK


async def test_drained_waits_for_a_listener_that_has_everything() -> None:
    """Neither the end alone nor a listener that left before it is enough."""
    terminal = Terminal()
    terminal.close(0)
    with anyio.move_on_after(5) as nobody:
        await terminal.drained()
    assert nobody.cancelled_caught
    with terminal.listen():
        pass
    with anyio.move_on_after(5) as left_early:
        await terminal.drained()
    assert left_early.cancelled_caught
    await read_all(terminal)
    with anyio.fail_after(20):
        await terminal.drained()


async def test_drained_waits_for_those_who_still_read() -> None:
    """The first one to be done does not end it for the others."""
    terminal = Terminal()
    terminal.close(0)
    await read_all(terminal)
    with terminal.listen(), anyio.move_on_after(5) as reading:
        await terminal.drained()
    assert reading.cancelled_caught
    await terminal.drained()


async def test_the_first_end_counts() -> None:
    """An exit code does not change any more."""
    terminal = Terminal()
    terminal.close(2)
    terminal.close(0)
    assert terminal.exit_code == 2
