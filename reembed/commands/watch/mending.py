"""The one thing that a watch mends, where it is written down: a collection that is gone or empty
gets its last good backup back.

Only in the database that the backup is of, only where no record is, and only with a person's word:
`--yes`, or `watch.unattended` in the manifest.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

from reembed.backup.directory import snapshots
from reembed.backup.restored import How
from reembed.backup.restores import Restore, restore
from reembed.commands.watch import collections
from reembed.commands.watch.findings import Finding, alert, of_bug, of_error, warning
from reembed.commands.watch.looking import look
from reembed.commands.watch.memory import Memory
from reembed.commands.watch.result import WatchResult
from reembed.commands.watch.subject import Subject
from reembed.errors import CollectionNotFoundError, ReembedError
from reembed.progress import Progress
from reembed.redaction import without_secrets
from reembed.stores.lease.lease import StoreLease

LOSSES = ("gone", "empty")


def mend(
    subject: Subject, memory: Memory, result: WatchResult, yes: bool, tell: Callable[[], None]
) -> list[Finding]:
    """Restore what is gone or empty, if the settings say so. Returns what was done, or why not.

    Args:
        memory: gets the restored collections as what is right.
        yes: a person's word.
        tell: called before anything is restored, which may take hours, or end this process.
    """
    _give_back(subject, memory)
    settings = subject.settings
    lost = sorted({one.collection for one in result.alerts if one.check in LOSSES} - {""})
    if settings.on_empty != "restore" or not lost or not result.reached:
        return []
    elsewhere = [one for one in result.alerts if one.check == "identity" and not one.collection]
    found = []
    for name in lost:
        if elsewhere:
            found.append(
                warning(
                    "mend", name, f"{name!r} is not restored: {elsewhere[0].message}",
                    "Find the right database first: nothing is restored into another one.",
                )
            )  # fmt: skip
            continue
        try:
            found.append(_mend(subject, memory, name, yes, result.t, tell))
        except ReembedError as error:
            found.append(of_error("mend", name, error))
        except Exception as error:  # what is lost has to be told whatever happens here
            found.append(of_bug("mend", name, error))
    return found


def _mend(
    subject: Subject, memory: Memory, name: str, yes: bool, now: float, tell: Callable[[], None]
) -> Finding:
    settings = subject.settings
    if settings.backups is None:
        return alert(
            "mend", name, f"{name!r} is not restored: on_empty: restore needs a backup",
            "Say where they are: watch.backups, or --backups.",
        )  # fmt: skip
    good = [one for one in snapshots(Path(settings.backups), name) if one.good]
    if not good:
        return alert("mend", name, f"{name!r} is not restored: there is no good backup of it")
    last = max(good, key=lambda one: one.sequence)
    url = without_secrets(subject.url)[0]
    if last.url != url:
        return alert(
            "mend", name, f"{name!r} is not restored: the last good backup is of {last.url}, not "
            f"of {url}",
            f"`reembed restore {subject.backups} {shlex.quote(url)} --collection "
            f"{shlex.quote(name)} --yes` restores it here all the same.",
        )  # fmt: skip
    if (there := _records(subject, name)) > 0:
        return warning("mend", name, f"{name!r} is not restored: it has {there:,} records again")
    if not (yes or settings.unattended):
        return warning(
            "mend", name, f"{name!r} can be restored from {last.id}: {last.records:,} records",
            "The same command with --yes does it, or watch.unattended: true without a person.",
        )  # fmt: skip
    memory.mending.append(name)
    tell()
    manifest = subject.manifest
    how = How(accept_window=bool(manifest and manifest.swap.accept_window))
    try:
        done = restore(
            Restore(Path(settings.backups), subject.url, name, last.id, name, how), yes=True,
            progress=Progress(),
        )  # fmt: skip
    finally:
        memory.mending.remove(name)
    if done.refused is not None:
        return of_error("mend", name, done.refused)
    _remember(subject, memory, name, now)
    left = f"; {done.not_restored:,} without a vector are not" if done.not_restored else ""
    return warning(
        "mend", name, f"{name!r} was restored from {last.id}: {last.records:,} records, each "
        f"compared{left}",
        "Find out who emptied it. The way back: "
        f"`reembed restore {subject.backups} --collection {shlex.quote(name)} --back --yes`.",
    )  # fmt: skip


def _give_back(subject: Subject, memory: Memory) -> None:
    """Take the leases over that cycles have left which were killed in a restore, and give them
    back. Where that fails, or another run has one by now, the next cycle tries again."""
    for name in [*memory.mending]:
        with contextlib.suppress(ReembedError):
            store = subject.open()
            try:
                lease = StoreLease(store, name, f"watch of {name}")
                lease.acquire()
                lease.release()
            finally:
                store.close()
            memory.mending.remove(name)


def _records(subject: Subject, name: str) -> int:
    """Records under a live name at this moment; 0 if it leads to nothing."""
    store = subject.open()
    try:
        return store.resolve(name).count
    except CollectionNotFoundError:
        return 0
    finally:
        store.close()


def _remember(subject: Subject, memory: Memory, name: str, now: float) -> None:
    """The restored collection is another object, and what should be there."""
    store = subject.open()
    try:
        info = store.resolve(name)
        settings = subject.settings
        seen = look(store, name, info, settings.by, settings.canaries, [])
        memory.collections[name] = collections.accepted(seen, now, settings)
    finally:
        store.close()
