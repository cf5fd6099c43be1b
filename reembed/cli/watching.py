"""`reembed watch`: its options, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.app import Json, app, show_result

if TYPE_CHECKING:
    from reembed.watch.result import WatchResult

STYLE = {"ok": "green", "warning": "yellow", "alert": "bold red"}


@app.command()
def watch(
    target: Annotated[
        str, typer.Argument(metavar="MANIFEST|URL", help="a migration's YAML file, or a store")
    ],
    collection: Annotated[
        list[str] | None, typer.Option("--collection", help="with a URL: which; default: all")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="PROVIDER:NAME", help="with a URL: what made the vectors"),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="count per value of a metadata key")
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="WHY", help="what is there is meant to be so, and why"),
    ] = None,
    state: Annotated[
        Path, typer.Option("--state", help="with a URL: where the watch remembers what it saw")
    ] = Path(".reembed"),
    as_json: Json = False,
) -> None:
    """Look whether a live collection is what it should be; end with 4 if it is not."""
    from reembed.watch import subject_of
    from reembed.watch import watch as watch_once

    subject = subject_of(target, state, tuple(collection or ()), model)
    subject = subject.with_options(by=by)
    result = watch_once(subject, accept=accept)
    show_result(result, watch_text, as_json)
    raise typer.Exit(result.exit_code)


def watch_text(result: WatchResult) -> RenderableType:
    """A line a finding, and below it what to do."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    for finding in result.findings:
        status = Text(finding.status, STYLE[finding.status])
        table.add_row(status, finding.check, Text(finding.message))
        for line in (finding.detail, finding.hint):
            if line:
                table.add_row("", "", Text(line, "dim"))
    for message in result.messages:
        table.add_row("", "", Text(message))
    alerts = len(result.alerts)
    end = Text(f"{alerts} alerts", "bold red") if alerts else Text("all is well", "green")
    return Group(table, end)
