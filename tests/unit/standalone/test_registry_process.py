"""The registry: one that runs already, or one of ours."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from imgbuilder.standalone import registry_process
from imgbuilder.standalone.registry_process import (
    RegistryStartError,
    answers_as_registry,
    find_registry,
    is_loopback,
    names_of,
    running_registry,
)
from tests.world.registries.httpd import HttpServer, Respond, Seen
from tests.world.registries.processes import docker_registry


class WebServer(HttpServer):
    """Answers everything with the same."""

    def __init__(self, response: Respond) -> None:
        super().__init__()
        self._response = response

    async def respond(self, request: Seen) -> Respond:
        """The answer."""
        return self._response


def only_cause(error: BaseException) -> BaseException:
    """What went wrong, out of the groups it is in."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def start_error(folder: Path, port: int) -> str:
    """Why no registry is started."""
    with pytest.raises((RegistryStartError, ExceptionGroup)) as failed:
        async with running_registry(folder, port):
            raise AssertionError("it was started")
    cause = only_cause(failed.value)
    assert isinstance(cause, RegistryStartError)
    return str(cause)


async def test_one_of_ours_is_started_and_ended(tmp_path: Path) -> None:
    """It answers inside the block, and not after it; its data are where they should be."""
    async with docker_registry(tmp_path):
        pass  # only to skip where it is not installed
    async with running_registry(tmp_path, 0) as place:
        assert place.insecure
        assert place.source == "started with docker-registry"
        assert await answers_as_registry(f"http://{place.host}")
    assert not await answers_as_registry(f"http://{place.host}")
    assert str(tmp_path / "data") in (tmp_path / "config.yml").read_text()


async def test_one_that_runs_is_used(tmp_path: Path) -> None:
    """Where a registry answers already, none is started, and it is left running."""
    async with docker_registry(tmp_path) as other:
        port = int(other.host.rpartition(":")[2])
        async with running_registry(tmp_path / "ours", port) as place:
            assert place.host == other.host
            assert place.source == "it was running already"
        assert await answers_as_registry(other.url)
        assert (await find_registry(other.host, insecure=False)).insecure


async def test_something_else_on_the_port_is_an_error(tmp_path: Path) -> None:
    """A web server is no registry."""
    async with WebServer(Respond(200, {}, b"hello")) as server:
        port = int(server.host.rpartition(":")[2])
        said = await start_error(tmp_path, port)
        assert f"127.0.0.1:{port}" in said
        assert "--registry-port" in said
        with pytest.raises(RegistryStartError, match="no registry answers at"):
            await find_registry(server.host, insecure=True)


@pytest.mark.parametrize("status", [200, 401])
async def test_a_registry_is_known_by_what_it_says(status: int) -> None:
    """The version of its protocol, or that it wants credentials."""
    async with WebServer(Respond(status, {"Docker-Distribution-Api-Version": "registry/2.0"})) as server:
        assert await answers_as_registry(server.url)
    async with WebServer(Respond(401, {"WWW-Authenticate": 'Bearer realm="https://x"'})) as server:
        assert await answers_as_registry(server.url)
    async with WebServer(Respond(503, {"Docker-Distribution-Api-Version": "registry/2.0"})) as server:
        assert not await answers_as_registry(server.url)


async def test_no_program_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is installed that could be started."""
    monkeypatch.setattr(registry_process, "PROGRAMS", ())
    monkeypatch.setattr(registry_process, "CONTAINERS", ())
    assert "install docker-registry" in await start_error(tmp_path, 0)


async def test_a_program_that_ends_at_once_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is called a registry need not be one; then the next is tried."""
    monkeypatch.setattr(registry_process, "PROGRAMS", ("false",))
    monkeypatch.setattr(registry_process, "CONTAINERS", ())
    assert "no registry program" in await start_error(tmp_path, 0)


def test_loopback_is_known_by_its_names() -> None:
    """Only names that never leave this machine are spoken to over plain HTTP unasked."""
    assert all(map(is_loopback, ("localhost", "localhost:5000", "127.0.0.1:1", "127.1.2.3", "[::1]:5000")))
    assert not any(map(is_loopback, ("example.com", "localhost.example:1", "10.0.0.1:127", "12.7.0.1")))


def test_a_registry_on_this_machine_has_two_names() -> None:
    """Whichever a user writes, it is the same one, and spoken to in the same way."""
    both = {"localhost:5000", "127.0.0.1:5000"}
    assert names_of("127.0.0.1:5000") == names_of("localhost:5000") == both
    for host in ("registry.example.com:5000", "registry.example.com", "127.1.2.3:5000", "[::1]:5000"):
        assert names_of(host) == {host}


async def test_nothing_at_the_address_is_an_error() -> None:
    """A registry that was named has to be there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RegistryStartError, match=f"no registry answers at 127.0.0.1:{port}"):
        await find_registry(f"127.0.0.1:{port}", insecure=False)
