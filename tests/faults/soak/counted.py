"""The service, with a thread that says now and then how much there is in it: what no metric tells.

``python -m tests.faults.soak.counted run --config FILE`` is ``imgbuilder run --config FILE`` otherwise.
"""

from __future__ import annotations

import asyncio.tasks
import gc
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from imgbuilder.cli.main import main

INTERVAL: Final = 5.0
KINDS: Final = 25


def _count() -> None:
    while True:
        time.sleep(INTERVAL)
        objects = gc.get_objects()
        kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)
        count: dict[str, Any] = {
            "level": "info",
            "message": "counted",
            "tasks": sum(not task.done() for task in _tasks()),
            "objects": len(objects),
            "kinds": dict(kinds.most_common(KINDS)),
        }
        del objects
        sys.stderr.write(json.dumps(count) + "\n")


def _tasks() -> list[asyncio.Task[Any]]:
    """All tasks there are, in whichever loop."""
    name = "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks"
    known: Iterable[Any] = getattr(asyncio.tasks, name)
    while True:
        try:
            return [task for task in known if isinstance(task, asyncio.Task)]
        except RuntimeError:
            continue  # the loop has made one meanwhile


if __name__ == "__main__":
    threading.Thread(target=_count, daemon=True).start()
    main()
