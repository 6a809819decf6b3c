"""How fast the load generator is: the bare server sends as fast as it can, and both tell what they computed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench.lines import END
from tests.bench.stage import Stage

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Of reading messages of one size.

    :ivar seconds: until everything was read.
    :ivar reader_cpu, server_cpu: seconds that the load generator and the bare server have computed.
    """

    size: int
    messages: int
    seconds: float
    reader_cpu: float
    server_cpu: float

    @property
    def limit(self) -> float:
        """MiB that the load generator could read a second if the server were not the slower one."""
        return self.size * self.messages / MIB / self.reader_cpu

    def as_json(self) -> dict[str, Any]:
        """For files."""
        return {**asdict(self), "limit": self.limit}


LARGE: Final = (64 * 1024, 512 * MIB)
SMALL: Final = (100, 2 * MIB)
READERS: Final = 10


def measure(stage: Stage) -> tuple[Speed, Speed]:
    """With messages of 64 KiB, and of 100 B."""
    return _speed(stage, *LARGE), _speed(stage, *SMALL)


def _speed(stage: Stage, size: int, total: int) -> Speed:
    with stage.bare() as bare:
        task = bare.sending(size, total // READERS, until=END, copies=READERS, connections=READERS)
        before = bare.effort()
        with stage.load(task) as load:
            report = load.report()
        used = bare.effort() - before
    return Speed(
        size=size,
        messages=report.messages,
        seconds=max(report.ended),
        reader_cpu=report.cpu,
        server_cpu=used.cpu,
    )
