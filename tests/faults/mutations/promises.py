"""Mechanisms of the first promises that the simulation has no part in: time limits and signs of life on the wire."""

from __future__ import annotations

import math
from typing import Any

from grpclib.utils import Wrapper

from imgbuilder.core import workspace
from imgbuilder.runtime.grpc import channel, interruption
from imgbuilder.wsman.client import WorkspaceManagerClient
from tests.faults.mutations.mutation import Patch, caught_by


@caught_by("unit/wsman/test_client.py::test_no_answer_in_time", promise=1)
def no_deadline_of_calls(patch: Patch) -> None:
    """A call of the workspace manager waits for as long as it takes."""
    original = WorkspaceManagerClient.__init__

    def patient(self: WorkspaceManagerClient, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **{**options, "call_deadline": 1e6})

    patch.setattr(WorkspaceManagerClient, "__init__", patient)


@caught_by(
    "unit/wsman/test_subscribing.py::test_a_frozen_network_is_noticed_while_nothing_happens", promise=1
)
def no_signs_of_life(patch: Patch) -> None:
    """Nobody asks whether the other end of a silent subscription is still there."""
    original = channel.open_channel

    def never_asking(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **{**options, "keepalive": 1e6})

    patch.setattr("imgbuilder.wsman.client.open_channel", never_asking)


@caught_by("unit/wsman/test_client.py::test_a_call_in_flight_when_the_connection_breaks", promise=1)
def interruptions_that_leave_a_trace(patch: Patch) -> None:
    """A task whose call breaks off counts as cancelled from then on."""
    patch.setattr(interruption.Interruption, "cancel", Wrapper.cancel)


@caught_by("unit/core/test_workspace.py::test_texts_of_absurd_length_are_cut", promise=1)
def failures_of_any_length(patch: Patch) -> None:
    """A failure may be longer than what clients receive, so that they never hear of the end."""
    patch.setattr(workspace, "LONGEST_TEXT", None)


@caught_by("unit/orchestrator/test_watching.py::test_reconnects_back_off_to_five_seconds", promise=1)
def no_limit_of_pauses(patch: Patch) -> None:
    """The pauses between attempts to subscribe grow without end."""
    backoff = type("Backoff", (), {"limit": math.inf, "delay": lambda _, attempt, jitter: 2.0**attempt})
    patch.setattr("imgbuilder.orchestrator.watcher.RECONNECT", backoff())


@caught_by("unit/orchestrator/test_watching.py::test_a_registry_that_comes_back_decides", promise=2)
def no_second_look_at_the_registry(patch: Patch) -> None:
    """A registry that can not be asked at the end of a build is not asked again."""
    patch.setattr("imgbuilder.orchestrator.endings.CHECK_LIMIT", 0.01)
