"""What interceptors make of errors."""

from __future__ import annotations

from typing import cast

import pytest
import structlog
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import StreamClosedError

from imgbuilder.api.interceptors import map_errors
from imgbuilder.runtime.grpc.interceptors import Call


@pytest.mark.parametrize("error", [StreamTerminatedError("lost"), StreamClosedError(1)])
async def test_a_caller_that_has_gone_is_no_bug(error: Exception) -> None:
    """Nothing is logged, and nobody is there to be told."""

    async def proceed() -> None:
        raise error

    with structlog.testing.capture_logs() as logged, pytest.raises(type(error)) as raised:
        await map_errors(cast("Call", None), proceed)
    assert raised.value is error
    assert not isinstance(raised.value, GRPCError)
    assert not logged
