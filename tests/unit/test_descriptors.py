"""The limit of open files: raised as far as it may be."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from imgbuilder.runtime import descriptors
from imgbuilder.runtime.descriptors import allow_many_descriptors


@pytest.fixture
def hard() -> Iterator[int]:
    """The hard limit; the soft one is lower, and is put back in the end."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_is_raised_as_far_as_is_wanted(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never lowered."""
    monkeypatch.setattr(descriptors, "WANTED", 600)
    allow_many_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)
    monkeypatch.setattr(descriptors, "WANTED", 500)
    allow_many_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (600, hard)


def test_the_hard_limit_stands(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wanted."""
    if hard == resource.RLIM_INFINITY:
        pytest.skip("there is no hard limit")
    monkeypatch.setattr(descriptors, "WANTED", hard + 1)
    allow_many_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_system_that_refuses(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it stays as it is."""

    def refuse(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_many_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    monkeypatch.undo()
    assert before[1] == hard
