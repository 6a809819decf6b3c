"""Fan-out inside the process: topics, and subscriptions that are conflating mailboxes.

Publishing is synchronous and never waits, however many subscribe and however slow they are. A subscription
holds at most one value, the newest: a slow subscriber skips what came in between, and never the last. So
what is published must be *state* (it replaces what came before), never a part of something.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

T = TypeVar("T")


class Topic(Generic[T]):
    """A name under which values of one type are published."""

    __slots__ = ("_hash", "key", "kind")

    def __init__(self, kind: str, key: Hashable = None) -> None:
        self.kind = kind
        self.key = key
        self._hash = hash((kind, key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic) and self.kind == other.kind and self.key == other.key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Topic({self.kind!r}, {self.key!r})"


class Subscription(Generic[T]):
    """A mailbox for the newest value of a topic. Belongs to one task; use as a context manager."""

    __slots__ = ("_bus", "_filled", "_topic", "_value", "_waiting")

    def __init__(self, bus: Bus, topic: Topic[T]) -> None:
        self._bus = bus
        self._topic = topic
        self._filled = False
        self._value: T | None = None
        self._waiting: anyio.Event | None = None

    async def receive(self) -> T:
        """The newest value that was not received yet; waits for one if there is none.

        Cancelling it loses nothing.
        """
        while not self._filled:
            self._waiting = anyio.Event()
            await self._waiting.wait()
        value, self._value, self._filled = self._value, None, False
        return value  # type: ignore[return-value]  # filled: it holds a T, which may be None itself

    def close(self) -> None:
        """Stop receiving. Does nothing the second time."""
        self._bus._remove(self._topic, self)  # noqa: SLF001  # the two are one thing

    def put(self, value: T) -> None:
        """Hold *value* instead of what is held; the bus calls this."""
        self._value = value
        self._filled = True
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Bus:
    """Connects publishers with subscribers of the same topic."""

    def __init__(self) -> None:
        self._subscriptions: dict[Topic[Any], dict[Subscription[Any], None]] = {}

    def publish(self, topic: Topic[T], value: T) -> None:
        """Put *value* into the mailbox of each subscriber of *topic*, in the order they subscribed."""
        for subscription in self._subscriptions.get(topic, ()):
            subscription.put(value)

    def subscribe(self, topic: Topic[T]) -> Subscription[T]:
        """A mailbox that gets what is published to *topic* from now on.

        To miss nothing, subscribe first and then read the present state, without awaiting in between.
        """
        subscription = Subscription(self, topic)
        self._subscriptions.setdefault(topic, {})[subscription] = None
        return subscription

    def subscribers(self, topic: Topic[Any] | None = None) -> int:
        """How many subscriptions are open, of *topic* or in all."""
        if topic is not None:
            return len(self._subscriptions.get(topic, ()))
        return sum(len(mailboxes) for mailboxes in self._subscriptions.values())

    def _remove(self, topic: Topic[T], subscription: Subscription[T]) -> None:
        mailboxes = self._subscriptions.get(topic)
        if mailboxes is not None:
            mailboxes.pop(subscription, None)
            if not mailboxes:
                del self._subscriptions[topic]
