"""An application that writes all the time and remembers what was acknowledged.

Each writer has ids of its own and writes them one after the other, so what the store must hold in
the end is the fold of its log: nothing acknowledged may be lost, stale or back from the dead.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Row = tuple[str, dict[str, Any]]
"""Text and metadata."""
LEAST_ROWS = 60


@dataclass
class Told:
    """A writer's own log, folded.

    Attributes:
        rows: what it last wrote, by id; None where it deleted it.
        acknowledged: number of records written.
        errors: what failed; ids of failed calls are in `uncertain`.
        slowest: seconds of the slowest call.
    """

    rows: dict[str, Row | None] = field(default_factory=dict)
    acknowledged: int = 0
    errors: list[str] = field(default_factory=list)
    uncertain: set[str] = field(default_factory=set)
    slowest: float = 0.0
    seconds: float = 0.0


class Writer:
    """Writes through `docs` (a reembed.live collection, or a Chroma handle with `embed`).

    Args:
        name: begins its ids.
        rate: records a second.
        embed: gives vectors for texts; None where `docs` embeds by itself.
        number: of writes before these, so that no id is given twice.
    """

    def __init__(
        self, name: str, docs: Any, rate: float, rows: dict[str, Row],
        embed: Callable[[list[str]], Any] | None = None, number: int = 0,
    ) -> None:  # fmt: skip
        self.told = Told(rows=dict(rows))
        self._name, self._docs, self._rate, self._embed = name, docs, rate, embed
        self._chance = random.Random(name)
        self._number = number

    def work(self, stop: threading.Event) -> None:
        """Write until told to stop, at the rate asked for as far as the store keeps up."""
        began = time.monotonic()
        due = began
        while not stop.is_set():
            ids = self._one()
            self.told.acknowledged += ids
            due += ids / self._rate
            pause = due - time.monotonic()
            if pause > 0:
                stop.wait(pause)
            elif pause < -2:  # catch up no more than two seconds
                due = time.monotonic() - 2
        self.told.seconds += time.monotonic() - began

    def _one(self) -> int:
        there = [id for id, row in self.told.rows.items() if row]
        gone = [id for id, row in self.told.rows.items() if row is None]
        verb = self._chance.choice(["add", "text", "text", "metadata", "delete", "again"])
        if len(there) < LEAST_ROWS or (verb == "again" and not gone):
            verb = "add"
        self._number += 1
        size = self._chance.randint(1, 4)
        if verb == "add":
            ids = [f"{self._name}-{self._number}-{n}" for n in range(size)]
        else:
            from_ = gone if verb == "again" else there
            ids = self._chance.sample(from_, min(size, len(from_)))
        text = [f"record {self._name} {self._number} {verb} {id}" for id in ids]
        metadata = [{"n": self._number, f"by {verb}": self._number} for _ in ids]
        start = time.monotonic()
        try:
            self._call(verb, ids, text, metadata)
        except Exception as error:
            self.told.errors.append(f"{verb}: {type(error).__name__}: {error}")
            self.told.uncertain.update(ids)
            return 0
        self.told.slowest = max(self.told.slowest, time.monotonic() - start)
        self.told.uncertain.difference_update(ids if verb in ("delete",) else [])
        for position, id in enumerate(ids):
            before = self.told.rows.get(id)
            if verb == "delete":
                self.told.rows[id] = None
            elif verb in ("add", "again"):
                self.told.rows[id] = (text[position], metadata[position])
            elif before:
                kept = text[position] if verb == "text" else before[0]
                merged = before[1] | (metadata[position] if verb == "metadata" else {})
                self.told.rows[id] = (kept, merged)
        return len(ids)

    def _call(self, verb: str, ids: list[str], text: list[str], metadata: list[Any]) -> None:
        if verb == "delete":
            self._docs.delete(ids=ids)
            return
        if verb == "metadata":
            self._docs.update(ids=ids, metadatas=metadata)
            return
        more: dict[str, Any] = {"documents": text}
        if self._embed is not None:
            more["embeddings"] = self._embed(text)
        if verb == "text":
            self._docs.update(ids=ids, **more)
        else:
            self._docs.add(ids=ids, metadatas=metadata, **more)
