"""A service in a cluster, reached through a port-forward that a command makes for itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.cli.conftest import Cli, one_line
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


async def test_another_service(
    cli: Cli,
    world: World,
    served: Served,
    kubernetes: Kubernetes,
    kubeconfig: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its name and namespace, in a kubeconfig that is named."""
    run_in(kubernetes, served, "builder")
    monkeypatch.setenv("KUBECONFIG", "/no/such")
    options = ("--namespace", "default", "--kube-service", "builder", "--kubeconfig", str(kubeconfig))
    ran = await cli("list", *options)
    assert (ran.status, ran.err) == (0, "no builds are running\n")


async def test_tls_to_the_service(
    cli: Cli, world: World, authority: Authority, kubernetes: Kubernetes, kubeconfig: Path
) -> None:
    """Its certificate is that of its name in the cluster, not of this end of the port-forward."""
    files = authority.files(SERVICE)
    tls = {"certPath": files.certificate, "keyPath": files.key}
    async with serving(unobserved(world, server={"services": {"grpc": {"tls": tls}}})) as served:
        run_in(kubernetes, served)
        ran = await cli("health", "--kube-context", "dev", "--tls-ca", files.ca)
        other = await cli(
            "health", "--kube-context", "dev", "--tls-ca", files.ca, "--tls-server-name", "other.test"
        )
    assert (ran.status, ran.out, ran.err) == (0, "SERVING\n", "")
    one_line(other, "its certificate is not for other.test: say whose it is with --tls-server-name")


async def test_what_can_not_be_reached(cli: Cli, kubernetes: Kubernetes, kubeconfig: Path) -> None:
    """The cluster's reasons, each in one line."""
    ran = await cli("list", "--kube-context", "staging")
    one_line(ran, "has no context staging: choose one of dev")
    assert ran.status == 2
    ran = await cli("list", "--kube-context", "dev")
    one_line(ran, SERVICE)
    assert ran.status == 2
    ran = await cli("list", "--namespace", "default", "--kubeconfig", "/no/such")
    one_line(ran, "/no/such")
    assert ran.status == 2
