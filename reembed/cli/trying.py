"""`reembed try`: its options, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.cli.app import Json, OneCollection, app, show_result
from reembed.cli.helping import URL_HELP
from reembed.cli.showing import shown

if TYPE_CHECKING:
    from reembed.commands.trial import Answer, Question, Trial


MODEL_HELP = (
    "the model to try, such as openai:text-embedding-3-small, ollama:nomic-embed-text or "
    "static:wordllama, which needs no server and no key"
)


@app.command("try")
def try_(
    url: Annotated[str, typer.Argument(metavar="URL", help=URL_HELP)],
    model: Annotated[str, typer.Option("--model", metavar="PROVIDER:NAME", help=MODEL_HELP)],
    collection: OneCollection = None,
    old_model: Annotated[
        str | None,
        typer.Option(
            "--old-model",
            metavar="PROVIDER:NAME",
            help="the model that made the vectors; default: what the store says",
        ),
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option("--ask", metavar="QUESTION", help="a question of yours; may be repeated"),
    ] = None,
    sample: Annotated[int, typer.Option("--sample", help="how many records to embed")] = 300,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="FILE",
            help="the manifest to write; default: named after collection and model",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask the old and a new model the same questions about some records, and write the manifest."""
    from reembed.commands.trial import Subject, try_model

    found = try_model(
        Subject(url, collection, model, old_model), ask=ask or (), sample=sample, output=output,
        progress=shown(),
    )  # fmt: skip
    show_result(found, trial_text, as_json)
    if not found.plan.ok:
        raise typer.Exit(found.plan.refusal().exit_code)


def trial_text(trial: Trial) -> RenderableType:
    """The questions with both models' answers, then the plan of the whole."""
    from reembed.cli.text import plan_text, steps_text

    parts: list[RenderableType] = []
    for question in trial.questions:
        parts.append(Text(f"? {question.text}", "bold"))
        parts.append(_answers_text(question))
    about = f"searched in a sample of {trial.sampled:,} of {trial.plan.records:,} records"
    if trial.left_out:
        about += f"; {trial.left_out:,} of them cannot be embedded"
    made = sum(question.made for question in trial.questions)
    if made:
        about += ". The questions are made from records (*); ask your own with --ask"
    parts.append(Text(f"{about}.", "dim"))
    if trial.old_model:
        told = (
            f"{trial.old_model}. To see today's answers, name what made the vectors: "
            "--old-model PROVIDER:NAME"
        )
        parts.append(Text(told, "yellow"))
    parts.append(Text(""))
    parts.append(plan_text(trial.plan))
    parts.append(Text(f"wrote {trial.manifest}"))
    return Group(*parts, *steps_text(trial.steps))


def _answers_text(question: Question) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim")
    table.add_column("", style="dim")
    sides = {"today": question.old, "with the new model": question.new}
    shown = {name: answers for name, answers in sides.items() if answers}
    for name in shown:
        table.add_column(name, ratio=1, overflow="ellipsis", no_wrap=True)
    for place in range(max(map(len, shown.values()), default=0)):
        cells = (_answer_text(answers, place) for answers in shown.values())
        table.add_row(str(place + 1), *cells)
    return table


def _answer_text(answers: Sequence[Answer], place: int) -> Text:
    if place >= len(answers):
        return Text("")
    answer = answers[place]
    mark = "* " if answer.expected else "  "
    return Text(f"{mark}{answer.text or answer.id}", "green" if answer.expected else "default")
