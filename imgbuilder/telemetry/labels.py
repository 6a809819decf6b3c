"""Keeps the number of time series bounded, whatever the values of labels come from.

A label whose values users choose (the registries that their images live in) could grow without end, and with
it the memory of this process and of Prometheus. Each such label has room for a number of values; what comes
after shares the value ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

OTHER: Final = "other"

Child = TypeVar("Child")
ChildOf = TypeVar("ChildOf", covariant=True)  # noqa: PLC0105  # "of" a family


class Family(Protocol[ChildOf]):
    """A labelled metric of prometheus_client, as far as it is needed here."""

    def labels(self, *labelvalues: Any) -> ChildOf:
        """The time series of these label values."""
        ...


class BoundedLabel:
    """The values of one label: *known* ones, and the first *room* others that are met."""

    def __init__(self, room: int, known: Iterable[str] = ()) -> None:
        self._values = set(known)
        self._limit = len(self._values) + room

    def __call__(self, value: str) -> str:
        """*value*, or ``other`` if there is no room for it."""
        if value not in self._values:
            if len(self._values) >= self._limit:
                return OTHER
            self._values.add(value)
        return value


class Children(dict[tuple[str, ...], Child], Generic[Child]):
    """The time series of one metric by their label values, so that finding one is a single look-up.

    At most *limit* of them; label values met after that share one series, where each is ``other``.
    """

    def __init__(self, family: Family[Child], limit: int) -> None:
        super().__init__()
        self._family = family
        self._limit = limit

    def __missing__(self, values: tuple[str, ...]) -> Child:
        if len(self) >= self._limit:
            return self._family.labels(*(OTHER for _ in values))
        child = self[values] = self._family.labels(*values)
        return child
