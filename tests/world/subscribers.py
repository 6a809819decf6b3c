"""The subscribers of the test world's workspace manager: one whose queue is full is dropped."""

from __future__ import annotations

from collections import deque

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from imgbuilder.pb.wsman import MetadataFilter, SubscribeRequest, SubscribeResponse, WorkspaceStatus


def matches(must_match: MetadataFilter | None, status: WorkspaceStatus) -> bool:
    """Whether *status* has everything that *must_match* asks for."""
    metadata = status.metadata
    if must_match is None or metadata is None:
        return must_match is None
    return (
        must_match.owner in ("", metadata.owner)
        and must_match.meta_id in ("", metadata.meta_id)
        and must_match.annotations.items() <= metadata.annotations.items()
    )


class Subscriber:
    """Sends statuses over one stream, in its own time.

    :param backlog: how many statuses may wait before the subscriber is dropped.
    """

    def __init__(self, must_match: MetadataFilter | None, backlog: int) -> None:
        self._must_match = must_match
        self._backlog = backlog
        self._queue: deque[WorkspaceStatus] = deque()
        self._grown = anyio.Event()
        self._scope = anyio.CancelScope()
        self._sending = False
        self._end: GRPCError | None = None

    @property
    def idle(self) -> bool:
        """Whether everything was handed to the connection."""
        return not self._queue and not self._sending

    def put(self, status: WorkspaceStatus) -> None:
        """Queue *status* if the subscriber wants it."""
        if not matches(self._must_match, status):
            return
        if len(self._queue) >= self._backlog:
            self.end(GRPCError(Status.RESOURCE_EXHAUSTED, "subscriber lags"))
            return
        self._queue.append(status)
        self._grown.set()

    def end(self, error: GRPCError | None = None) -> None:
        """End the stream with *error*, or with OK."""
        self._end = error
        self._scope.cancel()

    async def run(self, stream: Stream[SubscribeRequest, SubscribeResponse]) -> None:
        """Send what is queued, until the end.

        :raises GRPCError: as `end` was told.
        """
        with self._scope:
            while True:
                await self._grown.wait()
                self._grown = anyio.Event()
                while self._queue:
                    self._sending = True
                    await stream.send_message(SubscribeResponse(status=self._queue.popleft()))
                    self._sending = False
        if self._sending:
            await stream.cancel()  # in the middle of a message, no status can follow
        elif self._end is not None:
            raise self._end
