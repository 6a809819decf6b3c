"""The flags that all commands share, before the command or after it, and spelled as Go programs take them."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Final

import typer

ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="The configuration, a JSON file.")
]
JsonLogOption = Annotated[
    bool | None,
    typer.Option(
        "--json-log/--no-json-log",
        "-j",
        help="Log in JSON: on unless on a terminal.",
        show_default=False,
    ),
]
VerboseOption = Annotated[
    bool | None, typer.Option("--verbose/--no-verbose", "-v", help="Log in detail.", show_default=False)
]

_FLAG: Final = re.compile(
    r"(--json-log|--verbose|-j|-v)=(?:(1|t|T|TRUE|true|True)|(?:0|f|F|FALSE|false|False))"
)
_OFF: Final = {
    "--json-log": "--no-json-log",
    "-j": "--no-json-log",
    "--verbose": "--no-verbose",
    "-v": "--no-verbose",
}


class UsageError(typer.TyperException):
    """The command line can't be understood; *context* is that of the command."""

    exit_code = 2

    def __init__(self, message: str, context: typer.Context) -> None:
        super().__init__(message)
        self.ctx = context


def refuse_without_effect(context: typer.Context, parameters: Collection[str], when: str) -> None:
    """Make sure that none of *parameters* is on the command line, which have no effect.

    What a variable says is only what counts by default: that is passed over.

    :param when: why they have none, as words that can follow.
    :raises UsageError: naming the first that is.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in parameters and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"{parameter.opts[0]} has no effect {when}", context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the shared flags were given as; None where one was not given."""

    config: str | None = None
    json_log: bool | None = None
    verbose: bool | None = None

    def over(self, other: Shared) -> Shared:
        """These, and where one was not given, that of *other*."""
        return Shared(
            config=other.config if self.config is None else self.config,
            json_log=other.json_log if self.json_log is None else self.json_log,
            verbose=other.verbose if self.verbose is None else self.verbose,
        )


def without_go_flags(arguments: list[str]) -> list[str]:
    """*arguments* with Go's ``--flag=false`` and ``--flag=true`` spelled as this command line has them."""
    spelled = []
    for argument in arguments:
        match = _FLAG.fullmatch(argument)
        if match is None:
            spelled.append(argument)
        else:
            spelled.append(match[1] if match[2] else _OFF[match[1]])
    return spelled
