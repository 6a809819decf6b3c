"""What handlers of RPCs, written against grpclib's streams, need beyond them."""

from __future__ import annotations

from typing import Any, TypeVar

import grpclib.server
from grpclib.const import Status
from grpclib.exceptions import GRPCError

Request = TypeVar("Request")


async def receive(stream: grpclib.server.Stream[Request, Any]) -> Request:
    """The one request message of a call that has one.

    :raises GRPCError: if there is none, if it can't be decoded, or if it is too large.
    """
    request = await stream.recv_message()
    if request is None:
        raise GRPCError(Status.INTERNAL, "the request ended without a message")
    return request
