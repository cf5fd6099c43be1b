"""What `doctor` found, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.commands.doctor import Diagnosis

STYLE = {"ok": "green", "absent": "dim", "warning": "yellow", "failed": "bold red"}


def diagnosis_text(found: Diagnosis) -> RenderableType:
    """A line a check, and below it what to do."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for check in found.checks:
        table.add_row(Text(check.status, STYLE[check.status]), check.name, Text(check.message))
        if check.hint:
            table.add_row("", "", Text(check.hint, "dim"))
    failed = sum(check.status == "failed" for check in found.checks)
    if failed:
        return Group(table, Text(f"{failed} of these must be fixed first", "bold red"))
    return Group(table, Text("fit for work", "green"))
