"""What one call of a following job has open: the corpus, which is only read, and the live name's
store, which is written to under the lease.

Each collection that the job builds is a run of its own (a generation): a migration of the corpus to
a new collection, which no name moves to. The live name is the job's, and moves in `moving.py`.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from reembed.backup.restore import live_now
from reembed.cutover.move import finish_move, release_writes
from reembed.errors import PreflightError
from reembed.manifest import Manifest
from reembed.progress import Progress
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.lease.guarded import LeasedProgress, leased
from reembed.stores.lease.lease import StoreLease
from reembed.stores.registry import open_source, open_target
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo


def only_read(store: Store) -> Store:
    """A store without any part that writes to it, and whose collections are compared whole."""
    return replace(
        store, writer=None, build_index=None, survey=None, changes=None, capture=None, claims=None,
        leftovers=None, shapes=None, together=None, withdraw=None,
    )  # fmt: skip


class Job:
    """A following job, for one call.

    Args:
        writes: False for a call that only looks: it takes no lease.
        accept_loss: whether a person said that a mass of records may go.
    """

    def __init__(
        self, manifest: Manifest, progress: Progress, *, writes: bool, accept_loss: bool = False
    ) -> None:
        self.manifest, self.progress = manifest, progress
        self.writes, self.accept_loss = writes, accept_loss
        self._lease: StoreLease | None = None
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self.writes:
            manifest = self.manifest
            lease = StoreLease(
                self._open_live, manifest.live, manifest.name, "", self.progress.note
            )
            lease.acquire()
            self._lease = lease
            self._closing.callback(lease.release)
            self.progress = LeasedProgress(self.progress, lease.refuse_lost)
            self._settle()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def check_lease(self, now: bool) -> None:
        """Raise LockedError before a write if the lease is lost."""
        assert self._lease is not None, "a call that writes takes the lease first"
        self._lease.check(now=now)

    def work_on(self, run: RunDir) -> None:
        """Say in the lease which run it is."""
        if self._lease is not None:
            self._lease.work_on(run.run_id)

    # Stores

    @cached_property
    def _open_corpus(self) -> Store:
        store = open_source(self.manifest)
        self._closing.callback(store.close)
        return store

    @cached_property
    def _open_live(self) -> Store:
        if self.manifest.target_url == self.manifest.source.url:
            return self._open_corpus
        store = open_target(self.manifest)
        self._closing.callback(store.close)
        return store

    @cached_property
    def corpus(self) -> Store:
        """The store of the corpus; nothing in it can be written to."""
        return only_read(self._open_corpus)

    @cached_property
    def store(self) -> Store:
        """The live name's store, written to under the lease."""
        return leased(self._open_live, self.check_lease)

    def source(self) -> Collection:
        """The corpus as its name leads to it now."""
        source = self.manifest.source
        return Collection(self.corpus, self.corpus.resolve(source.collection).id, source.where)

    def live(self) -> CollectionInfo | None:
        """The collection that the live name leads to, None where it leads to none."""
        return live_now(self.store, self.manifest.live)

    # Generations

    def runs(self) -> list[RunDir]:
        """Every generation that was begun, newest first."""
        return RunDir.every(self.manifest.state_dir)

    def current(self, live: CollectionInfo | None) -> RunDir | None:
        """The generation that is live; None where the live name leads to none of them."""
        if live is None:
            return None
        return next((run for run in self.runs() if run.history.shadow_id == live.id), None)

    def generation(self, name: str) -> Manifest:
        """The manifest of a generation: the corpus, moved to a collection of this name."""
        manifest = self.manifest
        target = manifest.target.model_copy(update={"collection": name})
        swap = manifest.swap.model_copy(update={"live": None, "kind": "config"})
        made = manifest.model_copy(
            update={"target": target, "swap": swap, "mode": "once", "backup": None}
        )
        made._base_dir, made._path = manifest.base_dir, manifest.path
        return made

    def new_name(self) -> str:
        """A name for the next generation's collection, which nothing has or had."""
        taken = {*self.store.catalog.collections()}
        taken |= {str(run.history.created.identity["target"]["collection"]) for run in self.runs()}
        for number in range(1, 1_000_000):
            name = f"{self.manifest.live}__build-{number:04d}"
            name = self.store.cutover.fit_name(name) if self.store.cutover else name
            if name not in taken:
                return name
        raise PreflightError(f"{self.store.url}: every name for a new collection is taken")

    def does_the_same(self, run: RunDir) -> bool:
        """Whether a generation was begun with a manifest that makes the same records and vectors of
        the same corpus."""
        wanted, begun = self.generation("").identity(), run.history.created.identity
        return bool(_work(wanted) == _work(begun))

    def session(self, run: RunDir | None, name: str = "") -> FollowSession:
        """A session on a generation.

        Args:
            name: of the collection, for one that is to begin.
        """
        if run is not None:
            name = str(run.history.created.identity["target"]["collection"])
            self.work_on(run)
        return FollowSession(self, self.generation(name), run)

    def _settle(self) -> None:
        """Journal what the store has done of a move whose call was killed, and withdraw what it has
        not."""
        for run in self.runs()[:2]:
            release_writes(self.store, run, self.manifest.live)
            action = run.history.pending_move
            if action is None:
                continue
            begun = run.history.require(events.BEGUN[action])
            live = self.live()
            if live is not None and live.id == begun.exchange["incoming_id"]:
                finish_move(self.store, run, action)
            elif action == "swap":
                run.history.record(events.SwapWithdrawn())
            else:
                run.history.record(events.RollbackWithdrawn())


class FollowSession(Session):
    """The session of a generation, with the job's stores and lease."""

    def __init__(self, job: Job, manifest: Manifest, run: RunDir | None) -> None:
        super().__init__(
            manifest, run, job.progress, writes=job.writes, accept_loss=job.accept_loss
        )
        self.job = job

    @cached_property
    def open_source(self) -> Store:
        return self.job.corpus

    @cached_property
    def source_store(self) -> Store:
        return self.job.corpus

    @cached_property
    def store(self) -> Store:
        return self.job.store

    def take_lease(self) -> None:
        """The job has it."""

    def _check_lease(self, now: bool) -> None:
        self.job.check_lease(now)

    @property
    def live(self) -> LiveCollection:
        """The generation's collection, written to a few rows at a time."""
        return LiveCollection(self.store, self.new.id)


LIVE_ROWS = 50
"""Rows written to a live collection at once: where replacing one deletes it first (Chroma), so few
are missing for a moment."""


class LiveCollection(Collection):
    """A collection that an application reads while it is written to."""

    def overwrite(self, records: Any, vectors: Any) -> None:
        """See `Collection.overwrite`."""
        for start in range(0, records.num_rows, LIVE_ROWS):
            super().overwrite(records.slice(start, LIVE_ROWS), vectors[start : start + LIVE_ROWS])


def _work(identity: dict[str, Any]) -> Any:
    """What of an identity decides records and vectors, whatever they are called."""
    found = json.loads(json.dumps(identity))
    found.get("source", {}).pop("model", None)
    found["target"].pop("collection", None)
    del found["name"]
    return found
