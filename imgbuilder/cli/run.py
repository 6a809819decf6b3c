"""``imgbuilder run``: from the flags to a running service.

Reads the configuration and turns logging on; what a service is made of, `imgbuilder.cli.service` knows.
"""

# ruff: noqa: PLC0415  # imported when a service runs, for the other commands to start fast
from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import typer

from imgbuilder.cli.eventloop import uses_uvloop
from imgbuilder.cli.lean import import_without_rich
from imgbuilder.cli.options import ConfigOption, JsonLogOption, Shared, UsageError, VerboseOption
from imgbuilder.core.errors import ImgbuilderError, InvalidInputError

if TYPE_CHECKING:
    from imgbuilder.config import Config

Surroundings = Callable[["Config"], AbstractAsyncContextManager[object]]
"""Something that a service needs for as long as it runs."""


def run(
    context: typer.Context,
    config: ConfigOption = None,
    json_log: JsonLogOption = None,
    verbose: VerboseOption = None,
) -> int:
    """Run the service."""
    flags = Shared(config=config, json_log=json_log, verbose=verbose).over(context.obj)
    if flags.config is None:
        raise UsageError("Missing option --config FILE", context)
    as_json = not sys.stderr.isatty() if flags.json_log is None else flags.json_log
    return run_service(flags.config, as_json=as_json, debug=bool(flags.verbose))


def run_service(path: str, *, as_json: bool, debug: bool, within: Surroundings | None = None) -> int:
    """Run a service with the configuration file at *path* until it is told to stop; the exit status.

    :param within: what it runs inside of, made of its configuration.
    :raises ConfigError: if the configuration can't work.
    :raises ImgbuilderError: if the service can't start for a reason that a user can mend.
    """
    import_without_rich("structlog", "imgbuilder.config")
    from imgbuilder.config import ConfigError, Fault, load
    from imgbuilder.telemetry.logging import logging_to

    use_uvloop = uses_uvloop(os.environ)
    loaded = load(path)
    with logging_to(sys.stderr, as_json=as_json, debug=debug):
        import anyio
        import structlog

        log = structlog.get_logger(__name__)
        if loaded.unknown_keys:
            log.warning(
                "keys of the configuration that mean nothing here", file=path, keys=loaded.unknown_keys
            )
        try:
            anyio.run(
                partial(_serve, loaded.config, debug=debug, within=within),
                backend_options={"use_uvloop": use_uvloop},
            )
        except Exception as error:
            cause = only_cause(error)
            if isinstance(cause, InvalidInputError):
                raise ConfigError(path, [Fault(cause.field, cause.fault)]) from error
            field = field_to_listen_on(cause, loaded.config)
            if field:
                raise ConfigError(path, [Fault(field, str(cause))]) from error
            if isinstance(cause, ImgbuilderError):
                raise cause from error
            log.exception("the service failed")
            return 1
    return 0


async def _serve(config: Config, *, debug: bool, within: Surroundings | None) -> None:
    from imgbuilder.runtime.memory import settle

    async with nullcontext() if within is None else within(config):
        service = load_service()
        settle()
        await service.serve(config, debug=debug)


def field_to_listen_on(cause: Exception, config: Config) -> str:
    """The field of *config* with the address that can't be listened on; empty if *cause* is something else."""
    from imgbuilder.telemetry.endpoints import ListenError

    fields = {
        "server.services.grpc.address": config.server.services.grpc.address,
        "telemetry.metricsAddress": config.telemetry.metrics_address,
        "telemetry.probesAddress": config.telemetry.probes_address,
    }
    if not isinstance(cause, ListenError):
        return ""
    return next((name for name, address in fields.items() if str(address) == cause.address), "")


def load_service() -> ModuleType:
    """The module that assembles a service: imported late, since it brings everything along."""
    import_without_rich("structlog", "httpx")
    return importlib.import_module("imgbuilder.cli.service")


def only_cause(error: Exception) -> Exception:
    """What went wrong, out of the groups that task groups put it in, where it is one thing."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
