"""How a call that waits is ended, and what is left of it."""

from __future__ import annotations

import asyncio

import anyio
import h2.exceptions
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from imgbuilder.runtime.grpc.interruption import Interruption
from imgbuilder.wsman.calls import typed_errors
from imgbuilder.wsman.errors import (
    WorkspaceExistsError,
    WorkspaceManagerError,
    WorkspaceManagerUnavailableError,
)


class _Call:
    """A call that waits in a task."""

    def __init__(self) -> None:
        self.interruption = Interruption()
        self.waits = anyio.Event()
        self.outcome: BaseException | None = None
        self.task: asyncio.Task[object] | None = None

    async def run(self) -> None:
        self.task = asyncio.current_task()
        try:
            with self.interruption:
                self.waits.set()
                await anyio.sleep_forever()
        except BaseException as error:
            self.outcome = error
            raise

    async def run_to_its_end(self) -> None:
        with pytest.raises(StreamTerminatedError):
            await self.run()


async def test_an_interruption_leaves_no_trace() -> None:
    """The task that was interrupted does not count as cancelled."""
    call = _Call()
    async with anyio.create_task_group() as group:
        group.start_soon(call.run_to_its_end)
        await call.waits.wait()
        call.interruption.cancel(StreamTerminatedError("lost"))
    assert call.task is not None
    assert call.task.cancelling() == 0


@pytest.mark.parametrize("first", ["interrupted", "cancelled"])
async def test_a_cancellation_at_the_same_time_goes_on(first: str) -> None:
    """A task that is cancelled while its call is interrupted is cancelled, whichever came first."""
    call = _Call()
    async with anyio.create_task_group() as group:
        group.start_soon(call.run)
        await call.waits.wait()
        assert call.task is not None
        if first == "cancelled":
            call.task.cancel()
        call.interruption.cancel(StreamTerminatedError("lost"))
        if first == "interrupted":
            call.task.cancel()
    assert isinstance(call.outcome, asyncio.CancelledError)


async def test_a_cancel_scope_at_the_same_time_goes_on() -> None:
    """A cancel scope around an interrupted call is obeyed, and knows its own cancellation."""
    call = _Call()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_interrupt, call, scope)
            with pytest.raises((StreamTerminatedError, asyncio.CancelledError)):
                await call.run()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def _interrupt(call: _Call, scope: anyio.CancelScope) -> None:
    await call.waits.wait()
    scope.cancel()
    call.interruption.cancel(StreamTerminatedError("lost"))


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (GRPCError(Status.UNAVAILABLE, "later"), WorkspaceManagerUnavailableError, "UNAVAILABLE: later"),
        (GRPCError(Status.ALREADY_EXISTS), WorkspaceExistsError, "ALREADY_EXISTS"),
        (GRPCError(Status.INTERNAL, "bug"), WorkspaceManagerError, "INTERNAL: bug"),
        (TimeoutError(), WorkspaceManagerUnavailableError, "DEADLINE_EXCEEDED: no answer in time"),
        (ConnectionRefusedError("refused"), WorkspaceManagerUnavailableError, "UNAVAILABLE: refused"),
        (StreamTerminatedError("reset"), WorkspaceManagerUnavailableError, "UNAVAILABLE: reset"),
        (
            h2.exceptions.NoAvailableStreamIDError(),
            WorkspaceManagerUnavailableError,
            "UNAVAILABLE: NoAvailableStreamIDError",
        ),
        (ProtocolError("no"), WorkspaceManagerError, "INTERNAL: not an answer: no"),
        (NotImplementedError("Compression"), WorkspaceManagerError, "INTERNAL: not an answer: Compression"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_type(
    raised: Exception,
    expected: type[WorkspaceManagerError],
    text: str,
) -> None:
    """What the libraries raise becomes one of three errors, with the original as its cause."""
    with pytest.raises(WorkspaceManagerError) as caught, typed_errors():
        raise raised
    assert type(caught.value) is expected
    assert str(caught.value) == text
    assert caught.value.__cause__ is raised


def test_bugs_stay_bugs() -> None:
    """An error that no library raises is left as it is."""
    with pytest.raises(KeyError), typed_errors():
        raise KeyError("mine")
