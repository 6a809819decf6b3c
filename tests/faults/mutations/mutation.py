"""What it is to switch a mechanism off, and the list of those that are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

Patch = pytest.MonkeyPatch
SwitchOff = Callable[[Patch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """A mechanism that is switched off.

    :ivar promise: the number of the promise that it keeps, see `docs/guarantees.md`.
    :ivar test: the node id of the test that must fail.
    """

    switch_off: SwitchOff
    promise: int
    test: str

    @property
    def name(self) -> str:
        """What it is called."""
        return self.switch_off.__name__

    @property
    def what(self) -> str:
        """What is different, in words."""
        return self.switch_off.__doc__ or ""


MUTATIONS: Final[list[Mutation]] = []


def caught_by(test: str, *, promise: int) -> Callable[[SwitchOff], SwitchOff]:
    """Note the test that misses what is switched off."""

    def note(switch_off: SwitchOff) -> SwitchOff:
        MUTATIONS.append(Mutation(switch_off=switch_off, promise=promise, test=f"tests/{test}"))
        return switch_off

    return note
