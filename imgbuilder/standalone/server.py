"""A standalone workspace manager: the one place where all of its parts are put together.

Parts are entered from the outside in and left in the opposite order: the registry is there before builds and
after them. Leaving ends what runs, and leaves nothing of it behind.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.registry.dockerconfig import DockerConfigError
from imgbuilder.registry.keychain import Keychain
from imgbuilder.registry.pullsecret import PullSecret
from imgbuilder.registry.session import RegistrySession
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.standalone.content import ContentSettings
from imgbuilder.standalone.engines.protocol import EngineSettings
from imgbuilder.standalone.engines.selection import Selection, select_engine
from imgbuilder.standalone.manager import Manager, ManagerSettings
from imgbuilder.standalone.processes import end_marked
from imgbuilder.standalone.registry_process import (
    RegistryPlace,
    find_registry,
    names_of,
    running_registry,
)
from imgbuilder.standalone.serving import serving_grpc, serving_supervisors
from imgbuilder.standalone.settings import StandaloneSettings
from imgbuilder.standalone.state import DataFolder, open_data_folder
from imgbuilder.standalone.steps import BuildSettings, Steps
from imgbuilder.standalone.supervisor import supervisor_path
from imgbuilder.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class PullSecretError(ImgbuilderError):
    """The file with the credentials can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """A workspace manager that runs, and where.

    :ivar wsman: host and port of the workspace manager.
    :ivar supervisors: the address of the builds' supervisors.
    :ivar insecure: registries that are spoken to over plain HTTP.
    """

    wsman: str
    supervisors: str
    registry: RegistryPlace
    engine: Selection
    insecure: frozenset[str]
    manager: Manager


@asynccontextmanager
async def running_standalone(settings: StandaloneSettings) -> AsyncIterator[Standalone]:
    """A workspace manager that runs inside the block.

    :raises ImgbuilderError: if it can't start; the text is for its owner.
    """
    pull_secret = _pull_secret(settings.pull_secret_file)  # what can't be used is told at once
    async with AsyncExitStack() as stack:
        data = stack.enter_context(open_data_folder(settings.data_dir.absolute()))
        await to_thread.run_sync(end_marked, data.path)  # what a killed run left
        registry = await _registry(settings, data, stack)
        insecure = settings.insecure | (names_of(registry.host) if registry.insecure else set())
        engine_settings = EngineSettings(
            data_dir=data.path,
            allow_weak_isolation=settings.allow_weak_isolation,
            cache_limit=settings.cache_limit,
        )
        engine = await select_engine(settings.engine, engine_settings)
        await to_thread.run_sync(data.clear_scratch)
        session = await stack.enter_async_context(
            RegistrySession(
                RegistrySettings(insecure=insecure, platform=settings.platform), metrics=Metrics()
            ),
        )
        tasks = await stack.enter_async_context(Tasks())
        steps = Steps(
            session=session,
            engine=engine.engine,
            keys=_keychain(pull_secret, tasks, stack),
            settings=_build_settings(settings, data, insecure),
        )
        addresses: list[str] = []
        manager = Manager(
            runner=steps,
            journal=data.journal,
            tasks=tasks,
            settings=ManagerSettings(concurrency=settings.concurrency),
            address_of=lambda workspace_id: f"{addresses[0]}{supervisor_path(workspace_id)}",
            clock=time.time,
        )
        http_port = await stack.enter_async_context(
            serving_supervisors(manager, settings.host, settings.supervisor_port),
        )
        addresses.append(f"http://{_host(settings.host)}:{http_port}")
        port = await stack.enter_async_context(serving_grpc(manager, settings.host, settings.wsman_port))
        stack.push_async_callback(_close, manager)
        yield Standalone(
            wsman=f"{_host(settings.host)}:{port}",
            supervisors=addresses[0],
            registry=registry,
            engine=engine,
            insecure=insecure,
            manager=manager,
        )


async def _registry(
    settings: StandaloneSettings,
    data: DataFolder,
    stack: AsyncExitStack,
) -> RegistryPlace:
    if settings.registry is not None:
        return await find_registry(settings.registry, insecure=settings.registry in settings.insecure)
    context = running_registry(data.registry, settings.registry_port)
    return await stack.enter_async_context(context)


def _pull_secret(file: Path | None) -> PullSecret | None:
    if file is None:
        return None
    try:
        return PullSecret(file)
    except DockerConfigError as error:
        raise PullSecretError(f"--pull-secret-file: {file}: {error.fault}") from error


def _keychain(pull_secret: PullSecret | None, tasks: Tasks, stack: AsyncExitStack) -> Keychain:
    """The credentials in the pull secret, which is watched for changes."""
    if pull_secret is not None:
        tasks.spawn(pull_secret.watch, name="watch the pull secret")
        stack.callback(pull_secret.stop)
    return Keychain(pull_secret=pull_secret, ecr=None, tasks=tasks)


def _build_settings(
    settings: StandaloneSettings,
    data: DataFolder,
    insecure: frozenset[str],
) -> BuildSettings:
    return BuildSettings(
        scratch=data.scratch,
        platform=settings.platform,
        insecure=insecure,
        network=settings.network,
        memory=settings.memory,
        cpus=settings.cpus,
        content=ContentSettings(allow_file_urls=settings.allow_file_urls),
    )


async def _close(manager: Manager) -> None:
    with anyio.CancelScope(shield=True):
        await manager.close()


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
