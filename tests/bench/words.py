"""What the benchmark says while it works."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Show *text* at once, also where the output is a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
