"""Build the shadow: export, embed and load, each resuming, then catch up with the source.

A delta that is carried, before the swap or after it, goes the same way as the census's own shards
(`carry` in `follow.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

from reembed.progress.tracing import span
from reembed.run import events
from reembed.stages.embed import embed_shards
from reembed.stages.export import export_source
from reembed.stages.load import load_shadow
from reembed.stages.meter import meter
from reembed.stages.session import Session
from reembed.sync.follow import catch_up

Stage = Literal["plan", "export", "embed", "load", "verify", "swap"]


def run_stages(s: Session, until: Stage) -> None:
    """Stages 1 to 3, each resuming, then catch-up with what was written meanwhile."""
    with _timed(s, "export"):
        export_source(s)
    if until == "export":
        return
    with _timed(s, "embed"):
        embed_shards(s)
    if until == "embed":
        return
    with _timed(s, "load"):
        load_shadow(s)
        catch_up(s)


@contextlib.contextmanager
def _timed(s: Session, stage: events.Stage) -> Iterator[None]:
    with span(stage, name=s.manifest.name, run=s.run.run_id) as attach:
        spent = meter(s)
        yield
        told = spent()
        attach(told["stats"] | ({"usd": told["usd"]} if "usd" in told else {}))
        s.run.history.record(events.StageDone(stage=stage, **told))
