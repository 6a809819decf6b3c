"""``imgbuilder health``: whether a service serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from imgbuilder.cli.client.options import ConnectionOptions, Output, Timeout, expanded
from imgbuilder.cli.client.running import NOT_ASKED, SUCCESS, run_client, say_why
from imgbuilder.client.errors import CallError
from imgbuilder.client.formats import Text, parse_form
from imgbuilder.core.errors import ImgbuilderError

if TYPE_CHECKING:
    from imgbuilder.client.imagebuilder import ImageBuilderClient

app = typer.Typer(add_completion=False)


@app.command("health")
@expanded
def health(
    context: typer.Context,
    *,
    service: Annotated[
        str, typer.Option(metavar="NAME", help="The gRPC service.", show_default="the server as a whole")
    ] = "",
    output: Output = "text",
    timeout: Timeout = "10s",
    connection: ConnectionOptions,
) -> int:
    """Ask a service whether it serves (grpc.health.v1).

    Exit status: 0 it does; 2 it does not, or gives no answer.
    """
    try:
        form = parse_form(output)
    except ImgbuilderError as error:
        return say_why(context, str(error), NOT_ASKED)

    async def work(client: ImageBuilderClient) -> int:
        try:
            status = await client.health(service)
        except CallError as error:
            if error.code != "NOT_FOUND":
                raise
            status = "SERVICE_UNKNOWN"
        document = {"service": service, "status": status}
        typer.echo(status if isinstance(form, Text) else form.render(document))
        return SUCCESS if status == "SERVING" else NOT_ASKED

    return run_client(context, connection, work, timeout=timeout)
