"""The commands that look: candidate models, this installation, runs on this disk, the schema."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reembed.cli.app import Json, Yes, app, show_result
from reembed.cli.output import say_json
from reembed.cli.showing import shown
from reembed.run.disk import write_output

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
    from reembed.cli.comparison import comparison_text
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
    from reembed.cli.diagnosis import diagnosis_text
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
    from reembed.cli.stored import stored_text
    from reembed.commands.runs import prune as remove
    from reembed.commands.runs import stored
    from reembed.manifest import Manifest

    loaded = Manifest.load(manifest) if manifest is not None else None
    state = Path(loaded.state) if loaded else Path(".reembed")
    name = loaded.name if loaded else None
    found = remove(state, name) if prune and yes else stored(state, name)
    show_result(found, lambda found: stored_text(found, asked=prune), as_json)
