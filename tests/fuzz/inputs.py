"""Inputs for parsers: anything, what is valid but for a few changes, and what repeats itself for very long."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st

Test = TypeVar("Test", bound=Callable[..., Any])

EXAMPLES: Final = os.environ.get("FUZZ_EXAMPLES", "")
"""How many inputs to try, where that is not 200, and the same each time."""

LONG: Final = 32 * 1024
"""Bytes of an input that repeats itself."""

MOST_SECONDS: Final = 3.0
"""Of processor time, for one input. What takes time in proportion to the length takes a hundredth of it."""

FRAMES: Final = 950
"""What is left of Python's 1,000 where a service reads something. Hypothesis gives tests many more."""

DEEP: Final = b"[" * 1010 + b"]" * 1010
"""Nested as deeply as JSON decoders let through, deeper than Python likes to recurse."""

_DEEP: Final = "@deep@"
_WORD: Final = re.compile(rb"\w+")

JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0.5, 1e308, float("inf"), _DEEP, "", "\0", "\x1b[31m", "é\U0001f600"])
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
"""Values that JSON has, and some that it has not."""


def fuzz(test: Test) -> Test:
    """Run a test with as many examples as are wanted."""
    chosen = settings(
        max_examples=int(EXAMPLES or 200), derandomize=not EXAMPLES, database=None, print_blob=True
    )
    quiet: Test = pytest.mark.filterwarnings("ignore:Generating overly large repr")(chosen(test))
    return quiet


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block takes longer than an input may. It may recurse as deeply as in a service, not in a test."""
    usual, began = sys.getrecursionlimit(), time.thread_time()
    sys.setrecursionlimit(_depth() + FRAMES)
    try:
        yield
    finally:
        sys.setrecursionlimit(usual)
    assert time.thread_time() - began < MOST_SECONDS, "that took too long"


def _depth() -> int:
    """How many frames there are now."""
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


@contextmanager
def refusing(*kinds: type[Exception]) -> Iterator[list[str]]:
    """Let errors of *kinds* end the block; it yields where their text will be."""
    said: list[str] = []
    try:
        yield said
    except kinds as error:
        said.append(str(error))


def inputs(*valid: bytes, pieces: Sequence[bytes] = (b"a",)) -> st.SearchStrategy[bytes]:
    """Any bytes; one of *valid* with changes; with one of *pieces*, or a part of itself, repeated for long."""
    return st.binary(max_size=200) | _changed(valid, pieces) | _repeating(valid, pieces)


def texts(*valid: str, pieces: Sequence[str] = ("a",)) -> st.SearchStrategy[str]:
    """The same as texts."""
    encoded = inputs(*(text.encode() for text in valid), pieces=[piece.encode() for piece in pieces]).map(
        lambda data: data.decode(errors="replace")
    )
    return st.text(max_size=100) | encoded


@st.composite
def _changed(draw: st.DrawFn, valid: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        end = place + draw(st.integers(0, 12))
        match draw(st.sampled_from(["insert", "replace", "remove", "repeat", "cut", "join"])):
            case "insert":
                data = data[:place] + draw(_piece(pieces)) + data[place:]
            case "replace":
                data = data[:place] + draw(_piece(pieces)) + data[end:]
            case "remove":
                data = data[:place] + data[end:]
            case "repeat":
                data = data[:place] + data[place:end] * draw(st.sampled_from((2, 3, 40))) + data[end:]
            case "cut":
                data = data[:place]
            case "join":
                data = data[:place] + draw(st.sampled_from(valid))
    return data


@st.composite
def _repeating(draw: st.DrawFn, valid: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(valid))
    place = draw(st.sampled_from(_borders(data)) | st.integers(0, len(data)))
    end = place + draw(st.integers(1, 8))
    piece = draw(_piece(pieces) | st.just(data[place:end])) or b"a"
    return data[:place] + piece * (LONG // len(piece)) + data[draw(st.sampled_from((place, end))) :]


def _borders(data: bytes) -> list[int]:
    """Where words begin and end in *data*, and its own beginning and end."""
    return sorted({0, len(data), *(place for match in _WORD.finditer(data) for place in match.span())})


def _piece(pieces: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    few = st.lists(st.sampled_from(pieces), min_size=1, max_size=3).map(b"".join)
    return few | st.binary(min_size=1, max_size=3)


def documents(*valid: Any) -> st.SearchStrategy[bytes]:
    """One of the JSON documents *valid* with a few parts replaced, removed or renamed; or any bytes."""
    encoded = [json.dumps(document).encode() for document in valid]
    return (
        _document(valid).map(_encoded)
        | JSON.map(_encoded)
        | inputs(*encoded, pieces=[b"{", b"[", b'"', b"\\", b",", b":", b"0", b"{}", b'"a":'])
    )


@st.composite
def _document(draw: st.DrawFn, valid: Sequence[Any]) -> Any:
    document = [copy.deepcopy(draw(st.sampled_from(valid)))]
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(document))
        container, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(("replace", "replace", "deepen", "remove", "rename")))
        if change == "deepen":
            container[key] = _DEEP
        elif change == "replace" or container is document:
            container[key] = draw(JSON)
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(st.text(max_size=5))] = container.pop(key)
    return document[0]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where the parts of *value* are: the containers, and their keys in them."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _places(part)


def _encoded(document: Any) -> bytes:
    return json.dumps(document).encode().replace(json.dumps(_DEEP).encode(), DEEP)
