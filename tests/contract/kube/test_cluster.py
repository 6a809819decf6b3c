"""A cluster: who is let in, and what is said of what goes wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml  # type: ignore[import-untyped]  # kubeconfigs are changed with it
from kubernetes_asyncio.client import ApiClient, Configuration

from imgbuilder.kube import cluster as cluster_module
from imgbuilder.kube.cluster import Cluster, connected
from imgbuilder.kube.errors import (
    ClusterFaultError,
    ClusterUnreachableError,
    KubeconfigError,
    KubeError,
    NoSuchContextError,
    NoSuchKubeconfigError,
    NoSuchSecretError,
    NotAllowedError,
    NotLoggedInError,
)
from imgbuilder.kube.targets import PodPort
from tests.world.certificates import Authority
from tests.world.kube import TOKEN, Kubernetes, certificate_user, exec_user

SECRET = "some-secret"


@pytest.fixture(autouse=True)
def _secret(kubernetes: Kubernetes) -> None:
    kubernetes.secrets[SECRET] = {"key": b"value"}


async def asked(kubeconfig: Path, context: str | None = None, secret: str = SECRET) -> dict[str, bytes]:
    """The secret."""
    async with connected(context=context, kubeconfig=kubeconfig) as cluster:
        return dict(await cluster.secret(secret, namespace=cluster.namespace))


async def refusal(kubeconfig: Path, **options: Any) -> KubeError:
    """Why the secret can't be had."""
    with pytest.raises(KubeError) as caught:
        await asked(kubeconfig, **options)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


def changed(kubeconfig: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The kubeconfig, changed."""
    document = yaml.safe_load(kubeconfig.read_text())
    change(document)
    kubeconfig.write_text(yaml.safe_dump(document))
    return kubeconfig


# --- who is let in ----------------------------------------------------------------------------------------------


async def test_with_a_token(kubeconfig: Path) -> None:
    """As it stands in the kubeconfig."""
    assert await asked(kubeconfig) == {"key": b"value"}
    assert await asked(kubeconfig, "dev") == {"key": b"value"}


async def test_with_a_certificate(kubernetes: Kubernetes, authority: Authority, tmp_path: Path) -> None:
    """In files that the kubeconfig names."""
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", certificate_user(authority))
    assert await asked(kubeconfig) == {"key": b"value"}


async def test_with_a_program(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """Its token is used, for as long as it is accepted; then it is asked again."""
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", exec_user(tmp_path, "first"))
    kubernetes.tokens = {"first"}
    async with connected(kubeconfig=kubeconfig) as cluster, anyio.create_task_group() as group:
        await cluster.secret(SECRET, namespace="default")
        await cluster.secret(SECRET, namespace="default")
        kubernetes.tokens = {"second"}
        exec_user(tmp_path, "second")
        for _ in range(3):
            group.start_soon(lambda: cluster.secret(SECRET, namespace="default"))
    assert (tmp_path / "runs").read_text().count("run") == 2


async def test_clients_of_earlier_credentials_are_closed(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as nothing uses their connections: a port-forward does for as long as it is open."""
    opened: set[ApiClient] = set()

    class Counted(ApiClient):
        def __init__(self, configuration: Configuration) -> None:
            super().__init__(configuration)
            opened.add(self)

        async def close(self) -> None:
            await super().close()
            opened.remove(self)

    monkeypatch.setattr(cluster_module, "ApiClient", Counted)
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", exec_user(tmp_path, "0"))

    async def renewed(cluster: Cluster, token: str) -> None:
        kubernetes.tokens = {token}
        exec_user(tmp_path, token)
        await cluster.secret(SECRET, namespace="default")

    with socket.create_server(("127.0.0.1", 0)) as pod:
        kubernetes.add_pod("one", "service", {8080: pod.getsockname()[1]})
        async with connected(kubeconfig=kubeconfig) as cluster:
            await renewed(cluster, "1")
            assert len(opened) == 1
            async with cluster.port_forward(PodPort(namespace="default", pod="one", port=8080)) as websocket:
                await renewed(cluster, "2")
                await renewed(cluster, "3")
                assert len(opened) == 2
                await websocket.ping()  # would raise
            assert len(opened) == 1
            await renewed(cluster, "4")
            assert len(opened) == 1
    assert not opened


async def test_as_kubectl_finds_it(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG lists files, some of which may be missing; without it, there is one at home."""
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/missing:{kubeconfig}")
    async with connected() as cluster:
        assert await cluster.secret(SECRET, namespace="default")
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoSuchKubeconfigError, match=f"{tmp_path}/.kube/config: there is no such file"):
        async with connected():
            pass


async def test_the_namespace_of_the_context(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """Counts where none is named."""
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", namespace="elsewhere")
    error = await refusal(kubeconfig)
    assert isinstance(error, NoSuchSecretError)
    assert str(error).startswith(f"there is no secret {SECRET} in namespace elsewhere")


# --- what goes wrong --------------------------------------------------------------------------------------------


async def test_no_such_context(kubeconfig: Path) -> None:
    """Those that there are, are named."""
    error = await refusal(kubeconfig, context="prod")
    assert isinstance(error, NoSuchContextError)
    assert str(error) == f"kubeconfig {kubeconfig}: has no context prod: choose one of dev"
    error = await refusal(changed(kubeconfig, lambda document: document.pop("current-context")))
    assert str(error) == f"kubeconfig {kubeconfig}: has no current context: choose one of dev"


@pytest.mark.parametrize("text", ["", "[]", "a: [", "text", "contexts: 7", "contexts: [{}]"])
async def test_no_kubeconfig(text: str, kubeconfig: Path) -> None:
    """A file that is something else is said to be that, without its contents."""
    kubeconfig.write_text(text)  # noqa: ASYNC240  # nobody waits
    assert isinstance(await refusal(kubeconfig), KubeconfigError)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document: document["clusters"].clear(), "context dev is not complete: here is missing"),
        (
            lambda document: document["contexts"][0]["context"].pop("cluster"),
            "not complete: cluster is missing",
        ),
        (
            lambda document: document["users"][0].update(user={"tokenFile": "/no/such/token"}),
            "the credentials of context dev can't be had: /no/such/token: No such file or directory",
        ),
        (
            lambda document: document["users"][0].update(
                user={"client-certificate": "/no/such/cert", "client-key": "/no/such/key"}
            ),
            "context dev: File does not exists: /no/such/cert",
        ),
        (
            lambda document: document["users"][0].update(
                user={
                    "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "/no/such/program"}
                }
            ),
            "the credentials of context dev can't be had: /no/such/program: No such file or directory",
        ),
        (
            lambda document: document["users"][0].update(
                user={
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "sh",
                        "args": ["-c", "echo please log in >&2; exit 3"],
                    }
                }
            ),
            "context dev: exec: sh ended with status 3, see what it said",
        ),
        (
            lambda document: document["clusters"][0]["cluster"].update(
                {"certificate-authority-data": "aGFsbG8="}
            ),
            "the certificates of context dev can't be used",
        ),
    ],
)
async def test_a_kubeconfig_that_can_not_be_used(
    change: Callable[[dict[str, Any]], object], words: str, kubeconfig: Path
) -> None:
    """What is missing is named."""
    error = await refusal(changed(kubeconfig, change))
    assert isinstance(error, KubeconfigError)
    assert words in str(error)


async def test_not_logged_in(kubernetes: Kubernetes, kubeconfig: Path) -> None:
    """Credentials that are refused are got again, once."""
    kubernetes.tokens = set()
    error = await refusal(kubeconfig)
    assert isinstance(error, NotLoggedInError)
    assert str(error).endswith("does not accept the credentials of context dev: log in again")
    assert len(kubernetes.requests) == 2


async def test_not_allowed(kubernetes: Kubernetes, kubeconfig: Path) -> None:
    """The right that is missing is named."""
    kubernetes.forbidden.add(("get", "secrets"))
    error = await refusal(kubeconfig)
    assert isinstance(error, NotAllowedError)
    assert str(error) == (
        "not allowed to get secrets in namespace default: the user of context dev needs a role with that right"
    )


async def test_any_other_answer(kubernetes: Kubernetes, kubeconfig: Path) -> None:
    """With the words of the cluster."""
    kubernetes.broken = (500, json.dumps({"kind": "Status", "message": "etcdserver: request timed out"}))
    error = await refusal(kubeconfig)
    assert isinstance(error, ClusterFaultError)
    assert str(error).endswith("answered 500: etcdserver: request timed out")
    kubernetes.broken = (502, "<html>Bad Gateway</html>")
    assert str(await refusal(kubeconfig)).endswith("answered 502: Bad Gateway")
    kubernetes.broken = (200, "<html>Sign in</html>")
    assert isinstance(await refusal(kubeconfig), ClusterFaultError)


async def test_unreachable(
    kubernetes: Kubernetes, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens, nobody answers, or it is somebody else."""

    def at(server: str) -> Path:
        return changed(kubeconfig, lambda document: document["clusters"][0]["cluster"].update(server=server))

    error = await refusal(at("https://127.0.0.1:1"))
    assert isinstance(error, ClusterUnreachableError)
    assert str(error) == "cluster https://127.0.0.1:1 is unreachable: Connection refused"
    assert "localhost" in str(await refusal(at(f"https://localhost:{kubernetes.port}")))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(cluster_module, "DEADLINE", 0.1)
        error = await refusal(at(f"https://127.0.0.1:{silent.getsockname()[1]}"))
        assert str(error).endswith("is unreachable: no answer in time")
    monkeypatch.undo()
    stranger = Authority(tmp_path, name="stranger")
    async with Kubernetes(authority=stranger) as other:
        error = await refusal(at(f"https://127.0.0.1:{other.port}"))
    assert isinstance(error, ClusterUnreachableError)
    assert "its certificate can't be trusted" in str(error)
