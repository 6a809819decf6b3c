"""Building many images, some at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio

from imgbuilder.client.building import follow_build
from imgbuilder.client.documents import Document, status_name
from imgbuilder.client.errors import ClientError
from imgbuilder.client.imagebuilder import ImageBuilderClient
from imgbuilder.pb.builder import BuildRequest, BuildResponse, BuildStatus

ERROR = "error"
"""Stands for a status where the build could not be had at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One of a batch.

    :ivar image: what to build from, as it was written.
    """

    image: str
    request: BuildRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of an item.

    :ivar status: the contract's name of how its build ended, or ``error``.
    :ivar ref: of its workspace image; empty where that is not known.
    :ivar message: why it failed; empty where it did not.
    """

    image: str
    status: str
    ref: str
    build_id: str
    message: str
    seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether its image is there."""
        return self.status == status_name(BuildStatus.done_success)

    def document(self) -> Document:
        """The same as a document."""
        return {
            "image": self.image,
            "status": self.status,
            "ref": self.ref,
            "buildId": self.build_id,
            "message": self.message,
            "seconds": round(self.seconds, 3),
        }


class BatchWatcher(Protocol):
    """Is told of a batch; items by their place in it."""

    def started(self, number: int, item: Item) -> None:
        """An item's turn has come."""
        ...

    def changed(self, number: int, response: BuildResponse) -> None:
        """How its build stands now."""
        ...

    def noticed(self, text: str) -> None:
        """Something on the way that does not end a build."""
        ...

    def ended(self, number: int, result: Result) -> None:
        """What became of it."""
        ...


def read_images(text: str) -> list[str]:
    """The references in *text*: one a line, without blank lines and comments, which begin with ``#``."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


async def build_batch(
    client: ImageBuilderClient, items: Sequence[Item], watcher: BatchWatcher, *, concurrency: int
) -> list[Result]:
    """Build *items*, at most *concurrency* at a time, beginning with the first; what became of each, in order."""
    results: dict[int, Result] = {}
    waiting = iter(enumerate(items))

    async def work() -> None:
        for number, item in waiting:
            watcher.started(number, item)
            results[number] = await _build_one(client, item, _One(watcher, number))
            watcher.ended(number, results[number])

    async with anyio.create_task_group() as group:
        for _ in range(min(concurrency, len(items))):
            group.start_soon(work)
    return [results[number] for number in range(len(items))]


async def _build_one(client: ImageBuilderClient, item: Item, watcher: _One) -> Result:
    began = anyio.current_time()
    try:
        response = await follow_build(client, item.request, watcher, lines=None)
    except ClientError as error:
        status, message = ERROR, str(error)
        response = BuildResponse()
    else:
        status = status_name(response.status)
        message = response.message if response.status != BuildStatus.done_success else ""
    return Result(
        image=item.image,
        status=status,
        ref=response.ref,
        build_id=response.info.build_id if response.info else "",
        message=message,
        seconds=anyio.current_time() - began,
    )


class _One:
    """Tells the watcher of a batch about one of its builds."""

    def __init__(self, watcher: BatchWatcher, number: int) -> None:
        self._watcher = watcher
        self._number = number

    def changed(self, response: BuildResponse) -> None:
        self._watcher.changed(self._number, response)

    def said(self, line: str) -> None:
        """Nobody listens to the output of many builds at once."""

    def noticed(self, text: str) -> None:
        self._watcher.noticed(text)
