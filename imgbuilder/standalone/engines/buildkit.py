"""BuildKit: a ``buildkitd`` that runs already, spoken to through ``buildctl``.

The service is its owner's: which registries it speaks plain HTTP to, how much it keeps in its cache and how
RUN steps are isolated is set up there. It ends a build whose client has gone, however that went.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
from anyio import to_thread

from imgbuilder.standalone.engines.credentials import credential_folder
from imgbuilder.standalone.engines.failures import failure, last_words
from imgbuilder.standalone.engines.layouts import layout_folder, open_layout
from imgbuilder.standalone.engines.leftovers import remove_contents
from imgbuilder.standalone.engines.probing import probe_request
from imgbuilder.standalone.engines.progress import ProgressText
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
from imgbuilder.standalone.engines.sources import COPY, plain_dockerfile
from imgbuilder.standalone.processes import (
    Command,
    ProgramNotFoundError,
    Tail,
    ask,
    end_marked,
    environment,
    run,
)

HOST_VARIABLE: Final = "BUILDKIT_HOST"
HINT: Final = "start buildkitd, or set BUILDKIT_HOST to its address"


class BuildKitEngine:
    """Builds through ``buildctl``, a process for each build."""

    name: Final = "buildkit"

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._folder = settings.data_dir.resolve() / "engines" / self.name
        self._address: str | None = None

    async def probe(self) -> Capabilities | Unavailable:
        """Look for a service, and have it build something tiny."""
        self._address = None
        addresses = known_addresses()
        if not addresses:
            return Unavailable(reason="no buildkitd is known to run", hint=HINT)
        reasons = []
        for address in addresses:
            found = await self._try(address)
            if isinstance(found, Capabilities):
                self._address = address
                return found
            reasons.append(f"{address}: {found}")
        return Unavailable(reason="; ".join(reasons), hint=HINT)

    async def build(self, request: BuildRequest, output: Output) -> OciLayout:
        """Build an image; BuildKit writes the layout itself."""
        if self._address is None:
            raise EngineError("buildkit was not found to work")
        return await self._build(self._address, request, output)

    async def sweep(self) -> None:
        """End clients that outlived a crash; the service tidies up after them itself."""
        if await to_thread.run_sync(self._folder.is_dir):
            await to_thread.run_sync(end_marked, self._folder)
            await to_thread.run_sync(remove_contents, self._folder / "probes")

    async def _try(self, address: str) -> Capabilities | str:
        """What the service at *address* can do, or why it can't be used."""
        try:
            answer = await ask(self._command(address, "debug", "info"), limit=self._settings.probe_limit)
            if not answer.exit.ok:
                return last_words(answer.errors) or "it does not say why"
            with (
                anyio.fail_after(self._settings.probe_limit),
                probe_request(self._folder / "probes") as request,
            ):
                await self._build(address, request, Tail())
        except TimeoutError:
            return "takes too long to answer"
        except (ProgramNotFoundError, BuildFailedError, EngineError) as error:
            return str(error)
        version = re.search(r"BuildKit:\s+\S+\s+v?(\S+)", answer.output)
        return Capabilities(
            name=self.name,
            version=version[1] if version else "",
            isolation="containers of buildkitd, as its owner set it up; mostly with this machine's network",
            limits=False,
            bounded_cache=False,
        )

    async def _build(self, address: str, request: BuildRequest, output: Output) -> OciLayout:
        progress = ProgressText()
        said = Tail(output)
        with layout_folder(request.scratch) as layout:
            try:
                with credential_folder(request.scratch, request.pull_auth) as credentials:
                    command = self._command(
                        address,
                        *("build", "--progress", "rawjson", "--frontend", "dockerfile.v0"),
                        *_options(request, plain_dockerfile(request, output)),
                        *("--output", f"type=oci,tar=false,dest={layout}"),
                        DOCKER_CONFIG=str(credentials),
                    )
                    ended = await run(command, lambda chunk: said(progress.feed(chunk)))
                    said(progress.finish())
            except ProgramNotFoundError as error:
                raise EngineError(str(error)) from error
            finally:
                shutil.rmtree(request.scratch / COPY, ignore_errors=True)
            if not ended.ok:
                raise failure(self.name, ended, said.text())
            return await to_thread.run_sync(open_layout, layout)

    def _command(self, address: str, *subcommand: str, **variables: str) -> Command:
        argv = ("buildctl", "--addr", address, *subcommand)
        return Command(argv=argv, env=environment(self._folder, **variables))


def known_addresses() -> list[str]:
    """Where a service may be found: where the environment says, else at the usual sockets that there are."""
    if os.environ.get(HOST_VARIABLE):
        return [os.environ[HOST_VARIABLE]]
    folders = [Path(os.environ[name]) for name in ("XDG_RUNTIME_DIR",) if os.environ.get(name)]
    sockets = [folder / "buildkit" / "buildkitd.sock" for folder in (*folders, Path("/run"))]
    # unlike the method of paths, this takes a folder that this user may not look into for "no"
    return [f"unix://{socket}" for socket in sockets if os.path.exists(socket)]  # noqa: PTH110


def _options(request: BuildRequest, dockerfile: Path) -> Iterator[str]:
    yield from ("--local", f"context={request.context}", "--local", f"dockerfile={dockerfile.parent}")
    yield from ("--opt", f"filename={dockerfile.name}")
    # a base image that is there already is no way around the registry's permissions
    yield from ("--opt", "image-resolve-mode=pull")
    if request.network == "none":
        yield from ("--opt", "force-network-mode=none")
    if request.no_cache:
        yield "--no-cache"
