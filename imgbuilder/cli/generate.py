"""``imgbuilder generate``: what can be made of the program itself."""

from __future__ import annotations

import json

import typer

app = typer.Typer()


@app.callback(invoke_without_command=True)
def generate(context: typer.Context) -> None:
    """Print what others need to use the service."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("config")
def config() -> None:
    """Print the JSON schema of the configuration."""
    from imgbuilder.config import json_schema  # noqa: PLC0415  # what other commands do not need

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
