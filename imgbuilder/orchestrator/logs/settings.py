"""How the output of builds is followed and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from imgbuilder.core.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Sizes are in bytes, times in seconds.

    :ivar folder: where logs are kept on disk; None for a folder of our own among the system's temporary files.
    :ivar memory: how much of a running build's log is kept in memory: its end.
    :ivar max_size: how much of a log is kept in all: the first half of it from its beginning, and the other
        half from its end. What lies between is left out.
    :ivar max_total: how much of all logs is kept on disk; beyond that, the oldest logs of ended builds go.
    :ivar followed: how many builds are followed while nobody asks for their logs.
    :ivar grace: how long output is still taken after a build has ended.
    :ivar gather: while output comes thick and fast, readers get what has come in such a time as one.
    :ivar retry: the delays after which a supervisor is asked again.
    """

    folder: Path | None = None
    memory: int = 256 * 1024
    max_size: int = 64 * 1024 * 1024
    max_total: int = 4 * 1024 * 1024 * 1024
    followed: int = 256
    grace: float = 5.0
    gather: float = 0.005
    retry: Backoff = field(default=Backoff(first=0.2, factor=2.0, limit=5.0))
