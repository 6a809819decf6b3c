"""The configuration, and the kinds of values in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given

from imgbuilder.config import ConfigError, parse
from imgbuilder.config.values import parse_address, parse_duration, parse_size
from tests.fuzz.inputs import DEEP, JSON, bounded, documents, fuzz, refusing, texts

EXAMPLE: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "config" / "example.json").read_bytes()
)
FULL: Final[dict[str, Any]] = {
    **EXAMPLE,
    "refCache": {"interval": "6h0m0s", "refs": ["ubuntu:24.04"]},
    "registries": {
        "insecure": ["localhost:5000"],
        "mirrors": {"docker.io": "https://mirror.test"},
        "platform": "linux/arm64",
        "timeout": "15s",
        "connectionsPerHost": 8,
    },
    "logs": {
        "folder": "/tmp/logs",
        "memory": "256KiB",
        "maxSize": "64MiB",
        "retention": "1h",
        "followed": 256,
    },
    "limits": {"messageSize": "4MiB", "connections": 10},
}


@fuzz
@given(documents(EXAMPLE, FULL))
@example(b'{"server":' + b"9" * 5000 + b"}")
@example(b'{"refCache":{"refs":%b}}' % DEEP)
@example(b'{"logs":{"maxSize":%b}}' % DEEP)
@example(b'{"logs":{"maxSize":"\\ud800"},"\\ud800":1}')
def test_configurations(text: bytes) -> None:
    """A configuration, or one message that names file and fields: ConfigError."""
    with bounded(), refusing(ConfigError) as said:
        parse("test.json", text)
    assert all("test.json" in words and words.encode() for words in said)


@pytest.mark.parametrize("read", [parse_duration, parse_size, parse_address], ids=lambda read: read.__name__)
@fuzz
@given(
    value=JSON
    | texts(
        "1h30m0.5s",
        "64MiB",
        "1.5 kb",
        "[::1%eth0]:8080",
        "127.0.0.1:8080",
        pieces=("1", "9", ".", "h", "ms", "µ", " ", ":", "[", "]", "%", "\u0663", "-"),
    )
)
@example(value="9" * 400 + "MiB")
def test_values(read: Callable[[Any], Any], value: Any) -> None:
    """A value, or ValueError with words for whoever wrote it."""
    with bounded(), refusing(ValueError) as said:
        read(value)
    assert all(0 < len(words) < 200 for words in said)
