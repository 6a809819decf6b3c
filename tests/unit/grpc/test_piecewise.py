"""Large messages in pieces: the same as reading or writing them whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.pb.builder import BuildInfo, BuildStatus, ListBuildsResponse, LogInfo
from imgbuilder.runtime.grpc.codec import ProtoCodec, decode, encode
from imgbuilder.runtime.grpc.piecewise import read_repeated, write_repeated
from imgbuilder.runtime.grpc.wire import DecodeError

builds = st.lists(
    st.builds(
        BuildInfo,
        ref=st.text(max_size=5),
        status=st.sampled_from(BuildStatus),
        started_at=st.integers(0, 2**40),
        log_info=st.none() | st.builds(LogInfo, url=st.text(max_size=200)),
    ),
    max_size=5,
)
OTHER_FIELDS = (b"", b"\x10\x05", b"\x1a\x02ab", b"\x09" + b"x" * 8, b"\x13\x08\x01\x14")
"""A number, a text, the field's own number with another wire type, and a group."""


@given(builds)
def test_written_one_by_one_they_are_the_whole(infos: list[BuildInfo]) -> None:
    """Byte for byte."""
    assert b"".join(write_repeated(1, info) for info in infos) == encode(ListBuildsResponse(builds=infos))


@given(builds, st.lists(st.sampled_from(OTHER_FIELDS), min_size=5, max_size=5))
def test_read_one_by_one_they_are_the_whole(infos: list[BuildInfo], others: list[bytes]) -> None:
    """Whatever else the message has in between."""
    pieces = [write_repeated(1, info) for info in infos]
    data = b"".join(other + piece for other, piece in zip(others, [*pieces, *[b""] * 5], strict=False))
    assert list(read_repeated(data, 1, BuildInfo)) == decode(ListBuildsResponse, data).builds == infos


@given(st.binary(max_size=30) | builds.map(lambda infos: encode(ListBuildsResponse(builds=infos))[:-1]))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Exactly where reading the whole refuses it."""
    try:
        whole = decode(ListBuildsResponse, data).builds
    except DecodeError:
        with pytest.raises(DecodeError):
            list(read_repeated(data, 1, BuildInfo))
    else:
        assert list(read_repeated(data, 1, BuildInfo)) == whole


def test_the_codec_leaves_bytes_alone() -> None:
    """For whoever reads them in pieces."""
    assert ProtoCodec().decode(b"no message", bytes) == b"no message"
