"""Equal work that is wanted several times at once is done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

import anyio

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.runtime.tasks import Tasks

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class CutOffError(ImgbuilderError):
    """The work was ended from outside before it had a result: its owner shuts down."""

    def __init__(self) -> None:
        super().__init__("cut off by the shutdown of the service")


class _Flight(Generic[T]):
    """Work under way, and then its outcome."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.waiting = 0
        self.result: list[T] = []
        self.error: Exception = CutOffError()
        self.traceback: TracebackType | None = None

    def outcome(self) -> T:
        """The result, or the error, which each of those who wait gets."""
        if self.result:
            return self.result[0]
        # Every raise adds to the traceback that the one error carries: start from where it failed each time.
        raise self.error.with_traceback(self.traceback)


class SingleFlight(Generic[K, T]):
    """Runs work in tasks of its owner, so that it outlives whoever asked for it first.

    It ends early only when nobody waits for it any more, or with its owner.
    """

    def __init__(self, tasks: Tasks, *, name: str) -> None:
        self._tasks = tasks
        self._name = name
        self._flights: dict[K, _Flight[T]] = {}

    @property
    def under_way(self) -> int:
        """How many different things are being worked on."""
        return len(self._flights)

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The outcome of *work*, or of equal work that is under way.

        Cancelling it leaves the work to the others who wait; without others it is cancelled.

        :param key: equal for equal work.
        :raises CutOffError: if the owner of the tasks ends first.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight[T]()
            self._tasks.spawn(self._fly, key, flight, work, name=self._name)
            self._flights[key] = flight
        flight.waiting += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.done.is_set():
                flight.scope.cancel()
                self._land(key, flight)
        return flight.outcome()

    async def _fly(self, key: K, flight: _Flight[T], work: Callable[[], Awaitable[T]]) -> None:
        try:
            with flight.scope:
                flight.result.append(await work())
        except Exception as error:  # noqa: BLE001  # handed to those who wait, whatever it is
            flight.error = error
            flight.traceback = error.__traceback__
        finally:
            self._land(key, flight)
            flight.done.set()

    def _land(self, key: K, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
