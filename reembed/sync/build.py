"""Build the shadow: export, embed and load, each resuming, then catch up with the source.

A delta that is carried, before the swap or after it, goes the same way as the census's own shards
(`carry` in `follow.py`).
"""

from __future__ import annotations

from typing import Literal

from reembed.stages.embed import embed_shards
from reembed.stages.export import export_source
from reembed.stages.load import load_shadow
from reembed.stages.meter import asked_so_far, timed
from reembed.stages.session import Session
from reembed.sync.follow import catch_up
from reembed.sync.overlap import Overlap

Stage = Literal["plan", "export", "embed", "load", "verify", "swap"]


def run_stages(s: Session, until: Stage) -> None:
    """Stages 1 to 3, each resuming, then catch-up with what was written meanwhile. They overlap as
    `overlap.py` has it; a stage's end, and its seconds, are journalled in their order all the
    same."""
    embeds, loads = until != "export", until not in ("export", "embed")
    with Overlap(s, embeds=embeds, loads=loads) as overlap:
        before = asked_so_far(s)
        with timed(s, "export", asks=False):
            export_source(s, overlap.exported)
        if not embeds:
            return
        with timed(s, "embed", before):
            embed_shards(s, overlap.begun, overlap.embedded)
    if not loads:
        return
    with timed(s, "load"):
        load_shadow(s)
        catch_up(s)
