"""What goes wrong in the test world's workspace manager, call by call."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one call.

    :ivar error: the call is answered with it; None: not answered, until *released*.
    :ivar after: whether the call has its effect nevertheless, and only the answer is lost.
    """

    error: GRPCError | None
    released: anyio.Event
    after: bool = False

    async def strike(self) -> None:
        """Let it happen.

        :raises GRPCError: if the call is to be answered with an error.
        """
        if self.error is not None:
            raise self.error
        await self.released.wait()


class Faults:
    """The faults of the calls to come, per method and in order."""

    def __init__(self) -> None:
        self._planned: dict[str, deque[Fault]] = {}
        self._released = anyio.Event()

    def fail(
        self,
        method: str,
        status: Status,
        message: str = "out of order",
        *,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Answer the next calls of *method*, e.g. ``StartWorkspace``, with *status*."""
        fault = Fault(error=GRPCError(status, message), released=self._released, after=after)
        self._planned.setdefault(method, deque()).extend([fault] * times)

    def hang(self, method: str, *, times: int = 1, after: bool = False) -> None:
        """Do not answer the next calls of *method* until `release`."""
        fault = Fault(error=None, released=self._released, after=after)
        self._planned.setdefault(method, deque()).extend([fault] * times)

    def release(self) -> None:
        """Let the calls that hang go on."""
        self._released.set()
        self._released = anyio.Event()

    def next(self, method: str) -> Fault | None:
        """What happens to the call that comes in now; the manager asks."""
        planned = self._planned.get(method)
        return planned.popleft() if planned else None
