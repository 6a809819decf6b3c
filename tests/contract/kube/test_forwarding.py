"""Port-forwards through a cluster: what goes over them, and what becomes of them."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from structlog.testing import capture_logs

from imgbuilder.kube import forwarding as forwarding_module
from imgbuilder.kube.errors import (
    KubeError,
    NoReadyPodError,
    NoSuchPortError,
    NoSuchServiceError,
    NotAllowedError,
    PortTakenError,
)
from imgbuilder.kube.forwarding import Forward, forwarding
from tests.world.kube import Kubernetes
from tests.world.tcp import tcp_server

SERVICE = "ws-manager-mk2"
PORT = 8080
MUCH = 8 << 20
"""Bytes: more than all buffers on the way hold."""


def saying(words: bytes) -> Callable[[SocketStream], Awaitable[None]]:
    """A program that says *words*, and then repeats what it hears."""

    async def handle(stream: SocketStream) -> None:
        await stream.send(words)
        async for data in stream:
            await stream.send(data)

    return handle


@pytest.fixture
def forward(kubernetes: Kubernetes, kubeconfig: Path) -> Callable[..., AbstractAsyncContextManager[Forward]]:
    """Opens a port-forward to the service, which there is."""
    kubernetes.add_service(SERVICE, PORT)

    def opened(**options: Any) -> AbstractAsyncContextManager[Forward]:
        given = {"context": None, "namespace": None, "service": SERVICE, "port": PORT, **options}
        return forwarding(kubeconfig=kubeconfig, **given)

    return opened


Opening = Callable[..., AbstractAsyncContextManager[Forward]]


async def connected(forward: Forward) -> SocketStream:
    """A connection to the local port."""
    host, _, port = forward.address.partition(":")
    return await anyio.connect_tcp(host, int(port))


async def heard(forward: Forward) -> bytes:
    """What is said first to a connection; empty if it ends at once."""
    async with await connected(forward) as stream:
        try:
            return await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""


# --- bytes ------------------------------------------------------------------------------------------------------


async def test_bytes_go_both_ways(kubernetes: Kubernetes, forward: Opening) -> None:
    """To the pod and back, over as many connections as there are, each with its own."""
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with (
            forward() as opened,
            await connected(opened) as first,
            await connected(opened) as second,
        ):
            for stream, words in ((first, b"first"), (second, b"second")):
                assert await stream.receive() == b"hello"
                await stream.send(words)
                assert await stream.receive() == words
        await kubernetes.until_forwards(0)


async def test_nothing_is_lost_or_changed(kubernetes: Kubernetes, forward: Opening) -> None:
    """Much more than fits into buffers, up to the end of the stream."""
    content = bytes(range(256)) * (MUCH // 256)

    async def send(stream: SocketStream) -> None:
        await stream.send(content)

    async with tcp_server(send) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened, await connected(opened) as stream:
            received = hashlib.sha256()
            async for data in stream:
                received.update(data)
    assert received.digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("direction", ["to the pod", "from the pod"])
async def test_a_slow_reader_holds_the_sender_up(
    direction: str, kubernetes: Kubernetes, forward: Opening
) -> None:
    """So that memory is bounded: who sends has to wait until it is read."""
    sent = 0
    read = anyio.Event()

    async def pour(stream: SocketStream) -> None:
        nonlocal sent
        while sent < 16 * MUCH:
            await stream.send(bytes(1 << 16))
            sent += 1 << 16

    async def drink(stream: SocketStream) -> None:
        await stream.receive()
        await read.wait()

    inside, outside = (drink, pour) if direction == "to the pod" else (pour, drink)
    async with tcp_server(inside) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened, await connected(opened) as stream, anyio.create_task_group() as group:
            group.start_soon(outside, stream)
            before = -1
            while sent != before or not sent:  # until nothing moves any more
                before = sent
                await anyio.sleep(0.2)
            assert sent < 16 * MUCH
            group.cancel_scope.cancel()


async def test_an_answer_comes_after_all_was_said(kubernetes: Kubernetes, forward: Opening) -> None:
    """A client that has said all it had to say still hears what the pod says."""
    asked = anyio.Event()

    async def answer(stream: SocketStream) -> None:
        question = await stream.receive()
        await asked.wait()
        await stream.send(b"an answer to " + question)

    async with tcp_server(answer) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened, await connected(opened) as stream:
            await stream.send(b"a question")
            await stream.send_eof()
            asked.set()
            assert await stream.receive() == b"an answer to a question"
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()


async def test_a_client_that_is_gone_is_not_waited_for(
    kubernetes: Kubernetes, forward: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection through the cluster ends, though the pod has nothing to say."""
    monkeypatch.setattr(forwarding_module, "LINGER", 0.05)
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened:
            assert await heard(opened) == b"hello"
            await kubernetes.until_forwards(0)


# --- pods -------------------------------------------------------------------------------------------------------


async def test_the_next_pod_takes_over(kubernetes: Kubernetes, forward: Opening) -> None:
    """When a pod is deleted its connections end, and what connects again gets to the one that came."""
    async with (
        tcp_server(saying(b"one")) as one,
        tcp_server(saying(b"two")) as two,
        tcp_server(saying(b"?")) as never,
    ):
        kubernetes.add_pod("unready", SERVICE, {PORT: never}, ready=False)
        kubernetes.add_pod("other", "other-service", {PORT: never})
        kubernetes.add_pod("one", SERVICE, {PORT: one})
        async with forward() as opened:
            assert opened.pod == "one"
            async with await connected(opened) as stream:
                assert await stream.receive() == b"one"
                kubernetes.add_pod("two", SERVICE, {PORT: two})
                kubernetes.delete_pod("one")
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()
            assert await heard(opened) == b"two"


async def test_a_pod_that_ends_gets_no_new_connections(kubernetes: Kubernetes, forward: Opening) -> None:
    """While those that it has go on."""
    async with tcp_server(saying(b"one")) as one, tcp_server(saying(b"two")) as two:
        kubernetes.add_pod("one", SERVICE, {PORT: one}).ending = True
        kubernetes.add_pod("two", SERVICE, {PORT: two})
        async with forward() as opened:
            assert await heard(opened) == b"two"


async def test_a_pod_that_goes_meanwhile(
    kubernetes: Kubernetes, forward: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was chosen and is gone when it is connected to is passed over."""
    async with tcp_server(saying(b"one")) as one, tcp_server(saying(b"two")) as two:
        kubernetes.add_pod("one", SERVICE, {PORT: one})
        async with forward() as opened:
            kubernetes.add_pod("two", SERVICE, {PORT: two})
            kubernetes.vanish_when_listed("one")
            assert await heard(opened) == b"two"


async def test_ports_by_name(kubernetes: Kubernetes, forward: Opening) -> None:
    """A service names a port that each pod explains."""
    kubernetes.add_service(SERVICE, PORT, target="grpc")
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {9000: port}, names={"http": 80, "grpc": 9000})
        async with forward() as opened:
            assert await heard(opened) == b"hello"


async def test_connections_that_are_cut(kubernetes: Kubernetes, forward: Opening) -> None:
    """End for the client, which connects again to the same pod."""
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened:
            async with await connected(opened) as stream:
                assert await stream.receive() == b"hello"
                kubernetes.cut()
                with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                    await stream.receive()
            assert await heard(opened) == b"hello"


async def test_what_fails_later_is_logged_once(kubernetes: Kubernetes, forward: Opening) -> None:
    """Connections that can't be made end; the log says why, until they can be made again."""
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened:
            kubernetes.delete_pod("one")
            with capture_logs() as logs:
                assert [await heard(opened) for _ in range(3)] == [b"", b"", b""]
                kubernetes.add_pod("two", SERVICE, {PORT: port})
                assert await heard(opened) == b"hello"
    assert [(entry["log_level"], entry.get("reason")) for entry in logs if entry["log_level"] != "debug"] == [
        ("warning", f"no pod of service {SERVICE} in namespace default is ready: it has none"),
        ("info", None),
    ]


@pytest.mark.parametrize("said", [b"", bytes(MUCH)])
async def test_nobody_listens_in_the_pod(said: bytes, kubernetes: Kubernetes, forward: Opening) -> None:
    """The cluster only says so on the way, and the log has its words, also where much was said by then."""
    kubernetes.add_pod("one", SERVICE, {})
    async with forward() as opened:
        with capture_logs() as logs:
            async with await connected(opened) as stream:
                with suppress(anyio.BrokenResourceError):
                    await stream.send(said)
                with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await stream.receive()
            await kubernetes.until_forwards(0)
    (reason,) = [entry["reason"] for entry in logs if entry["log_level"] == "warning"]
    assert reason.startswith("port 8080 of pod one: error forwarding port 8080 to pod one")
    assert reason.endswith("connection refused")


# --- the beginning ----------------------------------------------------------------------------------------------


async def refusal(opening: AbstractAsyncContextManager[Forward]) -> KubeError:
    """Why a port-forward does not begin."""
    with pytest.raises(KubeError) as caught:
        async with opening:
            pass
    assert "\n" not in str(caught.value)
    return caught.value


async def test_what_is_not_there(kubernetes: Kubernetes, forward: Opening) -> None:
    """A service, a port, a pod that is ready: each is said before anything is begun."""
    assert isinstance(await refusal(forward(service="nope")), NoSuchServiceError)
    assert isinstance(await refusal(forward(namespace="nope")), NoSuchServiceError)
    assert str(await refusal(forward(port=1))) == f"service {SERVICE} has no port 1: it has 8080"
    assert "it has none" in str(await refusal(forward()))
    kubernetes.add_pod("one", SERVICE, {}, ready=False)
    error = await refusal(forward())
    assert isinstance(error, NoReadyPodError)
    assert str(error).endswith("one is Pending")
    kubernetes.add_service(SERVICE, PORT, target="grpc")
    kubernetes.add_pod("two", SERVICE, {}, names={"http": 80})
    error = await refusal(forward())
    assert isinstance(error, NoSuchPortError)
    assert str(error).endswith("has no port grpc: it has http")


@pytest.mark.parametrize(
    ("verb", "resource"), [("get", "services"), ("list", "pods"), ("get", "pods/portforward")]
)
async def test_rights_that_are_missing(
    verb: str, resource: str, kubernetes: Kubernetes, forward: Opening
) -> None:
    """Each of the three that a port-forward needs is named."""
    kubernetes.add_pod("one", SERVICE, {})
    kubernetes.forbidden.add((verb, resource))
    error = await refusal(forward())
    assert isinstance(error, NotAllowedError)
    assert (error.resource, error.namespace) == (resource, "default")
    assert re.match(rf"not allowed to {verb}( and create)? {resource} in namespace default: ", str(error))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_local_port_that_is_taken(taken: int, kubernetes: Kubernetes, forward: Opening) -> None:
    """Is named."""
    kubernetes.add_pod("one", SERVICE, {})
    error = await refusal(forward(local_port=taken))
    assert isinstance(error, PortTakenError)
    assert str(error).startswith(f"cannot listen on 127.0.0.1:{taken}: ")


async def test_errors_of_the_block_come_through(kubernetes: Kubernetes, forward: Opening) -> None:
    """As they are, not in a group; and the local port is free again."""
    kubernetes.add_pod("one", SERVICE, {})
    opened: Forward | None = None
    with pytest.raises(LookupError, match="of the block"):
        async with forward() as opened:
            raise LookupError("of the block")
    assert opened is not None
    with pytest.raises(OSError, match="All connection attempts failed"):
        await connected(opened)


async def test_more_connections_than_are_allowed_wait(
    kubernetes: Kubernetes, forward: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until others end."""
    monkeypatch.setattr(forwarding_module, "CONNECTIONS", 1)
    async with tcp_server(saying(b"hello")) as port:
        kubernetes.add_pod("one", SERVICE, {PORT: port})
        async with forward() as opened, await connected(opened) as first, await connected(opened) as second:
            assert await first.receive() == b"hello"
            assert kubernetes.forwards == 1
            kubernetes.cut()
            assert await second.receive() == b"hello"
