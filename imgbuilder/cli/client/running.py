"""From a command's options to its exit status: connects, runs, and makes one line of whatever goes wrong."""

# ruff: noqa: PLC0415  # imported when a command runs, for help to come at once
from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

import typer

from imgbuilder.cli.client.options import ConnectionOptions
from imgbuilder.cli.run import only_cause
from imgbuilder.client.errors import CallError, InvalidOptionError
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from ssl import SSLContext

    from imgbuilder.client.connection import Connection
    from imgbuilder.client.endpoints import Endpoint
    from imgbuilder.client.imagebuilder import ImageBuilderClient

SUCCESS: Final = 0
FAILED: Final = 1
"""The service answered: the build failed, or there is no such image or build."""
NOT_ASKED: Final = 2
"""The command line is wrong, or there was no answer."""
INTERRUPTED: Final = 130
"""As after any Ctrl-C."""
NOBODY_READS: Final = 141
"""As after any closed pipe."""

Work = Callable[["ImageBuilderClient"], Awaitable[int | None]]


def run_client(
    context: typer.Context,
    options: ConnectionOptions,
    work: Work,
    *,
    timeout: str = "",
    interrupted: Callable[[], str] = lambda: "interrupted",
) -> int:
    """Do *work* with a client of the image builder that *options* name; the exit status.

    :param timeout: how long each of its calls may take that is no stream, as a user writes it.
    :param interrupted: says what is to be said after a Ctrl-C.
    :raises UsageError: if an option of *context* has no effect.
    """
    import anyio

    options.check(context)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a build's output may have what the terminal's encoding has not
    try:
        limit = seconds_of("--timeout", timeout) if timeout else None
        return anyio.run(_work, options, work, limit) or SUCCESS
    except KeyboardInterrupt:
        return say_why(context, interrupted(), INTERRUPTED)
    except Exception as error:
        cause = only_cause(error)
        if isinstance(cause, BrokenPipeError):
            # So that Python has nowhere to fail when it flushes in the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return NOBODY_READS
        if isinstance(cause, ImgbuilderError):
            return say_why(context, str(cause), status_of(cause))
        if isinstance(cause, OSError):
            return say_why(context, str(cause), NOT_ASKED)
        raise


def status_of(error: ImgbuilderError) -> int:
    """The exit status that *error* means."""
    if isinstance(error, CallError) and error.at_fault_is_what_was_asked_for:
        return FAILED
    return NOT_ASKED


def say_why(context: typer.Context, text: str, status: int) -> int:
    """Say in one line on standard error why the command ends; *status*."""
    typer.echo(f"{context.command_path}: {' '.join(text.split())}", err=True)
    return status


def seconds_of(option: str, text: str) -> float:
    """The duration *text*, in seconds.

    :raises InvalidOptionError: if it is none, or not more than 0.
    """
    from imgbuilder.config.values import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidOptionError(option, str(error)) from error
    if seconds <= 0:
        raise InvalidOptionError(option, "must be more than 0")
    return seconds


async def _work(options: ConnectionOptions, work: Work, limit: float | None) -> int | None:
    from imgbuilder.client.imagebuilder import LIMIT, ImageBuilderClient

    async with _endpoint(options) as endpoint, _connected(endpoint) as connection:
        return await work(ImageBuilderClient(connection, limit=limit or LIMIT))


def _connected(endpoint: Endpoint) -> Connection:
    from imgbuilder.client.connection import Connection

    return Connection(endpoint)


@asynccontextmanager
async def _endpoint(options: ConnectionOptions) -> AsyncIterator[Endpoint]:
    """Where the image builder can be reached inside the block."""
    from imgbuilder.client.endpoints import Endpoint, client_tls, parse_host

    tls = None
    if options.encrypted:
        tls = client_tls(ca=options.tls_ca, certificate=options.tls_cert, key=options.tls_key)
    if not options.in_cluster:
        yield Endpoint(
            address=parse_host(options.host),
            tls=tls,
            shows_certificate=bool(options.tls_cert),
            server_name=options.tls_server_name,
        )
        return
    from imgbuilder.telemetry.logging import logging_to

    with logging_to(sys.stderr, as_json=False):  # connections may fail on the way, which only the log says
        async with _forwarded(options, tls) as endpoint:
            yield endpoint


@asynccontextmanager
async def _forwarded(options: ConnectionOptions, tls: SSLContext | None) -> AsyncIterator[Endpoint]:
    from imgbuilder.client.endpoints import Endpoint, parse_host
    from imgbuilder.kube.forwarding import forwarding

    async with forwarding(
        context=options.kube_context,
        namespace=options.namespace or None,
        service=options.kube_service,
        port=options.kube_port,
        kubeconfig=options.kubeconfig,
    ) as forward:
        # The certificate is that of the service, not of this end of the tunnel.
        name = options.tls_server_name or options.kube_service
        yield Endpoint(
            address=parse_host(forward.address),
            tls=tls,
            shows_certificate=bool(options.tls_cert),
            server_name=name,
        )
