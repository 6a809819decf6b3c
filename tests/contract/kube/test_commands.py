"""`imgbuilder cluster get-tls-config` and `imgbuilder run-local`, as their users run them."""

# ruff: noqa: ASYNC240  # files are looked at while nobody waits
from __future__ import annotations

import datetime as dt
import json
import random
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
import yaml  # type: ignore[import-untyped]  # reads the role

from imgbuilder.cli.cluster import FOLDER
from imgbuilder.cli.main import execute
from imgbuilder.config import client_files, parse
from imgbuilder.kube.tlsfiles import files_in
from imgbuilder.pb.builder import BuildRequest
from imgbuilder.runtime.tls import server_context
from imgbuilder.wsman import handshake
from tests.contract.service.client import connected, dockerfile, statuses
from tests.world.certificates import WORKSPACE_MANAGER, Authority
from tests.world.kube import Kubernetes, client_secret
from tests.world.process import PROGRAM, ServiceProcess, service_process
from tests.world.scripts import waiting
from tests.world.serving import HOST
from tests.world.workspaces import WorkspaceManager
from tests.world.world import World

SECRET = "ws-manager-mk2-client-tls"
SERVICE = "ws-manager-mk2"
PORT = 8080

DOCS = (Path(__file__).parents[3] / "docs/run-local.md").read_text()
ROLE = yaml.safe_load(re.findall(r"```yaml\n(.+?)```", DOCS, re.DOTALL)[0])
EXPLAINED = re.findall(r"^\| `(.+?)` \|", DOCS, re.MULTILINE)
"""What is explained of the lines that commands end with."""

FETCH = "imgbuilder cluster get-tls-config"


@pytest.fixture(autouse=True)
def _surroundings(
    authority: Authority, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder to work in, a kubeconfig, and little to trust, since a system's trust store takes long to read."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("KUBE_CONTEXT", raising=False)
    monkeypatch.delenv("NAMESPACE", raising=False)
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of a command."""

    status: int
    out: str
    err: str


def explained(error: str) -> str:
    """The one line that *error* is, which the documentation explains."""
    (line,) = error.splitlines()
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:12001", line).removeprefix("imgbuilder: ")
    assert any(words in line for words in EXPLAINED), line
    return line


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a command that ends by itself."""

    async def run(*arguments: str) -> Done:
        status = await anyio.to_thread.run_sync(execute, list(arguments))
        out, err = capfd.readouterr()
        return Done(status=status, out=out, err=err)

    return run


# --- get-tls-config ---------------------------------------------------------------------------------------------


async def test_certificates_are_fetched(kubernetes: Kubernetes, authority: Authority, command: Any) -> None:
    """Into a folder of their own, and it is said until when they are valid."""
    kubernetes.secrets[SECRET] = client_secret(authority)
    done = await command("cluster", "get-tls-config")
    assert done.status == 0
    assert re.sub(r"\d{4}-\d\d-\d\d", "2027-02-22", done.out) in DOCS
    for name, content in client_secret_files(Path("wsman-tls")).items():
        assert content == kubernetes.secrets[SECRET][name]


def client_secret_files(folder: Path) -> dict[str, bytes]:
    """The files that were written."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_all_can_be_named(kubernetes: Kubernetes, authority: Authority, command: Any) -> None:
    """Context, namespace, secret, folder, kubeconfig."""
    kubernetes.secrets["other"] = client_secret(authority)
    named = kubernetes.kubeconfig(Path("named"), namespace="elsewhere")
    arguments = ["--kube-context", "dev", "--namespace", "default", "--secret", "other", "--out", "out"]
    done = await command("cluster", "get-tls-config", "--kubeconfig", str(named), *arguments)
    assert (done.status, done.err) == (0, "")
    assert len(client_secret_files(Path("out"))) == 3


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (dt.timedelta(days=-1), "has expired on"),
        (dt.timedelta(days=3), "expires soon, on"),
    ],
)
async def test_a_certificate_that_is_not_valid_for_long(
    ends: dt.timedelta, words: str, kubernetes: Kubernetes, authority: Authority, command: Any
) -> None:
    """Is written, with a word of warning."""
    kubernetes.secrets[SECRET] = client_secret(authority, ends=dt.datetime.now(dt.UTC) + ends)
    done = await command("cluster", "get-tls-config")
    assert done.status == 0
    assert done.err.startswith(f"warning: the certificate in secret {SECRET} {words} ")


async def test_what_can_not_be_fetched(kubernetes: Kubernetes, authority: Authority, command: Any) -> None:
    """One line says why, and no file is made."""
    complete = client_secret(authority)
    fetch = partial(command, "cluster", "get-tls-config")
    assert (await fetch()).err == (
        f"imgbuilder: there is no secret {SECRET} in namespace default: is it the right namespace?\n"
    )
    assert "has no context prod: choose one of dev" in explained((await fetch("--kube-context", "prod")).err)
    for key in complete:
        kubernetes.secrets[SECRET] = {**complete, key: b""}
        assert (await fetch()).err == f"imgbuilder: secret {SECRET}: {key} is missing\n"
    kubernetes.forbidden.add(("get", "secrets"))
    done = await fetch()
    assert done.status == 1
    assert explained(done.err).startswith("not allowed to get secrets in namespace default")
    assert not Path("wsman-tls").exists()


# --- run-local --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def workspaces(authority: Authority) -> AsyncIterator[World]:
    """A world whose workspace manager wants certificates."""
    tls = server_context(authority.files(WORKSPACE_MANAGER), require_client_certificate=True)
    async with World(manager=WorkspaceManager(tls=tls)) as world:
        yield world


def configured(world: World, port: int, **overrides: Any) -> dict[str, Any]:
    """The configuration that fits config/local.json, but for ports and registries."""
    local = json.loads((Path(__file__).parents[3] / "config/local.json").read_text())
    wsman = {**local["orchestrator"]["wsman"], "address": f"localhost:{port}"}
    return world.service_config(orchestrator={"wsman": wsman}, **overrides)


def offered(kubernetes: Kubernetes, world: World, authority: Authority) -> None:
    """All that is needed of the cluster."""
    kubernetes.secrets[SECRET] = client_secret(authority)
    kubernetes.add_service(SERVICE, PORT, target="rpc")
    kubernetes.add_pod("one", SERVICE, {9000: world.manager.port}, names={"rpc": 9000})


def free_port() -> int:
    """A port of this machine that nobody listens to, and that systems give to nobody by themselves."""
    while True:
        port = random.randrange(18_000, 31_000)
        with suppress(OSError), socket.create_server((HOST, port)):
            return port


@asynccontextmanager
async def run_local(config: dict[str, Any], folder: Path) -> AsyncIterator[ServiceProcess]:
    """The program, running."""
    command = [str(PROGRAM), "run-local", "--config", str(folder / "service.json"), "--json-log"]
    async with service_process(config, folder, command=command) as process:
        yield process


async def test_a_build_through_a_port_forward_of_our_own(
    kubernetes: Kubernetes, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a context alone; the workspace manager's pod is replaced meanwhile, and the build still gets its end."""
    monkeypatch.setenv("KUBE_CONTEXT", "dev")
    kubernetes.rules = ROLE["rules"]  # and with no more rights than it takes
    finish = anyio.Event()
    async with workspaces(authority) as world:
        world.script = waiting(finish)
        offered(kubernetes, world, authority)
        config = configured(world, free_port())
        async with (
            run_local(config, tmp_path) as process,
            connected(int(process.host.rpartition(":")[2])) as client,
            client.open(BuildRequest(source=dockerfile())) as build,
        ):
            assert statuses([await build.next()]) == ["running"]
            kubernetes.delete_pod("one")
            kubernetes.add_pod("two", SERVICE, {9000: world.manager.port}, names={"rpc": 9000})
            listed = len(world.manager.received("GetWorkspaces"))
            await world.manager.wait_for_calls("GetWorkspaces", listed + 1)
            finish.set()
            assert statuses(await build.rest())[-1] == "done_success"
        assert await process.wait() == 0


async def test_a_build_through_a_port_forward_that_is_there(
    kubernetes: Kubernetes, authority: Authority, tmp_path: Path, command: Any
) -> None:
    """With the certificates that were fetched before."""
    kubernetes.secrets[SECRET] = client_secret(authority)
    assert (await command("cluster", "get-tls-config")).status == 0
    async with (
        workspaces(authority) as world,
        run_local(configured(world, world.manager.port), tmp_path) as process,
        connected(int(process.host.rpartition(":")[2])) as client,
    ):
        assert statuses(await client.build(dockerfile()))[-1] == "done_success"


async def refused(command: Any, config: dict[str, Any], *arguments: str) -> str:
    """The one line that run-local ends with."""
    Path("local.json").write_text(json.dumps(config))
    done = await command("run-local", "--config", "local.json", *arguments)
    assert done.status == 1
    assert done.out == ""
    return explained(done.err)


async def test_nothing_is_there_yet(world: World, command: Any) -> None:
    """No certificates; a configuration that names none; none at all."""
    assert await refused(command, configured(world, 1)) == (
        f"there is no wsman-tls/ca.crt: get it with `{FETCH}`, or set KUBE_CONTEXT"
    )
    assert "orchestrator.wsman.tls must name the files" in await refused(command, world.service_config())
    done = await command("run-local")
    assert done.err == "imgbuilder: config/local.json: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("option", ["--namespace", "--secret", "--service", "--service-port", "--kubeconfig"])
async def test_options_without_a_context(command: Any, option: str) -> None:
    """Are refused, since nothing is asked of the cluster then."""
    done = await command("run-local", option, "1")
    words = f"{option} has no effect without --kube-context (KUBE_CONTEXT)"
    assert (done.status, done.err) == (
        2,
        f"imgbuilder run-local: {words} (see imgbuilder run-local --help)\n",
    )


async def test_a_namespace_without_a_context(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a variable, which may be meant for others, it is passed over; that is said."""
    monkeypatch.setenv("NAMESPACE", "dev")
    done = await command("run-local")
    assert done.err.startswith("warning: NAMESPACE has no effect without --kube-context (KUBE_CONTEXT)\n")


async def test_nothing_listens(
    kubernetes: Kubernetes, authority: Authority, world: World, command: Any
) -> None:
    """It is said how to start what should."""
    kubernetes.secrets[SECRET] = client_secret(authority)
    await command("cluster", "get-tls-config")
    assert await refused(command, configured(world, 1)) == (
        "workspace manager at localhost:1: nothing listens there: "
        "start `kubectl port-forward service/ws-manager-mk2 1:8080`, or set KUBE_CONTEXT"
    )


async def test_somebody_is_silent(
    kubernetes: Kubernetes, authority: Authority, world: World, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not answer is not waited for."""
    kubernetes.secrets[SECRET] = client_secret(authority)
    await command("cluster", "get-tls-config")
    monkeypatch.setattr(handshake, "DEADLINE", 0.2)
    with socket.create_server((HOST, 0)) as silent:
        line = await refused(command, configured(world, silent.getsockname()[1]))
    assert "it does not answer: start `kubectl port-forward" in line


def test_the_configuration_that_is_there() -> None:
    """Has no unknown keys, and the names that certificates are written under."""
    path = Path(__file__).parents[3] / "config/local.json"
    loaded = parse(str(path), path.read_bytes())
    assert not loaded.unknown_keys
    assert client_files(loaded.config.orchestrator.wsman.tls) == files_in(FOLDER)
    assert loaded.config.orchestrator.wsman.address == "localhost:12001"


async def test_certificates_that_do_not_fit(
    kubernetes: Kubernetes, authority: Authority, command: Any, tmp_path: Path
) -> None:
    """Ours or theirs: of another cluster, of another name, out of date; or there is no TLS at all."""
    stranger = Authority(tmp_path, name="stranger")
    kubernetes.secrets[SECRET] = client_secret(stranger)
    await command("cluster", "get-tls-config")
    async with workspaces(authority) as world:
        line = await refused(command, configured(world, world.manager.port))
        assert "its certificate is not from our authority: is wsman-tls/ca.crt of another cluster?" in line
        kubernetes.secrets[SECRET] = {**client_secret(stranger), "ca.crt": authority.ca.read_bytes()}
        await command("cluster", "get-tls-config")
        line = await refused(command, configured(world, world.manager.port))
        assert "it does not accept our certificate: is wsman-tls/tls.crt of another cluster?" in line
        kubernetes.secrets[SECRET] = client_secret(authority, ends=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        await command("cluster", "get-tls-config")
        line = await refused(command, configured(world, world.manager.port))
        assert line.startswith("wsman-tls/tls.crt has expired on 2020-01-01: have it renewed in the cluster")
        kubernetes.secrets[SECRET] = client_secret(authority)
        await command("cluster", "get-tls-config")
        async with WorkspaceManager() as plain:
            line = await refused(command, configured(world, plain.port))
        assert "it does not speak TLS: is it the workspace manager?" in line
        line = await refused(command, configured(world, kubernetes.port))
        assert "its certificate is not for ws-manager, the name of workspace managers" in line


async def test_a_cluster_that_lacks_something(
    kubernetes: Kubernetes, authority: Authority, world: World, command: Any
) -> None:
    """The errors of contexts, secrets, services and rights come through as they are."""
    config = configured(world, free_port())
    local = partial(refused, command, config, "--kube-context")
    assert "has no context prod" in await local("prod")
    assert f"there is no secret {SECRET}" in await local("dev")
    kubernetes.secrets[SECRET] = client_secret(authority)
    assert f"there is no service {SERVICE}" in await local("dev")
    offered(kubernetes, world, authority)
    kubernetes.forbidden.add(("get", "pods/portforward"))
    assert "not allowed to get and create pods/portforward in namespace default" in await local("dev")
    kubernetes.forbidden.clear()
    line = await refused(command, configured(world, kubernetes.port), "--kube-context", "dev")
    assert line == "cannot listen on 127.0.0.1:12001: Address already in use"


async def test_nobody_listens_in_the_pod(kubernetes: Kubernetes, authority: Authority, world: World) -> None:
    """The log has what the cluster says of it, and the last line what to do."""
    offered(kubernetes, world, authority)
    kubernetes.pods["one"].serves = {}
    Path("local.json").write_text(json.dumps(configured(world, free_port())))
    # a process, since the loggers of this one would stay as the command sets them up
    command = [str(PROGRAM), "run-local", "--config", "local.json", "--kube-context", "dev"]
    with anyio.fail_after(30):
        done = await anyio.run_process(command, check=False)
    logged, line = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert json.loads(logged)["reason"].endswith("connection refused")
    assert line.endswith("it closes connections at once: look at the log of its pod")
