"""Watching one build: how it stands and what it says, over connections that may break.

A build goes on whoever watches it, so a connection that is lost is no end: the same is asked for again, which
attaches to the build. If it has ended meanwhile, that is told, and not built again.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from imgbuilder.client.absence import succeeded, unseen_end
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
    :raises OutcomeUnknownError: if it has ended while nobody watched, and how is not known.
    """
    failure: ClientError | None = None
    last: BuildResponse | None = None
    async with anyio.create_task_group() as group:
        watch = _Watch(client, request, watcher, lines, group, patience)
        try:
            last = await watch.until_ended()
            watcher.changed(last)
        except ClientError as error:
            failure = error  # outside of the group it is not part of one
        group.cancel_scope.cancel()
    if last is None:
        raise failure or ConnectionLostError(client.address, "nothing was heard of the build")
    return last


class _Watch:
    """One build as it is watched, over connections that break."""

    def __init__(
        self,
        client: ImageBuilderClient,
        request: BuildRequest,
        watcher: BuildWatcher,
        lines: LogLines | None,
        group: TaskGroup,
        patience: float,
    ) -> None:
        self._client = client
        self._forced = request.force_rebuild
        self._request = request
        self._watcher = watcher
        self._lines = lines
        self._group = group
        self._limit = patience
        self._patience = Patience(patience)
        self._last: BuildResponse | None = None
        self._follower: LogFollower | None = None

    async def until_ended(self) -> BuildResponse:
        """How it ended, once all of its output has been told."""
        while self._last is None or self._last.status not in ENDED:
            try:
                await self._attempt()
            except ClientError as error:
                if self._last is None:
                    raise
                if self._last.status in ENDED:
                    break  # it was told before the call broke
                if _may_pass(error) and not self._patience.tested:  # once, not for each attempt
                    self._watcher.noticed(f"{error}; attaching to the build again")
                await self._patience.wait(error)
                self._request = replace(self._request, force_rebuild=False)  # or it would be built once more
        if self._follower is not None:
            await self._follower.finish()
        return self._last

    async def _attempt(self) -> None:
        if self._last is not None:
            ended = await unseen_end(self._client, self._request, self._last, forced=self._forced)
            if ended is not None:
                self._last = ended
                return
        async with self._client.build(self._request) as replies:
            async for response in replies:
                self._patience.renew()
                await self._take_in(response)
        if self._last is None or self._last.status not in ENDED:
            raise ConnectionLostError(self._client.address, "it ended the call before the build")

    async def _take_in(self, response: BuildResponse) -> None:
        before = self._last.info if self._last is not None else None
        if response.info is None and before is not None:
            # It ended while nobody watched; what exists now is what it has built.
            response = succeeded(response, before, forced=self._forced)
        elif response.info is not None and before is not None and response.info.build_id != before.build_id:
            self._watcher.noticed(
                f"build {before.build_id}, which was watched, has ended; this is another: {response.info.build_id}"
            )
            self._forced = False  # it was begun because there was no image
            await self._leave_output()
        if response != self._last and response.status not in ENDED:
            self._watcher.changed(response)
        self._last = response
        if self._lines is not None and self._follower is None and response.info is not None:
            self._follower = LogFollower(self._client, self._watcher, self._lines, patience=self._limit)
            self._group.start_soon(self._follower.run, response.ref, response.info.build_id)

    async def _leave_output(self) -> None:
        """Tell the rest of the output of a build that has ended: that of another follows."""
        if self._follower is not None:
            await self._follower.finish()
            self._follower.stop()
            self._follower = None


class LogFollower:
    """Tells *watcher* the output of one build, each line once."""

    def __init__(
        self,
        client: ImageBuilderClient,
        watcher: BuildWatcher,
        lines: LogLines,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self._client = client
        self._watcher = watcher
        self._lines = lines
        self._patience = Patience(patience)
        self._received = 0
        self._ended = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self, build_ref: str, build_id: str) -> None:
        """Follow it until it has ended. What can't be had is told as a notice: it is not the build."""
        output = output_of(self._client, build_ref=build_ref, build_id=build_id, patience=self._patience)
        try:
            with self._scope:
                async with aclosing(output):
                    async for data in output:
                        self._received += len(data)
                        self._tell(self._lines.feed(data))
                self._tell(self._lines.end())
        except ClientError as error:
            self._watcher.noticed(f"the output of the build can't be shown: {error}")
        finally:
            self._ended.set()

    async def finish(self) -> None:
        """Wait, now that the build has ended, for what is on its way."""
        while not self._ended.is_set():
            before = self._received
            with anyio.move_on_after(GRACE):
                await self._ended.wait()
            if self._received == before:
                break

    def stop(self) -> None:
        """Tell nothing more of it, but the line that has no end yet."""
        self._scope.cancel()
        self._tell(self._lines.end())

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            self._watcher.said(line)


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
