"""Programs that a kubeconfig names for credentials: what they may answer and say, and that nothing is left of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

from imgbuilder.kube import kubeconfig as kubeconfig_module
from imgbuilder.kube.cluster import connected
from imgbuilder.kube.errors import KubeconfigError
from imgbuilder.kube.kubeconfig import load_access
from tests.world.certificates import Authority
from tests.world.kube import TOKEN, Kubernetes, client_secret
from tests.world.workspaces import PATIENCE

VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests."""
    monkeypatch.setattr("imgbuilder.kube.programs.os.isatty", lambda _: False)


def program(script: str, **more: Any) -> dict[str, Any]:
    """A user who runs a script of the shell."""
    return {"exec": {"apiVersion": VERSION, "command": "sh", "args": ["-c", script], **more}}


def printing(status: object, **changes: str) -> str:
    """A script that prints a credential. It is in no quotes that a certificate could end."""
    document = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status, **changes}
    return f"cat <<'END'\n{json.dumps(document)}\nEND\n"


async def test_a_certificate(kubernetes: Kubernetes, authority: Authority, tmp_path: Path) -> None:
    """In the place of a token."""
    secret = client_secret(authority)
    kubernetes.secrets["secret"] = {"key": b"value"}
    status = {
        "token": "",
        "clientCertificateData": secret["tls.crt"].decode(),
        "clientKeyData": secret["tls.key"].decode(),
    }
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", program(printing(status)))
    async with connected(kubeconfig=kubeconfig) as cluster:
        assert await cluster.secret("secret", namespace="default") == {"key": b"value"}


async def test_what_a_program_is_told(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """Its environment, what is wanted, and that it can't ask; it has nothing to read."""
    script = f'cat > {tmp_path}/read; echo "$HOME $ONE $KUBERNETES_EXEC_INFO" > {tmp_path}/told\n'
    user = program(script + printing({"token": "one"}), env=[{"name": "ONE", "value": "two"}])
    access = await load_access(kubeconfig=kubernetes.kubeconfig(tmp_path / "kubeconfig", user))
    assert access.configuration.api_key == {"BearerToken": "Bearer one"}
    home, one, info = (tmp_path / "told").read_text().split(" ", 2)
    assert (home, one) == (os.environ["HOME"], "two")
    assert json.loads(info) == {
        "apiVersion": VERSION,
        "kind": "ExecCredential",
        "spec": {"interactive": False},
    }
    assert (tmp_path / "read").read_bytes() == b""


async def test_what_a_program_says_is_shown(
    kubernetes: Kubernetes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As it says it, since it may be how to log in; and it does not wait for somebody who reads it."""
    script = "echo open this page >&2; head -c 300000 /dev/zero | tr '\\0' x >&2\n"
    user = program(script + printing({"token": TOKEN}))
    await load_access(kubeconfig=kubernetes.kubeconfig(tmp_path / "kubeconfig", user))
    out, err = capfd.readouterr()
    assert err.startswith("open this page\nxxx")
    assert len(err) > 300_000
    assert out == ""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {TOKEN}; exit 3", "exec: sh ended with status 3, see what it said"),
        (f"echo {TOKEN}", f"exec: sh did not print credentials of {VERSION}"),
        (printing({"clientCertificateData": TOKEN}), "exec: sh did not print credentials"),
        (printing({}), "exec: sh did not print credentials"),
        (printing(TOKEN), "exec: sh did not print credentials"),
        (printing({"token": TOKEN}, apiVersion="v0"), "exec: sh did not print credentials"),
        (printing({"token": TOKEN}, kind="Pod"), "exec: sh did not print credentials"),
        ("yes", "exec: a program for credentials prints without an end"),
    ],
)
async def test_no_credentials(script: str, words: str, kubernetes: Kubernetes, tmp_path: Path) -> None:
    """The error says so, without what was printed."""
    kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", program(script))
    with pytest.raises(KubeconfigError) as caught:
        await load_access(kubeconfig=kubeconfig)
    assert f"context dev: {words}" in str(caught.value)
    assert TOKEN not in str(caught.value)


async def test_a_program_that_hangs_is_ended(
    kubernetes: Kubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the time limit, with what it has started; the user hears of another way."""
    monkeypatch.setattr(kubeconfig_module, "LOGIN_DEADLINE", 1.0)
    with Hanging(tmp_path / "pipe") as hanging, anyio.fail_after(PATIENCE):
        kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", hanging.user)
        with pytest.raises(
            KubeconfigError, match="no credentials for context dev in 1 s: log in with kubectl"
        ):
            await load_access(kubeconfig=kubeconfig)
        await hanging.ended()


async def test_a_program_that_nobody_waits_for_is_ended(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """With what it has started."""
    with Hanging(tmp_path / "pipe") as hanging, anyio.fail_after(PATIENCE):
        kubeconfig = kubernetes.kubeconfig(tmp_path / "kubeconfig", hanging.user)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: load_access(kubeconfig=kubeconfig))
            await hanging.started()
            group.cancel_scope.cancel()
        await hanging.ended()


class Hanging:
    """A program that starts another one, and waits for it. As long as one of them is there, it holds a pipe.

    :ivar user: who gets credentials from it.
    """

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self.user = program(f"exec 9> {pipe}; echo started >&9; sleep 600 & wait")
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)

    async def started(self) -> None:
        """Wait until it is there."""
        await anyio.wait_readable(self._pipe)

    async def ended(self) -> None:
        """Wait until none of them is there, or see that they never were."""
        while True:
            try:
                if not os.read(self._pipe, 100):
                    return
            except BlockingIOError:
                await anyio.wait_readable(self._pipe)
