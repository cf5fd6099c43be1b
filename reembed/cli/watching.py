"""`reembed watch`: its options, and what it prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.app import Json, Markdown, app, show_result
from reembed.cli.output import say, say_json_line, show
from reembed.errors import UsageError

if TYPE_CHECKING:
    from reembed.commands.watch import Orders, Subject, WatchResult


STYLE = {"ok": "green", "warning": "yellow", "alert": "bold red"}


@app.command()
def watch(
    target: Annotated[
        str, typer.Argument(metavar="MANIFEST|URL", help="a migration's YAML file, or a store")
    ],
    collection: Annotated[
        list[str] | None, typer.Option("--collection", help="with a URL: which one; default: all")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="PROVIDER:NAME", help="with a URL: the model that made the vectors"
        ),
    ] = None,
    state: Annotated[
        Path, typer.Option("--state", help="with a URL: the folder that keeps what the watch saw")
    ] = Path(".reembed"),
    by: Annotated[
        str | None, typer.Option("--by", metavar="KEY", help="count the records by a metadata key")
    ] = None,
    backups: Annotated[
        Path | None, typer.Option("--backups", help="the folder of its snapshots")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="FILE.prom", help="write a file for Prometheus"),
    ] = None,
    notify_env: Annotated[
        list[str] | None,
        typer.Option(
            "--notify-env", metavar="NAME", help="environment variable that holds Apprise URLs"
        ),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="WHY", help="say that what is there is right, and why"),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="restore what is gone, if `watch.on_empty` says so")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="send the report of counts now")] = False,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="5m", help="go on, and look again after each such time"),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="with --every: serve /metrics there"),
    ] = None,
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Look whether a live collection is what it should be. Ends with exit code 4 if it is not."""
    from reembed.commands.watch import Orders, subject_of
    from reembed.commands.watch import watch as watch_once

    if as_json and markdown:
        raise UsageError("--json and --markdown cannot be used together", "Choose one.")
    options = {
        "by": by, "backups": _absolute(backups), "metrics": _absolute(metrics),
        "notify_env": notify_env or None,
    }  # fmt: skip

    def subject() -> Subject:
        found = subject_of(target, state, tuple(collection or ()), model)
        return found.with_options(**options)

    orders = Orders(accept, report, yes)
    if every is not None:
        _again_and_again(subject, orders, every, listen, _line if as_json else _told)
        return
    if listen is not None:
        raise UsageError(
            "--listen is for a watch that goes on", "Give it with --every, for example --every 5m."
        )
    result = watch_once(subject(), orders)
    if markdown:
        say(to_markdown(result), end="")
    else:
        show_result(result, watch_text, as_json)
    raise typer.Exit(result.exit_code)


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path is not None else None


def _again_and_again(
    subject: Callable[[], Subject], orders: Orders, every: str, listen: str | None,
    tell: Callable[[WatchResult], None],
) -> None:  # fmt: skip
    """Look until a signal ends it."""
    from reembed.commands.watch import watch_every
    from reembed.commands.watch.metrics import Collector, serve
    from reembed.manifest.watching import seconds_of

    if orders.accept is not None or orders.report or orders.yes:
        raise UsageError("--accept, --report and --yes are for one look", "Leave --every out.")
    try:
        seconds = seconds_of(every)
    except ValueError as error:
        raise UsageError(f"--every {every}: {error}", "For example --every 5m.") from None
    subject()  # a manifest that cannot be used ends it here, and not in every cycle
    collector = Collector()
    if listen is not None:
        serve(listen, collector)

    def told(result: WatchResult) -> None:
        collector.result = result
        tell(result)

    watch_every(seconds, subject, told)


def _line(result: WatchResult) -> None:
    say_json_line(result.to_dict())


def _told(result: WatchResult) -> None:
    show(watch_text(result))


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
    end = Text(f"alerts: {alerts}", "bold red") if alerts else Text("all is well", "green")
    return Group(table, end)


SIGN = {"alert": "❌", "warning": "⚠️", "ok": "✅"}


def to_markdown(result: WatchResult) -> str:
    """Tables of the collections and of what was found."""
    alerts = len(result.alerts)
    lines = [f"## reembed watch: {_cell(result.name)}", "",
             f"**Alerts: {alerts}**" if alerts else "All is well.", ""]  # fmt: skip
    if result.collections:
        lines += ["| collection | records | most of the week | dimensions | metric |",
                  "|---|--:|--:|--:|---|"]  # fmt: skip
        lines += [
            f"| {_cell(one.name)} | {one.count:,} | {result.good.get(one.name, 0):,} "
            f"| {one.info.dimensions or ''} | {one.info.metric} |"
            for one in result.collections
        ] + [""]
    lines += ["| | check | collection | what was found |", "|---|---|---|---|"]
    lines += [
        f"| {SIGN[one.status]} | {one.check} | {_cell(one.collection)} "
        f"| {_cell(one.sent or one.message)} |"
        for one in result.findings
    ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    """A text that ends no cell and begins no markup."""
    for sign in "\\`*_|<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
