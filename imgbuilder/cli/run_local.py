"""``imgbuilder run-local``: the service on this machine, and the workspace manager of a cluster.

With a context of a kubeconfig it gets the certificates and keeps a port-forward up by itself; without, it uses those
that are there. Says in one line what is missing, and what to do about it.
"""

# ruff: noqa: PLC0415  # imported when it runs, for the other commands to start fast
from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imgbuilder.cli.cluster import (
    SECRET,
    KubeconfigOption,
    SecretOption,
    fetch,
    out_of_date,
    soon_out_of_date,
)
from imgbuilder.cli.lean import import_without_rich
from imgbuilder.cli.options import (
    ConfigOption,
    JsonLogOption,
    Shared,
    VerboseOption,
    refuse_without_effect,
)
from imgbuilder.cli.run import run_service
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.config import Config
    from imgbuilder.runtime.tls import TlsFiles
    from imgbuilder.wsman.handshake import HandshakeError

CONFIG: Final = "config/local.json"
SERVICE: Final = "ws-manager-mk2"
PORT: Final = 8080

OF_CLUSTER: Final = frozenset({"namespace", "kubeconfig", "secret", "service", "service_port"})
WITHOUT_CONTEXT: Final = "without --kube-context (KUBE_CONTEXT)"

FETCH: Final = "imgbuilder cluster get-tls-config"
FORWARD: Final = f"kubectl port-forward service/{SERVICE} {{port}}:{PORT}"


class LocalError(ImgbuilderError):
    """Something is missing on this machine, or does not fit; the text says what to do."""


def run_local(
    context: typer.Context,
    *,
    kube_context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="KUBE_CONTEXT",
            help="Get certificates and a port-forward from the cluster of this context of the kubeconfig.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="NAMESPACE",
            help="Where the workspace manager is.  [default: the context's]",
        ),
    ] = None,
    kubeconfig: KubeconfigOption = None,
    secret: SecretOption = SECRET,
    service: Annotated[str, typer.Option(metavar="NAME", help="The workspace manager's service.")] = SERVICE,
    service_port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT", help="Its port.")] = PORT,
    config: ConfigOption = None,
    json_log: JsonLogOption = None,
    verbose: VerboseOption = None,
) -> int:
    """Run the service on this machine, with the workspace manager of a cluster.

    Its configuration is config/local.json, unless another is given. Without --kube-context, a port-forward and
    certificates must be there, as the configuration names them.
    """
    if kube_context is None:
        refuse_without_effect(context, OF_CLUSTER, WITHOUT_CONTEXT)
        if namespace is not None:
            typer.echo(f"warning: NAMESPACE has no effect {WITHOUT_CONTEXT}", err=True)
    flags = Shared(config=config, json_log=json_log, verbose=verbose).over(context.obj)
    path = flags.config or CONFIG
    files, port = _needed(path)
    if kube_context is not None:
        fetch(files, secret, kube_context=kube_context, namespace=namespace, kubeconfig=kubeconfig)
    _check_files(files)

    @asynccontextmanager
    async def reached(config: Config) -> AsyncIterator[None]:
        """The workspace manager, where *config* says, inside the block."""
        async with AsyncExitStack() as stack:
            if kube_context is not None:
                from imgbuilder.kube.forwarding import forwarding

                forward = forwarding(
                    context=kube_context,
                    namespace=namespace,
                    service=service,
                    port=service_port,
                    local_port=port,
                    kubeconfig=kubeconfig,
                )
                await stack.enter_async_context(forward)
            await _check_reached(config, files, ours=kube_context is not None)
            yield

    as_json = not sys.stderr.isatty() if flags.json_log is None else flags.json_log
    return run_service(path, as_json=as_json, debug=bool(flags.verbose), within=reached)


def _needed(path: str) -> tuple[TlsFiles, int]:
    """The files with certificates, and the port of this machine, that the configuration at *path* names.

    :raises LocalError: if it names none.
    :raises ConfigError: if it is none.
    """
    import_without_rich("structlog")
    from imgbuilder.config import client_files, parse
    from imgbuilder.wsman.target import parse_target

    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}") from error
    wsman = parse(path, text).config.orchestrator.wsman
    if not wsman.tls.enabled:
        raise LocalError(f"{path}: orchestrator.wsman.tls must name the files that certificates go to")
    return client_files(wsman.tls), parse_target(wsman.address).port


def _check_files(files: TlsFiles) -> None:
    """See whether certificates are there, and not out of date.

    :raises LocalError: if they are not.
    """
    from imgbuilder.kube.certificates import validity

    for file in (files.ca, files.certificate, files.key):
        if not Path(file).exists():
            raise LocalError(f"there is no {file}: get it with `{FETCH}`, or set KUBE_CONTEXT")
    now = time.time()
    try:
        found = validity(Path(files.certificate).read_bytes())
    except (OSError, ValueError):
        return  # what is wrong with files is said where the configuration is loaded
    if fault := out_of_date(found, now=now):
        raise LocalError(f"{files.certificate} {fault}, then `{FETCH}`")
    if warning := soon_out_of_date(found, now=now):
        typer.echo(f"warning: {files.certificate} {warning}", err=True)


async def _check_reached(config: Config, files: TlsFiles, *, ours: bool) -> None:
    """See whether the workspace manager can be spoken to.

    :param ours: whether certificates and port-forward were made by this command.
    :raises LocalError: if it can't.
    """
    from imgbuilder.runtime.tls import client_context
    from imgbuilder.wsman.handshake import HandshakeError, check_handshake

    address = config.orchestrator.wsman.address
    try:
        await check_handshake(address, client_context(files))
    except HandshakeError as error:
        raise LocalError(f"workspace manager at {error}: {_advice(error, files, ours=ours)}") from error


def _advice(error: HandshakeError, files: TlsFiles, *, ours: bool) -> str:
    """What to do about *error*."""
    from imgbuilder.wsman.handshake import NobodyThereError, UntrustedClientError, UntrustedServerError
    from imgbuilder.wsman.target import parse_target

    match error:
        case NobodyThereError() if ours:
            return "look at the log of its pod"
        case NobodyThereError():
            forward = FORWARD.format(port=parse_target(error.address).port)
            return f"start `{forward}`, or set KUBE_CONTEXT"
        case UntrustedServerError() | UntrustedClientError() if ours:
            return "the secret is not of this workspace manager: name another with --secret"
        case UntrustedServerError():
            return f"is {files.ca} of another cluster? get it again with `{FETCH}`"
        case UntrustedClientError():
            return f"is {files.certificate} of another cluster? get it again with `{FETCH}`"
        case _:
            return "is it the workspace manager?"
