"""The way back, with what was written since the swap.

Rows go back by comparison: what the new collection holds otherwise than the ledger says was written
since the swap. What has gone back is kept in a file, so that the same comparison finds writes that
came to the new collection even later, through handles that an application still holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa

from reembed.errors import PreflightError
from reembed.progress import stage
from reembed.records import SHARD_ROWS, Vectors, chunked, hashes_of
from reembed.run import events
from reembed.run.ledger import UNKNOWN
from reembed.run.loss import Loss, loss_in, worst
from reembed.stages.session import Session
from reembed.sync.carry_back_log import Hashes, known_carried, write_carried
from reembed.sync.difference import Carried, find_difference
from reembed.sync.grouped_writes import taken_refusal, write_together
from reembed.sync.old_vectors import OldVectors

LIVE_ROWS = 50
"""Rows written to the old collection between two looks at what was written there meanwhile."""
DISPLACED_TIMES = 3
"""How often a row of the old collection makes room in one way back. More often only one of two rows
fits there: the new collection does not ask for what the old one must have unique."""
Rows = tuple[pa.RecordBatch, Vectors, list[str]]
"""Records, their vectors `(n, d) float32` and their ids."""


@dataclass
class CarriedBack(Carried):
    """What went back.

    Attributes:
        lost: ids of rows that cannot go back and were accepted as lost.
        left: ids of rows that cannot go back and were left where they are.
    """

    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, more: Carried) -> None:
        super().add(more)
        if isinstance(more, CarriedBack):
            self.lost, self.left = sorted({*self.lost, *more.lost}), more.left


class WayBack(OldVectors):
    """The two collections of a swap, and what it takes to bring rows back."""

    def __init__(self, s: Session) -> None:
        super().__init__(s)
        self.new, self.guard, self.note = s.new, s.loss_guard, s.progress.note
        self.seen: object = None
        """What `carry` has carried of what the store logs: only what came after is compared."""
        self._looked: object = None

    @stage("carry back")
    def carry(self) -> CarriedBack:
        """Carry what was written since the swap into the old collection, before it goes live.

        Deletions are carried, rows whose text is unchanged keep their old vector, other rows are
        embedded with the old model. The new collection is right where both were changed.

        Raises:
            PreflightError: rows would be lost, and nobody accepted it.
            LossError: the new collection lost most of its records, and nobody accepted it (if
                somebody did, deletions are not carried).
        """
        known = self._known()
        accept_loss = self.guard.accepted
        changed, deleted = self._written(known)
        spared: list[str] = []
        loss = self._loss("the live collection", changed, deleted)
        if loss.is_mass:
            self.guard.refuse(
                loss, "With --accept-loss the old collection comes back as it was, with them.",
                " since the swap; rolling back would delete them from the old collection too",
            )  # fmt: skip
            spared, deleted = deleted, []
        if not accept_loss:
            self._refuse_unless_carriable(changed)
        for part in chunked(spared, SHARD_ROWS):
            there = self.old.hashes(part)
            known |= {id: (None, there.get(id)) for id in part}
        conflicts = self._conflicts([*changed, *deleted], known, self._interrupted())
        done = self._carry(changed, deleted, known, accept_loss)
        done.conflicts = sorted(conflicts)
        self.seen = self._looked
        return done

    @stage("carry back what came late")
    def carry_late(self) -> CarriedBack:
        """Carry what came to the new collection after that. The old one, live again, is right where
        both were changed, and rows that cannot go back are left."""
        known = self._known()
        changed, deleted = self._written(known)
        conflicts = self._conflicts([*changed, *deleted], known, self._interrupted())
        changed = [id for id in changed if id not in conflicts]
        lacking, deleted = deleted, [id for id in deleted if id not in conflicts]
        withheld = None
        if deleted:
            loss = worst(
                self._loss("the new collection", changed, lacking),
                Loss("the live collection", self.old.count(), len(deleted)),
            )
            if not self.guard.accepts(loss):
                withheld, deleted = loss, []
        done = self._carry(changed, deleted, known, None)
        done.conflicts = sorted({*conflicts, *done.conflicts})
        done.withheld = withheld
        return done

    @stage("look for late writes")
    def late(self) -> tuple[list[str], Loss | None]:
        """Ids written to or deleted from the new collection after the way back, which the old one
        lacks; and, in place of its deletions, what it has lost where they are a mass."""
        if self.new.describe() is None:
            return [], None
        known = self._known()
        changed, deleted = self._written(known)
        conflicts = self._conflicts([*changed, *deleted], known, self._interrupted())
        loss = self._loss("the new collection", changed, deleted)
        ids = changed if loss.is_mass else [*changed, *deleted]
        return [id for id in ids if id not in conflicts], loss if loss.is_mass else None

    def _loss(self, collection: str, changed: list[str], deleted: list[str]) -> Loss:
        return loss_in(collection, changed, deleted, self.run, self.ledger, moved_only=True)

    # What was written

    def _known(self) -> dict[str, Hashes]:
        """What was carried back. Of what a killed call has displaced nothing is known but what the
        old collection held: it has to be looked at again, whatever it is in the new one."""
        known, displaced = known_carried(self.run, self.note), self.run.history.displaced_back
        before = self._carried(displaced, known)
        return known | {id: (UNKNOWN, before[id][1]) for id in displaced}

    @property
    def logged(self) -> bool:
        """Whether the store logs what is written to the new collection, so that a look is cheap."""
        swapped = self.run.history.last(events.SwapDone)
        return swapped is not None and swapped.receipt.get("mark") is not None

    @stage("look what was written")
    def _written(self, known: dict[str, Hashes]) -> tuple[list[str], list[str]]:
        """Ids changed in and deleted from the new collection since they were last carried."""
        swapped = self.run.history.last(events.SwapDone)
        found = find_difference(
            self.new, self.ledger, include_quarantined=False, besides=self.seen,
            since=swapped.receipt.get("mark") if swapped else None,
        )  # fmt: skip
        merged = [id for stem in sorted(self.foreign) for id in sorted(self.ledger.current(stem))]
        self._looked, ids = found.token, [*found.changed, *found.deleted, *merged, *known]
        if self.seen is not None and found.touched is not None:
            ids = [*found.touched, *sorted(self.run.history.displaced_back)]
        ids = list(dict.fromkeys(ids))
        changed, deleted = list[str](), list[str]()
        for part in chunked(ids, SHARD_ROWS):
            now = self.new.hashes(part)
            for id, (before, _) in self._carried(part, known).items():
                if now.get(id) != before:
                    (changed if id in now else deleted).append(id)
        return self._unlike(changed), deleted

    def _unlike(self, changed: list[str]) -> list[str]:
        """Of the ids changed in the new collection, those that are not the same in the old one: a
        quarantined row that a table kept, or one that was written to both."""
        unlike: list[str] = []
        for part in chunked(changed, SHARD_ROWS):
            new = self.new.hashes(part)
            old = self.old.hashes(part)
            unlike += [id for id in part if new.get(id) != old.get(id)]
        return unlike

    def _carried(self, ids: Iterable[str], known: dict[str, Hashes]) -> dict[str, Hashes]:
        """The hashes these ids had in both collections when they were last equal."""
        ids = list(ids)
        entries = self.ledger.lookup(ids)
        hashes: dict[str, Hashes] = {}
        for id in ids:
            entry = entries.get(id)
            row = entry.row_sha256 if entry and entry.shard not in self.foreign else None
            hashes[id] = known.get(id, (None if entry and entry.quarantined else row, row))
        return hashes

    def _interrupted(self) -> bool:
        """Whether a killed call was carrying. Replacing a row deletes it first, so one that it left
        missing is ours to restore."""
        return self.run.history.carry_interrupted

    @stage("look who wrote last")
    def _conflicts(
        self, ids: Iterable[str], known: dict[str, Hashes], interrupted: bool
    ) -> set[str]:
        """Of these ids, those that the old collection has changed itself, and otherwise.

        Args:
            interrupted: whether rows that are missing there are ours to restore.
        """
        found = set[str]()
        for part in chunked(list(ids), SHARD_ROWS):
            new = self.new.hashes(part)
            old = self.old.hashes(part)
            found |= {
                id
                for id, (_, before) in self._carried(part, known).items()
                if old.get(id) not in (before, new.get(id)) and not (interrupted and id not in old)
            }
        return found

    # Carrying

    def _carry(
        self,
        changed: list[str],
        deleted: list[str],
        known: dict[str, Hashes],
        accept_loss: bool | None,
    ) -> CarriedBack:
        """Write rows and deletions. `accept_loss` None leaves rows that cannot go back.

        What is noted as carried is what was read, never what is there by the end: a row that is
        written to meanwhile is found again by the next comparison.
        """
        done = CarriedBack(carried=len(deleted))
        pairs: dict[str, Hashes] = dict.fromkeys(deleted, (None, None))
        if changed or deleted:
            self.run.history.record(events.CarryBegun(changed=len(changed), deleted=len(deleted)))
        for ids in chunked([*deleted, *changed], SHARD_ROWS):
            self.run.history.record(events.CarryingBack(ids=tuple(ids)))
        for ids in chunked(deleted, SHARD_ROWS):
            self.old.delete(ids)
        todo, times = list(changed), Counter[str]()

        def displace(ids: set[str]) -> None:
            self.run.history.record(events.DisplacedBack(ids=tuple(sorted(ids))))
            self.old.delete(sorted(ids))
            pairs.update(dict.fromkeys(ids, (UNKNOWN, None)))
            todo.extend(sorted(ids.difference(todo)))
            times.update(ids)

        while todo:
            ids, todo[:SHARD_ROWS] = todo[:SHARD_ROWS], []
            rows = self.new.fetch(ids, vectors=False)
            vectors, usable = self._old_vectors(rows)
            names = rows.column("id").to_pylist()
            unusable = [id for id, ok in zip(names, usable, strict=True) if not ok]
            if unusable and accept_loss is False:
                raise self._refusal(unusable)
            (done.left if accept_loss is None else done.lost).extend(unusable)
            now = hashes_of(rows)
            if accept_loss is not None:
                there = self.old.hashes(unusable)
                pairs |= {id: (now[id], there.get(id)) for id in unusable}
            waiting = dict.fromkeys(id for id, ok in zip(names, usable, strict=True) if ok)

            def write(ids: set[str], rows: Rows = (rows, vectors, names)) -> None:
                part = np.array([id in ids for id in rows[2]], bool)
                self.old.overwrite(rows[0].filter(part), rows[1][part])

            while waiting:
                ids = list(islice(waiting, LIVE_ROWS))
                for id in ids:
                    del waiting[id]
                if accept_loss is None:  # embedding took its time: look again before writing
                    newer = self._conflicts(ids, known, interrupted=True)
                    done.conflicts += sorted(newer)
                    ids = [id for id in ids if id not in newer]
                    written, taken = write_together(
                        write, ids, waiting,
                        lambda ids: {*ids} - self._conflicts(ids, known, interrupted=True),
                    )  # fmt: skip
                    done.conflicts += sorted(taken)
                else:
                    written, taken = write_together(
                        write, ids, waiting, set,
                        lambda ids: self._movable(ids, done.lost, times), displace,
                    )  # fmt: skip
                    if taken:  # but for those that were changed meanwhile, which are found again
                        still = self.new.hashes(list(taken))
                        taken = {id: by for id, by in taken.items() if still.get(id) == now[id]}
                    if taken and not accept_loss:
                        raise taken_refusal(taken)
                    if taken:
                        there = self.old.hashes(list(taken))
                        pairs |= {id: (now[id], there.get(id)) for id in taken}
                        done.lost += sorted(taken)
                pairs |= {id: (now[id], now[id]) for id in written}
                done.carried += len(written)
        write_carried(self.run, known | pairs)
        if changed or deleted:
            self.run.history.record(events.CarryDone(carried=done.carried))
        return done

    def _movable(
        self, holders: Iterable[str], lost: Sequence[str], times: Counter[str]
    ) -> set[str]:
        """Of these rows of the old collection, which is not live, those that can make room: the new
        collection has them, otherwise, and there will be a vector when they are written again."""
        movable = set[str]()
        kept = [id for id in holders if id not in lost and times[id] < DISPLACED_TIMES]
        for part in chunked(kept, SHARD_ROWS):
            rows = self.new.fetch(part, vectors=False)
            there = self.old.hashes(part)
            _, usable = self._old_vectors(rows, gone=True)
            movable |= {
                id for (id, row), ok in zip(hashes_of(rows).items(), usable, strict=True)
                if ok and row != there.get(id)
            }  # fmt: skip
        return movable

    def _refuse_unless_carriable(self, changed: list[str]) -> None:
        """Look before the first write whether every row keeps its vector or can get one."""
        homeless: list[str] = []
        for ids in chunked(changed, SHARD_ROWS):
            homeless += self._needy(self.new.fetch(ids, vectors=False))
        if homeless and self.old_template is None:
            raise self._refusal(homeless)

    def _refusal(self, ids: list[str]) -> PreflightError:
        why = self._why or "the old model refuses their texts"
        return PreflightError(
            f"{len(ids):,} rows written since the swap cannot go back, e.g. "
            f"{', '.join(ids[:5])}: {why}",
            "Give the old model as source.model, or accept losing them with --accept-loss."
            if self.takes_model
            else "Give them such a vector, or accept losing them with --accept-loss.",
        )
