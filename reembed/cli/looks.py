"""The commands that look: candidate models, this installation, runs on this disk, the schema; and
what they print."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.app import Json, Yes, app, show_result
from reembed.cli.output import say_json
from reembed.cli.showing import shown
from reembed.progress import human_bytes, human_time
from reembed.run.disk import write_output

if TYPE_CHECKING:
    from reembed.commands.compare import Candidate, ModelComparison
    from reembed.commands.doctor import Diagnosis
    from reembed.commands.runs import Stored
    from reembed.quality.statistics import Interval

COMPLETING = "_REEMBED_COMPLETE"
"""The variable by which a shell asks for what may come next."""


class Shell(StrEnum):
    """Shells that can complete a command line."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


@app.command()
def compare(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST", help="one for each candidate model")
    ],
    sample: Annotated[int, typer.Option("--sample", help="how many records to compare on")] = 2_000,
    seed: Annotated[
        int, typer.Option("--seed", help="a number; the same one chooses the same records")
    ] = 1,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="also write it as one HTML page")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare candidate models with each other and with the current one, on a sample."""
    from reembed.commands.compare import compare as compare_models
    from reembed.commands.compare_page import page
    from reembed.manifest import Manifest

    found = compare_models(
        [Manifest.load(path) for path in manifests],
        sample=sample, seed=seed, progress=shown(),
    )  # fmt: skip
    if output is not None:
        write_output(output, page(found))
    show_result(found, comparison_text, as_json)


@app.command()
def doctor(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="MANIFEST_OR_URL", help="what to check"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check whether this installation can work, and which stores and models it reaches."""
    from reembed.commands.doctor import diagnose

    found = diagnose(subject)
    show_result(found, diagnosis_text, as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def schema(as_json: Json = False) -> None:
    """Print the manifest's JSON Schema."""
    from reembed.manifest import json_schema

    say_json(json_schema())


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish")],
    as_json: Json = False,
) -> None:
    """Print what makes a shell complete commands and options; in bash: `source <(reembed completion
    bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(
        prog_name="reembed", complete_var=COMPLETING, shell=shell.value
    )  # fmt: skip
    if as_json:
        say_json({"shell": shell.value, "script": script})
    else:
        typer.echo(script)


@app.command()
def runs(
    manifest: Annotated[
        Path | None, typer.Argument(metavar="MANIFEST", help="default: all in ./.reembed")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="remove cleaned runs except the newest, and unused caches"),
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """List the runs on this disk with their sizes. With --prune, remove what nobody needs."""
    from reembed.commands.runs import prune as remove
    from reembed.commands.runs import stored
    from reembed.manifest import Manifest

    loaded = Manifest.load(manifest) if manifest is not None else None
    state = Path(loaded.state) if loaded else Path(".reembed")
    name = loaded.name if loaded else None
    found = remove(state, name) if prune and yes else stored(state, name)
    show_result(found, lambda found: stored_text(found, asked=prune), as_json)


def stored_text(found: Stored, asked: bool) -> RenderableType:
    """A line a run and a cache.

    Args:
        asked: whether it was asked for what goes.
    """
    from reembed.cli.text import when

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


BAR = 40
"""Characters of a bar for all queries."""


def comparison_text(comparison: ModelComparison) -> RenderableType:
    """The advice, a bar a model, then a row a figure and a column a model."""
    advice = comparison.recommendation
    columns = [_current(comparison), *(_column(one, comparison.k)
                                       for one in comparison.candidates)]  # fmt: skip
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", style="dim")
    for name in ("current", *(candidate.manifest for candidate in comparison.candidates)):
        table.add_column(name, overflow="fold")
    for name in columns[1]:
        table.add_row(name, *(column.get(name, "-") for column in columns))
    about = (
        f"{comparison.sampled:,} of {comparison.records:,} records of {comparison.collection}, "
        f"{comparison.queries:,} {comparison.kind} queries"
    )
    heading = Text(f"recommendation: {advice.headline}", "bold green" if advice.choice else "bold")
    notes = (Text(note, "yellow") for note in comparison.notes)
    return Group(Text(about, "dim"), heading, Text(advice.why), _bars(comparison), table, *notes)


def _bars(comparison: ModelComparison) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False)
    for name, recall in comparison.recalls().items():
        style = "dim" if name == "current" else "cyan"
        table.add_row(name, Text("\N{FULL BLOCK}" * round(BAR * recall), style),
                      f"{recall * 100:.1f} %")  # fmt: skip
    return table


def _current(comparison: ModelComparison) -> dict[str, str]:
    current, k = comparison.current, comparison.k
    rows = {"model": current.model or "not known", "index of all": human_bytes(current.index_bytes)}
    if current.dimensions:
        rows["dimensions"] = str(current.dimensions)
    if current.metrics:
        rows[f"recall@{k}"] = _mean(current.metrics["recall"])
        rows[f"nDCG@{k}"] = _mean(current.metrics["ndcg"])
    return rows


def _column(candidate: Candidate, k: int) -> dict[str, str]:
    recall, ndcg = candidate.metrics["recall"], candidate.metrics["ndcg"]
    rows = {
        "model": candidate.model, "dimensions": str(candidate.dimensions),
        f"recall@{k}": _mean(recall["mean"]), "  change": _difference(recall["change"]),
        "  to the first": _difference(recall["difference"]),
        f"nDCG@{k}": _mean(ndcg["mean"]), "  change ": _difference(ndcg["change"]),
        "  to the first ": _difference(ndcg["difference"]),
        "tokens of all": f"{candidate.tokens:,}",
        "cost of all": f"${candidate.usd:,.4f}" if candidate.usd is not None else "-",
        "time for all": human_time(candidate.seconds),
        "index of all": human_bytes(candidate.index_bytes),
    }  # fmt: skip
    return rows | {"not embedded": f"{candidate.rejected:,}"}


def _mean(interval: Interval | None) -> str:
    return f"{interval.mean:.4f}" if interval else "-"


def _difference(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


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
