"""``imgbuilder build-batch``: many images, from a list."""

# ruff: noqa: PLC0415  # imported when it runs, for help to come at once
from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgbuilder.cli.client.build import Force, Owner, Retry, user_name
from imgbuilder.cli.client.options import AuthOptions, ConnectionOptions, Output, expanded
from imgbuilder.cli.client.running import FAILED, NOT_ASKED, SUCCESS, run_client, say_why
from imgbuilder.cli.client.showing import MARK, is_lively
from imgbuilder.client.errors import InvalidOptionError
from imgbuilder.client.formats import Form, Json, Text, as_json, parse_form
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.client.batch import BatchWatcher, Item, Result
    from imgbuilder.client.imagebuilder import ImageBuilderClient
    from imgbuilder.pb.builder import BuildResponse

app = typer.Typer(add_completion=False)


@app.command("build-batch")
@expanded
def build_batch(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The list.", show_default="- for the standard input")
    ] = "-",
    *,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-j", min=1, max=100, help="How many are built at a time.")
    ] = 4,
    force: Force = False,
    owner: Owner = "",
    retry: Retry = None,
    output: Output = "text",
    auth: AuthOptions,
    connection: ConnectionOptions,
) -> int:
    """Have many images built: one reference a line, with blank lines and # comments between them.

    Exit status: 0 all are there; 1 at least one failed; 2 nothing could be asked for; 130 after Ctrl-C.
    """
    from imgbuilder.client.batch import Item, read_images
    from imgbuilder.client.sources import reference_source
    from imgbuilder.pb.builder import BuildRequest

    try:
        form = parse_form(output)
        credentials = auth.message()
        items = [
            Item(
                image=image,
                request=BuildRequest(
                    source=reference_source(image, "the list"),
                    auth=credentials,
                    force_rebuild=force,
                    triggered_by=owner or user_name(),
                    use_retry_client=retry is not False,
                ),
            )
            for image in read_images(_contents(file))
        ]
        if not items:
            raise InvalidOptionError("the list", "names no image: write one a line")
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)

    async def work(client: ImageBuilderClient) -> int:
        import anyio

        from imgbuilder.client import batch

        began = anyio.current_time()
        with _shown(form, items) as watcher:
            results = await batch.build_batch(client, items, watcher, concurrency=concurrency)
        return _conclude(form, results, anyio.current_time() - began)

    return run_client(context, connection, work, interrupted=lambda: "builds that were begun go on")


def _contents(file: str) -> str:
    try:
        if file == "-":
            if sys.stdin.isatty():
                typer.echo("write one image a line, then Ctrl-D", err=True)
            return sys.stdin.read()
        return Path(file).read_text()
    except OSError as error:
        raise InvalidOptionError(file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidOptionError(file, "is no text") from error


@contextmanager
def _shown(form: Text | Form, items: Sequence[Item]) -> Iterator[BatchWatcher]:
    if isinstance(form, Json):
        yield _Shown(len(items), as_lines_of_json=True)
        return
    out = sys.stdout if isinstance(form, Text) else sys.stderr
    if not is_lively(out):
        yield _Shown(len(items), silent=not isinstance(form, Text))
        return
    from imgbuilder.cli.client.live import live_batch

    with live_batch(out, items) as watcher:
        yield watcher


class _Shown:
    """Prints a line for each that has ended. Satisfies `imgbuilder.client.batch.BatchWatcher`."""

    def __init__(self, total: int, *, as_lines_of_json: bool = False, silent: bool = False) -> None:
        self._total = total
        self._json = as_lines_of_json
        self._silent = silent
        self._done = 0

    def started(self, number: int, item: Item) -> None:
        """See `BatchWatcher`."""

    def changed(self, number: int, response: BuildResponse) -> None:
        """See `BatchWatcher`."""

    def noticed(self, text: str) -> None:
        """See `BatchWatcher`."""
        typer.echo(f"{MARK} {text}", err=True)

    def ended(self, _: int, result: Result) -> None:
        """See `BatchWatcher`."""
        self._done += 1
        if self._json:
            typer.echo(as_json(result.document()))
        elif not self._silent:
            typer.echo(line_of(result, self._done, self._total))


def line_of(result: Result, done: int, total: int) -> str:
    """What became of one of a batch, in a line."""
    from imgbuilder.client.loglines import plain_text
    from imgbuilder.client.words import took

    what = result.ref if result.succeeded else plain_text(result.message)
    place = f"[{done:>{len(str(total))}}/{total}]"
    return f"{place} {result.status:<12} {took(result.seconds):>6}  {result.image}  {what}"


def _conclude(form: Text | Form, results: Sequence[Result], seconds: float) -> int:
    from imgbuilder.client.words import took

    failed = [result for result in results if not result.succeeded]
    succeeded = len(results) - len(failed)
    if isinstance(form, Text):
        typer.echo(f"{MARK} {succeeded} of {len(results)} images are there, after {took(seconds)}")
        for result in failed:
            typer.echo(f"{MARK} failed: {result.image}: {' '.join(result.message.split())}", err=True)
    else:
        document = {"succeeded": succeeded, "failed": len(failed), "seconds": round(seconds, 3)}
        if isinstance(form, Json):
            typer.echo(as_json({"summary": document}))
        else:
            shown = form.render({**document, "results": [result.document() for result in results]})
            if shown:
                typer.echo(shown)
    sys.stdout.flush()
    return FAILED if failed else SUCCESS
