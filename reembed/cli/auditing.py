"""`reembed audit`: its options, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.app import Json, OneCollection, Yes, app, show_result
from reembed.cli.showing import shown
from reembed.errors import UsageError
from reembed.run.disk import write_output

if TYPE_CHECKING:
    from reembed.commands.audit.result import Audit, Finding, Mended
    from reembed.commands.audit.subject import Asked


@app.command("audit")
def audit_(
    target: Annotated[
        str, typer.Argument(metavar="MANIFEST|URL", help="a store URL, or a migration's YAML file")
    ],
    collection: OneCollection = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="PROVIDER:NAME",
            help="a model that may have made the vectors; may be repeated",
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEMPLATE", help="the template of what was embedded"),
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="records to begin with")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="ask the model for every record")] = False,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="stop before it costs more")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="stop before it takes more tokens")
    ] = None,
    mending: Annotated[
        bool, typer.Option("--fix", help="embed the records again that are found bad, no others")
    ] = False,
    undoing: Annotated[
        bool, typer.Option("--undo", help="put back the vectors that the last --fix replaced")
    ] = False,
    yes: Yes = False,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="write the report as Markdown, too")
    ] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Say whether the vectors of a collection are made by this model from these texts."""
    from reembed.commands.audit.examine import audit
    from reembed.commands.audit.subject import Asked
    from reembed.manifest import Embed

    caps = Embed(max_cost=max_cost, max_tokens_total=max_tokens)
    asked = Asked(target, collection, tuple(model or ()), text, sample, every, caps=caps)
    if mending and undoing:
        raise UsageError("--fix and --undo cannot be used together")
    if undoing or (mending and yes):
        if undoing and not yes:
            raise UsageError("--undo writes into the collection", "Add --yes to do it.")
        _mend(asked, undoing, as_json)
    found = audit(asked, shown())
    if output is not None:
        write_output(output, markdown(found))
    show_result(found, audit_text, as_json)
    raise typer.Exit(found.exit_code)


def _mend(asked: Asked, undoing: bool, as_json: bool) -> NoReturn:
    from reembed.commands.audit.mend import fix, undo

    done = (undo if undoing else fix)(asked, shown())
    show_result(done, mended_text, as_json)
    raise typer.Exit(done.exit_code)


def mended_text(done: Mended) -> RenderableType:
    """What was found, and what was done about it."""
    from reembed.cli.text import steps_text

    parts: list[RenderableType] = [audit_text(done.audit, steps=False)] if done.audit else []
    what = "have the vector of their text now" if done.action == "fix" else "have their old vector"
    if done.records:
        parts.append(Text(f"{done.written:,} of {done.records:,} records {what}.", "bold"))
    elif not done.removed:
        parts.append(Text("Nothing was to be written."))
    if done.removed:
        what = f"{done.removed:,} rows of no record are deleted; {done.path} keeps them."
        parts.append(Text(what, "bold"))
    for why in sorted(set(done.left.values())):
        ids = [id for id, one in done.left.items() if one == why]
        shown_ids = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
        parts.append(Text(f"! left as they are, {why}: {shown_ids}", "yellow"))
    if done.backup:
        parts.append(Text(f"backup: {done.backup}", "dim"))
    return Group(*parts, *steps_text(done.steps))


def audit_text(found: Audit, *, steps: bool = True) -> RenderableType:
    """What was found, as a small table and sentences."""
    from reembed.cli.text import steps_text

    parts: list[RenderableType] = [Text(_head(found), "bold"), Text(_how(found), "dim")]
    if any(one.records for one in found.findings):
        parts.append(_table(found.findings))
    for one in found.findings:
        parts.append(Text(f"{'!' if one.bad else '-'} {one.message}{_in_all(one)}.",
                          "red" if one.bad else "default"))  # fmt: skip
        parts += [Text(f"    where: {place}") for place in one.places]
        if one.ids:
            parts.append(Text(f"    ids: {', '.join(map(repr, one.ids))}{_more(one)}", "dim"))
        if one.hint:
            parts.append(Text(f"    {one.hint}", "dim"))
    parts += [Text(f"- {note}", "yellow") for note in found.notes]
    if found.mendable and found.model:
        parts.append(Text(f"To embed these {len(found.mendable):,} again takes {_cost(found)}."))
    parts.append(Text(verdict(found), "red" if found.bad else "green"))
    return Group(*parts, *(steps_text(found.steps) if steps else ()))


def verdict(found: Audit) -> str:
    """The last line."""
    if found.bad:
        return "Not all vectors are what they should be."
    if not found.model:
        return "Nothing is wrong, as far as can be told without the model."
    return f"All is right: the vectors looked at are those that {found.model} makes of these texts."


def _head(found: Audit) -> str:
    dimensions = f", {found.dimensions} dimensions" if found.dimensions else ""
    return f"{found.collection}: {found.records:,} records{dimensions}"


def _how(found: Audit) -> str:
    if not found.model:
        return "no model was asked"
    judged = found.judged
    told = (
        f"held against {found.model} ({_FROM[found.model_from]}): {judged.by_model:,} texts asked"
    )
    told += f" (a random sample of {judged.sample:,} first)" if judged.screened else ""
    if judged.by_vectors:
        told += f", {judged.by_vectors:,} named by their vectors alone"
    if judged.screened:
        told += f", {judged.screened:,} passed by their vectors alone"
    return told + f"; the same from cosine {found.least:.4f}"


_FROM = {
    "given": "as you say", "manifest": "as the manifest says", "store": "as the store says",
    "detected": "found by asking it",
}  # fmt: skip


def _table(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("found", "named", "in all (95 %)"):
        table.add_column(name, justify="left" if name == "found" else "right")
    for one in findings:
        if one.records:
            table.add_row(one.kind.replace("_", " "), f"{one.records:,}", _range(one))
    return table


def _range(one: Finding) -> str:
    return f"{one.low:,}" if one.low == one.high else f"{one.low:,} to {one.high:,}"


def _in_all(one: Finding) -> str:
    return f"; in all {_range(one)}" if one.low != one.high else ""


def _more(one: Finding) -> str:
    return ", ..." if one.records > len(one.ids) else ""


def _cost(found: Audit) -> str:
    usd = f" (${found.mend.usd:.4f})" if found.mend.usd else ""
    return f"about {found.mend.tokens:,} tokens{usd}"


def markdown(found: Audit) -> str:
    """The same as Markdown."""
    lines = [f"# Audit of {_head(found)}", "", _how(found) + ".", "", f"**{verdict(found)}**", ""]
    counted = [one for one in found.findings if one.records]
    if counted:
        lines += ["| found | named | in all (95 %) |", "|---|---:|---:|"]
        lines += [f"| {one.kind.replace('_', ' ')} | {one.records:,} | {_range(one)} |"
                  for one in counted]  # fmt: skip
        lines.append("")
    for one in found.findings:
        lines.append(f"- {'**' if one.bad else ''}{one.message}{'**' if one.bad else ''}")
        lines += [f"  - where: {place}" for place in one.places]
        lines += (
            [f"  - ids: {', '.join(f'`{id}`' for id in one.ids)}{_more(one)}"] if one.ids else []
        )
        lines += [f"  - {one.hint}"] if one.hint else []
    lines += [f"- {note}" for note in found.notes]
    if found.mendable and found.model:
        lines += ["", f"To embed these {len(found.mendable):,} again takes {_cost(found)}."]
    return "\n".join(lines) + "\n"
