"""What is told of peers that were cut off: each is counted, and each host has its line."""

from __future__ import annotations

import anyio
import pytest
from structlog.testing import capture_logs

from imgbuilder.runtime.grpc.limits import CutOff
from imgbuilder.runtime.grpc.offenders import HOSTS, PERIOD, Offenders

pytestmark = pytest.mark.looptime


async def test_a_line_for_each_host_and_reason() -> None:
    """Not for each connection: how many more there were is told some seconds later."""
    counted: list[CutOff] = []
    with capture_logs() as lines:
        offenders = Offenders(counted.append)
        for _ in range(100):
            offenders.tell(CutOff.PINGS, host="10.0.0.1", fault="x")
        offenders.tell(CutOff.PINGS, host="10.0.0.2")
        offenders.tell(CutOff.SETTINGS, host="10.0.0.1")
        assert len(lines) == 3
        await anyio.sleep(PERIOD + 1)
        assert lines[3:] == [
            {
                "event": "more connections were cut off",
                "log_level": "warning",
                "reason": "flood of pings",
                "peer": "10.0.0.1",
                "connections": 99,
            }
        ]
    assert len(counted) == 102
    assert lines[0]["fault"] == "x"


async def test_who_has_been_good_is_told_of_at_once() -> None:
    """When the seconds are over in which nothing happened."""
    with capture_logs() as lines:
        offenders = Offenders()
        offenders.tell(CutOff.PINGS, host="10.0.0.1")
        await anyio.sleep(PERIOD + 1)
        offenders.tell(CutOff.PINGS, host="10.0.0.1")
    assert [line["event"] for line in lines] == ["a connection was cut off"] * 2


async def test_very_many_hosts_are_as_one() -> None:
    """What is remembered is bounded, and so is what is written."""
    with capture_logs() as lines:
        offenders = Offenders()
        for number in range(3 * HOSTS):
            offenders.tell(CutOff.PINGS, host=str(number))
        assert len(lines) == HOSTS + 1
        await anyio.sleep(PERIOD + 1)
    assert lines[-1]["connections"] == 2 * HOSTS - 1
