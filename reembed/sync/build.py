"""Build the shadow: export, embed and load, each resuming, then catch up with the source.

A delta that is carried, before the swap or after it, goes the same way as the census's own shards
(`carry` in `follow.py`).

Stages overlap: a shard is embedded while others are still exported, and loaded while others are
still embedded. A shard is handed on when it is on the disk and journalled, so what a killed call
left is found as ever. Stores are asked by the caller's thread alone: it exports, then loads, while
the model is asked by threads beside it. What goes wrong with embedding is raised when its turn
comes, so that an export always goes to its end; what goes wrong with exporting or loading ends the
embedding of what is in work. Nothing is loaded before the export is whole, and a store's snapshot
is not held for longer than the export takes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Literal, Self

from reembed.errors import ReembedError
from reembed.run.directory import DELTA, Shard
from reembed.stages.embed import (
    SHARDS_IN_WORK,
    Begun,
    Embedding,
    embed_shards,
    not_embedded,
    tell_remade,
)
from reembed.stages.engines import EarlyEngine
from reembed.stages.export import export_source
from reembed.stages.load import EarlyLoad, load_shadow, made_shadow
from reembed.stages.meter import asked_so_far, timed
from reembed.stages.session import Session
from reembed.sync.follow import catch_up


class Overlap:
    """What is begun before its turn in one call of a run.

    Args:
        embeds, loads: whether the call goes on to these stages.

    Attributes:
        early: what has loaded shards before their turn, None where none was.
    """

    def __init__(self, s: Session, *, embeds: bool, loads: bool) -> None:
        self._s = s
        # With `model: keep` there is no model to wait for.
        self._embeds = embeds and not s.manifest.keeps
        # Later a shard may have to replace what is there, which is for the load stage to see.
        self._loads = loads and s.run.history.state in ("created", "exported")
        self._loaded = s.run.history.loaded_stems
        self._engine = EarlyEngine(SHARDS_IN_WORK)
        self._work: Embedding | None = None
        self.early: EarlyLoad | None = None
        self._error: ReembedError | None = None

    @property
    def begun(self) -> Begun | None:
        """The embedding that was begun, None where none was. Raises what kept it from beginning."""
        if self._error is not None:
            raise self._error
        return Begun(self._work, self._engine) if self._work is not None else None

    def exported(self, shard: Shard) -> None:
        """Begin to embed an export shard, if that is to be done. An error waits for its turn."""
        if not self._embeds or self._error is not None:
            return
        try:
            self._begin(shard)
        except ReembedError as error:
            self._error = error

    def _begin(self, shard: Shard) -> None:
        s = self._s
        if not not_embedded(s.run, {shard.stem: shard}):
            return
        if self._work is None:
            if s.embedder.batches is not None:  # which take all texts at once
                self._embeds = False
                return
            self._work = Embedding(s.run, s.embedder, s.template, s.cache)
        tell_remade([shard.stem], s.run.shards("embed"), s.progress)
        self._engine.begin(self._embed, shard, self._work.embedder.cancel)

    def _embed(self, shard: Shard) -> Shard:
        self._s.pause.wait(self._engine.stopped)
        if self._engine.stopped.is_set() or self._work is None:
            raise CancelledError
        return self._work.shard(shard)

    def embedded(self, shard: Shard) -> None:
        """Load an embed shard, while there are others to wait for."""
        new = not shard.stem.startswith(DELTA) and shard.stem not in self._loaded
        if not (self._loads and new and self._engine.busy):
            return
        self._s.pause.wait()
        if self.early is None:
            self.early = EarlyLoad(self._s)
        self.early.load(shard)

    def __enter__(self) -> Self:
        self._engine.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.__exit__()


Stage = Literal["plan", "export", "embed", "load", "verify", "swap"]


def run_stages(s: Session, until: Stage, beside: Callable[[], None] | None = None) -> None:
    """Stages 1 to 3, each resuming, then catch-up with what was written meanwhile. They overlap,
    and a stage's end, and its seconds, are journalled in their order all the same.

    Args:
        beside: begins what goes beside the load, which counts what the model is asked meanwhile.
    """
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
    with timed(s, "load", asks=beside is None):
        if beside is not None:
            made_shadow(s)
            beside()
        load_shadow(s, overlap.early)
        catch_up(s)
