"""What a call on a group has open, once for all members."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from reembed.embedders.embedder import Embedder
from reembed.embedders.fingerprint import Fingerprint
from reembed.embedders.spending import Spending
from reembed.errors import ReembedError
from reembed.manifest import Manifest, Model
from reembed.progress import Progress, telling
from reembed.run.directory import RunDir
from reembed.run.learnt import Learnt
from reembed.run.vector_cache import VectorCache
from reembed.stages.gone import point_on
from reembed.stages.session import Session
from reembed.stores.named import looking
from reembed.stores.store import Store

REST_AFTER = 8
"""Sessions and steps of members between one rest of the store and the next, which takes 10 ms of a
processor. Each may open two collections, some megabytes each."""

FILES = ("ledger", "_vector_ids", "old_cache")
"""What a session opens anew when it is asked for again."""


class GroupSession(Session):
    """The session of a group: its run is the group's, which has no records of its own."""

    _begun_with = 0

    def begin_member(self) -> None:
        """Before a session of a member, or a step of one: now and then the store closes what it has
        open for others, so that memory and open files do not grow with the number of members."""
        self._begun_with += 1
        store = self.__dict__.get("open_source")  # not opened for this
        if self._begun_with % REST_AFTER == 0 and store is not None and store.rest is not None:
            store.rest()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """In the block members are looked at alone. The store lists its collections once, not when
        each is asked for; one that is out of reach is told of each."""
        store: Store | None = None
        with contextlib.suppress(ReembedError):
            store = self.open_source
            self.open_source = looking(store)
        try:
            yield
        finally:
            if store is not None:
                self.open_source = store

    @cached_property
    def _old_models(self) -> dict[str, Embedder]:
        return {}

    def old_model(self, model: Model) -> Embedder:
        """An old model, opened once for all members that were made with it."""
        key = model.settings_sha256()
        if key not in self._old_models:
            self._old_models[key] = self._open_old(model)
        return self._old_models[key]


class MemberSession(Session):
    """The session of a member: the store's connection, the models, the cache of vectors and the
    books are the group's.

    Args:
        shared: the group's session.
    """

    in_group = True

    def __init__(
        self, manifest: Manifest, run: RunDir | None, progress: Progress, shared: GroupSession, *,
        writes: bool = True, accept_loss: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(manifest, run, progress, writes=writes, accept_loss=accept_loss)
        self._shared = shared
        self.pause = shared.pause

    def create_run(self) -> None:
        """Begin a run; the books stay where they are."""
        manifest = self.manifest
        self._run = RunDir.create(manifest.state_dir, manifest.to_yaml(), manifest.identity())
        if self._lease is not None:
            self._lease.work_on(self._run.run_id)

    @cached_property
    def open_source(self) -> Store:
        return self._shared.open_source

    @cached_property
    def spending(self) -> Spending:
        return self._shared.spending

    @cached_property
    def learnt(self) -> Learnt:
        return self._shared.learnt

    @cached_property
    def embedder(self) -> Embedder:
        return self._shared.embedder

    @cached_property
    def cache(self) -> VectorCache:
        _ = self.fingerprint  # the model must still be the one that the run began with
        return self._shared.cache

    @cached_property
    def taken(self) -> Fingerprint:
        return self._shared.taken

    def _cache_path(self, model: Fingerprint) -> Path:
        return self._shared._cache_path(model)

    def paid_for(self, hashes: Sequence[bytes], tokens: Sequence[int]) -> set[bytes]:
        return self._shared.paid_for(hashes, tokens)

    def _open_old(self, model: Model) -> Embedder:
        return self._shared.old_model(model)

    def check_lease(self) -> None:
        """Raise LockedError if the store says that the lease is lost."""
        self._check_lease(True)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A step of this member in a session of several: the members are worked on in turns. Its
        files are open no longer than that, for there are more members than a process may have open
        files."""
        self._shared.begin_member()
        try:
            with telling(lambda: self.progress):
                yield
        except ReembedError as error:
            point_on(error, self.run, (self.manifest.source.collection or "", self.manifest.live))
            raise
        finally:
            for name in FILES:
                if (opened := self.__dict__.pop(name, None)) is not None:
                    opened.close()
