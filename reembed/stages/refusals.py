"""Refusals that a plan tells early and a stage enforces: empty sources, taken names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from reembed.errors import LossError, PreflightError, SourceChangedError
from reembed.manifest import Manifest
from reembed.run.directory import RunDir
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo


def refuse_empty(
    source: CollectionInfo, where: Mapping[str, Any] | str | None, matching: int, others: str = ""
) -> None:
    """Raise PreflightError if there is nothing to move.

    Args:
        others: what `told_fuller` says.
    """
    if matching:
        return
    if source.count:
        raise PreflightError(
            f"source.where matches none of the {source.count:,} records of {source.name!r}: "
            f"{where!r}",
            "Check the filter against the records' metadata; nothing was changed.",
        )
    raise PreflightError(
        f"the source {source.name!r} is empty, and an empty source is never migrated",
        "If it should hold records, the application may be writing elsewhere, or the store may "
        f"have been re-created: check the URL, the credentials and the backups.{others}",
    )


LOOKED_AT = 50
"""Collections of a store that are looked at for one that holds something."""


def told_fuller(store: Store, name: str, choose: str) -> str:
    """Which other collection of the store is meant perhaps, since it is not empty.

    Args:
        choose: how it is chosen, with {} for its name.
    """
    found: list[CollectionInfo] = []
    for other in store.catalog.collections()[:LOOKED_AT]:
        with contextlib.suppress(PreflightError):
            info = store.catalog.describe(other)
            found += [info] if info.count and other != name else []
    if not found:
        return ""
    most = max(found, key=lambda info: info.count)
    return f" Not empty here: {choose.format(most.name)} ({most.count:,} records)."


def refusals_without_text(
    manifest: Manifest, store: Store, source: CollectionInfo
) -> list[PreflightError]:
    """The refusal of a source of which no record at all gives a text. Reads until it finds one."""
    template = manifest.template()
    where = manifest.source.where
    looked = 0
    for page in store.reader.list_ids(source.id, where):
        rows = store.reader.fetch(source.id, page.to_pylist(), vectors=False, where=where)
        if any(text.strip() for text in template.texts_of(rows)):
            return []
        looked += len(rows)
    ways = ['Name what holds it in the template, e.g. text: "{metadata.KEY}"']
    if source.layout:  # of a table
        ways += [
            "name its column (source.columns: {text: NAME})",
            "or fetch it from another table (source.text_query: SELECT key, text FROM ...)",
        ]
    return [
        PreflightError(
            f"none of the {looked:,} records of {source.name!r} gives a text for the template "
            f"{manifest.text!r}, so there is nothing to embed",
            "; ".join(ways) + ".",
        )
    ]


def refuse_other(now: CollectionInfo, was: CollectionInfo, run: RunDir) -> None:
    """Raise what `other` finds."""
    error = other(now, was, run)
    if error is not None:
        raise error


def other(now: CollectionInfo, was: CollectionInfo, run: RunDir) -> SourceChangedError | None:
    """What is to be told where a name leads to another collection than the one that the run
    exported, or to one that holds its records in other columns by now."""
    if now.id == was.id:
        return _reshaped(now, was, run)
    start_over = f"To start over, move the run directory {run.path} away."
    if now.database.get("system") != was.database.get("system") or now.database.get(
        "oid"
    ) != was.database.get("oid"):
        return SourceChangedError(
            f"this is another database than the one that run {run.run_id} exported: "
            f"{_about(now)}; it was {_about(was)}",
            "Somebody changed the URL, the credentials or the server, or created the database "
            "again. The one with the records is elsewhere, or lost: do not let a backup "
            f"overwrite a good one. {start_over}",
        )
    return SourceChangedError(
        f"{now.name!r} is another collection (id {now.id}, {now.count:,} records) than the one "
        f"that run {run.run_id} exported (id {was.id}, {was.count:,} records)",
        "Somebody deleted, restored or swapped it; look at the store first. To start over with the "
        "collection that is there now: `reembed clean` deletes this run's shadow and nothing else "
        "(with --accept-loss where that is the last to hold a record), "
        "`reembed run` then starts a new run and no text is paid for twice.",
    )


def _reshaped(now: CollectionInfo, was: CollectionInfo, run: RunDir) -> SourceChangedError | None:
    """What was exported is not what these columns hold: a text of another column would be another
    text, with nobody having written to a row."""
    if not was.columns:  # of a run that an earlier version began, or of a store without columns
        return None
    found = [
        f"the {what} was in the column {column!r} and is in {now.holds.get(what, 'none')!r}"
        for what, column in was.holds.items()
        if now.holds.get(what) != column
    ]
    found += [f"the column {one!r} is gone" for one in was.columns if one not in now.columns]
    found += [f"the column {one!r} has come" for one in now.columns if one not in was.columns]
    found += [
        f"the column {one!r} is {now.columns[one]} and was {type}"
        for one, type in was.columns.items()
        if now.columns.get(one, type) != type
    ]
    if not found:
        return None
    return SourceChangedError(
        f"{now.name!r} has other columns than when run {run.run_id} exported it: "
        f"{'; '.join(found)}",
        "Nothing was moved. Undo that and run the same command again; if it was meant, `reembed "
        "run --restart` begins anew with the columns that are there, and pays for no text twice.",
    )


def _about(info: CollectionInfo) -> str:
    database = info.database
    return (
        f"database {database.get('name')!r} of cluster {database.get('system')}, as role "
        f"{database.get('role')!r}, with {info.count:,} records in {info.name!r}"
    )


def refuse_emptied(source: CollectionInfo, exported: int, run: RunDir) -> None:
    """Raise LossError if a collection that was exported is empty now. There is nothing to build of
    it, whoever accepts that."""
    if exported and not source.count:
        raise LossError(
            f"{source.name!r} is empty, and it had {exported:,} records when it was exported",
            "If that was meant, give this run up with `reembed clean --accept-loss`; if not, "
            f"put the records back: the export shards of {run.path} still hold every one.",
        )


def name_taken(name: str) -> PreflightError:
    """The refusal of a target that exists and is not this run's."""
    return PreflightError(
        f"the target collection {name!r} exists and was not made by this run",
        f"Choose another name, `target.collection: {name}-2`, or delete that collection yourself "
        "if nobody needs it.",
    )


def taken_by(there: CollectionInfo, manifest: Manifest, dimensions: int) -> PreflightError:
    """As `name_taken`. A target that has the name and the dimensions which reembed itself gives is
    told to be what an earlier run left.

    Args:
        there: the collection that has the target's name.
        dimensions: of the new vectors.
    """
    refusal = name_taken(there.name)
    if manifest.target.collection or there.dimensions not in (dimensions, None):
        return refusal
    return PreflightError(
        f"{refusal.message}; by its name and its dimensions an earlier run made it "
        f"({there.count:,} records), whose run directory is not in {manifest.state_dir}",
        "If that run directory is somewhere else, point `state` to it, and the same command goes "
        f"on with it. If it is gone: choose another target.collection, "
        f"`target.collection: {there.name}-2`, or delete the leftover yourself unless an "
        "application reads it; the new run makes it again.",
    )
