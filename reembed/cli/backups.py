"""The commands of snapshots: options in, documents or tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reembed.cli.app import AcceptLoss, Json, OneCollection, Yes, app, show_result
from reembed.cli.output import say_json, show
from reembed.cli.showing import shown
from reembed.errors import UsageError

Directory = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|MANIFEST", help="where `reembed backup` keeps the snapshots, or a manifest"
    ),
]
ItsCollection = Annotated[str | None, typer.Option("--collection", help="only this collection")]
OneSnapshot = Annotated[
    str | None,
    typer.Option("--snapshot", metavar="ID", help="which snapshot; default: the newest good one"),
]


@app.command()
def backup(
    target: Annotated[
        str, typer.Argument(metavar="MANIFEST|URL", help="a migration's YAML file, or a database")
    ],
    collection: OneCollection = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="all collections, also those that are gone since the last backup"
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", metavar="DIR", help="where to; default for a manifest: backups/ in its `state`"
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="KEY", help="count the records by a metadata key; may be repeated"
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop", min=0, max=100, help="percent of the records that may be missing"
        ),
    ] = 50.0,
    without_vectors: Annotated[
        bool, typer.Option("--without-vectors", help="leave the vectors out")
    ] = False,
    accept_drop: Annotated[
        str | None,
        typer.Option(
            "--accept-drop",
            metavar="WHY",
            help="accept that records are missing; the reason is noted",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Take a snapshot of a collection. An empty or collapsed one is refused, and kept apart."""
    from reembed.backup.commands import backup as take
    from reembed.backup.commands import with_reason
    from reembed.backup.take import Wanted
    from reembed.cli.backup_text import backups_text

    wanted = with_reason(Wanted(tuple(by or ()), max_drop, not without_vectors), accept_drop)
    found = take(
        target, collection, every=every, directory=output, wanted=wanted,
        progress=shown(),
    )  # fmt: skip
    show_result(found, backups_text, as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def snapshots(
    directory: Directory, collection: ItsCollection = None, as_json: Json = False
) -> None:
    """List the snapshots of a backup directory, good and refused."""
    from reembed.backup.directory import harmed
    from reembed.backup.directory import snapshots as find
    from reembed.cli.backup_text import snapshots_text

    found, bad = find(directory, collection), harmed(directory, collection)
    if as_json:
        say_json({"snapshots": [one.to_dict() for one in found], "damaged": bad})
    else:
        show(snapshots_text(found, bad))


@app.command()
def check(
    directory: Directory,
    collection: ItsCollection = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", metavar="ID", help="only the files of this snapshot")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option("--slice", metavar="N/T", help="only the n-th of t parts of all bytes"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read every byte of the snapshots, and say what is damaged."""
    from reembed.backup.check import check as look
    from reembed.cli.backup_text import check_text

    if snapshot is not None and part is not None:
        raise UsageError("--snapshot and --slice cannot be used together", "Choose one.")
    found = look(
        directory, collection, snapshot=snapshot, slice=part, progress=shown()
    )  # fmt: skip
    show_result(found, check_text, as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def restore(
    directory: Directory,
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="where to; default: the store that was backed up"),
    ] = None,
    collection: ItsCollection = None,
    snapshot: OneSnapshot = None,
    live: Annotated[
        str | None,
        typer.Option(
            "--live", metavar="NAME", help="the name to give it; default: the name that it had"
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="leave out what was written since the snapshot")
    ] = False,
    accept_window: Annotated[
        bool, typer.Option("--accept-window", help="the name may be gone for a few milliseconds")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="make the Chroma folder where there is none")
    ] = False,
    going_back: Annotated[
        bool, typer.Option("--back", help="give the name back to the collection that had it")
    ] = False,
    accept_loss: AcceptLoss = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes/--dry-run", help="give it the live name, or only make it (the default)"
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a collection again from a snapshot, beside the live one, and compare it. With --yes it
    takes the live name."""
    from reembed.backup.restored import How
    from reembed.backup.restores import Restore, back
    from reembed.backup.restores import restore as begin
    from reembed.cli.backup_text import restored_text

    how = How(exact=exact, accept_window=accept_window, accept_loss=accept_loss)
    wanted = Restore(directory, url, collection, snapshot, live, how, create)
    found = (back if going_back else begin)(wanted, yes=yes, progress=shown())
    show_result(found, restored_text, as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def drill(
    directory: Directory,
    collection: ItsCollection = None,
    snapshot: OneSnapshot = None,
    as_json: Json = False,
) -> None:
    """Restore into a scratch store, ask it for known records, report, and throw the store away."""
    from reembed.backup.drill import drill as practise
    from reembed.cli.backup_text import drills_text

    found = practise(directory, collection, snapshot=snapshot, progress=shown())
    show_result(found, drills_text, as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def prune(
    directory: Directory,
    collection: ItsCollection = None,
    keep: Annotated[
        int, typer.Option("--keep", help="how many of the newest good ones to keep")
    ] = 7,
    daily: Annotated[int, typer.Option("--keep-daily", help="also one a day, of so many days")] = 0,
    weekly: Annotated[
        int, typer.Option("--keep-weekly", help="also one a week, of so many weeks")
    ] = 0,
    monthly: Annotated[
        int, typer.Option("--keep-monthly", help="also one a month, of so many months")
    ] = 0,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Keep the last good snapshots, whatever came after them, and remove the others."""
    from reembed.backup.prune import Keep
    from reembed.backup.prune import prune as remove
    from reembed.cli.backup_text import pruned_text

    wanted = Keep(keep, daily, weekly, monthly)
    show_result(remove(directory, collection, keep=wanted, dry_run=not yes), pruned_text, as_json)
