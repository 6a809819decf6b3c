"""Clients that do not get through TLS, or misuse it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from tests.contract.service.test_tls import NAME, server_tls, trusting
from tests.faults.clients.offender import PATIENCE, PREFACE, offender, opening
from tests.faults.clients.scene import MIB, Scene, attacked, serving
from tests.helpers import in_own_task
from tests.world.certificates import Authority

pytestmark = pytest.mark.asyncio(loop_scope="package")

HELLO = bytes.fromhex("160301020001") + b"\x00\x01\xfc\x03\x03"
"""How a client's hello begins."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom both sides trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def secured(authority: Authority) -> AsyncIterator[Scene]:
    """A service that asks its clients for certificates."""
    tls = server_tls(authority.files(NAME), caPath=str(authority.ca), requireClientCert=True)
    options = trusting(authority, authority.files("client"))
    limits = {"connections": 150, "handshake": "2s"}
    async with in_own_task(serving(options=options, server=tls, limits=limits)) as scene:
        yield scene


def anonymous() -> ssl.SSLContext:
    """A client that shows nothing, and believes everything."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


def known(authority: Authority, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client with a certificate."""
    context = anonymous()
    context.maximum_version = version
    files = authority.files("client")
    context.load_cert_chain(files.certificate, files.key)
    return context


async def test_no_certificate(secured: Scene) -> None:
    """Twenty clients that have none."""
    async with attacked(secured, "TLS without a certificate, 20 connections") as attack:
        for _ in range(20):
            with suppress(ssl.SSLError, ConnectionError):
                async with offender(secured.port, tls=anonymous()) as client:
                    await client.until_closed()
        attack.over()
        await attack.counted("TLS error", times=20)


async def test_handshakes_that_stall(secured: Scene) -> None:
    """A hundred clients that say nothing, or half a hello; there is a limit of 150 connections."""
    loop = asyncio.get_running_loop()
    async with attacked(secured, "stalled TLS on 100 connections") as attack, AsyncExitStack() as stack:
        connections = []
        for hello in [b"", HELLO] * 50:
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", secured.port))
            await loop.sock_sendall(connection, hello)
            connections.append(connection)
        with anyio.fail_after(PATIENCE):
            for connection in connections:
                with suppress(ConnectionError):
                    assert await loop.sock_recv(connection, 1) == b""
        attack.over()
        await attack.counted("no handshake in time", times=100)


async def test_stalled_handshakes_beyond_the_limit(secured: Scene) -> None:
    """They are connections like all others: the oldest make room."""
    loop = asyncio.get_running_loop()
    async with (
        attacked(secured, "stalled TLS on 1,000 connections, of 150", memory=50 * MIB) as attack,
        AsyncExitStack() as stack,
    ):
        for _ in range(1_000):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", secured.port))
        await attack.counted("idle where others need room", times=800)
        attack.over()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_garbage_inside_of_tls(secured: Scene, authority: Authority, version: ssl.TLSVersion) -> None:
    """Bytes on the socket that are no record of this connection."""
    async with attacked(secured, f"garbage inside of TLS {version.name}") as attack:
        async with offender(
            secured.port, hello=PREFACE + opening(1), tls=known(authority, version)
        ) as client:
            bare = client.writer.get_extra_info("socket")
            assert bare is not None
            with socket.socket(fileno=bare.fileno()) as connection:
                try:
                    connection.send(b"\x17\x03\x03\x00\x20" + bytes(32))
                finally:
                    connection.detach()
            await client.until_closed()
            attack.over()
        await attack.counted("TLS error")


@pytest.mark.parametrize(
    ("options", "command"),
    [(["-tls1_2"], b"R\n"), (["-tls1_3"], b"K\n")],
    ids=["renegotiation", "new keys"],
)
async def test_renegotiation(
    secured: Scene, authority: Authority, options: list[str], command: bytes, tmp_path: Path
) -> None:
    """Asking for new keys again and again, which costs the service more than the client."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl")
    files = authority.files("client")
    identity = ["-cert", files.certificate, "-key", files.key]
    async with attacked(
        secured, f"{' '.join(options)[1:]}: {command.decode().strip()} again and again"
    ) as attack:
        program = [
            openssl,
            "s_client",
            "-connect",
            f"127.0.0.1:{secured.port}",
            "-alpn",
            "h2",
            *identity,
            *options,
        ]
        async with await anyio.open_process(program) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with anyio.move_on_after(1), suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await process.stdin.send(PREFACE)
                async for output in process.stdout:
                    if b"---" in output:
                        break
                for _ in range(2000):
                    await process.stdin.send(command)
                    await anyio.sleep(0.0005)
            attack.over()
            await attack.witness.until(12)
            if process.returncode is None:
                process.kill()
