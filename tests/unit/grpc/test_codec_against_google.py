"""Our codec and Google's agree, over every message of the contract, on what is a message and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from imgbuilder.runtime.grpc.codec import Codec
from imgbuilder.runtime.grpc.wire import DecodeError
from tests.unit.grpc.everything import Everything, everything_pool
from tests.unit.grpc.google import contract_classes, google_class, inputs, meaning, parsed

POOL = everything_pool()
CLASSES: dict[str, Any] = {**contract_classes(), "test.Everything": Everything}


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_agrees_with_google(name: str) -> None:
    """What one accepts the other accepts, and after decoding and encoding it still means the same."""
    reference = google_class(POOL, name)
    accepted = 0
    for data in inputs(reference, 1000 if name == "test.Everything" else 250, name):
        accepted += _agrees(CLASSES[name], reference, data)
    assert accepted >= 50  # the inputs are not all broken


def _agrees(cls: Any, reference: Any, data: bytes) -> bool:
    codec = Codec()  # without preserved classes, which would trivially give back what they were given
    expected = parsed(reference, data)
    if expected is None:
        with pytest.raises(DecodeError):
            codec.decode(cls, data)
        return False
    try:
        message = codec.decode(cls, data)
    except DecodeError as error:
        # upb overlooks fields of number 0 in classes that have no fields; nobody can mean one
        if error.fault == "a field has the number 0":
            return False
        raise
    returned = parsed(reference, codec.encode(message))
    assert returned is not None, data.hex()
    assert meaning(returned) == meaning(expected), data.hex()
    return True


def test_canonical_bytes_are_googles() -> None:
    """A message without maps, whose order is free, is written byte for byte as Google writes it."""
    reference = google_class(POOL, "builder.BuildInfo")
    for data in inputs(reference, 250, "canonical"):
        expected = parsed(reference, data)
        if expected is not None and not expected.log_info.headers:
            codec = Codec()
            assert (
                codec.encode(codec.decode(CLASSES["builder.BuildInfo"], data)) == expected.SerializeToString()
            )


@pytest.mark.parametrize("depth", [99, 100, 101])
@pytest.mark.parametrize("groups", [0, 1])
def test_nests_as_deeply_as_google(depth: int, groups: int) -> None:
    """Messages and groups may be nested a hundred deep, together."""
    data = b"\xfb\x01" * groups + b"\xfc\x01" * groups
    codec, reference = Codec(), google_class(POOL, "test.Everything")
    for _ in range(depth):
        message = Everything()
        message._unknown_fields = data
        data = codec.encode(Everything(message_one=message))
    allowed = depth + groups <= 100
    assert (parsed(reference, data) is not None) == allowed
    if allowed:
        codec.decode(Everything, data)
    else:
        with pytest.raises(DecodeError, match="nested too deeply"):
            codec.decode(Everything, data)
