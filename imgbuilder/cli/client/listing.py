"""``imgbuilder list``: the builds that run."""

# ruff: noqa: PLC0415  # imported when it runs, for help to come at once
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imgbuilder.cli.client.options import ConnectionOptions, Output, Timeout, expanded
from imgbuilder.cli.client.running import NOT_ASKED, SUCCESS, run_client, say_why, seconds_of
from imgbuilder.cli.client.showing import MARK, is_lively
from imgbuilder.client.errors import ClientError
from imgbuilder.client.formats import Form, Text, parse_form
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.client.imagebuilder import ImageBuilderClient
    from imgbuilder.pb.builder import BuildInfo

app = typer.Typer(add_completion=False)

HEADER: Final = ("BUILD", "AGE", "STATUS", "IMAGE", "BASE")
NONE: Final = "no builds are running"

Show = Callable[["list[BuildInfo]"], None]


@app.command("list")
@expanded
def list_builds(
    context: typer.Context,
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")] = False,
    interval: Annotated[str, typer.Option(metavar="DURATION", help="How often --watch asks.")] = "2s",
    full: Annotated[bool, typer.Option("--full", help="Show references in full.")] = False,
    output: Output = "text",
    timeout: Timeout = "30s",
    connection: ConnectionOptions,
) -> int:
    """List the builds that run."""
    try:
        form = parse_form(output)
        pause = seconds_of("--interval", interval)
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)

    async def once(client: ImageBuilderClient) -> None:
        _print(await client.list_builds(), form, full=full)

    async def forever(client: ImageBuilderClient) -> None:
        import anyio

        from imgbuilder.client.building import Patience

        patience = Patience()
        with _shown(form, full=full) as show:
            while True:
                try:
                    show(await client.list_builds())
                    patience.renew()
                except ClientError as error:
                    await patience.wait(error)
                else:
                    await anyio.sleep(pause)

    if not watch:
        return run_client(context, connection, once, timeout=timeout)
    try:
        return run_client(context, connection, forever, timeout=timeout, interrupted=_end_of_watching)
    except _WatchedEnoughError:
        return SUCCESS


class _WatchedEnoughError(Exception):
    """Ctrl-C, which is how watching ends."""


def _end_of_watching() -> str:
    raise _WatchedEnoughError


@contextmanager
def _shown(form: Text | Form, *, full: bool) -> Iterator[Show]:
    """Shows builds again and again: as a table that changes, as what came and went, or as documents."""
    if not isinstance(form, Text):
        last: list[list[BuildInfo]] = []

        def show_changed(builds: list[BuildInfo]) -> None:
            if builds != (last[-1] if last else None):
                _print(builds, form, full=full)
            last[:] = [builds]

        yield show_changed
    elif is_lively(sys.stdout):
        from imgbuilder.cli.client.live import live_table

        with live_table(sys.stdout) as table:
            yield lambda builds: table.show(HEADER, _rows(builds, full=full), _below(builds))
    else:
        yield _Changes(full=full).show


class _Changes:
    """Prints a line for each build that came, changed or went."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._known: dict[str, BuildInfo] = {}

    def show(self, builds: list[BuildInfo]) -> None:
        """Print what is different from the last time."""
        now = {info.build_id: info for info in builds}
        for build_id, info in now.items():
            known = self._known.get(build_id)
            if known is None or known.status != info.status:
                self._print(info.status.name or "", info)
        for build_id in self._known.keys() - now.keys():
            self._print("ended", self._known[build_id])
        self._known = now

    def _print(self, what: str, info: BuildInfo) -> None:
        build_id, age, _, image, base = _rows([info], full=self._full)[0]
        typer.echo(f"{MARK} {what:<8} {build_id}   {age:>6}   {image}   {base}")


def _print(builds: list[BuildInfo], form: Text | Form, *, full: bool) -> None:
    from imgbuilder.client.documents import info_document
    from imgbuilder.client.words import table

    if not isinstance(form, Text):
        shown = form.render({"builds": [info_document(info) for info in builds]})
        if shown:
            typer.echo(shown)
    elif builds:
        typer.echo("\n".join(table(HEADER, _rows(builds, full=full))))
    else:
        typer.echo(NONE, err=True)


def _rows(builds: list[BuildInfo], *, full: bool) -> list[list[str]]:
    from imgbuilder.client.documents import status_name
    from imgbuilder.client.loglines import plain_text
    from imgbuilder.client.words import duration, short_ref

    now = time()
    return [
        [
            plain_text(info.build_id),
            duration(now - info.started_at) if info.started_at else "",
            status_name(info.status),
            *(plain_text(ref if full else short_ref(ref)) for ref in (info.ref, info.base_ref)),
        ]
        for info in sorted(builds, key=lambda info: (info.started_at, info.build_id))
    ]


def _below(builds: list[BuildInfo]) -> str:
    return f"{len(builds)} running; Ctrl-C ends" if builds else f"{NONE}; Ctrl-C ends"
