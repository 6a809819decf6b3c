"""Commands that are imported when they are used: a service starts without what only its clients need."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """A group of commands, some of which are imported when they are asked for.

    :cvar lazy: their names, in the order of help, and the modules whose ``app`` each is.
    """

    lazy: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # By their names they are known at once: for help, and for "did you mean".
        self.commands = {name: TyperCommand(name) for name in self.lazy} | dict(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if there is none."""
        module = self.lazy.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        command = typer.main.get_command(importlib.import_module(module).app)
        command.name = cmd_name
        return command
