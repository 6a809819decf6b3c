"""The options that client commands share."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from imgbuilder.cli.client.options import ConnectionOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ConnectionOptions(), ""),
        (ConnectionOptions(host="builder.test:9"), "--host builder.test:9"),
        (ConnectionOptions(tls=True), "--tls"),
        (
            ConnectionOptions(host="builder.test", tls_ca="ca", tls_cert="cert", tls_key="key"),
            "--host builder.test --tls-ca ca --tls-cert cert --tls-key key",
        ),
        (ConnectionOptions(kube_context="prod", namespace="dev"), "--kube-context prod --namespace dev"),
        (
            ConnectionOptions(
                kube_context="prod",
                kube_service="builder",
                kube_port=9,
                kubeconfig=Path("f"),
                tls=True,
                tls_server_name="s",
            ),
            "--kube-context prod --kube-service builder --kube-port 9 --kubeconfig f --tls-server-name s --tls",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_reaches_the_same(options: ConnectionOptions, words: str) -> None:
    """Everything that is not as it is by default, TLS included: without it, another command fails."""
    assert options.words() == shlex.split(words)
