"""What buildah and podman keep between builds, and what they leave behind, below one folder of the engine.

Both keep images and layers in the same kind of store; the commands differ, and are the `Dialect`'s.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog
from anyio import to_thread

from imgbuilder.standalone.engines.failures import last_words
from imgbuilder.standalone.engines.gate import Gate
from imgbuilder.standalone.engines.leftovers import present_mounts_below, remove_contents, unmount_below
from imgbuilder.standalone.engines.protocol import EngineSettings
from imgbuilder.standalone.processes import (
    Answer,
    Command,
    ProgramNotFoundError,
    ask,
    end_marked,
    environment,
)

log = structlog.get_logger(__name__)

COMMAND_LIMIT: Final = 30.0
"""Seconds that one command which tidies up may take."""

CGROUPS: Final = Path("/sys/fs/cgroup")

PRESSING: Final = 1.5
"""How far above its limit the cache may grow while builds that run keep it from being pruned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way of running the engine; whether it works is for a probe to find out.

    :ivar driver: how layers are stored; empty where that, and all else, is up to a service.
    :ivar isolation: how RUN steps are kept apart, as the programs call it.
    :ivar runtime: the program that does it; empty for chroot.
    """

    driver: str
    isolation: str
    runtime: str
    limits: bool

    @property
    def remote(self) -> bool:
        """Whether the program is only the client of a service, whose store is its owner's."""
        return not self.driver

    @property
    def weak(self) -> bool:
        """Whether a RUN step could take over this machine."""
        return self.isolation == "chroot"

    def __str__(self) -> str:
        if self.remote:
            return "service"
        limits = "with limits" if self.limits else ""
        return " ".join(filter(None, (self.driver, self.isolation, self.runtime, limits)))


REMOTE: Final = Setup(driver="", isolation="", runtime="", limits=False)
LOCAL: Final = Setup(driver="overlay", isolation="", runtime="", limits=False)
"""Good enough to look at the store."""


class Dialect(Protocol):
    """How one of the two programs is spoken to."""

    @property
    def name(self) -> str:
        """The program."""
        ...

    @property
    def heredocs_since(self) -> tuple[int, int]:
        """The first version that knows here-documents in a Dockerfile."""
        ...

    @property
    def passed_on(self) -> tuple[str, ...]:
        """The environment variables that say where a service is; none if there can't be one."""
        ...

    def program(self, folder: Path, setup: Setup) -> tuple[str, ...]:
        """The program and the options that every call needs, to keep everything in *folder*."""
        ...

    def build(self, setup: Setup) -> tuple[str, ...]:
        """The subcommand that builds, and the options that are spelled differently."""
        ...

    def export(self, image: str, archive: Path) -> tuple[str, ...]:
        """The subcommand that writes an image into an archive."""
        ...

    @property
    def list_containers(self) -> tuple[str, ...]:
        """The subcommand that prints the containers of builds, one a line."""
        ...

    @property
    def remove_containers(self) -> tuple[str, ...]:
        """The subcommand that removes the containers named after it."""
        ...

    @property
    def prunings(self) -> Sequence[tuple[str, ...]]:
        """The subcommands that make the store smaller, the mildest first."""
        ...


class Store:
    """The engine's folder."""

    def __init__(self, dialect: Dialect, settings: EngineSettings) -> None:
        self.folder = settings.data_dir.resolve() / "engines" / dialect.name
        self.gate = Gate(self._tidy)
        self._dialect = dialect
        self._settings = settings
        self._setup = LOCAL if sys.platform.startswith("linux") else REMOTE

    @property
    def probes(self) -> Path:
        """Where probes build."""
        return self.folder / "probes"

    def runtime_state(self, runtime: str) -> Path:
        """Where a container runtime keeps what it knows of the RUN steps it runs."""
        return self.folder / "runtime" / runtime

    def use(self, setup: Setup) -> None:
        """From now on, tidy up with the program as *setup* has it."""
        self._setup = setup

    def command(self, setup: Setup, *subcommand: str, **variables: str) -> Command:
        """The engine's program with a subcommand."""
        argv = (*self._dialect.program(self.folder, setup), *subcommand)
        passed_on = self._dialect.passed_on if setup.remote else ()
        return Command(argv=argv, env=environment(self.folder, passed_on=passed_on, **variables))

    async def sweep(self) -> None:
        """Remove what a crash left. Only while nothing is built."""
        if not await to_thread.run_sync(self.folder.is_dir):
            return
        await to_thread.run_sync(end_marked, self.folder)
        await self._remove_all_from_runtimes()
        await self._remove_containers()
        await unmount_below(self._settings.data_dir)
        await to_thread.run_sync(remove_contents, self.probes)

    async def after_build(self, setup: Setup, temporary: Path, *, ended_well: bool) -> None:
        """Look after what a build may have left.

        :param temporary: the build's folder for temporary files, as the program left it.
        """
        if not ended_well:
            # Asked to end, the programs tidy up; killed, they leave the RUN step running.
            for container in self._run_steps(setup, temporary):
                await self._remove_from_runtime(container)
            self.gate.due = True
        self.gate.due |= bool(present_mounts_below(self.folder))
        if setup.remote:
            return
        size = await to_thread.run_sync(store_size, self.folder)
        self.gate.due |= size > self._settings.cache_limit
        self.gate.pressing |= size > PRESSING * self._settings.cache_limit

    def _run_steps(self, setup: Setup, temporary: Path) -> list[Path]:
        """What the runtime keeps of the RUN steps that have their bundle in *temporary*, or had it there."""
        state = self.runtime_state(setup.runtime)
        return [container for container in state.glob("*") if _tells_of(container, temporary)]

    async def _tidy(self) -> None:
        """Remove what builds that ended badly left, and prune the cache if it is too large."""
        if self._setup.remote:
            return
        await self._remove_all_from_runtimes()
        await self._remove_containers()
        await unmount_below(self.folder)
        for pruning in self._dialect.prunings:
            size = await to_thread.run_sync(store_size, self.folder)
            if size <= self._settings.cache_limit:
                return
            log.info("pruning the build cache", engine=self._dialect.name, bytes=size)
            await self._ask(self.command(self._setup, *pruning))

    async def _remove_containers(self) -> None:
        if self._setup.remote:
            return  # these are not ours
        listed = await self._ask(self.command(self._setup, *self._dialect.list_containers))
        if listed is not None and listed.output:
            names = listed.output.split()
            await self._ask(self.command(self._setup, *self._dialect.remove_containers, *names))

    async def _remove_all_from_runtimes(self) -> None:
        for container in self.folder.glob("runtime/*/*"):
            await self._remove_from_runtime(container)

    async def _remove_from_runtime(self, container: Path) -> None:
        """End what runs in a container, and remove what its runtime knows of it in the folder *container*."""
        state = container.parent
        argv = (state.name, "--root", str(state), "delete", "--force", container.name)
        await self._ask(Command(argv=argv, env=environment(self.folder)))
        await to_thread.run_sync(_remove_half_made, container)

    async def _ask(self, command: Command) -> Answer | None:
        """What a command that tidies up answers; None, and a line in the log, if it fails."""
        try:
            answer = await ask(command, limit=COMMAND_LIMIT)
        except (ProgramNotFoundError, TimeoutError) as error:
            log.warning("could not tidy up", program=command.name, fault=repr(error))
            return None
        if not answer.exit.ok:
            log.warning("could not tidy up", program=command.name, fault=last_words(answer.errors))
            return None
        return answer


def _remove_half_made(container: Path) -> None:
    """Remove what is left of a container that its runtime does not know, as it was killed while it made it."""
    shutil.rmtree(container, ignore_errors=True)
    for group in (CGROUPS / container.name, *CGROUPS.glob(f"*/{container.name}")):
        with suppress(OSError):  # not there, or in use: by nothing of ours then
            group.rmdir()


def _tells_of(container: Path, temporary: Path) -> bool:
    """Whether a runtime's files in the folder *container* name the folder *temporary*."""
    for file in container.glob("*"):
        try:
            if file.is_file() and str(temporary).encode() in file.read_bytes():
                return True
        except OSError:
            continue  # gone meanwhile
    return False


def storage_options(folder: Path, setup: Setup, *, state: Path) -> tuple[str, ...]:
    """What keeps images and layers in *folder*, and what runs in *state*; spelled alike for both programs."""
    return (
        *("--root", str(folder / "storage")),
        *("--runroot", str(state)),
        *("--storage-driver", setup.driver),
    )


def store_size(folder: Path) -> int:
    """Bytes that the layers in an engine's folder take: what the store says itself, else what its files take."""
    storage = folder / "storage"
    try:
        known = json.loads((storage / "overlay-layers" / "layers.json").read_bytes())
        return sum(layer.get("diff-size", 0) for layer in known)
    except (OSError, ValueError, AttributeError):
        return sum(_sizes(storage))


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118  # thousands of times
            except OSError:
                continue  # deleted meanwhile
