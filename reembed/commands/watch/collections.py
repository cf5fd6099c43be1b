"""What is wrong with a collection, from one look at it and what is remembered: pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reembed.commands.watch.findings import Finding, alert, fine
from reembed.commands.watch.looking import Seen
from reembed.commands.watch.memory import Good, High
from reembed.commands.watch.subject import Expected, Live
from reembed.manifest import Watch
from reembed.manifest.watching import seconds_of

BY_LEAST = 10
"""Records that a value must have had to be told by itself: a user may delete their three."""
SHOWN = 10
"""Values that are named in the detail."""
RESTORE = "If that was not meant, restore it: backups and the runs' export shards hold it. "
ACCEPT = 'If it was meant: give the same command with --accept "why".'
NO_MORE = "If it was meant, end this watch, which names it."
ELSEWHERE = (
    "Somebody changed the URL, the credentials or the server, or created the database again: find "
    "the one with the records, and do not let a backup overwrite a good one."
)
_IDENTITY = {"system": "cluster", "oid": "database", "name": "database name", "role": "role"}
"""Keys of `CollectionInfo.database` that say which database it is; versions may change."""


@dataclass(frozen=True)
class Reference:
    """What a collection is held against: what is remembered, else what its run says."""

    good: Good | None
    expected: Expected | None

    @property
    def records(self) -> int:
        """The most records that there should be; 0 where nothing is known."""
        if self.good is not None:
            return self.good.high.count
        return self.expected.records if self.expected else 0

    @property
    def ids(self) -> frozenset[str]:
        """Object ids that the live name may lead to; empty where any may be right."""
        known = {self.good.id} if self.good is not None else set()
        if self.expected is None:
            return frozenset(known)
        if not self.expected.ids:  # the name is moving
            return frozenset()
        accepted = known if self.good is not None and self.good.accepted else set()
        return self.expected.ids | accepted


def gone(live: Live, reference: Reference) -> Finding:
    """The alert of a live name that leads to nothing."""
    had = f", which had {reference.records:,} records," if reference.records else ""
    meant = NO_MORE if live.asked else ACCEPT
    return alert("gone", live.name, f"the collection {live.name!r}{had} is gone", RESTORE + meant)


def check(live: Live, seen: Seen, reference: Reference, settings: Watch) -> list[Finding]:
    """Everything about one collection."""
    return [
        *_counts(live, seen, reference, settings),
        *_shape(seen, reference),
        *_identity(seen, reference),
        *_canaries(seen, reference, settings),
    ]


def _counts(live: Live, seen: Seen, reference: Reference, settings: Watch) -> Iterator[Finding]:
    had, now = reference.records, seen.count
    meant = reference.good is not None and reference.good.accepted and had == 0
    if now == 0 and not meant and (live.asked or had):
        there = f"; it had {had:,} records" if had else ""
        yield alert("empty", seen.name, f"{seen.name!r} is empty{there}", RESTORE + ACCEPT)
    elif had - now > settings.max_drop * had:
        yield alert(
            "drop", seen.name,
            f"{seen.name!r} has {now:,} records, and had {had:,} within a week: "
            f"{(had - now) / had:.0%} are gone",
            RESTORE + ACCEPT,
        )  # fmt: skip
    else:
        yield fine("drop", seen.name, f"{now:,} records")
    if settings.by is not None and now:
        yield _by(seen, reference, settings)


def _by(seen: Seen, reference: Reference, settings: Watch) -> Finding:
    """Of values that had many records, and of how many values there are."""
    good = reference.good
    before = good.by if good is not None and good.by_key == settings.by else {}
    fell = fallen(before, seen.by, settings.max_drop)
    lost = before.keys() - seen.by.keys()
    if not fell and len(lost) <= settings.max_drop * len(before):
        return fine("drop_by", seen.name, f"{len(seen.by):,} values of {settings.by}")
    parts = [f"{len(fell):,} values of {settings.by} lost more than {settings.max_drop:.0%} of "
             f"their records"] if fell else []  # fmt: skip
    if lost:
        parts.append(f"{len(lost):,} of {len(before):,} values have no record any more")
    named = [f"{value}: {before[value].count:,} -> {seen.by.get(value, 0):,}" for value in
             sorted(fell or lost, key=lambda value: -before[value].count)[:SHOWN]]  # fmt: skip
    return alert(
        "drop_by", seen.name, f"in {seen.name!r} {' and '.join(parts)}", RESTORE + ACCEPT,
        detail="; ".join(named),
    )  # fmt: skip


def fallen(before: Mapping[str, High], now: Mapping[str, int], most: float) -> list[str]:
    """Values that had BY_LEAST records or more and lost more than the share `most` of them."""
    return [
        value for value, high in before.items()
        if high.count >= BY_LEAST and high.count - now.get(value, 0) > most * high.count
    ]  # fmt: skip


def _shape(seen: Seen, reference: Reference) -> Iterator[Finding]:
    good, expected = reference.good, reference.expected
    wanted = expected.dimensions if expected and expected.dimensions else None
    wanted = wanted or (good.dimensions if good else None)
    given = seen.info.dimensions
    if wanted and given and wanted != given:
        yield alert(
            "dimension", seen.name,
            f"{seen.name!r} holds vectors of {given} dimensions, and its model gives {wanted}",
            f"Searches with that model fail or find nothing. {ACCEPT}",
        )  # fmt: skip
    metric = expected.metric if expected and expected.metric else good.metric if good else ""
    if metric and metric != seen.info.metric:
        yield alert(
            "metric", seen.name,
            f"{seen.name!r} is searched by {seen.info.metric}, and was by {metric}",
            f"Somebody created it again with other settings. {ACCEPT}",
        )  # fmt: skip


def _identity(seen: Seen, reference: Reference) -> Iterator[Finding]:
    if reference.ids and seen.info.id not in reference.ids:
        was = ", ".join(sorted(reference.ids))
        yield alert(
            "identity", seen.name,
            f"{seen.name!r} is another collection than it was: its id is {seen.info.id}, and was "
            f"{was}",
            "Somebody deleted it and created it again, renamed another one, or this is another "
            f"database. {ACCEPT}",
        )  # fmt: skip
    else:
        yield fine("identity", seen.name, f"id {seen.info.id}")


def other_database(now: Mapping[str, Any], was: Mapping[str, Any]) -> list[str]:
    """In what a database differs from the one that it was, in words."""
    return [
        f"the {word} was {was[key]}, now {now[key]}"
        for key, word in _IDENTITY.items()
        if key in now and key in was and now[key] != was[key]
    ]


def _replaced(seen: Seen, good: Good | None) -> bool:
    """Whether far more of the known records are gone than the count tells, and most of them."""
    canaries = seen.canaries
    if good is None or not good.count or not canaries.asked:
        return False
    gone = canaries.gone / canaries.asked
    return gone > max(0.5, 2 * (1 - seen.count / good.count))


def _canaries(seen: Seen, reference: Reference, settings: Watch) -> Iterator[Finding]:
    canaries = seen.canaries
    if canaries.lost:
        there = canaries.asked - canaries.gone
        yield alert(
            "canary", seen.name,
            f"{len(canaries.lost):,} of {there:,} known records of {seen.name!r} are there, and a "
            "search with their own vectors does not find them",
            "The index is damaged, or is not that of these vectors. Build it again: `reembed run "
            "--swap` of a manifest with model: keep.",
            detail=", ".join(canaries.lost[:SHOWN]),
        )  # fmt: skip
    elif _replaced(seen, reference.good):
        yield alert(
            "canary", seen.name,
            f"{canaries.gone:,} of {canaries.asked:,} known records are no more in {seen.name!r}",
            f"Its records were replaced by others. {ACCEPT} Where that happens every day: "
            "`watch.canaries: 0`.",
        )  # fmt: skip
    elif canaries.ids:
        yield fine("canary", seen.name, f"{len(canaries.ids):,} known records find themselves")
    most, took = settings.max_latency, canaries.latency
    if most is not None and took is not None:
        if took > seconds_of(most):
            yield alert("latency", seen.name, f"a search in {seen.name!r} takes {took:.2f} s")
        else:
            yield fine("latency", seen.name, f"a search takes {took * 1000:.0f} ms")


def remembered(seen: Seen, reference: Reference, now: float, settings: Watch) -> Good:
    """What is remembered of a collection with which nothing is wrong."""
    good, info = reference.good, seen.info
    by = good.by if good is not None and good.by_key == settings.by else {}
    high = good.high if good is not None else High(seen.count, now)
    return Good(
        now, info.id, seen.count, high.seen(seen.count, now), info.dimensions, info.metric,
        settings.by,
        {
            value: by.get(value, High(0, now)).seen(seen.by.get(value, 0), now)
            for value in {*by, *seen.by}
            if value in seen.by or by[value].count >= BY_LEAST
        },
        seen.canaries.ids,
        accepted=bool(good and good.accepted and good.id == info.id),
    )  # fmt: skip


def accepted(seen: Seen, now: float, settings: Watch) -> Good:
    """What is remembered of a collection after a person said that it is meant to be as it is."""
    good = remembered(seen, Reference(None, None), now, settings)
    good.accepted = True
    return good
