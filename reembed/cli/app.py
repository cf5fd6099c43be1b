"""The command line: options in, documents or tables out. No logic lives here.

stdout carries the result, as tables or with `--json` as one JSON document; progress, logs and
errors go to stderr. What a command did not manage is its exit code (see `reembed.errors`).
A command imports what it works with when it is called, so that `--help` is there at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

import reembed
from reembed.cli.helping import BEGIN, URL_HELP, Overview
from reembed.cli.logs import LOG
from reembed.cli.options import App
from reembed.cli.output import say, say_json, show
from reembed.cli.showing import shown
from reembed.errors import UsageError
from reembed.run.disk import write_atomic, write_output

app = App(
    help="Move a live vector collection from one embedding model to another, safely.",
    epilog=BEGIN, cls=Overview,
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="the migration's YAML file")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document on stdout")]
Yes = Annotated[
    bool,
    typer.Option("--yes/--dry-run", help="do it, or only say what would be done (the default)"),
]
AcceptLoss = Annotated[
    bool,
    typer.Option("--accept-loss", help="go on even if more than half of the records would be lost"),
]


OneCollection = Annotated[str | None, typer.Option("--collection", help="name of the collection")]
Markdown = Annotated[bool, typer.Option("--markdown", help="print a summary in Markdown on stdout")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="print the version")
    ] = False,
) -> None:
    if version:
        say(reembed.__version__)
        raise typer.Exit


@app.command()
def init(
    url: Annotated[str | None, typer.Argument(metavar="URL", help=URL_HELP)] = None,
    collection: OneCollection = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="PROVIDER:NAME", help="the new model")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", help="file to write; default: stdout")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look into a store and write a manifest for one of its collections. In a terminal it asks for
    what is not given."""
    from reembed.cli.asking import Wanted, complete
    from reembed.commands.discover import discover

    _refuse_to_overwrite(output)
    wanted = complete(Wanted(url, collection, model, output), may_ask=not as_json)
    output, model = wanted.output, wanted.model
    _refuse_to_overwrite(output)
    found = discover(str(wanted.url), wanted.collection, output.parent if output else None, model)
    if output is not None:
        found.write(output)
    if as_json:
        say_json(found.to_dict())
    elif output is None:
        say(found.to_yaml(), end="")
    else:
        choose = "" if model else "choose its model, then "
        say(f"wrote {output}; next: {choose}reembed plan {shlex.quote(str(output))}")
        for told in (*found.doubts, *([found.note] if found.note else [])):
            say(told)


def _refuse_to_overwrite(output: Path | None) -> None:
    if output is not None and output.exists():
        raise UsageError(f"{output}: exists already", "Choose another name with -o.")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"{output.parent}: there is no such folder", "Make it first.")


@app.command()
def plan(manifest: ManifestPath, as_json: Json = False) -> None:
    """Show what a run would do, what it would cost and need, and what blocks it. Writes nothing."""
    from rich.console import Group

    from reembed.cli.text import plan_text, steps_text
    from reembed.run.steps import plan_steps

    made = _migration(manifest).plan()
    refusal = None if made.ok else made.refusal()
    if as_json:
        say_json(made.to_dict() | ({"error": refusal.to_dict()} if refusal else {}))
    else:
        show(_text(made, plan_text))
        show(Group(*steps_text(plan_steps(made.ok, manifest))))
    raise typer.Exit(refusal.exit_code if refusal else 0)


UntilStage = Annotated[
    str, typer.Option("--until", metavar="STAGE", help="plan, export, embed, load, verify or swap")
]


@app.command()
def run(
    manifest: ManifestPath,
    until: UntilStage = "verify",
    swap: Annotated[bool, typer.Option("--swap", help="swap if every gate passes")] = False,
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="do nothing if nothing has changed")
    ] = False,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="try the records in quarantine again")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="give up the run that was begun, and start a new one")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="mode: follow: build a new one in any case")
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="mode: follow: take the name from what others made")
    ] = False,
    accept_loss: AcceptLoss = False,
    as_json: Json = False,
) -> None:
    """Export, embed, load and verify. It goes on where an earlier call stopped, and stops before
    the swap unless --swap is given. With mode: follow, carry what has changed in the corpus."""
    from typing import get_args

    from reembed.cli.text import result_text
    from reembed.sync.build import Stage

    if until not in get_args(Stage):
        raise UsageError(f"--until {until}: no such stage", f"One of {', '.join(get_args(Stage))}.")
    moving = _migration(manifest)
    job = {"rebuild": rebuild, "adopt": adopt}
    once = {"if_changed": if_changed, "retry_quarantined": retry_quarantined}
    if moving.manifest.mode == "follow":
        once.pop("if_changed")  # a job never does more than what changed
    for given, mode in ((once, "once"), (job, "follow")):
        wrong = [key.replace("_", "-") for key, value in given.items() if value]
        if moving.manifest.mode != mode and wrong:
            raise UsageError(
                f"--{wrong[0]} is for mode: {mode}",
                f"Leave it out, or set mode: {mode} in the manifest (docs/nightly.md).",
            )
    common = {"until": until, "swap": swap, "restart": restart, "accept_loss": accept_loss}
    result = moving.run(**common, **(job if moving.manifest.mode == "follow" else once))
    show_result(result, result_text, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def verify(
    manifest: ManifestPath,
    part: Annotated[
        str | None,
        typer.Option("--slice", metavar="N/T", help="only the integrity of the n-th of t slices"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the gates of a loaded run again, and give a new verdict."""
    from reembed.cli.text import result_text

    result = _migration(manifest).verify(slice=part)
    show_result(result, result_text, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def swap(
    manifest: ManifestPath, yes: Yes = False, accept_loss: AcceptLoss = False, as_json: Json = False
) -> None:
    """Move the live name to the new collection."""
    _moved(_migration(manifest).swap(dry_run=not yes, accept_loss=accept_loss), as_json)


@app.command()
def sweep(
    manifest: ManifestPath,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be lost")] = False,
    accept_loss: AcceptLoss = False,
    as_json: Json = False,
) -> None:
    """Copy late writes: those that reached a collection after the live name had left it."""
    _moved(_migration(manifest).sweep(dry_run=dry_run, accept_loss=accept_loss), as_json)


@app.command()
def rollback(
    manifest: ManifestPath,
    yes: Yes = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss", help="go back even if records cannot be copied back, or most are lost"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Move the live name back to the old collection, with what was written since."""
    _moved(_migration(manifest).rollback(dry_run=not yes, accept_loss=accept_loss), as_json)


@app.command()
def clean(
    target: Annotated[
        str, typer.Argument(metavar="MANIFEST|URL", help="a migration's YAML file, or a database")
    ],
    yes: Yes = False,
    accept_loss: AcceptLoss = False,
    backup: Annotated[
        bool, typer.Option("--backup", help="take a snapshot of what is deleted first")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete the collection that is not live: after a swap the old one, else the new one. With the
    URL of a database that is a copy: what runs of the original have left in it."""
    from reembed.manifest.urls import is_url

    if not is_url(target):
        moving = _migration(Path(target))
        done = moving.clean(dry_run=not yes, accept_loss=accept_loss, backup=backup)
        _moved(done, as_json)
        return
    from reembed.cli.text import cleaned_text
    from reembed.cutover.leftovers import clean_database

    show_result(clean_database(target, dry_run=not yes), cleaned_text, as_json)


@app.command()
def status(
    manifest: Annotated[Path | None, typer.Argument(metavar="MANIFEST")] = None,
    as_json: Json = False,
) -> None:
    """Say where a migration stands. Without a manifest: where all in ./.reembed stand."""
    from reembed.cli.text import result_text
    from reembed.report.results import all_results

    if manifest is not None:
        show_result(_migration(manifest).status(), result_text, as_json)
        return
    results = all_results(Path(".reembed"))
    if as_json:
        say_json({"migrations": [result.to_dict() for result in results]})
        return
    for result in results:
        show(result_text(result))
    if not results:
        say("no runs in ./.reembed")


@app.command()
def report(
    manifest: ManifestPath,
    output: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="default: report.html in the run")
    ] = None,
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Write the report of the newest run as one HTML file that opens offline."""
    from reembed.report.write import REPORT_FILE

    if as_json and markdown:
        raise UsageError("--json and --markdown cannot be used together", "Choose one.")
    found = _migration(manifest).report()
    if output is None and not (as_json or markdown):
        output = Path(found.path) / REPORT_FILE
        write_atomic(output, found.to_html().encode())
    elif output is not None:
        if not output.parent.is_dir():
            raise UsageError(f"{output.parent}: there is no such folder", "Make it first.")
        write_output(output, found.to_html())
    if as_json:
        say_json(found.to_dict())
    elif markdown:
        say(found.to_markdown(), end="")
    else:
        say(str(output))


def _migration(path: Path) -> Any:
    """What has a method for each command: of one collection, or of several that move together."""
    from reembed.manifest import Manifest

    LOG.manifest = path
    manifest = Manifest.load(path)
    if manifest.is_group:
        from reembed.migration.group.migrations import Migrations

        return Migrations(manifest, shown())
    if manifest.mode == "follow":
        from reembed.migration.following.following import Following

        return Following(manifest, shown())
    from reembed.migration import Migration

    return Migration(manifest, shown())


def _moved(result: Any, as_json: bool) -> None:
    from reembed.cli.text import swap_text

    show_result(result, swap_text, as_json)
    code = getattr(result, "exit_code", 0)  # a group's: some of it may not be done
    if code:
        raise typer.Exit(code)


def show_result(result: Any, render: Callable[[Any], RenderableType], as_json: bool) -> None:
    """Print what a command returned."""
    if as_json:
        say_json(result.to_dict())
    else:
        show(_text(result, render))


def _text(result: Any, render: Callable[[Any], RenderableType]) -> RenderableType:
    if hasattr(result, "members"):  # of several collections
        from reembed.cli.groups import text_of

        render = text_of(result)
    return render(result)
