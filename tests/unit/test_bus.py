"""Fan-out: conflating mailboxes."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from imgbuilder.bus import Bus, Subscription, Topic

TOPIC: Topic[int] = Topic("number", "a")
OTHER: Topic[int] = Topic("number", "b")


async def test_a_subscriber_gets_what_is_published_after_it_subscribed() -> None:
    """And nothing of other topics."""
    bus = Bus()
    bus.publish(TOPIC, 1)
    with bus.subscribe(TOPIC) as subscription:
        bus.publish(OTHER, 2)
        bus.publish(TOPIC, 3)
        assert await subscription.receive() == 3


async def test_a_slow_subscriber_skips_states_but_never_the_last() -> None:
    """However many came in between."""
    bus = Bus()
    with bus.subscribe(TOPIC) as subscription:
        for number in range(1000):
            bus.publish(TOPIC, number)
        assert await subscription.receive() == 999


async def test_a_waiting_subscriber_is_woken() -> None:
    """Publishing does not wait for it."""
    bus = Bus()
    received: list[int] = []

    async def receive(subscription: Subscription[int]) -> None:
        received.append(await subscription.receive())

    with bus.subscribe(TOPIC) as subscription:
        async with anyio.create_task_group() as group:
            group.start_soon(receive, subscription)
            await anyio.wait_all_tasks_blocked()
            bus.publish(TOPIC, 7)
            assert received == []
    assert received == [7]


async def test_a_cancelled_wait_loses_nothing() -> None:
    """The next one gets the value."""
    bus = Bus()
    with bus.subscribe(TOPIC) as subscription:
        with anyio.move_on_after(0):
            await subscription.receive()
        bus.publish(TOPIC, 1)
        assert await subscription.receive() == 1


async def test_nothing_is_left_of_a_closed_subscription() -> None:
    """Closing twice does nothing."""
    bus = Bus()
    with bus.subscribe(TOPIC) as subscription:
        assert bus.subscribers(TOPIC) == 1
        assert bus.subscribers() == 1
    subscription.close()
    assert bus.subscribers() == 0
    bus.publish(TOPIC, 1)
    with pytest.raises(TimeoutError), anyio.fail_after(0):
        await subscription.receive()


class BusMachine(RuleBasedStateMachine):
    """Any order of publishing and reading: each subscriber ends up with the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus()
        self.last: dict[Topic[int], int] = {}
        self.mailboxes: list[tuple[Topic[int], Subscription[int]]] = []
        self.expected: list[int | None] = []

    @rule(topic=st.sampled_from([TOPIC, OTHER]))
    def subscribe(self, topic: Topic[int]) -> None:
        """Open one more."""
        self.mailboxes.append((topic, self.bus.subscribe(topic)))
        self.expected.append(None)

    @rule(topic=st.sampled_from([TOPIC, OTHER]), value=st.integers())
    def publish(self, topic: Topic[int], value: int) -> None:
        """Publish a state."""
        self.bus.publish(topic, value)
        self.expected = [
            value if mailbox_topic == topic else expected
            for (mailbox_topic, _), expected in zip(self.mailboxes, self.expected, strict=True)
        ]

    @rule(index=st.integers(0, 20))
    def read(self, index: int) -> None:
        """Read one mailbox that is filled."""
        if index < len(self.mailboxes) and self.expected[index] is not None:
            coroutine = self.mailboxes[index][1].receive()
            with pytest.raises(StopIteration) as done:
                coroutine.send(None)
            assert done.value.value == self.expected[index]
            self.expected[index] = None

    @invariant()
    def counts_are_right(self) -> None:
        """As many are open as were opened."""
        topics = Counter(topic for topic, _ in self.mailboxes)
        assert all(self.bus.subscribers(topic) == count for topic, count in topics.items())


TestBusMachine = BusMachine.TestCase
