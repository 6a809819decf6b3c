"""Processes that speak JSON, a line at a time, and are gone when they are no longer needed."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import psutil

from tests.bench.rows import Effort

PATIENCE: Final = 120.0
"""Seconds that anything here may take at most."""

STOPPING: Final = 15.0
LAST, LONGEST = 20, 500
"""Lines of its output that are shown where something failed, and characters of each."""

SEEN: Final = "seen"
"""Key under which each message has the Unix time at which it arrived."""


class ChildError(Exception):
    """A process did not do what was asked of it."""


class Child:
    """A process. Use as a context manager: it is stopped in the end.

    :param name: for error messages.
    :ivar begun: the Unix time at which it was started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.begun = time.time()
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._last: deque[str] = deque(maxlen=LAST)
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.usage = psutil.Process(self._process.pid)
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def send(self, value: Mapping[str, Any]) -> None:
        """Tell it *value*."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None

    def expect(self, key: str, *wanted: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The next message whose *key* is one of *wanted*; those before it are skipped.

        :raises ChildError: if it ends first, or says nothing for too long.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                message = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ChildError(f"{self.name} took more than {patience:.0f} s to say {wanted}") from None
            if message is None:
                raise ChildError(self._last_words())
            if message.get(key) in wanted:
                return message

    def memory(self) -> int:
        """Bytes that it has of the machine's memory now."""
        return int(self.usage.memory_info().rss)

    def effort(self) -> Effort:
        """What it has had of the machine so far."""
        pid = self.usage.pid
        if psutil.LINUX:
            cpu_clock = ~pid << 3 | 2  # what clock_getcpuclockid(3) gives; psutil tells hundredths
            waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
            return Effort(time.clock_gettime(cpu_clock), waited)
        times = self.usage.cpu_times()
        return Effort(times.user + times.system)

    def end(self) -> None:
        """End it, and wait until it is no more."""
        self._process.terminate()
        try:
            self._process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # there may be something left that was not sent
                pipe.close()

    def started(self) -> None:
        """Wait until it is of use; subclasses say what that is."""

    def __enter__(self) -> Self:
        try:
            self.started()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._last.append(line[:LONGEST])
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if isinstance(message, dict):
                self._messages.put({**message, SEEN: time.time()})
        self._messages.put(None)

    def _last_words(self) -> str:
        return f"{self.name} ended unexpectedly:\n{''.join(self._last)}"
