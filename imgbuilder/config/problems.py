"""What is wrong with a configuration, in words for the person who wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imgbuilder.core.errors import ImgbuilderError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    :ivar field: as spelled in the file, e.g. ``orchestrator.wsman.address``; empty for the file as a whole.
    :ivar fault: words that can follow it.
    """

    field: str
    fault: str

    def __str__(self) -> str:
        return f"{self.field}: {self.fault}" if self.field else self.fault


class ConfigError(ImgbuilderError):
    """A configuration can't work. The text is one line: the file, and each field with what is wrong.

    :ivar path: the file.
    :ivar faults: at least one.
    """

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        super().__init__(f"{path}: {'; '.join(map(str, faults))}")
        self.path = path
        self.faults = tuple(faults)


def spelled(location: Sequence[str | int]) -> str:
    """The path of a field: ``refCache.refs[2]``, ``registries.mirrors["docker.io"]``."""
    path = ""
    for step in location:
        if step == "[key]":  # pydantic's mark of an error in a key, not in its value
            continue
        if isinstance(step, int):
            path += f"[{step}]"
        elif re.fullmatch(r"[\w$-]+", step):
            path += f".{step}" if path else step
        else:
            path += f'["{step}"]'
    return path
