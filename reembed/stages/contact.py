"""The first look at what a run depends on: source, target and model, each asked whatever became of
the others, so that one that is out of reach hides nothing that is wrong with the rest."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reembed.applications.mem0.plan import compare_history
from reembed.errors import PreflightError, ReembedError, RefusedError, UnreachableError
from reembed.quality.queries import check_files
from reembed.stages.refusals import name_taken, refuse_empty, told_fuller
from reembed.stages.session import Session
from reembed.stages.swap_kind import choose_kind
from reembed.stages.texts import examine_texts
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo, kept_dimensions

LOOKED_AT = 100
"""Records whose texts are looked at where the model cannot be asked."""


@dataclass(frozen=True)
class Contact:
    """What answered.

    Attributes:
        records: of the source, or what of it `source.where` leaves.
        history: what is to be said of an application's own history.
        dimensions: of the new vectors.
    """

    source: CollectionInfo
    records: int
    history: tuple[str, ...]
    dimensions: int


@dataclass
class _Failures:
    found: list[ReembedError] = field(default_factory=list)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep an error for later; one that is told already is told once."""
        try:
            yield
        except (RefusedError, UnreachableError) as error:
            if all(error.message != one.message for one in self.found):
                self.found.append(error)


def make_contact(s: Session) -> Contact:
    """Ask source, target and model.

    Raises:
        RefusedError, UnreachableError: one or more are missing, refuse or do not answer. It tells
            of all of them, and of what else stands in the way as far as it can be seen; refused,
            unless to ask again later is all that there is to do.
    """
    failures, answered = _Failures(), list[tuple[CollectionInfo, int, tuple[str, ...]]]()
    dimensions = 0
    with failures.kept():
        answered.append(_source(s))
    with failures.kept():
        s.store.to_write()
        s.store.to_search()
    with failures.kept():
        check_files(s.manifest.verify.queries, s.manifest.verify.qrels)
    with failures.kept():
        if not s.manifest.keeps:
            s.embedder.check_reachable()
            dimensions = s.embedder.dimensions
        elif answered:
            dimensions = kept_dimensions(answered[0][0])
    if failures.found:
        for source, _, _ in answered:
            _look_further(s, source, failures)
        raise told_together(failures.found)
    return Contact(*answered[0], dimensions)


def _source(s: Session) -> tuple[CollectionInfo, int, tuple[str, ...]]:
    manifest, store = s.manifest, s.source_store
    source, where = store.resolve(manifest.source.collection), manifest.source.where
    store.reader.check_where(where)
    records = source.count
    if where is not None:
        records = sum(len(page) for page in store.reader.list_ids(source.id, where))
    history = compare_history(manifest, source, store)
    others = "" if source.count else told_fuller(store, source.name, "`source.collection: {}`")
    refuse_empty(source, where, records, others)
    return source, records, tuple(history)


def _look_further(s: Session, source: CollectionInfo, failures: _Failures) -> None:
    """What of the rest needs no model: the swap, the target's name, the texts."""
    manifest, target = s.manifest, s.manifest.target.collection
    with failures.kept():
        choose_kind(s.source_store, manifest, source)
    with failures.kept():
        own = s.run.history.shadow_id if s.begun else None
        there = s.store.catalog.find(target) if target is not None else None
        if target is not None and there is not None and there.id != own:
            raise name_taken(target)
    if manifest.keeps:
        return
    with failures.kept():
        rows = Collection(s.source_store, source.id, manifest.source.where).some(
            LOOKED_AT, vectors=False
        )
        columns = [rows.column(name).to_pylist() for name in ("id", "document", "metadata", "uri")]
        found = examine_texts(manifest, s.template.texts(*columns), *columns[1:3])
        failures.found += [PreflightError(*told) for told in found.blockers]


def told_together(errors: Sequence[ReembedError]) -> ReembedError:
    """One error of several. A permanent one decides its kind: to try again would not help."""
    first, *rest = sorted(errors, key=lambda error: isinstance(error, UnreachableError))
    if not rest:
        return first
    together = copy.copy(first)
    numbered = list(enumerate((first, *rest), start=1))
    together.message = f"{len(numbered)} problems: " + "; ".join(
        f"({number}) {error.message}" for number, error in numbered
    )
    together.hint = " ".join(f"({number}) {error.hint}" for number, error in numbered if error.hint)
    together.args = (together.message,)
    together.__cause__ = first  # a copy has no traceback and no cause of its own
    return together
