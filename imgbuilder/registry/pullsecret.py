"""The pull-secret file: read at the start, and again whenever its contents change."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
import watchfiles

from imgbuilder.registry.dockerconfig import DockerConfigError, parse_docker_config

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.5
"""Seconds between two looks at the file when nothing is heard of it."""

LARGEST: Final = 4 * 1024 * 1024


class PullSecret:
    """The latest usable contents of a config.json.

    :ivar config: those contents.
    :ivar changed: set when *config* changes, and then replaced by another.
    """

    def __init__(self, path: Path) -> None:
        """Read the file for the first time.

        :raises DockerConfigError: if it can't be read or used.
        """
        # The folder is watched, and must be found again whatever becomes of the working directory.
        self._path = path.absolute()
        self._contents = _contents(self._path)
        self._stop = anyio.Event()
        self._fault = ""
        self.config = parse_docker_config(self._contents)
        self.changed = anyio.Event()

    async def watch(self) -> None:
        """Keep `config` up to date until `stop` is called. Unusable contents leave it as it is.

        A change is seen within two seconds, however it is made: a write in place, another file put in its
        place, or, as Kubernetes does it, another folder put in the place of one that a link leads through.
        """
        try:
            async with aclosing(self._heard()) as wake_ups:
                async for _ in wake_ups:
                    await self._refresh()
        except (OSError, RuntimeError) as error:
            # inotify has limits that others may have used up.
            log.warning("pull secret is looked at, not watched", reason=type(error).__name__)
            await self._look_at_intervals()

    def stop(self) -> None:
        """End `watch` within a moment. Cancelling it would wait for a thread first."""
        self._stop.set()

    def _heard(self) -> Any:
        # Events tell of a change at once. What they can't tell (of a file elsewhere that a link leads to), and
        # what is lost of them, the look at each timeout makes up for.
        return watchfiles.awatch(
            self._path.parent,
            watch_filter=None,
            recursive=False,
            debounce=200,
            rust_timeout=int(INTERVAL * 1000),
            yield_on_timeout=True,
            stop_event=self._stop,
        )

    async def _look_at_intervals(self) -> None:
        while not self._stop.is_set():
            with anyio.move_on_after(INTERVAL):
                await self._stop.wait()
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            contents = await anyio.to_thread.run_sync(_contents, self._path)
            if contents == self._contents:
                self._fault = ""
                return
            self.config = parse_docker_config(contents)
        except DockerConfigError as error:
            if error.fault != self._fault:
                log.error("pull secret can't be used, the former one stays in use", fault=error.fault)  # noqa: TRY400  # the traceback has pieces of the file
            self._fault = error.fault
        else:
            self._contents, self._fault = contents, ""
            log.info("pull secret was read again", registries=len(self.config.auths))
            self.changed.set()
            self.changed = anyio.Event()


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            contents = file.read(LARGEST + 1)
    except OSError as error:
        raise DockerConfigError(f"can't be read: {error.strerror}") from error
    if len(contents) > LARGEST:
        raise DockerConfigError(f"is larger than {LARGEST} bytes")
    return contents
