"""The wire format by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.runtime.grpc.wire import DecodeError, fields, read_varint, varint


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_round_trip(value: int, rest: bytes) -> None:
    """What is written is read, and nothing behind it."""
    encoded = varint(value)
    assert len(encoded) <= 10
    assert read_varint(encoded + rest, 0) == (value, len(encoded))


def test_fields_are_listed_without_a_class() -> None:
    """Numbers as numbers, everything else as its bytes."""
    data = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x1dabcd" + b"\x21abcdefgh" + b"\x2b\x08\x01\x2c"
    assert list(fields(data)) == [(1, 150), (2, b"hi"), (3, b"abcd"), (4, b"abcdefgh"), (5, b"\x08\x01\x2c")]


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x03hi", b"\x80", b"\x1dabc", b"\x2b"])
def test_fields_are_not_cut_short(data: bytes) -> None:
    """What ends too early is refused."""
    with pytest.raises(DecodeError, match="truncated"):
        list(fields(data))
