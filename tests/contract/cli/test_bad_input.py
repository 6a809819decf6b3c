"""What a user gets wrong is one line that says what to do, and exit status 2; never a traceback, never a secret."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from imgbuilder.pb.builder import ImageBuilderBase
from imgbuilder.runtime.tls import server_context
from tests.contract.cli.conftest import Cli, one_line
from tests.contract.cli.others import Lists, grpc, hang_up, http_1, tcp
from tests.contract.service.conftest import serving, unobserved
from tests.world.certificates import Authority
from tests.world.world import World

COMMANDS = (
    ("build", "--ref", "ubuntu"),
    ("build-batch", "-"),
    ("list",),
    ("logs", "ubuntu"),
    ("resolve", "base-image", "ubuntu"),
    ("resolve", "workspace-image", "--ref", "ubuntu"),
    ("health",),
)


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_every_command_says_that_there_is_nobody(cli: Cli, command: tuple[str, ...]) -> None:
    """And how to say where somebody is."""
    address = nobody()
    ran = await cli(*command, "--host", address, stdin="ubuntu\n")
    one_line(
        ran, f"cannot reach an image builder at {address}: nothing listens there: start one, or say where"
    )
    assert ran.err.startswith(f"imgbuilder {command[0]}")
    assert ran.status == 2


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_every_command_says_that_it_is_no_image_builder(cli: Cli, command: tuple[str, ...]) -> None:
    """But another gRPC server."""
    async with grpc(ImageBuilderBase()) as address:
        ran = await cli(*command, "--host", address, stdin="ubuntu\n")
    if command[0] == "build-batch":
        assert ran.status == 1
        assert "failed: ubuntu: what answers at" in ran.err
    else:
        one_line(ran, f"what answers at {address} does not know ")
        assert ran.status == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "--reff", "a"), "No such option: --reff"),
        (("build",), "source: say what to build: --ref IMAGE, --git URL, or a file with a source in JSON"),
        (("build", "--ref", "UPPER"), "--ref: cannot parse image reference 'UPPER'"),
        (("build", "/no/such.json"), "/no/such.json: cannot be read: No such file or directory"),
        (("build", "--ref", "a", "-o", "yaml"), "--output: 'yaml' is none of text, json, jsonpath="),
        (("build", "--ref", "a", "-o", "jsonpath={.a[}"), "--output: jsonpath '{.a[}': "),
        (("build", "--ref", "a", "-o", "template={{"), "--output: template: "),
        (("build", "--ref", "a", "--timeout", "soon"), '--timeout: "soon" is not a duration such as "1h30m"'),
        (("build", "--ref", "a", "--auth", "x=me:hunter2"), "--auth x: give the credentials as env:VARIABLE"),
        (("build", "--ref", "a", "--auth-file", "/etc/hostname"), "--auth-file: /etc/hostname: is not JSON"),
        (("build", "--git", "https://me:hunter2@g.test/a"), "--git: take the password out of the address"),
        (("build-batch", "/no/such"), "/no/such: cannot be read: No such file or directory"),
        (("build-batch",), "the list: names no image: write one a line"),
        (("build-batch", "-j", "0"), "Invalid value for '--concurrency'"),
        (("list", "--watch", "--interval", "0s"), "--interval: must be more than 0"),
        (("list", "--host", "https://builder.test"), "--host: write host:port, without a scheme before it"),
        (("list", "--host", "builder:port"), "--host: 'builder:port' is no address: write host:port"),
        (("list", "--host", "no..such.host"), "there is no such host: see --host"),
        (("list", "--timeout", "-1s"), "--timeout: must be more than 0"),
        (("list", "--tls-ca", "/no/such"), "--tls-ca: /no/such: cannot be read: No such file or directory"),
        (("list", "--tls-cert", "a"), "--tls-cert, --tls-key: give both of them, or none"),
        (("logs",), "Missing argument 'BUILD'"),
        (("resolve", "base-image", "a b"), "IMAGE: cannot parse image reference 'a b'"),
        (("resolve", "images"), "No such command 'images'"),
        (("health", "-o", "jsonpath"), "--output: 'jsonpath' is none of"),
        (("generate", "completion", "tcsh"), "'tcsh'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_command_lines(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    """Without asking anybody, where it can be told without."""
    ran = await cli(*arguments)
    one_line(ran, words)
    assert ran.status == 2
    assert "hunter2" not in ran.err


async def test_a_template_that_goes_wrong(cli: Cli) -> None:
    """With what it says of the answer."""
    async with grpc(Lists([])) as address:
        ran = await cli("list", "--host", address, "-o", "template={{ nothing }}")
    one_line(ran, "--output template: 'nothing' is undefined")
    assert ran.status == 2


# --- what listens there ---------------------------------------------------------------------------------------


async def test_an_old_web_server(cli: Cli) -> None:
    """Is told from a gRPC server."""
    async with tcp(http_1) as address:
        ran = await cli("list", "--host", address)
    one_line(ran, "it answers HTTP/1, not gRPC: is the port right?")
    assert ran.status == 2


async def test_something_that_hangs_up(cli: Cli) -> None:
    """Whatever it is."""
    async with tcp(hang_up) as address:
        plain = await cli("list", "--host", address)
        tls = await cli("list", "--host", address, "--tls")
    one_line(plain, "it hung up at once: is that a gRPC server?")
    one_line(tls, "it does not speak TLS: leave out the --tls options")
    assert (plain.status, tls.status) == (2, 2)


async def test_tls_on_one_side_only(cli: Cli, authority: Authority) -> None:
    """Each says what to do about it."""
    files = authority.files("127.0.0.1")
    async with grpc(Lists([]), tls=server_context(files)) as address:
        ran = await cli("list", "--host", address)
    one_line(ran, "it expects TLS: give --tls-ca with the certificate of its authority (or --tls)")
    async with grpc(Lists([])) as address:
        ran = await cli("list", "--host", address, "--tls-ca", files.ca)
    one_line(ran, "it does not speak TLS: leave out the --tls options")


async def test_certificates(cli: Cli, authority: Authority, tmp_path: Path) -> None:
    """Of another authority or host, missing, and not accepted."""
    other = Authority(tmp_path, name="other")
    files, ours = authority.files("builder.test"), authority.files("client.test")
    theirs = other.files("client.test")
    tls = server_context(files, require_client_certificate=True)
    trusting = ("--tls-ca", files.ca, "--tls-server-name", "builder.test")
    async with grpc(Lists([], []), tls=tls) as address:

        async def ask(*options: str) -> str:
            ran = await cli("list", "--host", address, *options)
            assert ran.status == 2
            one_line(ran, "cannot reach an image builder")
            return ran.err

        assert "its certificate is not trusted (" in await ask("--tls-ca", str(other.ca))
        assert "its certificate is not for 127.0.0.1: say whose it is with" in await ask("--tls-ca", files.ca)
        assert "it may want a certificate, give --tls-cert and --tls-key" in await ask(*trusting)
        assert "it may not accept the certificate of --tls-cert" in await ask(
            *trusting, "--tls-cert", theirs.certificate, "--tls-key", theirs.key
        )
        ran = await cli(
            "list", "--host", address, *trusting, "--tls-cert", ours.certificate, "--tls-key", ours.key
        )
        assert (ran.status, ran.err) == (0, "no builds are running\n")


async def test_a_service_with_tls(cli: Cli, world: World, authority: Authority) -> None:
    """Ours, with its own certificate and a client's."""
    server, ours = authority.files("127.0.0.1"), authority.files("client.test")
    tls = {
        "caPath": server.ca,
        "certPath": server.certificate,
        "keyPath": server.key,
        "requireClientCert": True,
    }
    config = unobserved(world, server={"services": {"grpc": {"tls": tls}}})
    options = ("--tls-ca", ours.ca, "--tls-cert", ours.certificate, "--tls-key", ours.key)
    async with serving(config) as served:
        address = str(served.running.address)
        ran = await cli("build", "--ref", world.seed_base_image(), "--host", address, *options)
        assert (ran.status, ran.err) == (0, "")
        refused = await cli("list", "--host", address, "--tls-ca", ours.ca)
    one_line(refused, "it may want a certificate, give --tls-cert and --tls-key")
