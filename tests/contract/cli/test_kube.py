"""A service in a cluster, reached through a port-forward that a command makes for itself.

In processes of their own: what speaks to the cluster closes connections after its event loop has ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.cli.conftest import Cli
from tests.contract.cli.terminals import run_program
from tests.contract.service.conftest import Served, serving, unobserved
from tests.world.certificates import Authority
from tests.world.kube import Kubernetes
from tests.world.scripts import LINES
from tests.world.world import World

SERVICE = "image-builder-mk3"


@pytest.fixture
async def kubernetes(authority: Authority) -> AsyncIterator[Kubernetes]:
    """A cluster that serves."""
    async with Kubernetes(authority) as kubernetes:
        yield kubernetes


@pytest.fixture
def kubeconfig(kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with one context, ``dev``, where kubectl looks for it."""
    file = kubernetes.kubeconfig(tmp_path / "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


def run_in(kubernetes: Kubernetes, served: Served, service: str = SERVICE) -> None:
    """Let *served* be what runs in the pod of a service."""
    kubernetes.add_service(service, 8080)
    kubernetes.add_pod("builder-0", service, {8080: served.running.address.port})


async def test_a_build_in_a_cluster(
    world: World, served: Served, kubernetes: Kubernetes, kubeconfig: Path
) -> None:
    """With the context's name only; the port-forward is gone in the end."""
    run_in(kubernetes, served)
    done = await run_program("build", "--ref", world.seed_base_image(), "--kube-context", "dev")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[3:6] == list(LINES)
    await kubernetes.until_forwards(0)


async def test_another_service_with_tls(
    world: World,
    authority: Authority,
    kubernetes: Kubernetes,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name and namespace, in a kubeconfig that is named; the certificate is that of the name in the cluster."""
    files = authority.files("builder")
    tls = {"certPath": files.certificate, "keyPath": files.key}
    monkeypatch.setenv("KUBECONFIG", "/no/such")
    context = ("--kube-context", "dev", "--namespace", "default", "--kubeconfig", str(kubeconfig))
    where = (*context, "--kube-service", "builder")
    async with serving(unobserved(world, server={"services": {"grpc": {"tls": tls}}})) as served:
        run_in(kubernetes, served, "builder")
        done = await run_program("health", *where, "--tls-ca", files.ca)
        other = await run_program("health", *where, "--tls-ca", files.ca, "--tls-server-name", "other.test")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"SERVING\n", b"")
    assert other.returncode == 2
    assert b"its certificate is not for other.test: say whose it is with --tls-server-name" in other.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--kube-context", "staging"), "has no context staging: choose one of dev"),
        (("--kube-context", "dev"), SERVICE),
    ],
)
async def test_what_can_not_be_reached(
    kubernetes: Kubernetes, kubeconfig: Path, options: tuple[str, ...], words: str
) -> None:
    """The cluster's reasons, each in one line."""
    done = await run_program("list", *options)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("imgbuilder list: ")
    assert words in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--namespace", "dev"), "--namespace has no effect without --kube-context"),
        (("--kube-service", "builder"), "--kube-service has no effect without --kube-context"),
        (("--kube-port", "8080"), "--kube-port has no effect without --kube-context"),
        (("--kubeconfig", "file"), "--kubeconfig has no effect without --kube-context"),
        (("--kube-context", "dev", "--host", "builder.test"), "--host has no effect beside --kube-context"),
    ],
)
async def test_options_without_effect(cli: Cli, options: tuple[str, ...], words: str) -> None:
    """Are refused: whoever gives them means something else than what would be done."""
    ran = await cli("list", *options)
    assert (ran.status, ran.err) == (2, f"imgbuilder list: {words} (see imgbuilder list --help)\n")


async def test_a_variable_without_effect(cli: Cli, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is passed over: it says what counts by default."""
    monkeypatch.setenv("IMGBUILDER_HOST", "builder.test")
    ran = await cli("list", "--kube-context", "staging")
    assert "has no context staging" in ran.err
