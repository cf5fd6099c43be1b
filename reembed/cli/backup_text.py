"""What the commands of snapshots say to a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reembed.backup.check import Check
from reembed.backup.commands import Backups, Failed
from reembed.backup.drill import Drills
from reembed.backup.prune import Prune
from reembed.backup.restores import Restored
from reembed.backup.snapshot import Drill, Snapshot
from reembed.backup.take import Taken
from reembed.cli.text import pairs, when
from reembed.errors import ReembedError
from reembed.progress import human_bytes


def backups_text(found: Backups) -> RenderableType:
    """A few lines for each collection."""
    parts: list[RenderableType] = []
    for one in found.collections:
        if isinstance(one, Failed):
            parts.append(_error_text(one.collection, one.error))
        else:
            parts.append(_taken_text(one))
    return Group(*parts)


def _taken_text(taken: Taken) -> RenderableType:
    error = taken.refused()
    one = taken.snapshot
    table = pairs(f"backup of {taken.collection}")
    if one is not None:
        table.add_row("snapshot", f"{one.id}{'' if one.good else ' (kept apart)'}")
        table.add_row("records", f"{one.records:,}, {taken.changed:,} of them written now")
        for key, counts in one.by.items():
            table.add_row(f"by {key}", f"{len(counts):,} values")
        if one.accepted_drop is not None:
            table.add_row("accepted", f"a drop: {one.accepted_drop}")
        table.add_row("size", f"{human_bytes(one.bytes)}, {human_bytes(taken.written)} of it new")
        table.add_row("in", str(one.path))
    for message in taken.messages:
        table.add_row("", message)
    if error is not None:
        return Group(table, _error_text("refused", error)) if one else _error_text("refused", error)
    return Group(table, Text("good", "bold green"))


def _error_text(label: str, error: ReembedError) -> Text:
    text = Text(f"{label}: ", "bold red")
    text.append(error.message, "default")
    if error.hint:
        text.append(f"\n  {error.hint}", "dim")
    return text


def snapshots_text(found: Sequence[Snapshot], bad: Sequence[str]) -> RenderableType:
    """A line for each snapshot, and one for each that is not whole any more."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for column in ("collection", "snapshot", "taken", "records", "size", "", "last drill"):
        table.add_column(column, overflow="fold")
    for one in found:
        said = Text("good", "green") if one.good else Text(f"refused: {one.reason}", "bold red")
        if one.accepted_drop is not None:
            said.append(f" (a drop was accepted: {one.accepted_drop})", "yellow")
        table.add_row(
            one.collection, one.id, when(one.time), f"{one.records:,}", human_bytes(one.bytes),
            said, _drill_text(one.drill),
        )  # fmt: skip
    return Group(table, *(Text(f"damaged: {problem}", "bold red") for problem in bad))


def _drill_text(drill: Drill | None) -> Text:
    if drill is None:
        return Text("never", "dim")
    if drill.passed:
        return Text(f"passed {when(drill.time)}", "green")
    return Text(f"failed {when(drill.time)}", "bold red")


def check_text(found: Check) -> RenderableType:
    """A few lines for each collection, then the verdict."""
    parts: list[RenderableType] = []
    for one in found.folders:
        table = pairs(one.collection or one.folder)
        part = f", part {found.slice}" if found.slice else ""
        table.add_row("read", f"{one.shards:,} shards, {human_bytes(one.bytes)}{part}, of "
                              f"{one.snapshots:,} snapshots")  # fmt: skip
        newest = f"; the newest is {one.restorable[-1]}" if one.restorable else ""
        table.add_row("whole", f"{len(one.restorable):,} good snapshots{newest}")
        for note in one.notes:
            table.add_row("", note)
        for problem in one.problems:
            table.add_row("damaged", Text(problem, "bold red"))
        parts.append(table)
    wrong = sum(len(one.problems) for one in found.folders)
    verdict = (
        Text(f"{wrong:,} things are wrong", "bold red") if wrong else Text("whole", "bold green")
    )
    return Group(*parts, verdict)


def restored_text(found: Restored) -> RenderableType:
    """What was made, how it compares, and what to type next."""
    table = pairs(f"{found.action} of {found.live}")
    table.add_row("snapshot", found.snapshot)
    table.add_row("store", found.url)
    if found.compared is not None:
        said = "; ".join(found.compared.problems) or "every one as it was, with its vector"
        table.add_row("compared", f"{found.compared.records:,} records: {said}")
    if found.not_restored:
        table.add_row("left out", f"{found.not_restored:,} records that have no vector, e.g. "
                                  f"{', '.join(found.not_restored_ids[:5])}")  # fmt: skip
    if found.moved is not None:
        moved = found.moved
        table.add_row("live", f"{found.live} leads to it now, by {moved.kind}")
        if moved.parked:
            table.add_row("before", f"kept as {moved.parked}")
        table.add_row("writes", f"{moved.carried.records:,} carried")
        if moved.carried.conflicts:
            table.add_row("not carried", ", ".join(moved.carried.conflicts[:5]))
        if moved.carried.withheld:
            table.add_row("not carried", f"{moved.carried.withheld:,} deletions: more than half")
    elif found.action == "restore":
        table.add_row("beside", found.collection)
    for message in [*found.messages, *(found.moved.messages if found.moved else [])]:
        table.add_row("", message)
    parts: list[RenderableType] = [table]
    if found.refused is not None:
        parts.append(_error_text("refused", found.refused))
    elif not found.swapped:
        parts.append(Text("The live name was not touched.", "bold"))
    if found.not_made_again:
        parts.append(Text("To make it again, in the database, once you have looked at it:", "bold"))
        parts += [Text(f"  {sql.rstrip(';')};") for _, sql in found.not_made_again]
    parts += [Text(f"next: {step}") for step in found.steps if found.refused is None]
    return Group(*parts)


def drills_text(found: Drills) -> RenderableType:
    """A few lines for each collection."""
    parts: list[RenderableType] = []
    for one in found.collections:
        table = pairs(f"drill of {one.collection}")
        table.add_row("snapshot", one.snapshot)
        table.add_row("restored", f"{one.drill.records:,} records in {one.drill.seconds:,.1f} s, "
                                  "each compared, then thrown away")  # fmt: skip
        table.add_row("asked", f"{one.drill.found:,} of {one.drill.asked:,} known records found "
                               "themselves")  # fmt: skip
        for problem in one.drill.problems:
            table.add_row("wrong", Text(problem, "bold red"))
        parts += [table, _verdict(one.drill.passed)]
    return Group(*parts)


def _verdict(passed: bool) -> Text:
    return Text("passed", "bold green") if passed else Text("failed", "bold red")


def pruned_text(found: Prune) -> RenderableType:
    """What went, or would."""
    parts: list[RenderableType] = []
    for one in found.folders:
        table = pairs(one.collection or one.folder)
        table.add_row("kept", f"{len(one.kept):,}: {', '.join(one.kept)}")
        table.add_row("removed" if found.done else "would go", ", ".join(one.removed) or "none")
        if one.restores:
            table.add_row("restores", f"{len(one.restores):,} finished ones")
        if found.done:
            table.add_row("freed", human_bytes(one.freed))
        for note in one.notes:
            table.add_row("", note)
        parts.append(table)
    if not found.done:
        parts.append(Text("Nothing was done. Add --yes to do it.", "bold"))
    return Group(*parts)
