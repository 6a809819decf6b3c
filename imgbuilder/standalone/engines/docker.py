"""Docker: a daemon that runs already, spoken to through ``docker``.

With buildx where the command has it, else with the builder of old. Where the daemon can't export an image
layout (its own builder can't), the image is taken over with ``docker save`` and removed there. What the daemon
keeps in its cache, and which registries it speaks plain HTTP to, is its owner's to set up.
"""

from __future__ import annotations

import enum
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
import structlog
from anyio import to_thread

from imgbuilder.standalone.engines.archives import unpack_archive
from imgbuilder.standalone.engines.credentials import credential_folder
from imgbuilder.standalone.engines.failures import failure, last_words
from imgbuilder.standalone.engines.layouts import layout_folder, open_layout
from imgbuilder.standalone.engines.leftovers import remove_contents
from imgbuilder.standalone.engines.probing import probe_request
from imgbuilder.standalone.engines.protocol import (
    BuildFailedError,
    BuildRequest,
    Capabilities,
    EngineError,
    EngineSettings,
    OciLayout,
    Output,
    Unavailable,
)
from imgbuilder.standalone.engines.sources import COPY, plain_dockerfile, refuse_heredocs
from imgbuilder.standalone.processes import (
    Command,
    ProgramNotFoundError,
    Tail,
    ask,
    end_marked,
    environment,
    run,
)

log = structlog.get_logger(__name__)

PASSED_ON: Final = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_API_VERSION",
    "BUILDX_BUILDER",
    "SSH_AUTH_SOCK",
)
"""How the owner's environment says where the daemon is."""

HINT: Final = "start Docker, and make sure that this user may use it"
REMOVAL_LIMIT: Final = 30.0
CPU_PERIOD: Final = 100_000


class Mode(enum.Enum):
    """Ways of having an image built, the best first."""

    LAYOUT = "buildx, exporting a layout"
    SAVED = "buildx, saving from the daemon"
    LEGACY = "the builder of old, saving from the daemon"


HEREDOCS_SINCE: Final = {Mode.LAYOUT: (0, 0), Mode.SAVED: (23, 0), Mode.LEGACY: (23, 0)}
"""The first version of the daemon that knows here-documents; a builder that exports layouts is one of its own."""


class DockerEngine:
    """Builds through ``docker``, a process for each build."""

    name: Final = "docker"

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._folder = settings.data_dir.resolve() / "engines" / self.name
        # what is left of a crash must be told from what others build with the same daemon
        owner = hashlib.sha256(str(self._folder).encode()).hexdigest()[:12]
        self._repository = f"imgbuilder.invalid/{owner}"
        self._mode: Mode | None = None
        self._version = ""

    async def probe(self) -> Capabilities | Unavailable:
        """Ask for the daemon, and have it build something tiny."""
        self._mode = None
        try:
            asked = self._command("version", "--format", "{{.Server.Version}} {{.Server.Arch}}")
            answer = await ask(asked, limit=self._settings.probe_limit)
            buildx = await ask(self._command("buildx", "version"), limit=self._settings.probe_limit)
        except ProgramNotFoundError as error:
            return Unavailable(reason=str(error), hint="install Docker")
        except TimeoutError:
            return Unavailable(reason="the Docker daemon takes too long to answer", hint=HINT)
        if not answer.exit.ok:
            return Unavailable(reason=last_words(answer.errors) or "no answer", hint=HINT)
        self._version, _, machine = answer.output.partition(" ")
        reasons = []
        for mode in (Mode.LAYOUT, Mode.SAVED) if buildx.exit.ok else (Mode.LEGACY,):
            fault = await self._try(mode, machine)
            if fault is None:
                self._mode = mode
                return self._capabilities(mode)
            reasons.append(f"{mode.value}: {fault}")
        return Unavailable(reason="; ".join(reasons), hint="see what `docker build` says")

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """Build an image."""
        if self._mode is None:
            raise EngineError("docker was not found to work")
        return await self._build(self._mode, request, output)

    async def sweep(self) -> None:
        """End clients that outlived a crash, and remove the images that were not taken over."""
        if not await to_thread.run_sync(self._folder.is_dir):
            return
        await to_thread.run_sync(end_marked, self._folder)
        await to_thread.run_sync(remove_contents, self._folder / "probes")
        listing = ("image", "ls", "--filter", f"reference={self._repository}", "--format", "{{.Tag}}")
        with suppress(ProgramNotFoundError, TimeoutError):
            listed = await ask(self._command(*listing), limit=REMOVAL_LIMIT)
            for tag in listed.output.split() if listed.exit.ok else ():
                await self._remove(f"{self._repository}:{tag}")

    async def _try(self, mode: Mode, machine: str) -> str | None:
        """Why *mode* does not work, or None."""
        said = Tail()
        try:
            with (
                anyio.fail_after(self._settings.probe_limit),
                probe_request(self._folder / "probes", machine=machine) as request,
            ):
                await self._build(mode, request, said)
        except TimeoutError:
            return "takes too long"
        except (BuildFailedError, EngineError) as error:
            log.debug("an engine's probe failed", engine=self.name, mode=mode.value, output=said.text())
            return str(error)
        return None

    def _capabilities(self, mode: Mode) -> Capabilities:
        return Capabilities(
            name=self.name,
            version=self._version,
            isolation="containers of the Docker daemon, its root inside; with a network of their own",
            limits=mode is Mode.LEGACY,
            bounded_cache=False,
        )

    async def _build(self, mode: Mode, request: BuildRequest, output: Output) -> OciLayout:
        since = HEREDOCS_SINCE[mode]
        refuse_heredocs(request.dockerfile, engine=self.name, version=self._version, since=since)
        image = f"{self._repository}:{request.build_id}"
        archive = request.scratch / "image.tar"
        try:
            with layout_folder(request.scratch) as layout:
                with docker_config(request) as config:
                    await self._run(_build_command(mode, request, layout, image, output), config, output)
                    if mode is Mode.LAYOUT:
                        return await to_thread.run_sync(open_layout, layout)
                    await self._run(("save", "--output", str(archive), image), config, output)
                return await unpack_archive(archive, layout)
        finally:
            archive.unlink(missing_ok=True)
            shutil.rmtree(request.scratch / COPY, ignore_errors=True)
            if mode is not Mode.LAYOUT:
                with anyio.CancelScope(shield=True):
                    await self._remove(image)

    async def _run(self, subcommand: tuple[str, ...], config: dict[str, str], output: Output) -> None:
        said = Tail(output)
        try:
            ended = await run(self._command(*subcommand, **config), said)
        except ProgramNotFoundError as error:
            raise EngineError(str(error)) from error
        if not ended.ok:
            raise failure(self.name, ended, said.text())

    async def _remove(self, image: str) -> None:
        """Remove an image from the daemon, if it is there; what it was built from stays, as the cache."""
        with suppress(ProgramNotFoundError, TimeoutError):
            await ask(self._command("image", "rm", "--no-prune", image), limit=REMOVAL_LIMIT)

    def _command(self, *subcommand: str, **variables: str) -> Command:
        env = environment(self._folder, passed_on=(*PASSED_ON, "DOCKER_CONFIG", "BUILDX_CONFIG"), **variables)
        return Command(argv=("docker", *subcommand), env=env)


@contextmanager
def docker_config(request: BuildRequest) -> Iterator[dict[str, str]]:
    """The variables by which ``docker`` finds this build's credentials, and yet the owner's daemon and plugins.

    The program reads all of that from one folder, so the build's own one leads to the owner's for the rest.
    """
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    with credential_folder(request.scratch, request.pull_auth, _owner_settings(own)) as folder:
        for name in ("cli-plugins", "contexts"):
            if (own / name).is_dir():
                (folder / name).symlink_to(own / name)
        yield {
            "DOCKER_CONFIG": str(folder),
            "BUILDX_CONFIG": os.environ.get("BUILDX_CONFIG") or str(own / "buildx"),
            # an index with notes on how it was built is of no use to anyone here
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        }


def _owner_settings(own: Path) -> dict[str, object]:
    """What of the owner's settings says where the daemon and the plugins are."""
    try:
        settings = json.loads((own / "config.json").read_bytes())
        return {
            name: settings[name] for name in ("currentContext", "cliPluginsExtraDirs") if name in settings
        }
    except (OSError, ValueError, TypeError):
        return {}


def _build_command(
    mode: Mode,
    request: BuildRequest,
    layout: Path,
    image: str,
    output: Output,
) -> tuple[str, ...]:
    """The subcommand that builds, into *layout* or, in the daemon, as *image*."""
    dockerfile = request.dockerfile if mode is Mode.LEGACY else plain_dockerfile(request, output)
    result: tuple[str, ...]
    match mode:
        case Mode.LAYOUT:
            result = ("buildx", "build", "--output", f"type=oci,tar=false,dest={layout}")
        case Mode.SAVED:
            result = ("buildx", "build", "--load", "--tag", image)
        case Mode.LEGACY:
            result = ("build", "--tag", image)
    return (*result, *_options(mode, request), "--file", str(dockerfile), str(request.context))


def _options(mode: Mode, request: BuildRequest) -> Iterator[str]:
    yield "--pull"
    if mode is Mode.LEGACY:
        yield "--force-rm"
        if request.memory:
            yield from ("--memory", f"{request.memory}b")
        if request.cpus:
            yield from ("--cpu-period", str(CPU_PERIOD), "--cpu-quota", str(int(request.cpus * CPU_PERIOD)))
    else:
        yield "--progress=plain"
    if request.network == "none":
        yield "--network=none"
    if request.no_cache:
        yield "--no-cache"
