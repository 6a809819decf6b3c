"""What all our clients have to know of how calls of grpclib's client end."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import h2.exceptions
from grpclib.client import Stream
from grpclib.exceptions import ProtocolError, StreamTerminatedError

Reply = TypeVar("Reply")

BROKEN: Final = (StreamTerminatedError, OSError, h2.exceptions.ProtocolError)
"""What is raised where the connection breaks. A `TimeoutError` is among them: where that means something else, look
for it first."""

NO_ANSWER: Final = (ProtocolError, AssertionError, NotImplementedError)
"""What is raised where what came is no answer: grpclib asserts that messages are complete, and knows no compression."""


async def next_reply(call: Stream[Any, Reply]) -> Reply | None:
    """The next answer of a streaming call; None when it has ended with OK.

    :raises GRPCError: if it has ended otherwise.
    """
    try:
        reply = await call.recv_message()
        if reply is None:
            await call.recv_trailing_metadata()
    except StreamTerminatedError:
        # Servers reset a stream right after its status: the status counts
        call._maybe_raise()  # noqa: SLF001  # as leaving the call does
        raise
    return reply
