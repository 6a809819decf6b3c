"""What happened in a run, in order: enough to see why a promise was broken, and to compare two runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable


class Trace:
    """Notes of one run. Formatting waits until somebody wants to read."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._notes: list[tuple[float, str, str, dict[str, object]]] = []

    def note(self, who: str, what: str, **details: object) -> None:
        """Remember that *who* did or met *what* now."""
        self._notes.append((self._time(), who, what, details))

    def digest(self) -> str:
        """The same for two runs in which the same happened."""
        return hashlib.sha256(str(self).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._notes)

    def __str__(self) -> str:
        return "\n".join(_line(*note) for note in self._notes)


def _line(time: float, who: str, what: str, details: dict[str, object]) -> str:
    text = " ".join(f"{name}={_short(value)}" for name, value in details.items())
    return f"{time:10.3f}  {who:<12} {what}{'  ' if text else ''}{text}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
