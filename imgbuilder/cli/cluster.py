"""``imgbuilder cluster``: what is taken from a Kubernetes cluster, without kubectl."""

# ruff: noqa: PLC0415  # the client library of Kubernetes takes half a second and 40 MiB
from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from imgbuilder.kube.certificates import Validity
    from imgbuilder.kube.tlsfiles import ClientTls
    from imgbuilder.runtime.tls import TlsFiles

SECRET: Final = "ws-manager-mk2-client-tls"  # noqa: S105  # its name
FOLDER: Final = Path("wsman-tls")

SOON: Final = 14 * 24 * 3600.0
"""Seconds before a certificate's end from when on that is worth a word."""

KubeContextOption = Annotated[
    str | None,
    typer.Option(
        "--kube-context", metavar="NAME", help="The context of the kubeconfig.  [default: the current one]"
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="The namespace.  [default: the context's]"),
]
KubeconfigOption = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="The kubeconfig.  [default: as kubectl finds it]"),
]
SecretOption = Annotated[
    str,
    typer.Option("--secret", metavar="NAME", help="The secret with ca.crt, tls.crt and tls.key."),
]

app = typer.Typer()


@app.callback(invoke_without_command=True)
def cluster(context: typer.Context) -> None:
    """Take from a Kubernetes cluster what clients of its workspace manager need."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("get-tls-config")
def get_tls_config(
    kube_context: KubeContextOption = None,
    namespace: NamespaceOption = None,
    secret: SecretOption = SECRET,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the files go.")] = FOLDER,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Write the certificates of a client of the workspace manager to files."""
    from imgbuilder.kube.tlsfiles import files_in

    tls = fetch(files_in(out), secret, kube_context=kube_context, namespace=namespace, kubeconfig=kubeconfig)
    typer.echo(
        f"ca.crt, tls.crt and tls.key are in {out}; the certificate is valid until {day(tls.validity.ends)}"
    )
    now = time.time()
    warning = out_of_date(tls.validity, now=now) or soon_out_of_date(tls.validity, now=now)
    if warning:
        typer.echo(f"warning: the certificate in secret {secret} {warning}", err=True)


def fetch(
    files: TlsFiles,
    secret: str,
    *,
    kube_context: str | None,
    namespace: str | None,
    kubeconfig: Path | None,
) -> ClientTls:
    """Put what *secret* holds into *files*, and tell what that is.

    :raises KubeError: if it can't be had, or does not fit together.
    """
    import anyio

    from imgbuilder.kube.cluster import connected
    from imgbuilder.kube.tlsfiles import client_tls, write

    async def ask() -> ClientTls:
        async with connected(context=kube_context, kubeconfig=kubeconfig) as cluster:
            return await client_tls(cluster, secret, namespace=namespace or cluster.namespace)

    tls = anyio.run(ask)
    write(tls, files)
    return tls


def out_of_date(validity: Validity, *, now: float) -> str:
    """Why a certificate can't be used now, as words that can follow it; empty if it can."""
    if now < validity.begins:
        return f"is not valid before {day(validity.begins)}"
    if now >= validity.ends:
        return f"has expired on {day(validity.ends)}: have it renewed in the cluster"
    return ""


def soon_out_of_date(validity: Validity, *, now: float) -> str:
    """What is to be said of a certificate that can be used, but not for long; empty for nothing."""
    return f"expires soon, on {day(validity.ends)}" if now >= validity.ends - SOON else ""


def day(moment: float) -> str:
    """The date of a Unix time."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).date().isoformat()
