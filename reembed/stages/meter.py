"""What a stage has spent: seconds, and what the new model was asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from reembed.embedders.embedder import Embedder
from reembed.progress.tracing import span
from reembed.run import events
from reembed.run.taken import peak_bytes
from reembed.stages.session import Session

Stats = dict[str, float]


def meter(s: Session, before: Stats | None = None) -> Callable[[], dict[str, Any]]:
    """Begin to count. What is returned tells, when called, what was spent since: seconds, what the
    model was asked for, and USD where its price is known; and the most memory held so far.

    Args:
        before: what the model had been asked for, where what is measured began earlier than now.
    """
    start, before = time.perf_counter(), asked_so_far(s) if before is None else before

    def spent() -> dict[str, Any]:
        stats = {key: value - before.get(key, 0) for key, value in asked_so_far(s).items()}
        embedder = _opened(s)
        price = embedder.price if embedder else None
        usd = price.usd_per_million_tokens * stats["tokens"] / 1e6 if price else None
        taken = {"seconds": round(time.perf_counter() - start, 3), "peak_bytes": peak_bytes()}
        return taken | {"stats": stats} | ({} if usd is None else {"usd": usd})

    return spent


@contextlib.contextmanager
def timed(
    s: Session, stage: events.Stage, before: Stats | None = None, *, asks: bool = True
) -> Iterator[None]:
    """Journal the end of a stage, with what it took.

    Args:
        before: see `meter`.
        asks: whether what the model is asked for meanwhile is this stage's.
    """
    spent = meter(s, before)
    with span(stage, name=s.manifest.name, run=s.run.run_id) as attach:
        yield
        told = spent() if asks else {**spent(), "stats": {}, "usd": None}
        usd = told.get("usd")
        attach(told["stats"] | ({} if usd is None else {"usd": usd}))
        s.run.history.record(events.StageDone(stage=stage, **told))


def asked_so_far(s: Session) -> Stats:
    """What the embedder has done so far; nothing before it is opened."""
    embedder = _opened(s)
    return embedder.stats.to_dict() if embedder else {}


def _opened(s: Session) -> Embedder | None:
    embedder: Embedder | None = s.__dict__.get("embedder")
    return embedder
