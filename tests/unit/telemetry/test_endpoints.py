"""The HTTP endpoints, over real connections."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest

from imgbuilder.telemetry.endpoints import Endpoints, ListenError, serve_endpoints
from imgbuilder.telemetry.metrics import Metrics

LOCAL = ("127.0.0.1", 0)


class Service:
    """Something that is ready, or says what it waits for."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.metrics = Metrics()

    def ready(self) -> tuple[bool, list[str]]:
        """Ready where there is nothing to wait for."""
        return not self.reasons, self.reasons

    @asynccontextmanager
    async def serving(
        self, metrics: tuple[str, int] | None = LOCAL, probes: tuple[str, int] | None = LOCAL
    ) -> AsyncIterator[Endpoints]:
        """The endpoints of this service."""
        async with serve_endpoints(
            metrics=self.metrics, ready=self.ready, metrics_address=metrics, probes_address=probes
        ) as endpoints:
            yield endpoints


async def get(port: int, path: str, host: str = "127.0.0.1", **headers: str) -> httpx.Response:
    """One request on a connection of its own."""
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{host}:{port}{path}", headers=headers)


async def test_metrics_are_shown_in_the_form_that_is_asked_for() -> None:
    """Plain text by default, OpenMetrics where it is accepted."""
    service = Service()
    service.metrics.build_started()
    async with service.serving() as endpoints:
        plain = await get(endpoints.metrics_port, "/metrics")
        openmetrics = await get(endpoints.metrics_port, "/metrics", accept="application/openmetrics-text")
    assert plain.status_code == openmetrics.status_code == 200
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "gitpod_image_builder_builds_started_total 1.0" in plain.text
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_ready_says_what_is_waited_for() -> None:
    """503 with the reasons, then 200; being alive is another matter."""
    service = Service()
    service.reasons = ["not subscribed to the workspace manager"]
    async with service.serving() as endpoints:
        waiting = await get(endpoints.probes_port, "/ready")
        live = await get(endpoints.probes_port, "/live")
        service.reasons = []
        ready = await get(endpoints.probes_port, "/ready")
    assert (waiting.status_code, waiting.json()) == (
        503,
        {"ready": False, "reasons": ["not subscribed to the workspace manager"]},
    )
    assert live.status_code == 200
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "reasons": []})


async def test_each_shows_its_own_and_nothing_else() -> None:
    """Probes are open to the cluster, metrics are not."""
    async with Service().serving() as endpoints:
        assert (await get(endpoints.probes_port, "/metrics")).status_code == 404
        assert (await get(endpoints.metrics_port, "/ready")).status_code == 404
        response = await get(endpoints.probes_port, "/")
    assert response.status_code == 404
    assert "server" not in response.headers


async def test_what_has_no_address_is_not_served() -> None:
    """Either may be turned off."""
    async with Service().serving(metrics=None, probes=None) as endpoints:
        assert endpoints == Endpoints()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no IPv6")
async def test_no_host_means_all_interfaces() -> None:
    """By IPv4 and by IPv6, on one port."""
    async with Service().serving(probes=("", 0)) as endpoints:
        assert (await get(endpoints.probes_port, "/live")).status_code == 200
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            return  # a container without IPv6
        assert (await get(endpoints.probes_port, "/live", host="[::1]")).status_code == 200


async def test_a_port_that_is_taken_is_named() -> None:
    """The error has the address, and what was served before is served no more."""
    with socket.create_server(LOCAL) as taken:
        port = taken.getsockname()[1]
        service = Service()
        for address in (("127.0.0.1", port), ("", port)):
            with pytest.raises(
                ListenError, match=rf"^cannot listen on {address[0]}:{port}: Address already in use$"
            ) as info:
                async with service.serving(probes=address):
                    pytest.fail("served")
            assert info.value.address == f"{address[0]}:{port}"


async def test_a_host_that_is_not_ours_is_named() -> None:
    """Not only ports can be wrong."""
    with pytest.raises(ListenError, match=r"cannot listen on \[2001:db8::1\]:9500: "):
        async with Service().serving(metrics=("2001:db8::1", 9500)):
            pytest.fail("served")


async def test_after_the_block_nothing_is_served() -> None:
    """The ports are free again, idle connections are closed."""
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        Service().serving() as endpoints,
    ):
        await client.get(f"http://127.0.0.1:{endpoints.probes_port}/live")
        port = endpoints.probes_port
    with pytest.raises(httpx.ConnectError):
        await get(port, "/live")
    socket.create_server(("127.0.0.1", port)).close()


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    """Not in a group, and the endpoints are stopped."""
    with pytest.raises(KeyError, match="mine"):
        async with Service().serving() as endpoints:
            raise KeyError("mine")
    with pytest.raises(httpx.ConnectError):
        await get(endpoints.probes_port, "/live")


async def test_a_cancelled_block_stops_the_endpoints() -> None:
    """As at any other end of the block."""
    ports: list[int] = []
    with anyio.CancelScope() as scope:
        async with Service().serving() as endpoints:
            ports.append(endpoints.probes_port)
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(httpx.ConnectError):
        await get(ports[0], "/live")


async def test_signals_are_left_alone() -> None:
    """They are the service's own business."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with Service().serving() as endpoints:
        await get(endpoints.probes_port, "/live")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_headers_without_end_are_cut_off() -> None:
    """A stranger can't fill the memory."""
    async with (
        Service().serving() as endpoints,
        await anyio.connect_tcp("127.0.0.1", endpoints.probes_port) as stream,
    ):
        await stream.send(b"GET /live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000)
        with anyio.fail_after(20):
            assert (await stream.receive()).startswith(b"HTTP/1.1 400")


async def test_pages_are_only_read() -> None:
    """HEAD is GET without a body; anything else is refused."""
    async with Service().serving() as endpoints, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{endpoints.probes_port}/live"
        head = await client.head(url)
        post = await client.post(url)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "3")
    assert post.status_code == 405
