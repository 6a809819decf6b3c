"""Build ids."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.ids import SLOT_SECONDS, build_id


@given(st.text(), st.one_of(st.none(), st.uuids().map(str)), st.floats(0, 4e9))
def test_replicas_derive_the_same_id_in_the_same_slot(ref: str, last_ended: str | None, now: float) -> None:
    """So that the second start is refused and attaches."""
    first = build_id(ref, last_ended=last_ended, now=now)
    slot_start = now // SLOT_SECONDS * SLOT_SECONDS
    assert build_id(ref, last_ended=last_ended, now=slot_start) == first
    assert uuid.UUID(first).version == 5


@given(st.text(), st.floats(0, 4e9))
def test_the_next_build_has_another_id(ref: str, now: float) -> None:
    """Systems around this one keep state by id."""
    first = build_id(ref, last_ended=None, now=now)
    second = build_id(ref, last_ended=first, now=now)
    third = build_id(ref, last_ended=second, now=now)
    later = build_id(ref, last_ended=None, now=now + SLOT_SECONDS)
    assert len({first, second, third, later}) == 4
