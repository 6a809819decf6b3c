"""Builds with the programs of the containers project, buildah and podman, which build in the same way.

They need no service: each build is a process of its own, and all share one `Store`. Base images are looked up
in their registry for every build all the same, so that a layer that is there already is no way around the
registry's permissions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import structlog

from imgbuilder.standalone.engines.archives import unpack_archive
from imgbuilder.standalone.engines.credentials import credential_folder
from imgbuilder.standalone.engines.failures import failure
from imgbuilder.standalone.engines.layouts import layout_folder
from imgbuilder.standalone.engines.probing import PROBE_MEMORY, probe_request
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
from imgbuilder.standalone.engines.sources import refuse_heredocs
from imgbuilder.standalone.engines.stores import REMOTE, Dialect, Setup, Store
from imgbuilder.standalone.processes import Command, ProgramNotFoundError, Tail, ask, environment, run

log = structlog.get_logger(__name__)

CPU_PERIOD: Final = 100_000
"""Microseconds over which processor time is counted."""

_VERSION: Final = re.compile(r"(\d+)\.(\d+)(?:\.\d+)?")


class ContainersEngine:
    """An engine that runs one of the programs for each build."""

    def __init__(self, dialect: Dialect, settings: EngineSettings) -> None:
        self._dialect = dialect
        self._settings = settings
        self._store = Store(dialect, settings)
        self._setup: Setup | None = None
        self._version = ""

    @property
    def name(self) -> str:
        """The program."""
        return self._dialect.name

    async def probe(self) -> Capabilities | Unavailable:
        """Try the possible setups, the best first, with a tiny build each."""
        self._setup = None
        asked = Command(argv=(self.name, "--version"), env=environment(self._store.folder))
        try:
            answer = await ask(asked, limit=self._settings.probe_limit)
        except ProgramNotFoundError as error:
            return Unavailable(reason=str(error), hint=f"install {self.name}, and runc or crun")
        except TimeoutError:
            return Unavailable(reason=f"{self.name} does not answer", hint=f"reinstall {self.name}")
        version = _VERSION.search(answer.output)
        self._version = version[0] if version else ""
        tried = []
        for setup in self._setups():
            fault = await self._try(setup)
            if fault is None:
                return self._settle(setup)
            tried.append(f"{setup}: {fault}")
        otherwise = "" if self._settings.allow_weak_isolation else ", or allow weak isolation"
        return Unavailable(
            reason="; ".join(tried) or "there is neither crun nor runc",
            hint=f"install runc or crun{otherwise}",
        )

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """Build an image, and export it."""
        if self._setup is None:
            raise EngineError(f"{self.name} was not found to work")
        async with self._store.gate.passing():
            return await self._build(self._setup, request, output)

    async def sweep(self) -> None:
        """Remove what a crash left."""
        await self._store.sweep()

    def _setups(self) -> Iterator[Setup]:
        if not sys.platform.startswith("linux"):
            if self._dialect.passed_on:
                yield REMOTE
            return
        path = environment(self._store.folder)["PATH"]
        runtimes = [name for name in ("crun", "runc") if shutil.which(name, path=path)]
        isolation = "oci" if os.geteuid() == 0 else "rootless"
        for driver in ("overlay", "vfs"):
            for limits in (True, False):
                for runtime in runtimes:
                    yield Setup(driver=driver, isolation=isolation, runtime=runtime, limits=limits)
            if self._settings.allow_weak_isolation:
                yield Setup(driver=driver, isolation="chroot", runtime="", limits=False)

    async def _try(self, setup: Setup) -> str | None:
        """Why *setup* does not work, or None."""
        memory = PROBE_MEMORY if setup.limits else None
        said = Tail()
        try:
            with (
                anyio.fail_after(self._settings.probe_limit),
                probe_request(self._store.probes, memory=memory) as request,
            ):
                async with self._store.gate.passing():
                    await self._build(setup, request, said)
        except TimeoutError:
            return "takes too long"
        except (BuildFailedError, EngineError) as error:
            log.debug("an engine's probe failed", engine=self.name, setup=str(setup), output=said.text())
            return str(error)
        return None

    def _settle(self, setup: Setup) -> Capabilities:
        self._setup = setup
        self._store.use(setup)
        if setup.remote:
            isolation = "containers in podman's virtual machine"
        elif setup.weak:
            isolation = "none worth the name (chroot): a RUN step can take over this machine"
        else:
            user = "root of this machine inside" if setup.isolation == "oci" else "this user inside"
            isolation = f"containers of {setup.runtime}, {user}; kernel and network are this machine's"
        return Capabilities(
            name=self.name,
            version=self._version,
            isolation=isolation,
            limits=setup.limits,
            bounded_cache=not setup.remote,
        )

    async def _build(self, setup: Setup, request: BuildRequest, output: Output) -> OciLayout:
        refuse_heredocs(
            request.dockerfile,
            engine=self.name,
            version=self._version,
            since=self._dialect.heredocs_since,
        )
        with _files(request) as files, layout_folder(request.scratch) as layout:
            ended_well = False
            try:
                image = await self._make(setup, request, files, output)
                await self._run(setup, self._dialect.export(image, files.archive), files, output)
                ended_well = True
            finally:
                with anyio.CancelScope(shield=True):
                    await self._store.after_build(setup, files.temporary, ended_well=ended_well)
            return await unpack_archive(files.archive, layout)

    async def _make(self, setup: Setup, request: BuildRequest, files: _Files, output: Output) -> str:
        """Build an image in the store; its id."""
        with credential_folder(request.scratch, request.pull_auth) as credentials:
            subcommand = (
                *self._dialect.build(setup),
                *self._options(setup, request),
                *("--authfile", str(credentials / "config.json")),
                *("--iidfile", str(files.image_id)),
                str(request.context),
            )
            await self._run(setup, subcommand, files, output)
        return files.image_id.read_text().strip()

    async def _run(self, setup: Setup, subcommand: tuple[str, ...], files: _Files, output: Output) -> None:
        variables = {"TMPDIR": str(files.temporary), "CONTAINERS_REGISTRIES_CONF": str(files.registries)}
        said = Tail(output)
        try:
            ended = await run(self._store.command(setup, *subcommand, **variables), said)
        except ProgramNotFoundError as error:
            raise EngineError(str(error)) from error
        if not ended.ok:
            raise failure(self.name, ended, said.text())

    def _options(self, setup: Setup, request: BuildRequest) -> Iterator[str]:
        yield from ("--file", str(request.dockerfile))
        # the other format has no place for SHELL and HEALTHCHECK
        yield from ("--format", "docker", "--layers", "--force-rm", "--http-proxy=false")
        yield from ("--network", request.network)
        if setup.isolation:
            yield from ("--isolation", setup.isolation)
        if setup.remote and request.insecure:
            yield "--tls-verify=false"  # the file that says it more precisely stays on this side
        if setup.runtime:
            yield from ("--runtime-flag", f"root={self._store.runtime_state(setup.runtime)}")
        if request.no_cache:
            yield "--no-cache"
        if setup.limits and request.memory:
            yield from ("--memory", f"{request.memory}b")
        if setup.limits and request.cpus:
            yield from ("--cpu-period", str(CPU_PERIOD), "--cpu-quota", str(int(request.cpus * CPU_PERIOD)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What one build writes besides its image."""

    temporary: Path
    registries: Path
    image_id: Path
    archive: Path


@contextmanager
def _files(request: BuildRequest) -> Iterator[_Files]:
    """The files of a build; gone afterwards."""
    scratch = request.scratch
    files = _Files(
        temporary=scratch / "temporary",
        registries=scratch / "registries.conf",
        image_id=scratch / "image-id",
        archive=scratch / "image.tar",
    )
    try:
        files.temporary.mkdir()
        files.registries.write_text(registries_conf(request.insecure))
        yield files
    finally:
        for file in (files.registries, files.image_id, files.archive):
            file.unlink(missing_ok=True)
        shutil.rmtree(files.temporary, ignore_errors=True)


def registries_conf(insecure: frozenset[str]) -> str:
    """A ``registries.conf``: short names are Docker Hub's, and plain HTTP only for the registries *insecure*."""
    lines = ['unqualified-search-registries = ["docker.io"]']
    for registry in sorted(insecure):
        lines += ["", "[[registry]]", f"location = {json.dumps(registry)}", "insecure = true"]
    return "\n".join(lines) + "\n"
