"""The load generator: opens streams in a process of its own, and reports.

The program is ``load/``, in Go, since it has to be faster than what it measures. It is built when it is first
needed; where there is no Go, `tests.bench.slowload` does the same on grpcio.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.children import Child, ChildError
from tests.bench.words import say

SOURCE: Final = Path(__file__).parent / "load"
PROGRAM: Final = Path(__file__).parents[2] / ".cache" / "bin" / "bench-load"
BUILDING: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Streams to open: *copies* of each of *requests*, all at once.

    :ivar target: host and port.
    :ivar requests: encoded.
    :ivar sequential: one after the other instead, each when the one before has ended.
    :ivar stalled: never read.
    :ivar content: path of the field that is looked at, e.g. (1, 6) for the sixth of the first; () is all.
    :ivar stamped: whether the content has lines that begin with ``@`` and a time, whose delay is of interest.
    :ivar until: where the content ends so, a stream has ended.
    :ivar wanted: the report is made when so many streams have ended; 0: all.
    """

    target: str
    method: str
    requests: Sequence[bytes]
    copies: int = 1
    connections: int = 1
    sequential: bool = False
    stalled: bool = False
    content: Sequence[int] = ()
    stamped: bool = False
    until: str = ""
    wanted: int = 0

    def as_json(self) -> dict[str, Any]:
        """What the program is told."""
        return {
            "target": self.target,
            "method": self.method,
            "requests": [base64.b64encode(request).decode() for request in self.requests],
            "copies": self.copies,
            "connections": self.connections,
            "sequential": self.sequential,
            "stalled": self.stalled,
            "field": list(self.content),
            "stamped": self.stamped,
            "until": self.until,
            "wanted": self.wanted,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Delays:
    """How old stamped lines were when they arrived, in seconds."""

    count: int
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened, stream by stream.

    :ivar begun: Unix time at which the first stream was opened; the times below are seconds since then.
    :ivar sent, first: when each was opened, and had its first message.
    :ivar ended: when each had ended; 0 for those that had not.
    :ivar sizes: bytes of content.
    :ivar codes: how many ended with which status.
    :ivar cpu: seconds that the load generator has computed.
    """

    begun: float
    sent: Sequence[float]
    first: Sequence[float]
    ended: Sequence[float]
    sizes: Sequence[int]
    codes: Mapping[str, int]
    messages: int
    delays: Delays
    cpu: float

    @property
    def end(self) -> float:
        """Unix time at which the last stream had ended."""
        return self.begun + max(self.ended)

    @property
    def durations(self) -> list[float]:
        """How long each stream took."""
        return [ended - sent for sent, ended in zip(self.sent, self.ended, strict=True)]

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Report:
        """As the program tells it."""
        return cls(
            begun=message["begun"],
            sent=message["sent"],
            first=message["first"],
            ended=message["ended"],
            sizes=message["bytes"],
            codes=message["codes"],
            messages=message["messages"],
            delays=Delays(**message["delays"]),
            cpu=message["cpu"],
        )


class Load(Child):
    """A load generator at work on *task*."""

    def __init__(self, command: Sequence[str | Path], task: Task) -> None:
        super().__init__("the load generator", command)
        self.send(task.as_json())

    def answered(self) -> None:
        """Wait until every stream has been answered for the first time."""
        self._expect("ready")

    def report(self) -> Report:
        """Wait until the wanted streams have ended; what happened."""
        message = self._expect("done")
        report = Report.of(message)
        refused = {code: count for code, count in report.codes.items() if code not in ("OK", "stopped", "")}
        if refused:
            raise ChildError(f"calls failed: {refused}, {set(message['reasons'])}")
        return report

    def stop(self) -> Report:
        """End all streams; what happened until now."""
        self.send({})
        return self.report()

    def _expect(self, event: str) -> dict[str, Any]:
        message = self.expect("event", event, "failed")
        if message["event"] == "failed":
            raise ChildError(f"the load generator: {message['reason']}")
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgram:
    """How the load generator is run.

    :ivar kind: for people.
    """

    kind: str
    command: Sequence[str | Path]


FAST: Final = LoadProgram(kind="Go", command=[PROGRAM])
SLOW: Final = LoadProgram(
    kind="Python with grpcio, which may itself be the limit",
    command=[sys.executable, "-m", "tests.bench.slowload"],
)


def load_program() -> LoadProgram:
    """The program in Go, built if need be; the one in Python where that is not possible."""
    newest = max(path.stat().st_mtime for path in SOURCE.iterdir())
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > newest:
        return FAST
    go = shutil.which("go")
    if go is None:
        say("There is no Go here, so the load generator in Python is used.")
        return SLOW
    say("Building the load generator (the first time this takes a minute)")
    done = subprocess.run(
        [go, "build", "-o", PROGRAM, "."],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=BUILDING,
        check=False,
    )
    if done.returncode != 0:
        say(f"It can't be built, so the one in Python is used:\n{done.stderr}")
        return SLOW
    return FAST
