"""``imgbuilder logs``: the output of a build."""

# ruff: noqa: PLC0415  # imported when it runs, for help to come at once
from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from imgbuilder.cli.client.options import ConnectionOptions, expanded
from imgbuilder.cli.client.running import FAILED, run_client, say_why
from imgbuilder.cli.client.showing import colours_on
from imgbuilder.client.errors import CallError

if TYPE_CHECKING:
    from imgbuilder.client.imagebuilder import ImageBuilderClient

app = typer.Typer(add_completion=False)

SILENCE: Final = 0.5
"""Seconds without output after which ``--no-follow`` takes it that there is no more for now."""

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
NOT_FOUND: Final = (
    "there is no such build that runs, or ended a short while ago:"
    " give a build id or a workspace image, as `imgbuilder list` shows them"
)


@app.command("logs")
@expanded
def logs(
    context: typer.Context,
    build: Annotated[
        str,
        typer.Argument(metavar="BUILD", help="The id of a build, or the reference of its workspace image."),
    ],
    *,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow", "-f", help="Go on until the build has ended, or end with what there is."
        ),
    ] = True,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print every byte as it is, also those that steer terminals.")
    ] = False,
    connection: ConnectionOptions,
) -> int:
    """Print the output of a build from its beginning, and follow it until the build has ended.

    Builds that ended a short while ago have theirs as well.

    Exit status: 0 it was printed; 1 there is no such build; 2 it could not be asked for.
    """
    printer = _raw_printer() if raw else _line_printer()

    async def work(client: ImageBuilderClient) -> int | None:
        try:
            await (_follow if follow else _read_what_there_is)(client, build, printer)
        except CallError as error:
            if error.code != "NOT_FOUND":
                raise
            return say_why(context, f"{build}: {NOT_FOUND}", FAILED)
        finally:
            printer(None)
        return None

    return run_client(context, connection, work)


Printer = Callable[[bytes | None], None]
"""Prints what comes, and at its end (None) what is left."""


def _raw_printer() -> Printer:
    def print_raw(data: bytes | None) -> None:
        if data is not None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    return print_raw


def _line_printer() -> Printer:
    from imgbuilder.client.loglines import LogLines

    lines = LogLines(colours=colours_on(sys.stdout))

    def print_lines(data: bytes | None) -> None:
        for line in lines.feed(data) if data is not None else lines.end():
            typer.echo(line)
        sys.stdout.flush()

    return print_lines


def _named(build: str) -> dict[str, str]:
    return {"build_id": build} if _UUID.fullmatch(build) else {"build_ref": build}


async def _follow(client: ImageBuilderClient, build: str, printer: Printer) -> None:
    from imgbuilder.client.building import Patience, output_of

    async with aclosing(output_of(client, **_named(build), patience=Patience())) as output:
        async for data in output:
            printer(data)


async def _read_what_there_is(client: ImageBuilderClient, build: str, printer: Printer) -> None:
    """Read until nothing comes for a while: servers do not tell where the past ends."""
    import anyio

    async with client.logs(**_named(build)) as replies:
        # Answered after the call above was taken in, so that a slow network does not look like silence.
        await client.list_builds()
        while True:
            with anyio.move_on_after(SILENCE):
                reply = await anext(replies, None)
                if reply is None:
                    return
                printer(reply.content)
                continue
            return
