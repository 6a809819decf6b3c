"""A running service: the one place where all of its parts are put together.

Parts are entered from the outside in and left in the opposite order: clients first, then what watches and
tracks, then what serves. Leaving is in stages: not ready, no new calls, streams end, the rest has until the
deadline.
"""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import structlog

import imgbuilder
from imgbuilder.api.health import Health, HealthState
from imgbuilder.api.imagebuilder import SERVICE, ImageBuilder
from imgbuilder.api.interceptors import Draining, Measuring, Tracing, map_errors, methods_of, service_names
from imgbuilder.api.reflection import Reflection
from imgbuilder.bus import Bus
from imgbuilder.config import Config, client_files, server_files
from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.manifests import parse_platform
from imgbuilder.core.workspace import WorkspaceSettings
from imgbuilder.orchestrator.building import Builder
from imgbuilder.orchestrator.endings import Endings
from imgbuilder.orchestrator.launching import Launcher
from imgbuilder.orchestrator.logs import LogKeeper, LogSettings
from imgbuilder.orchestrator.refcache import RefCache
from imgbuilder.orchestrator.resolving import Repositories, Resolver
from imgbuilder.orchestrator.tracker import Tracker, TrackerSettings
from imgbuilder.orchestrator.watcher import Watcher
from imgbuilder.registry.dockerconfig import DockerConfigError
from imgbuilder.registry.images import RegistryImages
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.runtime.descriptors import allow_many_descriptors
from imgbuilder.runtime.grpc.addresses import Address
from imgbuilder.runtime.grpc.interceptors import Service
from imgbuilder.runtime.grpc.limits import Limits
from imgbuilder.runtime.grpc.server import Server
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.runtime.tls import TlsFiles, client_context, keep_fresh, server_context
from imgbuilder.telemetry.endpoints import Endpoints, ListenError, serve_endpoints
from imgbuilder.telemetry.lag import sample_loop_lag
from imgbuilder.telemetry.metrics import Metrics
from imgbuilder.telemetry.tracing import Tracer, tracing
from imgbuilder.wsman.client import WorkspaceManagerClient
from imgbuilder.wsman.supervisor import SupervisorClient

log = structlog.get_logger(__name__)

Contexts = list[tuple[ssl.SSLContext, TlsFiles]]
"""TLS contexts in use, and the files they are kept fresh from."""

FAREWELL: Final = 0.5
"""Seconds that open streams have to end, when the service does, until clients are told to go elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningService:
    """A service that runs, and where."""

    address: Address
    endpoints: Endpoints
    tracker: Tracker
    metrics: Metrics


async def serve(config: Config, *, debug: bool = False) -> None:
    """Run a service until SIGTERM or SIGINT, and then until it is drained.

    :param debug: whether build workspaces are asked to log in detail as well.
    :raises ImgbuilderError: if it can't start.
    """
    allow_many_descriptors()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with running(config, debug=debug):
            async for number in signals:
                log.info("stopping", signal=signal.Signals(number).name)
                return


@asynccontextmanager
async def running(config: Config, *, debug: bool = False) -> AsyncIterator[RunningService]:
    """A service that runs inside the block, and is drained at its end.

    :raises ImgbuilderError: if it can't start.
    """
    async with AsyncExitStack() as stack:
        contexts: Contexts = []
        metrics = Metrics(registries=_known_registries(config))
        tracer = await stack.enter_async_context(tracing(os.environ))
        images = await stack.enter_async_context(_images(config, metrics, tracer))
        workspaces = await stack.enter_async_context(_workspaces(config, contexts, tracer))
        tasks = await stack.enter_async_context(Tasks())
        bus = Bus()
        logs = await stack.enter_async_context(
            LogKeeper(
                bus=bus,
                supervisor=SupervisorClient(),
                tasks=tasks,
                settings=_log_settings(config),
                metrics=metrics,
            ),
        )
        tracker = Tracker(bus=bus, clock=time.time, settings=_tracker_settings(config), metrics=metrics)
        tracker.on_change(logs.build_changed)
        tracker.on_forget(logs.forget)
        refcache = RefCache(images=images, refs=config.ref_cache.refs, interval=config.ref_cache.interval)
        resolver = Resolver(images=images, refcache=refcache, repositories=_repositories(config))
        launcher = Launcher(
            tracker=tracker,
            workspaces=workspaces,
            settings=_workspace_settings(config, debug=debug),
            tasks=tasks,
            clock=time.time,
            metrics=metrics,
        )
        Endings(tracker=tracker, images=images, workspaces=workspaces, tasks=tasks)
        address = config.orchestrator.wsman.address
        watcher = Watcher(address=address, workspaces=workspaces, tracker=tracker, metrics=metrics)
        builder = Builder(resolver=resolver, tracker=tracker, launcher=launcher, own_credentials=images)
        image_builder = ImageBuilder(resolver=resolver, builder=builder, tracker=tracker, logs=logs)
        metrics.observe_subscribers(bus.subscribers)
        service = await stack.enter_async_context(
            _serving(
                config,
                image_builder,
                watcher=watcher,
                tracker=tracker,
                metrics=metrics,
                tracer=tracer,
                contexts=contexts,
            ),
        )
        tasks.spawn(watcher.run, name="watcher")
        tasks.spawn(tracker.run, name="time limits of builds")
        tasks.spawn(refcache.run, name="reference cache")
        tasks.spawn(sample_loop_lag, metrics.loop_lagged, name="event loop lag")
        tasks.spawn(keep_fresh, contexts, name="TLS files")
        log.info(
            "serving",
            version=imgbuilder.__version__,
            address=str(service.address),
            metrics_port=service.endpoints.metrics_port,
            probes_port=service.endpoints.probes_port,
        )
        yield service


@asynccontextmanager
async def _serving(
    config: Config,
    image_builder: ImageBuilder,
    *,
    watcher: Watcher,
    tracker: Tracker,
    metrics: Metrics,
    tracer: Tracer,
    contexts: Contexts,
) -> AsyncIterator[RunningService]:
    """The service's own addresses: gRPC, metrics and probes."""
    health = HealthState([SERVICE])
    draining = Draining()
    services: list[Service] = [image_builder, Health(health)]
    server = Server(
        [*services, Reflection(service_names(services))],
        limits=Limits(
            message_size=config.limits.message_size,
            connections=config.limits.connections,
            streams=config.limits.streams,
            streams_per_connection=config.limits.streams_per_connection,
            handshake=config.limits.handshake,
            idle=config.limits.idle,
            keepalive=config.limits.keepalive,
            keepalive_timeout=config.limits.keepalive_timeout,
        ),
        interceptors=[Measuring(metrics), Tracing(tracer), map_errors, draining],
        on_cut_off=lambda reason: metrics.peer_cut_off(reason.value),
    )
    metrics.preset_rpcs(methods_of(services))
    serving = True

    def ready() -> tuple[bool, Sequence[str]]:
        reasons = []
        if not serving:
            reasons.append("the service is shutting down")
        if not watcher.subscribed.is_set():
            reasons.append("the workspace manager has not been subscribed to yet")
        return not reasons, reasons

    async with server:
        address = await _listen(server, config, contexts)
        async with serve_endpoints(
            metrics=metrics,
            ready=ready,
            metrics_address=_pair(config.telemetry.metrics_address),
            probes_address=_pair(config.telemetry.probes_address),
        ) as endpoints:
            health.set_serving(True)
            try:
                yield RunningService(address=address, endpoints=endpoints, tracker=tracker, metrics=metrics)
            finally:
                serving = False
                health.end()
                with anyio.CancelScope(shield=True), anyio.move_on_after(config.shutdown.drain):
                    # Who watches the health is told before streams are ended.
                    await anyio.lowlevel.checkpoint()
                    draining.begin()
                    # Only then GOAWAY: some clients, grpclib's too, drop what they wait for when they see it.
                    with anyio.move_on_after(FAREWELL):
                        await server.drained()
                    await server.drain()
                    await server.drained()


async def _listen(server: Server, config: Config, contexts: Contexts) -> Address:
    grpc = config.server.services.grpc
    context = None
    if grpc.tls.enabled:
        files = server_files(grpc.tls)
        context = server_context(files, require_client_certificate=grpc.tls.require_client_cert)
        contexts.append((context, files))
    try:
        return await server.listen(str(grpc.address), tls=context)
    except OSError as error:
        raise ListenError(str(grpc.address), error.strerror or str(error)) from error


def _images(config: Config, metrics: Metrics, tracer: Tracer) -> RegistryImages:
    registries = config.registries
    settings = RegistrySettings(
        insecure=frozenset(registries.insecure),
        mirrors=registries.mirrors,
        platform=parse_platform(registries.platform),
        timeout=registries.timeout,
        lookup_timeout=registries.lookup_timeout,
        connections_per_host=registries.connections_per_host,
    )
    pull_secret_file = config.orchestrator.pull_secret_file
    try:
        return RegistryImages(
            settings,
            metrics=metrics,
            pull_secret_file=Path(pull_secret_file) if pull_secret_file else None,
            ecr=config.orchestrator.enable_additional_ecr_auth,
            tracer=tracer,
        )
    except DockerConfigError as error:
        raise InvalidInputError(
            "orchestrator.pullSecretFile", f"{pull_secret_file}: {error.fault}"
        ) from error


def _workspaces(config: Config, contexts: Contexts, tracer: Tracer) -> WorkspaceManagerClient:
    wsman = config.orchestrator.wsman
    context = None
    if wsman.tls.enabled:
        files = client_files(wsman.tls)
        context = client_context(files)
        contexts.append((context, files))
    return WorkspaceManagerClient(wsman.address, tls=context, tracer=tracer)


def _repositories(config: Config) -> Repositories:
    return Repositories(
        base=config.orchestrator.base_image_repository,
        workspace=config.orchestrator.workspace_image_repository,
    )


def _workspace_settings(config: Config, *, debug: bool) -> WorkspaceSettings:
    return WorkspaceSettings(
        builder_image=config.orchestrator.builder_image,
        pull_secret=config.orchestrator.pull_secret,
        debug=debug,
    )


def _tracker_settings(config: Config) -> TrackerSettings:
    return TrackerSettings(
        maximum_duration=config.builds.maximum_duration,
        retention=config.logs.retention,
        keep_ended=config.builds.keep_ended,
    )


def _log_settings(config: Config) -> LogSettings:
    return LogSettings(
        folder=Path(config.logs.folder) if config.logs.folder else None,
        memory=config.logs.memory,
        max_size=config.logs.max_size,
        max_total=config.logs.max_total,
        followed=config.logs.followed,
    )


def _known_registries(config: Config) -> list[str]:
    repositories = _repositories(config)
    return [repositories.base_registry, repositories.workspace_registry, *config.registries.insecure]


def _pair(address: Address | None) -> tuple[str, int] | None:
    return (address.host, address.port) if address else None
