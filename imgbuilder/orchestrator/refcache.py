"""Keeps the configured references resolved, so that the images most builds start from cost no look-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio
import structlog

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.permissions import Permissions
from imgbuilder.core.references import parse_reference
from imgbuilder.orchestrator.ports import Images

log = structlog.get_logger(__name__)

FIRST_TRY_INTERVAL: Final = 60.0
"""Seconds until references are tried again of which none could be resolved yet."""


class RefCache:
    """References as they are spelled in the configuration, and their digest forms."""

    def __init__(self, *, images: Images, refs: Sequence[str], interval: float) -> None:
        self._images = images
        self._refs = tuple(dict.fromkeys(refs))
        self._interval = interval
        self._resolved: dict[str, str] = {}

    def get(self, ref: str) -> str | None:
        """The digest form of *ref*, as of the last refresh that worked; None if it is not kept."""
        return self._resolved.get(ref)

    async def run(self) -> None:
        """Resolve all references now and every interval, until cancelled. Does nothing if there are none."""
        while self._refs:
            for ref in self._refs:
                await self._refresh(ref)
            complete = len(self._resolved) == len(self._refs)
            await anyio.sleep(self._interval if complete else min(self._interval, FIRST_TRY_INTERVAL))

    async def _refresh(self, ref: str) -> None:
        try:
            resolved = await self._images.resolve(parse_reference(ref), Permissions.everything(), retry=True)
        except ImgbuilderError as error:
            # What was known stays: an old image is better than none.
            log.warning("reference not refreshed", ref=ref, reason=str(error))
        else:
            self._resolved[ref] = str(resolved)
