"""What changes on a terminal: a build with its status below its output, a batch and a list as tables.

The one place that imports rich for more than help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from imgbuilder.client.loglines import plain_text
from imgbuilder.client.words import duration, short_ref, took

if TYPE_CHECKING:
    from imgbuilder.client.batch import Item, Result
    from imgbuilder.pb.builder import BuildResponse

REFRESH = 8
"""Times a second that what changes is drawn."""

COLOURS = {
    "running": "cyan",
    "done_success": "green",
    "done_failure": "red",
    "error": "red",
    "waiting": "dim",
}


@contextmanager
def live_build(out: TextIO) -> Iterator[LiveBuild]:
    """A build on a terminal, inside the block."""
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    shown = LiveBuild(console)
    with Live(get_renderable=shown.status, console=console, refresh_per_second=REFRESH, transient=True):
        yield shown


class LiveBuild:
    """Satisfies `imgbuilder.client.building.BuildWatcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = monotonic()
        self._message = "asking for the build"
        self._build_id = ""
        self._spinner = Spinner("dots", style="cyan")

    def changed(self, response: BuildResponse) -> None:
        """Show how it stands."""
        if response.info is not None and not self._build_id:
            self._build_id = response.info.build_id
            self._console.print(Text(f"==> build {self._build_id}", style="bold"), soft_wrap=True)
        self._message = plain_text(response.message) or "running"

    def said(self, line: str) -> None:
        """Show a line of its output above that."""
        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def noticed(self, text: str) -> None:
        """Show it like output, and as something else."""
        self._console.print(Text(f"==> {text}", style="yellow"), soft_wrap=True)

    def status(self) -> RenderableType:
        """The line below the output."""
        text = Text.assemble((self._message, "bold"), (f"  {duration(monotonic() - self._began)}", "dim"))
        text.no_wrap, text.overflow = True, "ellipsis"
        self._spinner.update(text=text)
        return self._spinner


@contextmanager
def live_batch(out: TextIO, items: Sequence[Item]) -> Iterator[LiveBatch]:
    """A batch on a terminal, inside the block; the table stays."""
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    shown = LiveBatch(console, items)
    with Live(get_renderable=shown.table, console=console, refresh_per_second=REFRESH):
        yield shown


class LiveBatch:
    """Satisfies `imgbuilder.client.batch.BatchWatcher`."""

    def __init__(self, console: Console, items: Sequence[Item]) -> None:
        self._console = console
        self._items = items
        self._states = ["waiting"] * len(items)
        self._words = [""] * len(items)
        self._began: dict[int, float] = {}
        self._took: dict[int, float] = {}

    def started(self, number: int, _: Item) -> None:
        """See `BatchWatcher`."""
        self._began[number] = monotonic()
        self._states[number] = "running"

    def changed(self, number: int, response: BuildResponse) -> None:
        """See `BatchWatcher`."""
        self._words[number] = plain_text(response.message)

    def noticed(self, text: str) -> None:
        """See `BatchWatcher`."""
        self._console.print(Text(f"==> {text}", style="yellow"))

    def ended(self, number: int, result: Result) -> None:
        """See `BatchWatcher`."""
        self._states[number] = result.status
        self._took[number] = result.seconds
        self._words[number] = short_ref(result.ref) if result.succeeded else plain_text(result.message)

    def table(self) -> RenderableType:
        """How all stand; of many those that run and the latest that ended."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("IMAGE", "STATUS", "TIME", ""):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        room = max(3, self._console.size.height - 4)
        shown = self._shown(room)
        for number in shown:
            state = self._states[number]
            table.add_row(
                self._items[number].image,
                Text(state, style=COLOURS.get(state, "")),
                took(self._took[number]) if number in self._took else self._running_for(number),
                self._words[number],
            )
        done = len(self._took)
        failed = sum(state not in {"waiting", "running", "done_success"} for state in self._states)
        words = f"{done} of {len(self._items)} done" + (f", {failed} failed" if failed else "")
        return Group(table, Text(words, style="bold"))

    def _running_for(self, number: int) -> str:
        return duration(monotonic() - self._began[number]) if number in self._began else ""

    def _shown(self, room: int) -> list[int]:
        numbers = range(len(self._items))
        if len(numbers) <= room:
            return list(numbers)
        order = {"running": 0, "waiting": 2}
        wanted = sorted(numbers, key=lambda number: (order.get(self._states[number], 1), -number))
        return sorted(wanted[:room])


@contextmanager
def live_table(out: TextIO) -> Iterator[LiveTable]:
    """A table on a terminal, inside the block."""
    console = Console(file=out, highlight=False, markup=False, emoji=False)
    with Live(Text("asking for the builds"), console=console, refresh_per_second=REFRESH) as live:
        yield LiveTable(live)


class LiveTable:
    """A table that is drawn anew whenever it is told its rows."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, header: Sequence[str], rows: Sequence[Sequence[str]], below: str) -> None:
        """Show these rows, and a line below them."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in header:
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*row)
        self._live.update(Group(table, Text(below, style="dim")) if rows else Text(below, style="dim"))
