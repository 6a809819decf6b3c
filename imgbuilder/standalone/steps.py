"""What a build does, step by step: content, base image, workspace image.

Gives each build a scratch folder of its own and removes it, however the build ends. Says what it does into the
build's terminal. Cancelling ends everything that a step has started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import anyio
from anyio import to_thread

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.manifests import InvalidManifestError, NoManifestForPlatformError, Platform
from imgbuilder.core.permissions import Credentials
from imgbuilder.core.references import Reference
from imgbuilder.registry.blobs import BlobDone
from imgbuilder.registry.copy import copy_image
from imgbuilder.registry.errors import ManifestUnknownError, RegistryError
from imgbuilder.registry.push import push_layout
from imgbuilder.registry.session import RegistrySession
from imgbuilder.standalone.buildtask import BuildTask
from imgbuilder.standalone.content import ContentSettings, prepare_content
from imgbuilder.standalone.dockerfile import BuildFiles, find_build_files, read_dockerfile
from imgbuilder.standalone.engines.protocol import BuildRequest, Engine, Network, OciLayout
from imgbuilder.standalone.engines.selection import NO_ENGINE
from imgbuilder.standalone.executing import Report
from imgbuilder.standalone.state import remove_tree
from imgbuilder.standalone.terminal import Terminal
from imgbuilder.standalone.workspaces import ContentAwaited, Working


class BuildError(ImgbuilderError):
    """A build can't be done, for a reason that its user should read."""


class Keys(Protocol):
    """The workspace manager's own credentials."""

    async def credentials(self, registry: str) -> Credentials | None:
        """Those for *registry*; None if there are none.

        :raises RegistryError: if there should be some, and they can't be had.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """What is the same for all builds.

    :ivar scratch: where each gets its folder.
    :ivar insecure: registries that are spoken to over plain HTTP.
    :ivar network: what RUN steps see of the network.
    :ivar memory: bytes that a RUN step may use; None for no limit. Likewise *cpus*.
    :ivar content: what fetching the content of a workspace may do.
    """

    scratch: Path
    platform: Platform
    insecure: frozenset[str] = frozenset()
    network: Network = "host"
    memory: int | None = None
    cpus: float | None = None
    content: ContentSettings = ContentSettings()  # noqa: RUF009  # frozen


class Steps:
    """The `imgbuilder.standalone.executing.Runner` that really builds.

    :param engine: what builds Dockerfiles; None if nothing does.
    """

    def __init__(
        self,
        *,
        session: RegistrySession,
        engine: Engine | None,
        keys: Keys,
        settings: BuildSettings,
    ) -> None:
        self._session = session
        self._engine = engine
        self._keys = keys
        self._settings = settings

    async def run(self, task: BuildTask, terminal: Terminal, report: Report) -> None:
        """Do one build; see `imgbuilder.standalone.executing.Runner`."""
        async with self._scratch(task.build_id) as folder:
            report(ContentAwaited())
            workspace = folder / "workspace"
            await anyio.Path(workspace).mkdir()
            await prepare_content(
                task.initializer,
                workspace,
                terminal.write,
                settings=self._settings.content,
            )
            if task.build_base:
                layout = await self._build(task, folder, terminal, report)
                await self._push(task, layout, terminal, report)
            await self._make_workspace_image(task, terminal, report)

    @asynccontextmanager
    async def _scratch(self, build_id: str) -> AsyncIterator[Path]:
        folder = self._settings.scratch / build_id
        try:
            await anyio.Path(folder).mkdir(mode=0o700)
            yield folder
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(remove_tree, folder)

    async def _build(self, task: BuildTask, folder: Path, terminal: Terminal, report: Report) -> OciLayout:
        report(Working("building the Dockerfile"))
        if self._engine is None:
            raise BuildError(NO_ENGINE)
        files = await to_thread.run_sync(
            find_build_files,
            folder / "workspace",
            task.dockerfile,
            task.context,
        )
        pull_auth = await self._pull_auth(task, files)
        scratch = folder / "engine"
        await anyio.Path(scratch).mkdir()
        terminal.line(f"building {task.dockerfile} with {self._engine.name}")
        request = BuildRequest(
            build_id=task.build_id,
            context=files.context,
            dockerfile=files.dockerfile,
            scratch=scratch,
            pull_auth=pull_auth,
            insecure=self._settings.insecure,
            network=self._settings.network,
            memory=self._settings.memory,
            cpus=self._settings.cpus,
        )
        return await self._engine.build(request, terminal.write)

    async def _pull_auth(self, task: BuildTask, files: BuildFiles) -> dict[str, Credentials]:
        """What the base images of the Dockerfile are pulled with: only what the request brought along.

        The workspace manager's own credentials are for base and workspace image; whose Dockerfile it is may not
        be somebody who may use them.
        """
        dockerfile = await to_thread.run_sync(read_dockerfile, files.dockerfile)
        found = {image.domain: task.additional_credentials(image.domain) for image in dockerfile.base_images}
        return {registry: credentials for registry, credentials in found.items() if credentials is not None}

    async def _push(self, task: BuildTask, layout: OciLayout, terminal: Terminal, report: Report) -> None:
        report(Working("pushing the base image"))
        terminal.line("pushing the base image")
        with _told_as("cannot push the base image"):
            credentials = await self._credentials(task, task.base)
            await push_layout(
                self._session,
                layout,
                task.base,
                credentials=credentials,
                progress=_progress(terminal),
            )

    async def _make_workspace_image(self, task: BuildTask, terminal: Terminal, report: Report) -> None:
        report(Working("making the workspace image"))
        terminal.line("making the workspace image")
        with _told_as("cannot make the workspace image"):
            await copy_image(
                self._session,
                task.base,
                task.target,
                platform=self._settings.platform,
                source_credentials=await self._credentials(task, task.base),
                target_credentials=await self._credentials(task, task.target),
                progress=_progress(terminal),
            )
        terminal.line("the workspace image is ready")

    async def _credentials(self, task: BuildTask, reference: Reference) -> Credentials | None:
        """What is shown for base and target: the own credentials, where the request refers to them."""
        own = await self._keys.credentials(reference.domain) if task.pull_secret else None
        return own or task.additional_credentials(reference.domain)


_KIB: Final = 1024


def _progress(terminal: Terminal) -> Callable[[BlobDone], None]:
    def tell(done: BlobDone) -> None:
        digest = done.blob.digest.partition(":")[2][:12]
        terminal.line(f"  {digest}  {_readable(done.blob.size):>9}  {done.way.value}")

    return tell


def _readable(size: int) -> str:
    number, units = float(size), ["B", "KiB", "MiB", "GiB"]
    while number >= _KIB and len(units) > 1:
        number /= _KIB
        units.pop(0)
    return f"{number:.0f} {units[0]}" if units[0] == "B" else f"{number:.1f} {units[0]}"


@contextmanager
def _told_as(what: str) -> Iterator[None]:
    """Say in errors of registries *what* can't be done because of them."""
    try:
        yield
    except ManifestUnknownError as error:
        raise BuildError(f"{what}: its base image does not exist ({error})") from error
    except (RegistryError, NoManifestForPlatformError, InvalidManifestError) as error:
        raise BuildError(f"{what}: {error}") from error
