"""The client of supervisors, against one over real HTTP."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import ByteStream

from imgbuilder.core.builds import LogSource
from imgbuilder.core.secrets import Secret
from imgbuilder.core.terminal import ExitCode, ListenDecoder, Output
from imgbuilder.wsman import supervisor as module
from imgbuilder.wsman.errors import SupervisorError
from imgbuilder.wsman.supervisor import SupervisorClient
from tests.world.supervisor import Supervisors

TOKEN = "token-that-nobody-may-see"


@pytest.fixture
async def world() -> AsyncIterator[Supervisors]:
    """A server with one workspace, ``w``, whose supervisor is up."""
    async with Supervisors() as supervisors:
        supervisors.add("w", TOKEN)
        supervisors.come_up("w")
        yield supervisors


def source(world: Supervisors, *, workspace: str = "w", token: str = TOKEN) -> LogSource:
    """Where the log of a workspace is."""
    return LogSource(url=world.url(workspace), owner_token=Secret(token))


async def test_the_terminal_is_known_once_the_task_has_one(world: Supervisors) -> None:
    """An empty alias is no terminal yet."""
    client = SupervisorClient()
    assert await client.terminal(source(world)) is None
    world.open_terminal("w", "7c9")
    assert await client.terminal(source(world)) == "7c9"


class ResetAtOnce(ByteStream):
    """A connection that was reset as soon as it was made, as asyncio and uvloop have it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """There is no socket any more."""
        raise self._error

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Nothing comes."""
        raise anyio.BrokenResourceError

    async def send(self, item: bytes) -> None:
        """Nothing goes."""
        raise anyio.BrokenResourceError

    async def send_eof(self) -> None:
        """Nothing goes."""

    async def aclose(self) -> None:
        """It is closed."""


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), AttributeError("getpeername")])
async def test_a_connection_that_is_reset_at_once_is_a_fault_of_the_supervisor(
    world: Supervisors, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Which is asked again later; any other error would end the log."""

    async def connect(*_: object, **__: object) -> ByteStream:
        return ResetAtOnce(error)

    monkeypatch.setattr(anyio, "connect_tcp", connect)
    with pytest.raises(SupervisorError, match="the connection was lost"):
        await SupervisorClient().terminal(source(world))


async def test_each_request_carries_the_owner_token_and_asks_for_the_contracts_paths(
    world: Supervisors,
) -> None:
    """A slash at the end of the address is dropped, and the alias is quoted."""
    client = SupervisorClient()
    world.open_terminal("w", "a/b c?")
    address = LogSource(url=world.url("w") + "/", owner_token=Secret(TOKEN))
    alias = await client.terminal(address)
    assert alias == "a/b c?"
    async with client.listen(address, alias):
        pass
    assert [request.path for request in world.requests] == [
        "/_supervisor/v1/status/tasks",
        "/_supervisor/v1/terminal/listen/a%2Fb%20c%3F",
    ]
    assert {request.headers["x-gitpod-owner-token"] for request in world.requests} == {TOKEN}


async def test_a_listener_gets_the_backlog_and_then_what_comes(world: Supervisors) -> None:
    """The raw stream is what the decoder turns into output and the exit code."""
    client = SupervisorClient()
    world.open_terminal("w")
    world.write("w", b"before " * 100_000)
    decoder = ListenDecoder()
    async with client.listen(source(world), "1b2c3d") as stream:
        world.write("w", b"after")
        world.exit("w", 0)
        events = [event async for data in stream for event in decoder.feed(data)]
    output = b"".join(event.data for event in events if isinstance(event, Output))
    assert output == (b"before " * 100_000)[-256 * 1024 :] + b"after"
    assert events[-1] == ExitCode(0)


async def test_a_stream_that_breaks_raises(world: Supervisors) -> None:
    """A connection that is cut is no end of the stream."""
    client = SupervisorClient()
    world.open_terminal("w")
    async with client.listen(source(world), "1b2c3d") as stream:
        world.break_streams()
        with pytest.raises(SupervisorError):
            await anext(stream)


async def test_a_stream_that_ends_just_ends(world: Supervisors) -> None:
    """A complete answer ends the iteration."""
    client = SupervisorClient()
    world.open_terminal("w")
    async with client.listen(source(world), "1b2c3d") as stream:
        world.end_streams("w")
        assert [data async for data in stream] == []


@pytest.mark.parametrize("status", [302, 307, 404, 500, 503])
async def test_any_other_status_is_an_error_with_it(world: Supervisors, status: int) -> None:
    """Redirects are not followed: the token is for this address alone."""
    world.workspaces["w"].status = status
    client = SupervisorClient()
    with pytest.raises(SupervisorError) as caught:
        await client.terminal(source(world))
    assert caught.value.status == status
    assert not caught.value.denied
    with pytest.raises(SupervisorError):
        async with client.listen(source(world), "1b2c3d"):
            pytest.fail("it was not there")
    assert len(world.requests) == 2


async def test_a_wrong_token_is_told_apart_and_stays_secret(world: Supervisors) -> None:
    """Errors say that access was denied, and never with what."""
    client = SupervisorClient()
    with pytest.raises(SupervisorError) as caught:
        await client.terminal(source(world, token="wrong-token"))
    assert caught.value.denied
    assert "wrong-token" not in repr(caught.value)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ftp://user:hidden@host/", TOKEN),
        ("http://user:hidden@:80", TOKEN),
        ("http://user:hidden@host:port/", TOKEN),
        ("hidden", TOKEN),
        ("", TOKEN),
        ("http://127.0.0.1:9/", "hidden\r\nx: y"),
        ("http://127.0.0.1:9/", "hidden\u00e4"),
        ("http://127.0.0.1:9/", "hidden"),
        ("http://user:hidden@127.0.0.1:9/", TOKEN),
    ],
)
async def test_an_address_that_does_not_work_is_an_error_without_secrets(url: str, token: str) -> None:
    """Whatever the workspace manager tells as address and token, nothing of it is shown or smuggled in."""
    with pytest.raises(SupervisorError) as caught:
        await SupervisorClient().terminal(LogSource(url=url, owner_token=Secret(token)))
    shown = repr(caught.value) + repr(caught.value.__cause__)
    assert "hidden" not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("text", "terminal"),
    [
        (b'{"result": {"tasks": []}}', None),
        (b'{"result": {}}', None),
        (b'{"result": {"tasks": [{"terminal": ""}, 5, {"terminal": "x"}, {"terminal": "y"}]}}', "x"),
        (b'{"result": {"tasks": [{"id": "1"}]}}', None),
    ],
)
def test_a_task_list_names_the_first_terminal(text: bytes, terminal: str | None) -> None:
    """Tasks without a terminal are passed over."""
    assert module._first_terminal(bytearray(text)) == terminal


@pytest.mark.parametrize("text", [b"", b"<html>", b"[]", b'{"result": {"tasks": 5}', b'{"error": {}}'])
def test_a_task_list_of_another_shape_is_an_error(text: bytes) -> None:
    """What is no task list is no empty one either."""
    with pytest.raises(SupervisorError):
        module._first_terminal(bytearray(text))


@pytest.mark.looptime(start=0)
async def test_a_supervisor_that_never_answers_is_given_up_in_time(world: Supervisors) -> None:
    """The task list takes 15 s at most."""
    world.workspaces["w"].silent = True
    with pytest.raises(SupervisorError, match="in time"):
        await SupervisorClient().terminal(source(world))
    assert 15 <= anyio.current_time() < 16


async def test_a_task_list_without_end_is_not_read(
    world: Supervisors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a supervisor sends is bounded."""
    monkeypatch.setattr(module, "LONGEST_TASKS", 20)
    with pytest.raises(SupervisorError, match="too long"):
        await SupervisorClient().terminal(source(world))


async def test_https_is_verified() -> None:
    """A supervisor with a certificate of an authority that is trusted is read, another is not."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with Supervisors(tls=server) as world:
        world.add("w", TOKEN)
        world.open_terminal("w", "7c9")
        world.write("w", b"x" * 100_000)
        client = SupervisorClient(tls=trusting)
        assert await client.terminal(source(world)) == "7c9"
        async with client.listen(source(world), "7c9") as stream:
            world.exit("w", 3)
            events = ListenDecoder().feed(b"".join([data async for data in stream]))
        assert events == [Output(b"x" * 100_000), ExitCode(3)]
        with pytest.raises(SupervisorError, match="TLS"):
            await SupervisorClient().terminal(source(world))
