"""Build ids: the same for every replica that starts the same build at the same time.

A second start of the same build then is refused by the workspace manager (ALREADY_EXISTS) and attaches to the
first. A later build of the same image never has the id of an earlier one that this replica saw end: systems
around this one keep state by id.
"""

from __future__ import annotations

import uuid
from typing import Final

SLOT_SECONDS: Final = 600
"""Ids change with the clock this often, for builds whose end no replica remembers."""

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "imgbuilder:builds")


def build_id(ref: str, *, last_ended: str | None, now: float) -> str:
    """The id of the next build of the workspace image *ref*.

    :param last_ended: the id of the build of *ref* that ended last, if any is known.
    :param now: the Unix time in seconds.
    """
    slot = int(now // SLOT_SECONDS)
    return str(uuid.uuid5(_NAMESPACE, f"{ref}\n{last_ended or ''}\n{slot}"))
