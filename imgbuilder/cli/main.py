"""The command ``imgbuilder``: its commands, its flags, and how errors show.

An error that a user can mend is one line on standard error: exit status 2 where the command line is wrong,
1 for the rest.
"""

from __future__ import annotations

import sys
from typing import Annotated, ClassVar, Final

import typer

import imgbuilder
from imgbuilder.cli import cluster, completion, generate
from imgbuilder.cli.lazy import LazyGroup
from imgbuilder.cli.options import ConfigOption, JsonLogOption, Shared, VerboseOption, without_go_flags
from imgbuilder.cli.run import run
from imgbuilder.cli.run_local import run_local
from imgbuilder.cli.standalone import standalone
from imgbuilder.core.errors import ImgbuilderError

PROGRAM: Final = "imgbuilder"


class Commands(LazyGroup):
    """The commands; those that ask a running service are imported when they are used."""

    lazy: ClassVar = {
        "build": "imgbuilder.cli.client.build",
        "build-batch": "imgbuilder.cli.client.batch",
        "list": "imgbuilder.cli.client.listing",
        "logs": "imgbuilder.cli.client.logs",
        "resolve": "imgbuilder.cli.client.resolve",
        "health": "imgbuilder.cli.client.health",
    }


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,  # they show the values of variables
)


@app.callback(invoke_without_command=True)
def imgbuilder_command(
    context: typer.Context,
    config: ConfigOption = None,
    json_log: JsonLogOption = None,
    verbose: VerboseOption = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Orchestrates container image builds for cloud development environments."""
    context.obj = Shared(config=config, json_log=json_log, verbose=verbose)
    if version:
        print_version()
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("run")(run)
app.command("run-local")(run_local)
app.command("standalone")(standalone)
app.add_typer(cluster.app, name="cluster")
generate.app.command("completion")(completion.completion)
app.add_typer(generate.app, name="generate")


@app.command("version")
def print_version() -> None:
    """Print the version."""
    typer.echo(f"{PROGRAM} {imgbuilder.__version__}")


def execute(arguments: list[str]) -> int:
    """Do what the command line *arguments* say; the exit status."""
    completion.prepare()
    try:
        status = app(without_go_flags(arguments), prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else PROGRAM
        return _failed(f"{command}: {error.format_message()} (see {command} --help)", error.exit_code)
    except ImgbuilderError as error:
        return _failed(f"{PROGRAM}: {error}", 1)
    return status if isinstance(status, int) else 0


def _failed(message: str, status: int) -> int:
    typer.echo(" ".join(message.splitlines()), err=True)
    return status


def main() -> None:
    """The entry point of the program."""
    sys.exit(execute(sys.argv[1:]))
