"""The output that is written for benchmarks, and what the load generator in Python reads of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.pb.builder import BuildInfo, BuildResponse, LogsResponse
from imgbuilder.pb.wsman import SubscribeResponse, WorkspaceStatus
from imgbuilder.runtime.grpc.codec import ProtoCodec
from tests.bench.lines import END, Pace, burst, stamped
from tests.bench.slowload import field_of

codec = ProtoCodec()


@given(st.integers(1, 200), st.integers(20, 5000))
def test_a_burst(count: int, size: int) -> None:
    """As many lines as wanted, each as long as wanted; only the last one ends it."""
    lines = list(burst(count, size))
    assert [len(line) for line in lines] == [size] * count
    assert b"".join(lines).count(b"\n") == count
    assert [line.endswith(END.encode()) for line in lines] == [False] * (count - 1) + [True]


def test_a_stamp() -> None:
    """Is what a line begins with, in nanoseconds."""
    line = stamped(1.5, size=40)
    assert line.startswith(b"@1500000000 ")
    assert line.endswith(b"\n")
    assert len(line) == 40


@given(st.lists(st.floats(0, 0.1), max_size=30))
def test_a_pace(steps: list[float]) -> None:
    """However seldom it is looked at: no line is left out or told twice, and each is told as of when it was due."""
    pace, now, moments = Pace(100, 1000.0), 1000.0, []
    for step in steps:
        now += step
        moments += pace.due(now)
    assert moments == pytest.approx([1000.0 + number / 100 for number in range(len(moments))])
    assert len(moments) == int((now - 1000.0) * 100)


@pytest.mark.parametrize(
    ("message", "path", "expected"),
    [
        (LogsResponse(content=b"output"), (1,), b"output"),
        (BuildResponse(ref="r" * 300, message="m", info=BuildInfo(started_at=9)), (3,), b"m"),
        (BuildResponse(ref="r"), (3,), b""),
        (SubscribeResponse(status=WorkspaceStatus(id="i", message="m", status_version=7)), (1, 6), b"m"),
        (SubscribeResponse(), (1, 6), b""),
    ],
)
def test_fields(message: object, path: tuple[int, ...], expected: bytes) -> None:
    """Are found without knowing the message."""
    assert field_of(codec.encode(message, type(message)), path) == expected
