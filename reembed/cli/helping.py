"""`reembed --help`: commands in the order in which they are met, under what they are for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from typer.core import TyperCommand, TyperGroup
from typer.models import OptionInfo

PANELS = {
    "Begin": ["try", "init", "compare", "doctor"],
    "Move a collection": ["plan", "run", "verify", "swap", "rollback", "sweep", "clean"],
    "See where it stands": ["status", "report", "runs"],
    "Check a collection": ["audit", "watch"],
    "Snapshots": ["backup", "snapshots", "check", "restore", "drill", "prune"],
    "For editors and shells": ["schema", "completion"],
}
BEGIN = (
    "Begin with `reembed try URL --model PROVIDER:NAME`, such as `reembed try chroma:./chroma_db "
    "--model static:wordllama`, or with `reembed init`, which asks. Each command ends with the one "
    "to type next. Nothing of your collection changes before `reembed swap`."
)
URL_HELP = "the store: chroma:./folder, chroma+http://host:8000 or postgresql://user@host/database"


class Help(TyperCommand):
    """A command whose flags are shown without the type that they all have."""

    def get_help_option(self, ctx: Any) -> Any:
        return _plain(super().get_help_option(ctx))


class Overview(TyperGroup):
    """The program: its commands stand in the order of `PANELS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in PANELS.values() for name in names]

    def get_help_option(self, ctx: Any) -> Any:
        return _plain(super().get_help_option(ctx))


def panel_of(name: str) -> str:
    """The heading that a command stands under."""
    return next(panel for panel, names in PANELS.items() if name in names)


def one_line(command: Callable[..., Any]) -> str:
    """What a command's docstring says, without the line breaks that it has in the code."""
    return " ".join(inspect.getdoc(command).split())  # type: ignore[union-attr]


def without_types_of_flags(parameters: dict[str, inspect.Parameter]) -> None:
    """Take `<bool>` from the help of all flags."""
    for one in parameters.values():
        kind, *told = get_args(one.annotation) or (None,)
        for option in told:
            if kind is bool and isinstance(option, OptionInfo):
                option.metavar = ""


def _plain(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option
