"""Watching one build: how it stands and what it says, over connections that may break.

A build goes on whoever watches it, so a connection that is lost is no end: the same is asked for again, which
attaches to the build.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from imgbuilder.client.errors import CallError, ClientError, ConnectionLostError, UnreachableError
from imgbuilder.client.imagebuilder import ImageBuilderClient
from imgbuilder.client.loglines import LogLines
from imgbuilder.core.backoff import Backoff
from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildStatus

PATIENCE: Final = 60.0
"""Seconds for which a lost connection is tried to be had again."""

GRACE: Final = 5.0
"""Seconds of silence after which the output of a build that has ended is taken to be complete."""

ENDED: Final = frozenset({BuildStatus.done_success, BuildStatus.done_failure})
_BACKOFF: Final = Backoff(first=0.5, factor=2, limit=5)


class BuildWatcher(Protocol):
    """Is told of a build."""

    def changed(self, response: BuildResponse) -> None:
        """How the build stands now. How it ended is told last, after all of its output."""
        ...

    def said(self, line: str) -> None:
        """A line of its output."""
        ...

    def noticed(self, text: str) -> None:
        """Something on the way that does not end the build."""
        ...


class Patience:
    """How long something is tried again that may pass.

    :param jitter: chance, from 0 to 1.
    """

    def __init__(self, limit: float = PATIENCE, jitter: Callable[[], float] = random.random) -> None:
        self._limit = limit
        self._jitter = jitter
        self._attempts = 0
        self._since = 0.0

    @property
    def tested(self) -> bool:
        """Whether it has failed since it worked last."""
        return self._attempts > 0

    def renew(self) -> None:
        """It worked."""
        self._attempts = 0

    async def wait(self, error: ClientError) -> None:
        """Wait until it can be tried again.

        :raises ClientError: *error* itself, if it does not pass by waiting, or has been waited for long enough.
        """
        now = anyio.current_time()
        if not self._attempts:
            self._since = now
        if not _may_pass(error) or now - self._since > self._limit:
            raise error
        await anyio.sleep(_BACKOFF.delay(self._attempts, self._jitter()))
        self._attempts += 1


async def follow_build(
    client: ImageBuilderClient,
    request: BuildRequest,
    watcher: BuildWatcher,
    *,
    lines: LogLines | None,
    patience: float = PATIENCE,
) -> BuildResponse:
    """Have something built, and tell *watcher* how that goes; how it ended.

    Cancelling this leaves the build running.

    :param lines: makes lines of the output; None to leave that out.
    :param patience: seconds for which a connection that was lost is tried to be had again.
    :raises ClientError: if the build can't be had, or can't be watched to its end.
    """
    follower = LogFollower(client, watcher, lines, patience=patience) if lines else None
    failure: ClientError | None = None
    last: BuildResponse | None = None
    async with anyio.create_task_group() as group:
        try:
            last = await _watch(client, request, watcher, follower, group, Patience(patience))
            if follower is not None:
                await follower.finish()
            watcher.changed(last)
        except ClientError as error:
            failure = error  # outside of the group it is not part of one
        group.cancel_scope.cancel()
    if last is None:
        raise failure or ConnectionLostError(client.address, "nothing was heard of the build")
    return last


async def _watch(
    client: ImageBuilderClient,
    request: BuildRequest,
    watcher: BuildWatcher,
    follower: LogFollower | None,
    group: TaskGroup,
    patience: Patience,
) -> BuildResponse:
    last: BuildResponse | None = None
    while True:
        try:
            async with client.build(request) as replies:
                async for response in replies:
                    patience.renew()
                    if response.info is None and last is not None and last.info is not None:
                        # It ended while nobody watched; what exists now is what it has built.
                        info = replace(last.info, status=response.status)
                        response = replace(response, info=info)  # noqa: PLW2901  # that is how it is told
                    if response != last and response.status not in ENDED:
                        watcher.changed(response)
                    last = response
                    if follower is not None and not follower.started and response.info is not None:
                        follower.started = True
                        group.start_soon(follower.run, response.ref, response.info.build_id)
            if last is not None and last.status in ENDED:
                return last
            raise ConnectionLostError(client.address, "it ended the call before the build")
        except ClientError as error:
            if last is None:
                raise
            if _may_pass(error) and not patience.tested:  # once, not for each attempt
                watcher.noticed(f"{error}; attaching to the build again")
            await patience.wait(error)
            request = replace(request, force_rebuild=False)  # or it would be built once more


class LogFollower:
    """Tells *watcher* the output of one build, each line once.

    :ivar started: whether somebody has started it.
    """

    def __init__(
        self,
        client: ImageBuilderClient,
        watcher: BuildWatcher,
        lines: LogLines,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.started = False
        self._client = client
        self._watcher = watcher
        self._lines = lines
        self._patience = Patience(patience)
        self._received = 0
        self._ended = anyio.Event()

    async def run(self, build_ref: str, build_id: str) -> None:
        """Follow it until it has ended. What can't be had is told as a notice: it is not the build."""
        output = output_of(self._client, build_ref=build_ref, build_id=build_id, patience=self._patience)
        try:
            async with aclosing(output):
                async for data in output:
                    self._received += len(data)
                    for line in self._lines.feed(data):
                        self._watcher.said(line)
            for line in self._lines.end():
                self._watcher.said(line)
        except ClientError as error:
            self._watcher.noticed(f"the output of the build can't be shown: {error}")
        finally:
            self._ended.set()

    async def finish(self) -> None:
        """Wait, now that the build has ended, for what is on its way."""
        while self.started and not self._ended.is_set():
            before = self._received
            with anyio.move_on_after(GRACE):
                await self._ended.wait()
            if self._received == before:
                break


async def output_of(
    client: ImageBuilderClient, *, build_ref: str = "", build_id: str = "", patience: Patience
) -> AsyncGenerator[bytes]:
    """The output of a build from its first byte, each byte once, over connections that may break.

    :raises ClientError: if it can't be had, or can't be read to its end.
    """
    received = 0
    while True:
        known = received  # a server tells it from the first byte, so what is known is passed over
        try:
            async with client.logs(build_ref=build_ref, build_id=build_id) as replies:
                async for reply in replies:
                    data = reply.content[known:]
                    known = max(0, known - len(reply.content))
                    received += len(data)
                    patience.renew()
                    yield data
        except UnreachableError:
            raise  # it never answered anything
        except ClientError as error:
            await patience.wait(error)
        else:
            return


def _may_pass(error: ClientError) -> bool:
    if isinstance(error, CallError):
        return error.code == "UNAVAILABLE"
    return isinstance(error, ConnectionLostError | UnreachableError)
