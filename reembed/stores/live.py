"""What the live names of all stores have in common for an application: see `reembed.live`.

Every call asks where the name leads now. Texts are embedded with the model that fits, and vectors
that an application made itself are let through only where they are of that model, if it has said
which model it embeds with (`embeds_with`).
"""

from __future__ import annotations

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from reembed.embedders import kept
from reembed.embedders.fingerprint import PROBES, SAME
from reembed.embedders.recorded import believe
from reembed.errors import ModelChangedError, ReembedError
from reembed.manifest import Model
from reembed.records import Metric, Vectors, cosine_rows

REMEMBERED = 1_024
"""Texts whose vectors are kept in memory, so that what a framework embeds and then writes through
us is paid for once."""

Own: TypeAlias = Model | Callable[[list[str]], Any]
"""What an application embeds with by itself: a model, or what makes vectors of query texts."""


@dataclass(frozen=True)
class Leads:
    """Where a live name leads at one moment.

    Attributes:
        token: another one after every move of the name.
        said: manifest keys of the model that made the vectors, as the store has it on record.
        dimensions: of the vectors, where the store knows them.
        moved: when the name was moved there, where that is on record.
        metric: by which the nearest are found.
    """

    token: str
    said: Mapping[str, Any] | None
    dimensions: int | None = None
    moved: str | None = None
    metric: Metric = "cosine"

    @property
    def key(self) -> str:
        """The same for two moments at which texts have the same vectors."""
        return f"{json.dumps(self.said, sort_keys=True, default=str)} {self.dimensions}"


class Live(ABC):
    """A collection by its live name; what each call takes and gives is as `chromadb.Collection`'s.

    Safe to use from several threads. The calls whose names begin with `a` are the same for
    `asyncio`: the work is done in a thread, so that the event loop goes on.

    Args:
        name: the live name.
        model: embeds texts where the store has no model on record, and is the application's word
            for one that it has.
        embeds_with: what the application embeds with by itself, before it gives us vectors.
    """

    def __init__(self, name: str, model: Model | None, embeds_with: Own | None) -> None:
        self.name = name
        self._model = model
        self._own = embeds_with
        self._verdicts: dict[str, str] = {}
        self._memory = _Memory()

    names_records = True
    """Whether the application has to name new records; else the store may do so."""
    keeps_nested = False
    """Whether metadata may be nested."""

    # --- what a store does -----------------------------------------------------------------------

    @abstractmethod
    def leads(self) -> Leads:
        """Where the name leads now. A cheap look: no vector is made."""

    @abstractmethod
    def vectors(self, texts: Sequence[str], *, query: bool) -> Vectors:
        """Vectors `(n, d) float32` with the model of this moment. They may be another model's by
        the time they are used: `query` and `add` with texts see to that, this cannot."""

    @abstractmethod
    def query(self, *args: Any, **arguments: Any) -> Any:
        """The nearest records of each text or vector."""

    @abstractmethod
    def get(self, *args: Any, **arguments: Any) -> Any:
        """Records by id or condition."""

    @abstractmethod
    def count(self, *args: Any, **arguments: Any) -> Any:
        """Number of records."""

    @abstractmethod
    def add(self, *args: Any, **arguments: Any) -> Any:
        """Write new records."""

    @abstractmethod
    def upsert(self, *args: Any, **arguments: Any) -> Any:
        """Write records, new or not."""

    @abstractmethod
    def update(self, *args: Any, **arguments: Any) -> Any:
        """Change records."""

    @abstractmethod
    def delete(self, *args: Any, **arguments: Any) -> Any:
        """Delete records by id or condition."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What the live names of one store alone have."""

    # --- which model -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise ModelChangedError if `embeds_with` is not the model of the live name by now.

        For an application that asks the store by itself: call it before each query. A move between
        this call and the query is not seen; what goes through `query` and `add` is safe from that.
        """
        self.check_own(self.leads())

    def knows_own(self, leads: Leads) -> bool:
        """Whether `check_own` answers from memory."""
        return self._own is None or leads.said is None or leads.key in self._verdicts

    def check_own(self, leads: Leads) -> None:
        """See `check`. A model is asked once for each that the name led to."""
        own = self._own
        if own is None or leads.said is None:
            return
        if leads.key not in self._verdicts:
            self._verdicts[leads.key] = self._difference(own, leads)
        if self._verdicts[leads.key]:
            raise ModelChangedError(self._verdicts[leads.key])

    def _difference(self, own: Own, leads: Leads) -> str:
        """Why vectors of our own do not fit; empty where they do."""
        recorded = believe(leads.said, [self._model, own if isinstance(own, Model) else None])
        there = recorded.model if recorded else None
        if isinstance(own, Model) and there is not None and _same(own, there):
            return ""
        probe = [PROBES[0][1]]
        mine: Vectors | None = None
        try:
            mine = _as_vectors(
                kept.embed(own, probe, query=True) if isinstance(own, Model) else own(probe)
            )
            if there is not None and there.provider != "chroma":
                theirs = kept.embed(there, probe, query=True)
                if mine.shape == theirs.shape and float(cosine_rows(mine, theirs)[0]) >= SAME:
                    return ""
        except ReembedError:
            pass  # a model out of reach proves nothing, and its settings differ
        return _told(self.name, leads, own, mine)

    def _recalled(
        self, leads_key: str, texts: Sequence[str], query: bool, embed: Callable[[list[str]], Any]
    ) -> Vectors:
        """Vectors of texts, those that this model made a moment ago from memory."""
        return self._memory.vectors((leads_key, query), texts, embed)

    # --- asyncio ---------------------------------------------------------------------------------

    async def aquery(self, *args: Any, **arguments: Any) -> Any:
        """`query`, for asyncio."""
        return await asyncio.to_thread(self.query, *args, **arguments)

    async def aget(self, *args: Any, **arguments: Any) -> Any:
        """`get`, for asyncio."""
        return await asyncio.to_thread(self.get, *args, **arguments)

    async def acount(self, *args: Any, **arguments: Any) -> Any:
        """`count`, for asyncio."""
        return await asyncio.to_thread(self.count, *args, **arguments)

    async def aadd(self, *args: Any, **arguments: Any) -> Any:
        """`add`, for asyncio."""
        return await asyncio.to_thread(self.add, *args, **arguments)

    async def aupsert(self, *args: Any, **arguments: Any) -> Any:
        """`upsert`, for asyncio."""
        return await asyncio.to_thread(self.upsert, *args, **arguments)

    async def aupdate(self, *args: Any, **arguments: Any) -> Any:
        """`update`, for asyncio."""
        return await asyncio.to_thread(self.update, *args, **arguments)

    async def adelete(self, *args: Any, **arguments: Any) -> Any:
        """`delete`, for asyncio."""
        return await asyncio.to_thread(self.delete, *args, **arguments)

    async def acheck(self) -> None:
        """`check`, for asyncio."""
        await asyncio.to_thread(self.check)

    # --- closing ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def similarity(metric: Metric, distance: float) -> float:
    """A distance as Chroma has it as 1 for the same and 0 for nothing alike: the cosine, or the
    inner product; of squared l2 the cosine that vectors of length one have."""
    return 1.0 - (distance / 2 if metric == "l2" else distance)


def one_condition(
    parts: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any] | None:
    """Several conditions as the one that Chroma takes; None where there is none."""
    if isinstance(parts, Mapping):
        parts = [{key: value} for key, value in parts.items()]
    if not parts:
        return None
    return dict(parts[0]) if len(parts) == 1 else {"$and": [dict(one) for one in parts]}


class _Memory:
    """The newest vectors, by model and text."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[tuple[str, bool], str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def vectors(
        self, kind: tuple[str, bool], texts: Sequence[str], embed: Callable[[list[str]], Any]
    ) -> Vectors:
        with self._lock:
            known: dict[str, Any] = {text: self._found.get((kind, text)) for text in texts}
        missing = [text for text, vector in known.items() if vector is None]
        if missing:
            made = _as_vectors(embed(missing))
            known |= dict(zip(missing, made, strict=True))
            with self._lock:
                for text in missing:
                    self._found[(kind, text)] = known[text]
                while len(self._found) > REMEMBERED:
                    self._found.popitem(last=False)
        return np.stack([known[text] for text in texts]) if texts else np.empty((0, 0), np.float32)


def _as_vectors(found: Any) -> Vectors:
    return np.stack([np.asarray(one, np.float32) for one in found])


def _same(one: Model, other: Model) -> bool:
    """Whether two descriptions are of the same query vectors, as far as they say."""
    alike = ("provider", "name", "query_prefix", "document_prefix")
    sizes = {one.dimensions, other.dimensions} - {None}
    return len(sizes) < 2 and all(getattr(one, key) == getattr(other, key) for key in alike)


def _told(name: str, leads: Leads, own: Own, mine: Vectors | None) -> str:
    said = leads.said or {}
    size = leads.dimensions or said.get("dimensions")
    there = f"{said.get('provider')} {said.get('name')}" + (f" ({size} dimensions)" if size else "")
    moved = f" on {leads.moved}" if leads.moved else ""
    width = mine.shape[1] if mine is not None and mine.ndim == 2 else None
    if isinstance(own, Model):
        width = width or own.dimensions
        here = f"{own.provider} {own.name}" + (f" ({width} dimensions)" if width else "")
    else:
        here = f"another model ({width} dimensions)" if width else "another model"
    verb = "was moved to" if leads.moved else "holds vectors of"
    return (
        f"{name} {verb} {there}{moved}, and this process embeds with {here}: give texts to "
        "reembed.live instead of vectors (query_texts=, documents=), or change this process's model"
    )
