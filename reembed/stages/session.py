"""What one call has open: stores, models, cache, ledger. `Migration` takes the steps. Each is
opened when first asked for (a rollback needs no new model), and closed with all."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from reembed.applications.source_model import source_model
from reembed.embedders.embedder import Embedder
from reembed.embedders.evidence import misfit
from reembed.embedders.fingerprint import Fingerprint, compare
from reembed.embedders.identity import has_shared_caches, lenders, shared_cache, sign_cache
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.sizes import Memory
from reembed.embedders.shared import Shared
from reembed.embedders.spending import Spending
from reembed.errors import (
    LockedError,
    PreflightError,
    ReembedError,
    UnreachableError,
)
from reembed.manifest import Manifest, Model
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress, stage, telling
from reembed.records import Metric
from reembed.run import events
from reembed.run.cached import known_hashes
from reembed.run.directory import RunDir
from reembed.run.disk import make_private_dir
from reembed.run.guards import Pause
from reembed.run.learnt import Learnt
from reembed.run.ledger import Ledger
from reembed.run.loss import LossGuard
from reembed.run.now import kept
from reembed.run.vector_cache import VectorCache, embedded_vectors
from reembed.run.vector_ids import VectorIds
from reembed.stages.gone import point_on
from reembed.stages.swap_kind import parked_as
from reembed.stores.collection import Collection
from reembed.stores.foreign import fitting
from reembed.stores.lease.guarded import LeasedProgress, leased
from reembed.stores.lease.lease import StoreLease
from reembed.stores.registry import open_source, open_target
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo, Where, kept_dimensions


class Session:
    """See the module's docstring.

    Args:
        run: the run to work on; None for a plan without one.
        writes: False for a look, which writes nothing into the run's books either.
        accept_loss: whether a person said that a mass of records may go.
    """

    def __init__(
        self, manifest: Manifest, run: RunDir | None, progress: Progress, *, writes: bool = True,
        accept_loss: bool = False,
    ) -> None:  # fmt: skip
        self.manifest, self._run = manifest, run
        self.progress, self.old_model_note = progress, ""
        self.pause = Pause(manifest.state_dir, progress.note)
        self.writes, self.accept_loss = writes, accept_loss
        self._lease: StoreLease | None = None
        self.checked: dict[str, str] = {}  # deltas held against the shadow, by their sha256
        self.foretold: events.Foretold | None = None  # of a run that is about to begin
        self._unleased, self._closing = False, contextlib.ExitStack()

    in_group = False
    """Whether the run is one of several that move together: see `group/session.py`."""

    def __enter__(self) -> Self:
        if self.writes and not self.in_group:
            self.progress = self._closing.enter_context(kept(self.progress, self.manifest))
        self._closing.enter_context(telling(lambda: self.progress))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if self._run is not None:
            kept = (self.manifest.source.collection or "", self.manifest.live)
            point_on(error, self._run, kept)

    def close(self) -> None:
        """Close all that is open, and give the lease back."""
        self._closing.close()

    # Resources

    @property
    def run(self) -> RunDir:
        assert self._run is not None, "this step needs a run"
        return self._run

    @property
    def begun(self) -> bool:
        return self._run is not None

    def create_run(self) -> None:
        """Begin a run; everything after writes into its directory."""
        m = self.manifest
        self._run = RunDir.create(m.state_dir, m.to_yaml(), m.identity())
        self.spending.keep_in(self._run.path)
        self.learnt.keep_in(self._run.path)
        if self._lease is not None:
            self._lease.work_on(self._run.run_id)
        if self.foretold is not None:
            self._run.history.record(self.foretold)

    def take_lease(self) -> None:
        """Claim the live name in its store until the end of the session, for the right to write.

        A source that cannot be written to keeps no lease. Where the target is another store, the
        run goes on without one, with a warning: no name moves then.

        Raises:
            LockedError: another run is active on this live name.
        """
        manifest, store = self.manifest, self.source_store
        run, note = self._run.run_id if self._run else "", self.progress.note
        try:
            lease = StoreLease(store, manifest.live, manifest.name, run, note)
            lease.acquire()
        except PreflightError as error:
            if manifest.target_url == manifest.source.url:
                raise
            self._unleased = True
            self.progress.note(
                f"the source's store keeps no lease ({error.message}): runs of other machines or "
                "state directories are not locked out"
            )
            return
        self._lease = lease
        self._closing.callback(lease.release)
        self.progress = LeasedProgress(self.progress, lease.refuse_lost)

    def remove_dead_lease(self) -> None:
        """For a command with nothing left to do: remove the lease that a killed one has left."""
        with contextlib.suppress(LockedError, UnreachableError, PreflightError):
            self.take_lease()

    def _check_lease(self, now: bool) -> None:  # LockedError before a write if the lease is lost
        if self._lease is not None:
            self._lease.check(now=now)
        elif not self._unleased:
            raise AssertionError("a command that writes takes the lease first")

    @cached_property
    def open_source(self) -> Store:
        """The source's store, asked for no lease."""
        store = open_source(self.manifest)
        self._closing.callback(store.close)
        return store

    @cached_property
    def source_store(self) -> Store:
        return leased(self.open_source, self._check_lease)

    @cached_property
    def store(self) -> Store:
        """The target's store. Like the source's, it is written to under the lease alone."""
        if self.manifest.target_url == self.manifest.source.url:
            return self.source_store
        store = open_target(self.manifest)
        self._closing.callback(store.close)
        return leased(store, self._check_lease)

    @cached_property
    def spending(self) -> Spending:
        """The run's books, with what earlier calls of it have spent."""
        run = self._run.path if self._run else None
        books = Spending(run, self.manifest.embed, writes=self.writes)
        self.progress.metered(lambda: (books.spent.tokens, books.spent.usd))
        return self._closing.enter_context(books)

    @cached_property
    def learnt(self) -> Learnt:
        """What earlier calls of the run have learnt of its providers' limits."""
        return Learnt(self._run.path if self._run else None, writes=self.writes)

    @cached_property
    def embedder(self) -> Embedder:
        model = self.manifest.new_model
        assert model is not None, "model: keep asks no model for a vector"
        return self._closing.enter_context(self._open_embedder(model))

    def _open_embedder(self, model: Model) -> Embedder:
        """An embedder that obeys the run's guards."""
        memory, told = Memory(self.learnt, self.progress.note), self.progress.waiting
        shared = Shared(self.spending, self.pause, memory, recalls=True, waiting=told)
        return open_embedder(model, self.manifest.embed, self.manifest.base_dir, shared=shared)

    @cached_property
    def template(self) -> TextTemplate:
        """What is embedded of a record; it stays as it was when the run began."""
        census = self._run.history.census if self._run else None
        return self.manifest.template(census.layout if census else None)

    @cached_property
    def ledger(self) -> Ledger:
        return self._closing.enter_context(Ledger(self.run))

    @property
    def loss_guard(self) -> LossGuard:
        return LossGuard(self.run, self.accept_loss)

    @cached_property
    def cache(self) -> VectorCache:
        """Shared by all runs of the state directory, or this run's own, by `embed.cache`."""
        path, embedder = self._cache_path(self.fingerprint), self.embedder
        make_private_dir(path.parent)
        sign_cache(path, self.fingerprint)
        lent = lenders(self.manifest, self.fingerprint, embedder.limits.max_tokens)
        spare, note = partial(embedded_vectors, self.run), self.progress.note
        cache = VectorCache(path, embedder.dimensions, lenders=lent, spare=spare, note=note)
        return self._closing.enter_context(cache)

    def _cache_path(self, model: Fingerprint) -> Path:
        if not self.manifest.embed.cache:
            return self.run.path / f"cache-{model.key[:16]}.vectors"
        return shared_cache(self.manifest.state, model)

    def paid_for(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> set[bytes]:
        """Which of these texts, of so many tokens each, have a vector that is paid for. Writes
        nothing, and asks the model for the probes alone. Raises as `fingerprint`."""
        known = self.begun and self.run.history.last(events.FingerprintTaken) is not None
        if not known and not (self.manifest.embed.cache and has_shared_caches(self.manifest.state)):
            return set()
        model = self.fingerprint if known else self.taken
        lent = lenders(self.manifest, model, self.embedder.limits.max_tokens)
        return known_hashes(self._cache_path(model), hashes, tokens, lent)

    @cached_property
    def old_cache(self) -> VectorCache:
        """Of the old model, for the way back; this run's own."""
        assert self.old_embedder is not None, "there is no old model"
        key = self.old_embedder.model.settings_sha256()
        path = self.run.path / f"cache-old-model-{key}.vectors"
        dimensions, note = self.old_embedder.dimensions, self.progress.note
        return self._closing.enter_context(VectorCache(path, dimensions, note=note))

    @cached_property
    def taken(self) -> Fingerprint:
        """The model's of now."""
        return self.embedder.fingerprint()

    @cached_property
    @stage("ask the model for its fingerprint")
    def fingerprint(self) -> Fingerprint:
        """The model's, taken when the run began and held against the model of now. Raises
        ModelChangedError, or PreflightError if its cost is to be capped and it has no price."""
        if unpriced := self.spending.unpriced(self.embedder.model, self.embedder.price):
            raise unpriced
        taken = self.run.history.last(events.FingerprintTaken)
        if taken is None:
            self.run.history.record(events.FingerprintTaken(fingerprint=self.taken.to_dict()))
            return self.taken
        fingerprint = Fingerprint.from_dict(taken.fingerprint)
        for note in compare(fingerprint, self.taken):
            self.progress.note(f"the model's vectors are the same, but {note}")
        return fingerprint

    def check_model(self) -> None:
        """Hold the model of now against the one that the run began with: see `fingerprint`."""
        if not self.manifest.keeps:
            _ = self.fingerprint

    @property
    def dimensions(self) -> int:
        """Of the new vectors, as the run began with; the model itself is not asked."""
        if self.manifest.keeps:
            return kept_dimensions(self.source)
        return int(self.run.history.require(events.FingerprintTaken).fingerprint["dimensions"])

    @cached_property
    def source(self) -> CollectionInfo:
        """The source as the census found it; before the census, as it is now."""
        census = self._run.history.census if self._run else None
        if census is None:
            return self.source_store.resolve(self.manifest.source.collection)
        return self.run.history.value(CollectionInfo, census.source, "the census")

    @cached_property
    def _vector_ids(self) -> VectorIds:
        return self._closing.enter_context(VectorIds(self.run))

    def collection(self, store: Store, id: str, where: Where, metric: Metric) -> Collection:
        """A collection of this run. Where vectors are kept, they are a part of its records."""
        fitted = fitting(store.url, self.manifest.target_url)
        if not (self.manifest.keeps and self.begun):
            return Collection(store, id, where, fitted=fitted)
        marked = partial(self._vector_ids.marked, lengths=metric != "cosine")
        return Collection(store, id, where, marked, fitted)

    @property
    def old(self) -> Collection:
        """The old collection: the source, or what of it `source.where` leaves."""
        where = self.manifest.source.where
        return self.collection(self.source_store, self.source.id, where, self.source.metric)

    @property
    def new(self) -> Collection:
        """The new collection: the run's shadow, which is there, or was."""
        id = self.run.history.shadow_id or self.run.history.require(events.ShadowCreated).id
        metric = self.manifest.target.metric or self.source.metric
        return self.collection(self.store, id, None, metric)

    @property
    def parked_as(self) -> str:
        """The name that the old collection gets, or would get."""
        return parked_as(self.store.cutover, self.manifest.live, self.run.run_id)

    @cached_property
    def old_embedder(self) -> Embedder | None:
        """The source's model, None where it cannot be called (see `old_model_note`)."""
        if self.manifest.keeps:  # a record goes either way with its vector
            return None
        try:
            return self._open_old_embedder()
        except (ReembedError, ValidationError) as error:
            self.old_model_note = f"the old model cannot be called ({error})"
            return None

    def _open_old_embedder(self) -> Embedder | None:
        model, self.old_model_note = source_model(self.manifest, self.source)
        if model is None:
            return None
        wrong = misfit(model, self.source.dimensions)
        if not wrong:
            embedder = self._open_old(model)
            wrong = misfit(model, self.source.dimensions, embedder.dimensions)
        if wrong:
            said = "the manifest says" if self.manifest.source.model else "recorded as"
            self.old_model_note = f"this is not the old model: {said} {wrong}"
            return None
        return embedder

    def _open_old(self, model: Model) -> Embedder:
        return self._closing.enter_context(self._open_embedder(model))
