"""``imgbuilder build``: have an image built, and watch."""

# ruff: noqa: PLC0415  # imported when it runs, for help to come at once
from __future__ import annotations

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from imgbuilder.cli.client.options import (
    CONNECTION,
    SOURCE,
    AuthOptions,
    ConnectionOptions,
    Output,
    SourceOptions,
    expanded,
)
from imgbuilder.cli.client.running import (
    FAILED,
    NOT_ASKED,
    SUCCESS,
    run_client,
    say_why,
    seconds_of,
    status_of,
)
from imgbuilder.cli.client.showing import (
    MARK,
    JsonLines,
    Nothing,
    colours_on,
    result_out,
    shown_on,
)
from imgbuilder.client.errors import CallError, ClientError, OutcomeUnknownError
from imgbuilder.client.formats import Form, Json, Text, parse_form
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.client.building import BuildWatcher
    from imgbuilder.client.imagebuilder import ImageBuilderClient
    from imgbuilder.pb.builder import BuildRequest, BuildResponse

app = typer.Typer(add_completion=False)

Force = Annotated[
    bool, typer.Option("--force", rich_help_panel=SOURCE, help="Build also what exists already.")
]
Owner = Annotated[
    str,
    typer.Option(envvar="IMGBUILDER_OWNER", metavar="NAME", help="Whose build it is.", show_default="you"),
]
Retry = Annotated[
    bool | None,
    typer.Option(
        "--retry/--no-retry",
        help="Let the service ask a registry again that fails.",
        show_default="retry",
    ),
]


@app.command("build")
@expanded
def build(
    context: typer.Context,
    source: SourceOptions,
    *,
    force: Force = False,
    owner: Owner = "",
    retry: Retry = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")] = False,
    output: Output = "text",
    timeout: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=CONNECTION,
            help="Watch for no longer than that; the build goes on.",
            show_default="until it has ended",
        ),
    ] = "",
    auth: AuthOptions,
    connection: ConnectionOptions,
) -> int:
    """Have an image built, and show its status and output until it has ended.

    A build that runs already is joined. Ctrl-C stops the watching, not the build.

    Exit status: 0 the image is there; 1 the build failed; 2 it could not be asked for; 130 after Ctrl-C.
    """
    try:
        form = parse_form(output)
        limit = seconds_of("--timeout", timeout) if timeout else None
        request = complete_request(source, auth, force=force, owner=owner, retry=retry)
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)
    command = _Build(context, request, form, quiet=quiet, limit=limit, again=connection.words())
    return run_client(context, connection, command.run, interrupted=command.farewell)


def complete_request(
    source: SourceOptions, auth: AuthOptions, *, force: bool, owner: str, retry: bool | None
) -> BuildRequest:
    """The request that the options make. Of a request in a file, what no option says is kept.

    :raises ImgbuilderError: if something can't be used.
    """
    from imgbuilder.client.sources import request_for

    request = request_for(source.wanted())
    given = auth.message()
    written = bool(source.source or source.file)
    return replace(
        request,
        auth=given or request.auth,
        force_rebuild=force or request.force_rebuild,
        triggered_by=owner or request.triggered_by or user_name(),
        use_retry_client=(request.use_retry_client if written else True) if retry is None else retry,
    )


def user_name() -> str:
    """Who runs this, as the system knows them; empty if it does not."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


class _Build:
    """One run of the command."""

    def __init__(
        self,
        context: typer.Context,
        request: BuildRequest,
        form: Text | Form,
        *,
        quiet: bool,
        limit: float | None,
        again: list[str],
    ) -> None:
        self._context = context
        self._request = request
        self._form = form
        self._quiet = quiet
        self._limit = limit
        self._again = again
        self._last: BuildResponse | None = None

    async def run(self, client: ImageBuilderClient) -> int:
        """Build, show, and say how it ended; the exit status."""
        import anyio

        began = anyio.current_time()
        try:
            response = await self._follow(client)
        except ClientError as error:
            if isinstance(error, OutcomeUnknownError):
                return say_why(self._context, f"{error}; its output: {self._logs(error.build_id)}", NOT_ASKED)
            return say_why(self._context, f"{error}{advice(error)}{self._and_the_build()}", status_of(error))
        if response is None:
            return say_why(
                self._context, f"it still runs after {self._limit:g} s; {self.farewell()}", NOT_ASKED
            )
        return self._conclude(response, anyio.current_time() - began)

    def farewell(self) -> str:
        """What is to be said when the watching ends before the build."""
        if self._last is None or self._last.info is None:
            return "interrupted before a build was told of; if one was started, it goes on"
        again = self._logs(self._last.info.build_id)
        return f"the build goes on. To watch it again: {again} (or build the same again)"

    def _logs(self, build_id: str) -> str:
        """The command that shows the output of a build."""
        return shlex.join(["imgbuilder", "logs", build_id, *self._again])

    def _and_the_build(self) -> str:
        return f"; {self.farewell()}" if self._last is not None and self._last.info is not None else ""

    async def _follow(self, client: ImageBuilderClient) -> BuildResponse | None:
        """How the build ended; None if it was watched for long enough."""
        import anyio

        from imgbuilder.client.building import follow_build
        from imgbuilder.client.loglines import LogLines

        lines = None
        if not self._quiet:
            lines = LogLines(colours=not isinstance(self._form, Json) and colours_on(result_out(self._form)))
        with self._watcher() as watcher, anyio.move_on_after(self._limit or float("inf")):
            return await follow_build(client, self._request, _Remembering(self, watcher), lines=lines)
        return None

    def _watcher(self) -> AbstractContextManager[BuildWatcher]:
        if isinstance(self._form, Json):
            return nullcontext(JsonLines())
        if self._quiet:
            return nullcontext(Nothing())
        return shown_on(result_out(self._form))

    def remember(self, response: BuildResponse) -> None:
        """Keep what was told last of the build."""
        self._last = response

    def _conclude(self, response: BuildResponse, seconds: float) -> int:
        from imgbuilder.client.documents import build_document
        from imgbuilder.client.loglines import plain_text
        from imgbuilder.client.words import took
        from imgbuilder.pb.builder import BuildStatus

        failed = response.status == BuildStatus.done_failure
        if isinstance(self._form, Text):
            existed = response.info is None
            if not failed and not self._quiet:
                typer.echo(f"{MARK} {'it exists already' if existed else f'built in {took(seconds)}'}")
                self._warn_of_branch(existed=existed)
            if not failed:
                typer.echo(plain_text(response.ref))
        elif not isinstance(self._form, Json):
            text = self._form.render(build_document(response))
            if text:
                typer.echo(text)
        sys.stdout.flush()
        if failed:
            message = plain_text(response.message) or "no reason was given"
            return say_why(self._context, f"the build failed after {took(seconds)}: {message}", FAILED)
        return SUCCESS

    def _warn_of_branch(self, *, existed: bool) -> None:
        """A branch may name something else today, and the service goes by its name."""
        from imgbuilder.client.sources import is_commit

        file = self._request.source.file if self._request.source else None
        git = file.source.git if file and file.source else None
        if existed and git is not None and file is not None and not is_commit(file.dockerfile_version):
            what = f"{git.clone_taget!r} is no commit" if git.clone_taget else "no revision was given"
            typer.echo(f"{MARK} {what}: for what it has now, name the commit, or use --force", err=True)


class _Remembering:
    """A watcher that remembers what was told last."""

    def __init__(self, command: _Build, watcher: BuildWatcher) -> None:
        self._command = command
        self._watcher = watcher
        self.said = watcher.said
        self.noticed = watcher.noticed

    def changed(self, response: BuildResponse) -> None:
        """Remember it, and pass it on."""
        self._command.remember(response)
        self._watcher.changed(response)


def advice(error: ClientError) -> str:
    """What a user can do about an image that can't be resolved; empty for all else."""
    if not isinstance(error, CallError) or not error.fault.startswith("cannot resolve image"):
        return ""
    advices = {
        "NOT_FOUND": ": its registry does not have it, check name and tag",
        "UNAUTHENTICATED": ": its registry refused, see --auth and --auth-file",
    }
    return advices.get(error.code, "")
