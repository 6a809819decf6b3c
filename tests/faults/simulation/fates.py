"""What can become of a call: the request, its effect and the answer each get lost, or are late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from imgbuilder.wsman.errors import WorkspaceManagerError, WorkspaceManagerUnavailableError
from tests.faults.simulation.faults import Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one call; all times are seconds.

    :ivar heard_after: from when it was made to when the other side acts; None if it never hears of it.
    :ivar answer_after: from then until the answer is there.
    :ivar answered: whether the answer reaches the caller.
    :ivar fails_after: from when it was made to when it fails with *error*, unless it was answered before.
    """

    heard_after: float | None
    answer_after: float
    answered: bool
    fails_after: float
    error: WorkspaceManagerError


def unavailable(fault: str) -> WorkspaceManagerUnavailableError:
    """The other side can't be reached."""
    return WorkspaceManagerUnavailableError("UNAVAILABLE", fault)


def fate_of(
    fault: str, faults: Faults, deadline: float, internal_error: Callable[[], WorkspaceManagerError]
) -> Fate:
    """The fate of a call that meets *fault*; of one that goes well if that is empty."""
    there, back = faults.latency(), faults.latency()
    late = WorkspaceManagerUnavailableError("DEADLINE_EXCEEDED", "no answer in time")
    well = Fate(heard_after=there, answer_after=back, answered=True, fails_after=deadline, error=late)
    lost = replace(well, answered=False, fails_after=there + back, error=unavailable("connection lost"))
    fate = well
    match fault:
        case "refused":
            refused = unavailable("connection refused")
            fate = replace(well, heard_after=None, fails_after=there, error=refused)
        case "unheard":
            fate = replace(well, heard_after=None)
        case "unanswered":
            fate = lost if faults.chance.random() < 0.5 else replace(well, answered=False)
        case "slow":
            there, back = (faults.between(0.0, 0.7 * deadline) for _ in range(2))
            fate = replace(well, heard_after=there, answer_after=back)
        case "late":
            there = faults.between(0.1, deadline)
            fate = replace(lost, heard_after=there, fails_after=faults.between(0.0, 2.0))
        case "internal":
            fate = replace(well, heard_after=None, fails_after=there, error=internal_error())
        case "internal-after":
            fate = replace(lost, error=internal_error())
    return fate
