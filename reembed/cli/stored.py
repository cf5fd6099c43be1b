"""What runs have left on a disk, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.text import when
from reembed.commands.runs import Stored
from reembed.progress import human_bytes


def stored_text(found: Stored, asked: bool) -> RenderableType:
    """A line a run and a cache.

    Args:
        asked: whether it was asked for what goes.
    """
    if not found.runs and not found.caches:
        return Text(f"no runs in {found.state}")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, justify in (("", "left"), ("run", "left"), ("state", "left"), ("begun", "left"),
                          ("size", "right"), ("", "left")):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    goes = Text("removed" if found.removed else "goes", "yellow")
    for run in found.runs:
        begun = when(run.begun) if run.begun else ""
        size = human_bytes(run.bytes)
        table.add_row(run.name, run.run, run.state, begun, size, goes if run.goes else "")
    for cache in found.caches:
        about = f"used by {', '.join(cache.used_by)}" if cache.used_by else "used by no run"
        size, mark = human_bytes(cache.bytes), goes if cache.goes and asked else ""
        table.add_row("paid vectors", cache.model, about, "", size, mark)
    for path in found.restores:
        table.add_row("restore", path.rpartition("/")[2], "finished", "", "", goes)
    lines: list[RenderableType] = [table]
    if found.removed:
        lines.append(Text(f"Removed {human_bytes(found.freed)}."))
    elif asked:
        todo = (
            "Add --yes to remove what goes"
            if found.freed or found.restores
            else "There is nothing to remove"
        )
        lines.append(Text(f"Nothing was done. {todo} ({human_bytes(found.freed)}).", "bold"))
    return Group(*lines)
