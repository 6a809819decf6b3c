"""Mechanisms that bound what one client, build, registry or workspace can take from the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from imgbuilder.bus import Subscription
from imgbuilder.core import challenges, manifests, terminal
from imgbuilder.orchestrator.logs import store
from imgbuilder.orchestrator.logs.keeper import LogKeeper
from imgbuilder.orchestrator.logs.store import BuildLog
from imgbuilder.orchestrator.tracker import Tracker
from imgbuilder.registry import lookups
from imgbuilder.registry.connections import Connections
from imgbuilder.runtime.grpc.callstream import Receiving
from imgbuilder.runtime.grpc.http2 import FloodGuard
from imgbuilder.standalone import words
from imgbuilder.wsman import calls, http_answer
from tests.faults.mutations.mutation import Patch, caught_by

ENDLESS = 1 << 60


@caught_by("unit/logs/test_store.py::test_what_waits_for_a_slow_disk_is_bounded", promise=6)
def a_buffer_without_end_before_the_disk(patch: Patch) -> None:
    """Output waits in memory for a slow disk, however much it is."""
    patch.setattr(store, "WAITING", ENDLESS)


@caught_by("unit/logs/test_store.py::test_memory_is_bounded_and_freed_at_the_end", promise=6)
def logs_that_stay_in_memory(patch: Patch) -> None:
    """A log stays in memory."""
    patch.setattr(BuildLog, "_move", lambda _: None)


@caught_by("unit/test_bus.py::test_a_slow_subscriber_skips_states_but_never_the_last", promise=6)
def a_queue_for_each_subscriber(patch: Patch) -> None:
    """A subscriber is told every state, however slow it is."""
    queues: dict[Subscription[Any], list[Any]] = {}
    put_one, receive_one = Subscription.put, Subscription.receive

    def put(self: Subscription[Any], value: Any) -> None:
        queues.setdefault(self, []).append(value)
        put_one(self, value)

    async def receive(self: Subscription[Any]) -> Any:
        while not queues.get(self):
            await receive_one(self)
        return queues[self].pop(0)

    patch.setattr(Subscription, "put", put)
    patch.setattr(Subscription, "receive", receive)


@caught_by("unit/logs/test_keeper.py::test_of_too_many_logs_the_oldest_go_from_disk", promise=6)
def a_disk_without_end(patch: Patch) -> None:
    """Logs stay on disk, however much there is."""
    patch.setattr(LogKeeper, "_make_room", lambda _: None)


@caught_by(
    "unit/logs/test_keeper.py::test_so_many_builds_are_followed_unasked_and_the_others_when_somebody_asks",
    promise=6,
)
def all_builds_are_followed(patch: Patch) -> None:
    """However many builds there are, each has an open connection."""
    original = LogKeeper._consider

    def consider(self: LogKeeper, kept: Any) -> None:
        kept.wanted = True
        original(self, kept)

    patch.setattr(LogKeeper, "_consider", consider)


@caught_by("unit/orchestrator/test_watching.py::test_ended_builds_are_forgotten_after_a_while", promise=6)
def builds_are_kept_for_ever(patch: Patch) -> None:
    """No build is ever forgotten."""
    patch.setattr(Tracker, "_forget", lambda self, build_id: self._ended.pop(build_id))


@caught_by("contract/registry/test_faults.py::test_a_fault_is_typed", promise=6)
def manifests_of_any_length(patch: Patch) -> None:
    """A manifest may have four times the length."""
    patch.setattr(lookups, "LARGEST_MANIFEST", 16 << 20)


@caught_by("unit/core/test_challenges.py::test_what_is_no_token_is_refused", promise=6)
def tokens_of_any_length(patch: Patch) -> None:
    """A token may be longer than what fits into a header."""
    patch.setattr(challenges, "LONGEST_TOKEN", ENDLESS)


@caught_by("fuzz/test_registry.py::test_manifests", promise=6)
def media_types_of_any_shape(patch: Patch) -> None:
    """Whatever stands for a media type in a manifest is printed, however deep it is."""
    original = manifests._document

    def document(body: bytes, media_type: str) -> dict[str, Any]:
        found = original(body, media_type)
        str(found.get("mediaType"))
        return found

    patch.setattr(manifests, "_document", document)


@caught_by("unit/registry/test_connections.py::test_users_wait_for_a_place", promise=6)
def connections_without_number(patch: Patch) -> None:
    """One host may have all the connections there are."""
    original = Connections.__init__

    def generous(self: Connections, *, per_host: int, connect: Any) -> None:
        original(self, per_host=per_host + 1000, connect=connect)

    patch.setattr(Connections, "__init__", generous)


@caught_by("unit/wsman/test_client.py::test_an_answer_that_is_too_long_is_not_received", promise=6)
def answers_of_any_length(patch: Patch) -> None:
    """The workspace manager's answers may be of any length."""
    patch.setattr(calls, "_bound", lambda *_: None)


@caught_by("unit/core/test_terminal.py::test_an_endless_object_is_skipped_without_being_kept", promise=6)
def values_of_any_length(patch: Patch) -> None:
    """A value in a listen stream may be of any length."""
    original = terminal._Line.__init__
    patch.setattr(terminal._Line, "__init__", lambda self, found, _: original(self, found, ENDLESS))


@caught_by(
    "unit/wsman/test_supervisor.py::test_a_supervisor_that_never_answers_is_given_up_in_time", promise=6
)
def supervisors_may_take_their_time(patch: Patch) -> None:
    """A supervisor is waited for as long as it takes."""
    patch.setattr("imgbuilder.wsman.supervisor.TASKS_SECONDS", 1e6)


@caught_by("unit/wsman/test_http_answer.py::test_what_is_no_answer_is_refused", promise=6)
def heads_of_any_length(patch: Patch) -> None:
    """The head of a supervisor's answer may be of any length."""
    patch.setattr(http_answer, "_LONGEST_HEAD", ENDLESS)


@caught_by("unit/grpc/test_calls.py::test_a_request_that_is_too_large", promise=6)
def requests_of_any_size(patch: Patch) -> None:
    """A request may be of any size."""

    @contextmanager
    def message(self: Receiving, size: int) -> Iterator[None]:
        yield

    patch.setattr(Receiving, "message", message)


@caught_by("unit/grpc/test_hostile.py::test_floods", promise=6)
def floods_are_let_in(patch: Patch) -> None:
    """A peer may send as much of what costs it nothing as it likes."""
    patch.setattr(FloodGuard, "count", lambda *_: None)


@caught_by(
    "unit/standalone/test_dockerfile.py::test_a_variable_that_doubles_with_each_line_is_refused", promise=6
)
def variables_of_any_length(patch: Patch) -> None:
    """A variable of a Dockerfile may be made of itself over and over: sixteen times as long as it may be."""
    patch.setattr(words, "LONGEST", 16 * words.LONGEST)
