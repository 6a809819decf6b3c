"""Which event loop a service runs on."""

from __future__ import annotations

import importlib.util

import pytest

from imgbuilder.cli.eventloop import VARIABLE, EventLoopError, uses_uvloop


@pytest.mark.parametrize(
    ("wanted", "installed", "used"),
    [
        ("", True, True),
        ("", False, False),
        ("asyncio", True, False),
        ("asyncio", False, False),
        ("uvloop", True, True),
    ],
)
def test_uvloop_is_used_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: bool, used: bool
) -> None:
    """Unless the environment says otherwise."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    assert uses_uvloop({VARIABLE: wanted}) is used


@pytest.mark.parametrize(
    ("wanted", "words"), [("uvloop", "which is not installed"), ("trio", "must be one of asyncio, uvloop")]
)
def test_a_loop_that_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch, wanted: str, words: str) -> None:
    """It is told, rather than another one used."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EventLoopError, match=words):
        uses_uvloop({VARIABLE: wanted})
