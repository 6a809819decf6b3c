"""Shell completion: the scripts for it, and the answers that they ask for."""

from __future__ import annotations

import os
from typing import Annotated, Final, Literal

import typer

VARIABLE: Final = "_IMGBUILDER_COMPLETE"
"""Is set by the scripts when they ask."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="Whose script.")],
) -> None:
    """Print a script that completes commands and options.

    bash: source it in ~/.bashrc; zsh: write it to a file _imgbuilder in a folder of $fpath;
    fish: write it to ~/.config/fish/completions/imgbuilder.fish.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # noqa: PLC0415
    # typer's own --show-completion is made of it

    typer.echo(get_completion_script(prog_name="imgbuilder", complete_var=VARIABLE, shell=shell))


def prepare() -> None:
    """Get ready to answer, if a script asks."""
    if VARIABLE in os.environ:
        from typer.completion import get_completion_inspect_parameters  # noqa: PLC0415

        get_completion_inspect_parameters()  # tells typer the shells; what it returns are options that are not used
