"""Faults that have happened to someone, each with the gate that should catch it.

A fault takes a finished run and a source of chance, and damages it. What goes wrong while loading
is done to the store alone; what goes wrong while embedding is in the run's shards and the store
alike.
"""

from __future__ import annotations

import json
import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.records import Vectors, text_hash, unit
from reembed.stores.canonical import metadata_text
from tests.campaigns.sabotage.run import NEW, Finished, WorseModel, other_model, vectors_of
from tests.support.array_store import Row

Damage = Callable[[Finished, random.Random], None]


@dataclass(frozen=True)
class Fault:
    """A fault, its name in the table, and the gate that should catch it."""

    name: str
    gate: str
    damage: Damage
    metric: str = "cosine"


FAULTS: list[Fault] = []


def fault(name: str, gate: str, metric: str = "cosine") -> Callable[[Damage], Damage]:
    def add(damage: Damage) -> Damage:
        FAULTS.append(Fault(name, gate, damage, metric))
        return damage

    return add


def some(run: Finished, chance: random.Random, share: float = 0.001) -> list[str]:
    ids = sorted(run.rows)
    return chance.sample(ids, max(1, round(share * len(ids))))


def parsed(run: Finished, id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run.rows[id].metadata) or {}
    return found


# While loading


@fault("0.1 % of records dropped", "integrity")
def dropped(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        del run.rows[id]


@fault("the vectors of two records swapped", "integrity")
def vectors_swapped(run: Finished, chance: random.Random) -> None:
    texts = run.texts()
    a, b = chance.sample(sorted(texts), 2)
    while texts[a] == texts[b]:
        a, b = chance.sample(sorted(texts), 2)
    first, second = run.rows[a].vector, run.rows[b].vector
    run.set_row(a, vector=second)
    run.set_row(b, vector=first)


@fault("two ids swapped", "integrity")
def ids_swapped(run: Finished, chance: random.Random) -> None:
    a, b = chance.sample(sorted(run.rows), 2)
    first, second = run.rows[a], run.rows[b]
    run.rows[a] = Row.make(a, second.document, second.metadata, second.uri, second.vector)
    run.rows[b] = Row.make(b, first.document, first.metadata, first.uri, first.vector)


@fault("one batch of 100 loaded with vectors shifted by one", "integrity")
def load_shifted(run: Finished, chance: random.Random) -> None:
    ids = sorted(run.rows)
    start = chance.randrange(len(ids) - 100)
    batch = ids[start : start + 100]
    vectors = [run.rows[id].vector for id in batch]
    for id, vector in zip(batch, [*vectors[1:], vectors[0]], strict=True):
        run.set_row(id, vector=vector)


@fault("a float metadata value turned to int", "integrity")
def float_to_int(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        metadata = parsed(run, id)
        metadata["score"] = int(str(metadata["score"]).partition(".")[0])
        run.set_row(id, metadata=metadata_text(metadata))


@fault("one metadata key lost", "integrity")
def key_lost(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        metadata = parsed(run, id)
        del metadata[chance.choice(sorted(metadata))]
        run.set_row(id, metadata=metadata_text(metadata))


@fault("a uri lost", "integrity")
def uri_lost(run: Finished, chance: random.Random) -> None:
    run.set_row(chance.choice([id for id, row in sorted(run.rows.items()) if row.uri]), uri=None)


@fault('a null document turned to ""', "integrity")
def null_to_empty(run: Finished, chance: random.Random) -> None:
    nulls = [id for id, row in sorted(run.rows.items()) if row.document is None]
    run.set_row(chance.choice(nulls), document="")


@fault("documents in another Unicode form", "integrity")
def normalised(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        text = unicodedata.normalize("NFD", run.rows[id].metadata)
        run.set_row(id, metadata=text)


@fault("stale documents: an older version served", "integrity")
def stale(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        run.set_row(id, document=f"{run.rows[id].document} as it was")


@fault("records duplicated under new ids", "integrity")
def duplicated(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        row = run.rows[id]
        run.rows[f"{id}-1"] = Row.make(f"{id}-1", row.document, row.metadata, row.uri, row.vector)


@fault("one record dropped and a foreign one there instead", "integrity")
def replaced(run: Finished, chance: random.Random) -> None:
    id = chance.choice(sorted(run.rows))
    run.rows["stranger"] = run.rows.pop(id)


@fault("a quarantined record loaded anyway", "integrity")
def quarantined_loaded(run: Finished, chance: random.Random) -> None:
    source = run.arrays.held["source"].rows
    id = chance.choice(sorted(source.keys() - run.rows.keys()))
    row = source[id]
    vector = vectors_of(run.embedder, ["nothing"])[0]
    run.rows[id] = Row.make(id, row.document, row.metadata, row.uri, vector)


@fault("NaN in a vector", "integrity")
def nan(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        vector = np.array(run.rows[id].vector)
        vector[chance.randrange(len(vector))] = np.nan
        run.set_row(id, vector=vector)


@fault("zero vectors", "integrity")
def zeros(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance):
        run.set_row(id, vector=np.zeros(256, np.float32))


@fault("a record without its vector", "integrity")
def vectorless(run: Finished, chance: random.Random) -> None:
    run.set_row(chance.choice(sorted(run.rows)), vector=None)


@fault("a vector of the old dimension", "integrity")
def old_dimension(run: Finished, chance: random.Random) -> None:
    id = chance.choice(sorted(run.rows))
    run.set_row(id, vector=run.arrays.held["source"].rows[id].vector)


@fault("1 % with the vectors of another run", "integrity")
def another_run(run: Finished, chance: random.Random) -> None:
    for id in some(run, chance, 0.01):
        run.set_row(id, vector=other_model(np.array(run.rows[id].vector)))


@fault("a shard file damaged on disk", "integrity")
def file_damaged(run: Finished, chance: random.Random) -> None:
    shard = chance.choice(list(run.run.shards("embed").values()))
    path = run.run.path / shard.name
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


# While embedding


def embedded_as(
    run: Finished, ids: list[str], change: Callable[[list[str]], list[str]]
) -> dict[str, Vectors]:
    """The vectors of these records' texts, changed."""
    texts = run.texts()
    vectors = vectors_of(run.embedder, change([texts[id] for id in ids]))
    return dict(zip(ids, vectors, strict=True))


@fault("one batch of 64 embedded with vectors shifted by one", "fidelity")
def embed_shifted(run: Finished, chance: random.Random) -> None:
    texts = run.texts()
    ids = sorted(texts)
    start = chance.randrange(len(ids) - 64)
    batch = ids[start : start + 64]
    vectors = {id: np.array(run.rows[id].vector) for id in batch}
    run.give(dict(zip(batch, [vectors[id] for id in [*batch[1:], batch[0]]], strict=True)))


@fault("prefix missing on 5 %", "fidelity")
def without_prefix(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance, 0.05)
    texts = run.texts()
    with open_embedder(NEW.model_copy(update={"document_prefix": ""})) as plain:
        vectors = vectors_of(plain, [texts[id] for id in ids])
    run.give(dict(zip(ids, vectors, strict=True)))


@fault("texts cut at 128 tokens", "fidelity")
def cut(run: Finished, chance: random.Random) -> None:
    if not run.cut:
        texts = run.texts()
        model = NEW.model_copy(update={"max_tokens": 128, "on_too_long": "truncate"})
        with open_embedder(model) as short:
            vectors = vectors_of(short, list(texts.values()))
        run.cut.update(zip(texts, vectors, strict=True))
    run.give(run.cut)


@fault("5 % embedded with another model of the same dimension", "fidelity")
def other_space(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance, 0.05)
    run.give({id: other_model(np.array(run.rows[id].vector)) for id in ids})


@fault("5 % embedded with the old model", "fidelity")
def old_model(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance, 0.05)
    texts = run.texts()
    assert run.old_embedder is not None
    short = vectors_of(run.old_embedder, [texts[id] for id in ids])
    run.give({id: unit(np.concatenate([v, v])[None])[0]
              for id, v in zip(ids, short, strict=True)})  # fmt: skip


@fault("not normalised again after truncation", "fidelity")
def not_normalised(run: Finished, chance: random.Random) -> None:
    run.give({id: np.array(row.vector) * np.float32(0.9) for id, row in run.rows.items()})


@fault("1 % embedded from other casing", "fidelity")
def upper_case(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance, 0.01)
    run.give(embedded_as(run, ids, lambda texts: [text.upper() for text in texts]))


@fault("a batch of 64 filled with its first vector", "integrity")
def constant(run: Finished, chance: random.Random) -> None:
    ids = sorted(run.texts())
    start = chance.randrange(len(ids) - 64)
    first = np.array(run.rows[ids[start]].vector)
    run.give(dict.fromkeys(ids[start : start + 64], first))


@fault("embedded from an older text", "integrity")
def older_text(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance)
    texts = run.texts()
    keys = {id: text_hash(texts[id] + " before") for id in ids}
    run.give(embedded_as(run, ids, lambda found: [text + " before" for text in found]), keys)


@fault("an empty text embedded", "integrity")
def empty_text(run: Finished, chance: random.Random) -> None:
    ids = some(run, chance)
    run.give(dict.fromkeys(ids, vectors_of(run.embedder, [" "])[0]),
             dict.fromkeys(ids, text_hash("")))  # fmt: skip


# The index


@fault("an l2 index for a cosine model", "index")
def wrong_metric(run: Finished, chance: random.Random) -> None:
    run.shadow.ranks_by = "l2"
    # Vectors that are not of length one, or the two would order alike.
    run.give({id: np.array(row.vector) * np.float32(0.5 + 2.5 * chance.random())
              for id, row in sorted(run.rows.items())})  # fmt: skip


@fault("ef too low: 8 % of the nearest passed over", "index")
def low_ef(run: Finished, chance: random.Random) -> None:
    run.shadow.miss = 0.08


@fault("10 % of the records not in the index", "index")
def not_indexed(run: Finished, chance: random.Random) -> None:
    run.shadow.blind = frozenset(some(run, chance, 0.1))


# The model


@fault("a new model that is worse", "recall")
def worse_model(run: Finished, chance: random.Random) -> None:
    worse = cast(Embedder, WorseModel(run.embedder, 1.4, chance.randrange(1 << 30)))
    texts = run.texts()
    run.give(dict(zip(texts, vectors_of(worse, list(texts.values())), strict=True)))
    run.embedder = worse
