"""How a build is shown while it runs: as lines, as JSON, or not at all; `imgbuilder.cli.client.live` has a terminal.

Each satisfies `imgbuilder.client.building.BuildWatcher`.
"""

# ruff: noqa: PLC0415  # imported when it is used
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import typer

from imgbuilder.client.formats import as_json

if TYPE_CHECKING:
    from imgbuilder.client.building import BuildWatcher
    from imgbuilder.client.documents import Document
    from imgbuilder.pb.builder import BuildResponse

MARK = "==>"
"""Before lines that are ours, not the build's."""


class Lines:
    """Shows a build as plain lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._message: str | None = None

    def changed(self, response: BuildResponse) -> None:
        """Show what is new about it."""
        text = description(response, first=self._message is None)
        if text and response.message != self._message:
            self._print(f"{MARK} {text}")
        self._message = response.message

    def said(self, line: str) -> None:
        """Show a line of its output."""
        self._print(line)

    def noticed(self, text: str) -> None:
        """Show it beside the output."""
        typer.echo(f"{MARK} {text}", err=True)

    def _print(self, text: str) -> None:
        typer.echo(text, file=self._out)


class JsonLines:
    """Shows a build as lines of JSON: ``{"type": "status", …}`` and ``{"type": "log", "line": …}``."""

    def changed(self, response: BuildResponse) -> None:
        """See `BuildWatcher`."""
        from imgbuilder.client.documents import build_document

        self._print({"type": "status", **build_document(response)})

    def said(self, line: str) -> None:
        """See `BuildWatcher`."""
        self._print({"type": "log", "line": line})

    def noticed(self, text: str) -> None:
        """See `BuildWatcher`."""
        self._print({"type": "notice", "message": text})

    def _print(self, document: Document) -> None:
        typer.echo(as_json(document))


class Nothing:
    """Shows nothing."""

    def changed(self, response: BuildResponse) -> None:
        """See `BuildWatcher`."""

    def said(self, line: str) -> None:
        """See `BuildWatcher`."""

    def noticed(self, text: str) -> None:
        """See `BuildWatcher`."""


def description(response: BuildResponse, *, first: bool) -> str:
    """What to say of a build that goes on; empty for nothing."""
    from imgbuilder.client.building import ENDED
    from imgbuilder.client.loglines import plain_text

    if response.status in ENDED:
        return ""  # that is said where all is known
    message = plain_text(response.message)
    if first and response.info is not None:
        return f"build {response.info.build_id}" + (f": {message}" if message else "")
    return message


def is_lively(out: TextIO) -> bool:
    """Whether *out* is a terminal that can show what changes."""
    return out.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def shown_on(out: TextIO) -> Iterator[BuildWatcher]:
    """A watcher that shows a build on *out*, live where that can be."""
    if not is_lively(out):
        yield Lines(out)
        return
    from imgbuilder.cli.client.live import live_build

    with live_build(out) as watcher:
        yield watcher


def colours_on(out: TextIO) -> bool:
    """Whether the colours of a build's output are wanted on *out*."""
    return is_lively(out) and "NO_COLOR" not in os.environ


def result_out(form: object) -> TextIO:
    """Where progress goes: beside the result, where that is for a program."""
    from imgbuilder.client.formats import Text

    return sys.stdout if isinstance(form, Text) else sys.stderr
