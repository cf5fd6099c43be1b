"""What a plan says of the old model: whether it can be called and made these vectors."""

from __future__ import annotations

from reembed.embedders.evidence import SAMPLE, doubt
from reembed.embedders.recorded import believe
from reembed.errors import ReembedError
from reembed.stages.session import Session
from reembed.stores.collection import Collection
from reembed.stores.values import CollectionInfo

LOOKED_AT = 4 * SAMPLE
"""Records that are fetched; some of them may have no text or no vector."""
WITHOUT = (
    "Without it, reembed cannot compare old and new search by queries of its own, and a rollback "
    "cannot embed what was written since the swap"
)
GIVE = (
    "Give it as source.model, which may be added at any time, also after the swap: a rollback "
    "needs it for what the application writes in between."
)


GIVE_ANOTHER = (
    "Give what made these vectors as source.model, now or later, or go on without it: "
    "`source.model: null`."
)


NOTHING_BEFORE = (
    "no record of the source has a vector, so there is no search to compare with: what the judged "
    "queries find is shown, and does not decide",
    "`reembed compare` tells by the same queries which of several models finds more.",
)


def old_model_missing(s: Session) -> tuple[str, str] | None:
    """What it costs that the old model cannot be called, and the way on; None where it can, or
    where vectors are kept, so that nobody needs it."""
    if s.manifest.keeps:
        return None
    embedder = s.old_embedder
    if embedder is None:
        given = s.manifest.source.model is not None
        recorded = None if given else believe(s.source.model, [s.manifest.new_model])
        hint = recorded.hint if recorded is not None and recorded.model is None else GIVE
        hint = GIVE_ANOTHER if given else hint
        return f"{s.old_model_note}. {WITHOUT}", hint
    try:
        embedder.check_reachable()
    except ReembedError as error:
        return _not_called(error)
    return None


def old_model_problems(s: Session, source: CollectionInfo) -> list[tuple[str, str]]:
    """Warnings, each with the way on. The model is asked for a few records before what is said of
    it is believed."""
    if source.dimensions is None and s.manifest.verify.qrels and not s.manifest.keeps:
        return [NOTHING_BEFORE]
    missing = old_model_missing(s)
    if missing is not None:
        return [missing]
    if s.old_embedder is None:
        return []
    old = Collection(s.source_store, source.id, s.manifest.source.where)
    rows = old.some_with_vectors(LOOKED_AT)
    try:
        found = doubt(s.old_embedder, rows, s.template) if rows.num_rows else None
    except ReembedError as error:
        return [_not_called(error)]
    return [found] if found else []


def _not_called(error: ReembedError) -> tuple[str, str]:
    return f"the old model cannot be called ({error}). {WITHOUT}", error.hint or GIVE
