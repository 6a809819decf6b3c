"""Who is told of changes: a bounded mailbox for each subscriber.

Publishing is synchronous and never waits. A subscriber whose mailbox is full is dropped: it hears nothing
more, and its reader is told why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.pb.wsman import MetadataFilter, WorkspaceMetadata, WorkspaceStatus

CAPACITY: Final = 512
"""How many updates a subscriber may lag."""


class SubscriberLagsError(ImgbuilderError):
    """A subscriber does not read as fast as workspaces change."""

    def __init__(self, capacity: int) -> None:
        super().__init__(f"subscriber lags by more than {capacity} updates: subscribe again")


def matches(wanted: MetadataFilter | None, metadata: WorkspaceMetadata | None) -> bool:
    """Whether *metadata* has everything that is set in *wanted*."""
    if wanted is None:
        return True
    if metadata is None:
        metadata = WorkspaceMetadata()
    return (
        wanted.owner in ("", metadata.owner)
        and wanted.meta_id in ("", metadata.meta_id)
        and wanted.annotations.items() <= metadata.annotations.items()
    )


class Mailbox:
    """What one subscriber was not told yet, in order. Belongs to one task."""

    def __init__(self, wanted: MetadataFilter | None, capacity: int) -> None:
        self._wanted = wanted
        self._capacity = capacity
        self._updates: deque[WorkspaceStatus] = deque()
        self._filled = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self.lags = False
        self.ended = False

    def put(self, status: WorkspaceStatus) -> None:
        """Hold *status* if it is wanted; drop everything if there is no room."""
        if self.lags or not matches(self._wanted, status.metadata):
            return
        if len(self._updates) < self._capacity:
            self._updates.append(status)
        else:
            self.lags = True
            self._updates.clear()
            if self._scope is not None:
                self._scope.cancel()
        self._filled.set()

    def end(self) -> None:
        """Nothing more will come: what is held can still be received."""
        self.ended = True
        self._filled.set()

    async def receive(self) -> WorkspaceStatus | None:
        """The oldest update that was not received yet; waits for one. None when nothing more will come.

        :raises SubscriberLagsError: if the mailbox was full.
        """
        while not self._updates:
            self._raise_if_it_lags()
            if self.ended:
                return None
            self._filled = anyio.Event()
            await self._filled.wait()
        return self._updates.popleft()

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """A block that ends at once when the mailbox is full, whatever it waits for.

        :raises SubscriberLagsError: then.
        """
        with anyio.CancelScope() as scope:
            self._scope = scope
            if self.lags:
                scope.cancel()
            try:
                yield
            finally:
                self._scope = None
        self._raise_if_it_lags()

    def _raise_if_it_lags(self) -> None:
        if self.lags:
            raise SubscriberLagsError(self._capacity)


class Subscriptions:
    """All mailboxes."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._mailboxes: set[Mailbox] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._mailboxes)

    def publish(self, status: WorkspaceStatus) -> None:
        """Put *status* into every mailbox that wants it."""
        for mailbox in self._mailboxes:
            mailbox.put(status)

    @contextmanager
    def subscribe(self, wanted: MetadataFilter | None, first: Iterable[WorkspaceStatus]) -> Iterator[Mailbox]:
        """A mailbox for what is published from now on, until the block is left.

        :param first: what it holds already, as far as that is wanted.
        """
        mailbox = Mailbox(wanted, self._capacity)
        for status in first:
            mailbox.put(status)
        if self._ended:
            mailbox.end()
        self._mailboxes.add(mailbox)
        try:
            yield mailbox
        finally:
            self._mailboxes.discard(mailbox)

    def end(self) -> None:
        """Let every subscriber have what it was not told yet, and nothing after that."""
        self._ended = True
        for mailbox in self._mailboxes:
            mailbox.end()
