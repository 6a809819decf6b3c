"""``imgbuilder standalone``: everything that a build needs, on one machine.

Puts the workspace manager and the normal service beside it, which meet only over the loopback, and says where
everything is.
"""

# ruff: noqa: PLC0415  # imported when it runs, for the other commands to start fast
from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from imgbuilder.cli.lean import import_without_rich
from imgbuilder.cli.options import JsonLogOption, Shared, UsageError, VerboseOption
from imgbuilder.cli.run import load_service, only_cause
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.config import Config
    from imgbuilder.standalone.server import Standalone
    from imgbuilder.standalone.settings import StandaloneSettings

ADDRESSES_FILE: Final = "addresses.json"
"""In the data folder while it runs: where everything is, for programs."""

BUILDER_IMAGE: Final = "standalone.invalid/builder:none"
"""Start requests name the image that builds run in; here they run in none."""

Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", show_default=True)]


def standalone(
    context: typer.Context,
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where everything is kept.  [default: imgbuilder/standalone where state belongs]",
        ),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A registry that runs, instead of one that is started."),
    ] = None,
    insecure_registry: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="A registry to speak plain HTTP to; may be repeated."),
    ] = None,
    pull_secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Credentials for registries, as in Docker's config.json."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What builds Dockerfiles: docker, podman, buildkit, buildah.  [default: the first that works]",
        ),
    ] = None,
    allow_weak_isolation: Annotated[
        bool,
        typer.Option(
            "--allow-weak-isolation", help="Use an engine whose builds could take over this machine."
        ),
    ] = False,
    network: Annotated[
        Literal["host", "none"], typer.Option(help="What RUN steps see of the network.")
    ] = "host",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="How many builds run at once.  [default: one a processor]")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What a RUN step may use, such as 4GiB.")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(min=0.01, help="How many processors a RUN step may use.")
    ] = None,
    cache_size: Annotated[
        str, typer.Option(metavar="SIZE", help="What layers kept between builds may take.")
    ] = "10GiB",
    platform: Annotated[
        str | None,
        typer.Option(help="Whose image of a multi-platform image is used.  [default: this machine's]"),
    ] = None,
    allow_file_urls: Annotated[
        bool, typer.Option("--allow-file-urls", help="Clone file:// repositories of this machine.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="The address to listen on; who reaches it can run programs here.")
    ] = "127.0.0.1",
    image_builder_port: Port = 8080,
    wsman_port: Port = 12001,
    supervisor_port: Port = 12002,
    registry_port: Port = 5000,
    no_image_builder: Annotated[
        bool, typer.Option("--no-image-builder", help="Serve the workspace manager only.")
    ] = False,
    json_log: JsonLogOption = None,
    verbose: VerboseOption = None,
) -> int:
    """Run everything that a build needs on this machine.

    Ports may be 0 for any that is free.
    """
    from imgbuilder.core.manifests import InvalidPlatformError, parse_platform

    import_without_rich("structlog", "httpx")
    from imgbuilder.standalone.settings import (
        StandaloneSettings,
        default_concurrency,
        default_data_dir,
        default_platform,
    )

    flags = Shared(json_log=json_log, verbose=verbose).over(context.obj)
    if host in {"", "0.0.0.0", "::"}:  # refused
        raise UsageError("--host must be one address, which is told to clients", context)
    try:
        settings = StandaloneSettings(
            data_dir=data_dir or default_data_dir(),
            host=host,
            wsman_port=wsman_port,
            supervisor_port=supervisor_port,
            registry=registry,
            registry_port=registry_port,
            insecure=frozenset(insecure_registry or ()),
            engine=engine,
            allow_weak_isolation=allow_weak_isolation,
            concurrency=concurrency or default_concurrency(),
            pull_secret_file=pull_secret_file,
            network=network,
            memory=_size("--memory", memory) if memory else None,
            cpus=cpus,
            cache_limit=_size("--cache-size", cache_size),
            allow_file_urls=allow_file_urls,
            platform=parse_platform(platform) if platform else default_platform(),
        )
    except InvalidPlatformError as error:
        raise UsageError(f"--platform: {error}", context) from error
    except ValueError as error:
        raise UsageError(str(error), context) from error
    as_json = not sys.stderr.isatty() if flags.json_log is None else flags.json_log
    port = None if no_image_builder else image_builder_port
    return run_standalone(settings, image_builder_port=port, as_json=as_json, debug=bool(flags.verbose))


def _size(option: str, text: str) -> int:
    """The size *text*, in bytes.

    :raises ValueError: naming *option*, if it is none.
    """
    from imgbuilder.config.values import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def run_standalone(
    settings: StandaloneSettings,
    *,
    image_builder_port: int | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Run until told to stop; the exit status.

    :param image_builder_port: where the image builder listens; None for none.
    :raises ImgbuilderError: if it can't start.
    """
    from imgbuilder.telemetry.logging import logging_to

    with logging_to(sys.stderr, as_json=as_json, debug=debug):
        import anyio
        import structlog

        try:
            anyio.run(serve_standalone, settings, image_builder_port, debug)
        except Exception as error:
            cause = only_cause(error)
            if isinstance(cause, ImgbuilderError):
                raise cause from error
            structlog.get_logger(__name__).exception("the standalone workspace manager failed")
            return 1
    return 0


async def serve_standalone(
    settings: StandaloneSettings,
    image_builder_port: int | None,
    debug: bool,
) -> None:
    """Serve until SIGTERM or SIGINT, which also end a start that is not complete."""
    import anyio

    stop = anyio.Event()
    ready = False

    async def serve(group: anyio.abc.TaskGroup) -> None:
        nonlocal ready
        async with _everything(settings, image_builder_port, debug=debug) as text:
            ready = True
            typer.echo(text)
            sys.stdout.flush()
            await stop.wait()
        group.cancel_scope.cancel()

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(serve, group)
            async for _ in signals:
                stop.set()
                if not ready:
                    group.cancel_scope.cancel()


@asynccontextmanager
async def _everything(
    settings: StandaloneSettings,
    image_builder_port: int | None,
    *,
    debug: bool,
) -> AsyncIterator[str]:
    """All of it, inside the block; what its owner is told."""
    from contextlib import AsyncExitStack

    from imgbuilder.standalone.server import running_standalone

    async with AsyncExitStack() as stack:
        standalone = await stack.enter_async_context(running_standalone(settings))
        image_builder = ""
        if image_builder_port is not None:
            config = image_builder_config(settings, standalone, image_builder_port)
            running = load_service().running(config, debug=debug)
            service = await stack.enter_async_context(running)
            image_builder = str(service.address)
        file = settings.data_dir / ADDRESSES_FILE
        file.write_text(json.dumps(_addresses(standalone, image_builder), indent=2))
        stack.callback(file.unlink, missing_ok=True)
        yield _text(settings, standalone, image_builder)


def image_builder_config(settings: StandaloneSettings, standalone: Standalone, port: int) -> Config:
    """The configuration of the normal service, to go with *standalone*."""
    from imgbuilder.config import Config

    registry = standalone.registry.host
    platform = settings.platform
    address = f"[{settings.host}]:{port}" if ":" in settings.host else f"{settings.host}:{port}"
    document = {
        "orchestrator": {
            "wsman": {"address": standalone.wsman},
            "pullSecret": "pull-secret",
            "pullSecretFile": str(settings.pull_secret_file or ""),
            "baseImageRepository": f"{registry}/base-images",
            "workspaceImageRepository": f"{registry}/workspace-images",
            "builderImage": BUILDER_IMAGE,
        },
        "server": {"services": {"grpc": {"address": address}}},
        "registries": {
            "insecure": sorted(standalone.insecure),
            "platform": "/".join(filter(None, (platform.os, platform.architecture, platform.variant))),
        },
        "logs": {"folder": str(settings.data_dir / "logs")},
        "telemetry": {"metricsAddress": "", "probesAddress": ""},
        "shutdown": {"drain": "2s"},
    }
    return Config.model_validate_json(json.dumps(document))


def _addresses(standalone: Standalone, image_builder: str) -> dict[str, str]:
    return {
        "imageBuilder": image_builder,
        "workspaceManager": standalone.wsman,
        "supervisors": standalone.supervisors,
        "registry": standalone.registry.host,
    }


def _text(settings: StandaloneSettings, standalone: Standalone, image_builder: str) -> str:
    found = standalone.engine.capabilities
    if found is not None:
        engine = f"{found.name} {found.version} ({found.isolation})"
    else:
        engine = "none: only images can be built from; install docker, podman or buildah"
    lines = [
        "imgbuilder is ready",
        *([f"  image builder      {image_builder}  (gRPC)"] if image_builder else []),
        f"  workspace manager  {standalone.wsman}  (gRPC)",
        f"  supervisors        {standalone.supervisors}",
        f"  registry           {standalone.registry.host}  ({standalone.registry.source})",
        f"  build engine       {engine}",
        f"  data               {settings.data_dir.absolute()}",
    ]
    if image_builder:
        lines += ["", f"  try: imgbuilder build --host {image_builder} --git URL"]
    return "\n".join([*lines, "", "Stop it with Ctrl-C."])
