"""`reembed try`: another model on some records of a collection, with no manifest to write first.

The sample is embedded with the new model, the same questions are asked of both, and the whole is
planned. Nothing is written but the manifest, for the run that may follow, and the vectors of the
sample into the cache, so that this run does not pay for them again.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from reembed.commands.discover import SCHEMA_PLACE, Discovery, discover, draft_model, legal_name
from reembed.embedders.embedder import Embedder
from reembed.embedders.identity import shared_cache, sign_cache
from reembed.errors import PreflightError, UsageError
from reembed.manifest import Manifest
from reembed.progress import Progress
from reembed.quality.queries import known_item_query
from reembed.quality.search import Block, Hits, exact_search
from reembed.quality.sidebyside import QUERY_LENGTH, TEXT_LENGTH, shorten
from reembed.records import Metric, Vectors, bad_rows, list_array_to_vectors, text_hash
from reembed.run.disk import make_private_dir, read_errors
from reembed.run.steps import Step, plan_steps, shown_path
from reembed.run.vector_cache import VectorCache
from reembed.stages.keeping import embed_keeping
from reembed.stages.plan import Plan, make_plan
from reembed.stages.session import Session
from reembed.stores.collection import Collection

SAMPLE = 300
QUESTIONS = 5
ANSWERS = 3
"""Answers of each model that are shown for a question."""
SEED = 1


@dataclass(frozen=True)
class Answer:
    """A record that a model finds for a question.

    Attributes:
        text: its beginning.
        expected: whether the question was made from this record, or one of the same text.
    """

    id: str
    text: str
    score: float
    expected: bool


@dataclass(frozen=True)
class Question:
    """One question and what both models answer, nearest first.

    Attributes:
        made: whether it was made from a record, which should answer it; else somebody asked it.
        old: empty where the old model cannot be asked.
    """

    text: str
    made: bool
    old: tuple[Answer, ...]
    new: tuple[Answer, ...]


@dataclass(frozen=True)
class Trial:
    """What `try` found.

    Attributes:
        manifest: the file that was written.
        sampled: records of the sample.
        left_out: of these, records that the new model cannot embed.
        old_model: why the old model was not asked; empty where it was.
        plan: of the whole.
        steps: what to type next.
    """

    manifest: str
    sampled: int
    left_out: int
    questions: list[Question]
    old_model: str
    plan: Plan
    steps: list[Step]

    def to_dict(self) -> dict[str, Any]:
        rest = asdict(self)
        return rest | {"plan": self.plan.to_dict(), "steps": [one.to_dict() for one in self.steps]}


@dataclass(frozen=True)
class Subject:
    """What is to be tried on what.

    Attributes:
        url: a store URL; a relative path is relative to the working directory.
        collection: needed only where there are several.
        model: `PROVIDER:NAME`.
        old_model: what made the collection's vectors, likewise; None for what the store says.
    """

    url: str
    collection: str | None
    model: str
    old_model: str | None = None


def try_model(
    subject: Subject,
    *,
    ask: Sequence[str] = (),
    sample: int = SAMPLE,
    output: Path | None = None,
    progress: Progress | None = None,
) -> Trial:
    """Try a model on a collection.

    Args:
        ask: questions; default: some that are made from the records.
        sample: records to embed.
        output: where the manifest goes; default: `migrate-<collection>-to-<model>.yaml` here.

    Raises:
        UsageError: several collections and none chosen, a model that is no `PROVIDER:NAME`, an
            impossible sample, another file where the manifest would go, or no folder for it.
        RefusedError, UnreachableError: the store or the model refuses or is out of reach.
    """
    if sample < ANSWERS:
        raise UsageError(f"--sample {sample}: too few to search in", f"At least {ANSWERS}.")
    folder = output.parent if output else Path()
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder", "Make it first.")
    found = discover(subject.url, subject.collection, folder, subject.model)
    _refuse_empty(found)
    # Of its own name, so that several models can be tried, and compared.
    found.manifest["name"] = f"{found.manifest['name']}-to-{legal_name(subject.model)}"[:100]
    path = output or Path(f"{found.manifest['name']}.yaml")
    if subject.old_model is not None:
        found.manifest["source"]["model"] = draft_model(subject.old_model)
    text = found.to_yaml(SCHEMA_PLACE)
    with read_errors(path):
        there = path.exists() and path.read_text(errors="replace") != text
    if there:
        raise UsageError(
            f"{path}: there is another file where the manifest would go",
            "Choose another name with -o.",
        )
    manifest = Manifest.parse(found.manifest, folder.resolve(), str(path))
    with Session(manifest, None, progress or Progress()) as s:
        plan = make_plan(s)
        sampled, left_out, questions = _questions(s, ask, sample)
        unasked = "" if s.old_embedder is not None else s.old_model_note
    found.write(path)
    return Trial(str(path), sampled, left_out, questions, unasked, plan, _steps(plan, path))


def _refuse_empty(found: Discovery) -> None:
    """Raise PreflightError for an empty collection, with the flag that chooses another one."""
    counts = {info.name: info.count for info in found.collections}
    name = found.manifest["source"]["collection"]
    most = max(counts, key=lambda name: counts[name], default=name)
    if counts.get(name, 1):
        return
    raise PreflightError(
        f"the collection {name!r} is empty, so there is nothing to try a model on",
        f"Not empty here: `--collection {shlex.quote(most)}` ({counts[most]:,} records)."
        if counts[most]
        else "Check the URL: no collection of this store holds a record.",
    )


def _steps(plan: Plan, path: Path) -> list[Step]:
    if not plan.ok:
        return plan_steps(plan.ok, path)
    look = Step(f"reembed plan {shown_path(path)}", "see what it would do, cost and need")
    return [*plan_steps(plan.ok, path), look]


@dataclass(frozen=True)
class _Sample:
    """Records of the sample that have an old vector and a text."""

    ids: list[str]
    texts: list[str]
    keys: list[bytes]
    old: Vectors


def _questions(s: Session, ask: Sequence[str], most: int) -> tuple[int, int, list[Question]]:
    """Records sampled, of these those that the new model cannot embed, and the questions."""
    source = Collection(s.source_store, s.source.id, s.manifest.source.where)
    rows = source.some_with_vectors(most)
    sample = _sample(s, rows)
    with s.progress.stage("embed a sample", len(sample.ids)) as counter:
        new, fine = _embedded(s, sample)
        counter.update(len(sample.ids))
    asked, made_from = [*ask], list[bytes | None]([None] * len(ask))
    if not ask and sample.ids:
        generator = random.Random(SEED)  # noqa: S311  (a sample, no secret)
        chosen = generator.sample(fine.tolist(), min(QUESTIONS, len(fine)))
        asked = [known_item_query(sample.texts[row], generator).text for row in chosen]
        made_from = [sample.keys[row] for row in chosen]
    if not asked:
        return len(rows), len(rows) - len(fine), []
    metric = s.manifest.target.metric or s.source.metric
    every = np.arange(len(sample.ids))
    old = s.old_embedder
    by_old = _search(old, asked, sample, every, sample.old, s.source.metric) if old else None
    by_new = _search(s.embedder, asked, sample, fine, new, metric)
    texts = dict(zip(sample.ids, sample.texts, strict=True))
    questions = [
        Question(
            shorten(question, QUERY_LENGTH), expected is not None,
            _answers(by_old, place, expected, texts) if by_old is not None else (),
            _answers(by_new, place, expected, texts),
        )
        for place, (question, expected) in enumerate(zip(asked, made_from, strict=True))
    ]  # fmt: skip
    return len(rows), len(rows) - len(fine), questions


def _sample(s: Session, rows: pa.RecordBatch) -> _Sample:
    texts, (old, _) = s.template.texts_of(rows), list_array_to_vectors(rows.column("embedding"))
    ids, bad = rows.column("id").to_pylist(), bad_rows(old)
    kept = [row for row, text in enumerate(texts) if text.strip() and not bad[row]]
    texts = [texts[row] for row in kept]
    keys = [text_hash(text) for text in texts]
    return _Sample([ids[row] for row in kept], texts, keys, old[kept])


def _embedded(s: Session, sample: _Sample) -> tuple[Vectors, np.ndarray[Any, Any]]:
    """The new vectors of those records that have one, and their places; kept for a run."""
    path = shared_cache(s.manifest.state, s.taken)
    make_private_dir(path.parent)
    sign_cache(path, s.taken)
    with VectorCache(path, s.embedder.dimensions, note=s.progress.note) as cache:
        vectors, there = embed_keeping(s.embedder, cache, sample.texts)
    fine = np.flatnonzero(there & ~bad_rows(vectors))
    return vectors[fine], fine


def _search(
    embedder: Embedder, asked: Sequence[str], sample: _Sample, rows: np.ndarray[Any, Any],
    vectors: Vectors, metric: Metric,
) -> Hits:  # fmt: skip
    block = Block([sample.ids[row] for row in rows], [sample.keys[row] for row in rows], vectors)
    return exact_search(embedder.embed_queries(asked), [block], ANSWERS, metric)


def _answers(
    hits: Hits, place: int, expected: bytes | None, texts: Mapping[str, str]
) -> tuple[Answer, ...]:
    found = zip(hits.ids[place], hits.keys[place], hits.scores[place], strict=True)
    return tuple(
        Answer(id, shorten(texts[id], TEXT_LENGTH), round(float(score), 4), key == expected)
        for id, key, score in found
        if id
    )
