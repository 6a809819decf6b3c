"""``imgbuilder resolve``: what an image or a source stands for, without building anything."""

# ruff: noqa: PLC0415  # imported when it runs, for help to come at once
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgbuilder.cli.client.build import Retry, advice, complete_request
from imgbuilder.cli.client.options import (
    AuthOptions,
    ConnectionOptions,
    Output,
    SourceOptions,
    Timeout,
    expanded,
)
from imgbuilder.cli.client.running import NOT_ASKED, SUCCESS, Work, run_client, say_why, status_of
from imgbuilder.client.errors import CallError
from imgbuilder.client.formats import Form, Text, parse_form
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.client.imagebuilder import ImageBuilderClient

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def resolve(context: typer.Context) -> None:
    """Find out what an image, or something to build, stands for."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("base-image")
@expanded
def base_image(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(metavar="IMAGE", help="The image, such as ubuntu:24.04.")],
    *,
    retry: Retry = None,
    output: Output = "text",
    timeout: Timeout = "60s",
    auth: AuthOptions,
    connection: ConnectionOptions,
) -> int:
    """Print an image in its digest form, as the service sees it."""
    from imgbuilder.client.sources import reference_source
    from imgbuilder.pb.builder import ResolveBaseImageRequest

    try:
        form = parse_form(output)
        reference_source(ref, "IMAGE")
        request = ResolveBaseImageRequest(ref=ref, auth=auth.message(), use_retry_client=retry is not False)
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)

    async def work(client: ImageBuilderClient) -> None:
        response = await client.resolve_base_image(request)
        _print(form, {"ref": response.ref}, response.ref)

    return run_client(context, connection, _with_advice(context, work), timeout=timeout)


@app.command("workspace-image")
@expanded
def workspace_image(
    context: typer.Context,
    source: SourceOptions,
    *,
    retry: Retry = None,
    output: Output = "text",
    timeout: Timeout = "60s",
    auth: AuthOptions,
    connection: ConnectionOptions,
) -> int:
    """Print which workspace image a source has, and whether it exists."""
    from imgbuilder.client.documents import workspace_image_document
    from imgbuilder.pb.builder import ResolveWorkspaceImageRequest

    try:
        form = parse_form(output)
        wanted = complete_request(source, auth, force=False, owner="", retry=retry)
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)
    request = ResolveWorkspaceImageRequest(
        source=wanted.source, auth=wanted.auth, use_retry_client=wanted.use_retry_client
    )

    async def work(client: ImageBuilderClient) -> None:
        document = workspace_image_document(await client.resolve_workspace_image(request))
        text = (
            f"image    {document['ref']}\n"
            f"base     {document['baseRef']}\n"
            f"exists   {'yes' if document['exists'] else 'no'}"
        )
        _print(form, document, text)

    return run_client(context, connection, _with_advice(context, work), timeout=timeout)


def _print(form: Text | Form, document: dict[str, object], text: str) -> None:
    shown = text if isinstance(form, Text) else form.render(document)
    if shown:
        typer.echo(shown)


def _with_advice(context: typer.Context, work: Work) -> Work:
    async def advised(client: ImageBuilderClient) -> int:
        try:
            await work(client)
        except CallError as error:
            return say_why(context, f"{error}{advice(error)}", status_of(error))
        return SUCCESS

    return advised
