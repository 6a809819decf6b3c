"""Mailboxes of subscribers."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from imgbuilder.pb.wsman import WorkspaceStatus
from imgbuilder.standalone.subscriptions import SubscriberLagsError, Subscriptions

pytestmark = pytest.mark.looptime


def status(version: int) -> WorkspaceStatus:
    """Some status."""
    return WorkspaceStatus(id="w", status_version=version)


async def test_updates_are_received_in_order() -> None:
    """None is skipped, none comes twice."""
    subscriptions = Subscriptions()
    with subscriptions.subscribe(None, [status(1)]) as mailbox:
        for version in (2, 3):
            subscriptions.publish(status(version))
        received = [await mailbox.receive() for _ in range(3)]
    assert [update.status_version for update in received if update] == [1, 2, 3]
    assert len(subscriptions) == 0


async def test_who_lags_is_dropped_and_others_are_not() -> None:
    """A full mailbox ends its subscription, whatever its reader waits for."""
    subscriptions = Subscriptions(capacity=3)
    with subscriptions.subscribe(None, []) as slow, subscriptions.subscribe(None, []) as fast:

        async def stall() -> None:
            with pytest.raises(SubscriberLagsError, match="more than 3 updates"), slow.dropping():
                await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(stall)
            await anyio.sleep(1)
            for version in range(4):
                subscriptions.publish(status(version))
                update = await fast.receive()
                assert update is not None
                assert update.status_version == version
        with pytest.raises(SubscriberLagsError):
            await slow.receive()
        with pytest.raises(SubscriberLagsError), slow.dropping():
            await anyio.lowlevel.checkpoint()


async def test_the_end_comes_after_what_was_published() -> None:
    """Subscribers hear everything, then that there is no more; later ones hear that at once."""
    subscriptions = Subscriptions()
    with subscriptions.subscribe(None, []) as mailbox:
        subscriptions.publish(status(1))
        subscriptions.end()
        assert await mailbox.receive() is not None
        assert await mailbox.receive() is None
    with subscriptions.subscribe(None, []) as late:
        assert await late.receive() is None
