"""`reembed audit`: read the collection, find its model, ask it, and say what is wrong and where."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from reembed.applications.mem0.plan import history_of
from reembed.commands.audit import judge as judged
from reembed.commands.audit import mixture
from reembed.commands.audit.findings import Told, tell_kinds, tell_mixture, tell_model, tell_text
from reembed.commands.audit.formats import Formats, bare_model
from reembed.commands.audit.held import Held, Rows, read
from reembed.commands.audit.judge import Judge, noise_of
from reembed.commands.audit.kinds import kinds_of
from reembed.commands.audit.result import MENDED, Audit, Cost, Judged, Kind
from reembed.commands.audit.search import Search
from reembed.commands.audit.soundness import lost_memories, of_no_record, soundness
from reembed.commands.audit.subject import (
    Asked,
    Candidate,
    Subject,
    choose,
    command_of,
    opened_subject,
    shown,
)
from reembed.embedders.embedder import Embedder
from reembed.embedders.identity import shared_cache, sign_cache
from reembed.embedders.spending import Spending
from reembed.errors import PreflightError, UsageError
from reembed.manifest.template import TextTemplate
from reembed.progress import Progress
from reembed.records import SHARD_ROWS, chunked
from reembed.run.disk import make_private_dir, temporary_folder
from reembed.run.steps import Step
from reembed.run.vector_cache import VectorCache
from reembed.stages.refusals import refuse_empty
from reembed.stores.values import Orphans

SEED = 1
COUNTED = 200
"""Texts whose tokens are counted; the others are estimated by their length."""
MOSTLY = 0.8


@dataclass
class Looked:
    """An audit while what it looked at is open.

    Attributes:
        rows: of each kind that is known by its ids.
        orphans: what the database holds of no record.
        embedder, template: what was asked, and of which texts; None without a model.
    """

    audit: Audit
    subject: Subject
    held: Held
    rows: dict[Kind, Rows] = field(default_factory=dict)
    orphans: list[Orphans] = field(default_factory=list)
    embedder: Embedder | None = None
    template: TextTemplate | None = None

    @property
    def to_mend(self) -> Rows:
        """Rows that are to be embedded again."""
        found = [rows for kind, rows in self.rows.items() if kind in MENDED]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


def audit(asked: Asked, progress: Progress | None = None) -> Audit:
    """Audit a collection. Writes nothing but vectors that are paid for into the cache.

    Raises:
        UsageError: several collections and none chosen, a model or a template that is none.
        BudgetError: a cap would be passed; what is paid for is kept.
        RefusedError, UnreachableError: the store or the model refuses or is out of reach.
    """
    with Spending(None, asked.caps) as spending, looked(asked, spending, progress) as one:
        return one.audit


@contextlib.contextmanager
def looked(
    asked: Asked, spending: Spending, progress: Progress | None = None, seed: int = SEED
) -> Iterator[Looked]:
    """As `audit`, with what it looked at still open."""
    progress = progress or Progress()
    if asked.sample is not None and asked.sample < 1:
        raise UsageError(f"--sample {asked.sample}: too few", "At least 1.")
    with (
        temporary_folder() as folder, opened_subject(asked, spending) as subject,
        contextlib.ExitStack() as closing,
    ):  # fmt: skip
        found = _look(subject, folder, progress, closing, seed)
        yield replace(found, audit=replace(found.audit, steps=_steps(found.audit, asked)))


def _look(
    subject: Subject, folder: Path, progress: Progress, closing: contextlib.ExitStack, seed: int
) -> Looked:
    refuse_empty(subject.info, subject.collection.where, subject.info.count)
    held = read(subject.collection, subject.template, folder, progress)
    told = Told(held)
    for finding, rows in soundness(held):
        told.add(finding, rows)
    orphans = _beside(subject, held, told)
    candidate, embedder, why = choose(subject)
    start = Audit(subject.name, subject.place.url, held.count, subject.info.dimensions)
    if embedder is None or candidate is None:
        said = _without_model(subject, held, told, np.random.default_rng(seed))
        start = replace(start, notes=[f"no model was asked: {why}", said])
        return Looked(told.into(start), subject, held, told.rows, orphans)
    closing.callback(embedder.close)
    unpriced = subject.spending.unpriced(candidate.model, embedder.price)
    if unpriced:
        raise PreflightError("--max-cost: " + unpriced.message, "Cap its tokens: --max-tokens.")
    cache = closing.enter_context(caching(subject, embedder, progress))
    judge = Judge(subject.collection, held, subject.template, embedder, cache, progress)
    judge.noise = noise_of(embedder)
    formats = Formats(judge, lambda: subject.open(bare_model(candidate.model)))
    closing.callback(formats.close)
    search = Search(judge, held, np.random.default_rng(seed))
    before = subject.spending.spent.tokens
    _ask(subject, candidate, search, formats, told)
    start = replace(
        start, model=shown(candidate.model), model_from=candidate.how, least=judge.least,
        noise=judge.noise, median=_median(judge, search.sample), judged=_counts(search),
        mend=_mend(judge, told), asked=_cost(embedder, subject.spending.spent.tokens - before),
    )  # fmt: skip
    return Looked(told.into(start), subject, held, told.rows, orphans, embedder, judge.template)


def _beside(subject: Subject, held: Held, told: Told) -> list[Orphans]:
    """Tell what belongs to no record, and which memories have none."""
    orphans = subject.store.orphans(subject.info.id) if subject.store.orphans else []
    for finding in of_no_record(orphans):
        told.add(finding)
    manifest = subject.place.manifest
    history = history_of(manifest) if manifest and not subject.collection.where else None
    for finding in lost_memories(history, held.ids) if history else ():
        told.add(finding)
    return orphans


def _without_model(subject: Subject, held: Held, told: Told, rng: np.random.Generator) -> str:
    """Look for two models by vectors and words. Returns what is to be said of it."""
    rows = held.judgeable
    if len(rows) > mixture.MOST:
        rows = np.sort(rng.choice(rows, mixture.MOST, replace=False))
    texts = dict[str, str]()
    for ids in chunked([held.ids[row] for row in rows], SHARD_ROWS):
        page = subject.collection.fetch(ids, vectors=False)
        texts |= zip(page.column("id").to_pylist(), subject.template.texts_of(page), strict=True)
    rows = np.array([row for row in rows if held.ids[row] in texts], np.int64)
    if len(rows) < mixture.FEWEST:
        return f"{len(rows):,} records are too few to tell two models by their vectors alone"
    found = mixture.find_mixture(held.units(rows), [texts[held.ids[row]] for row in rows], rng)
    return tell_mixture(told, found, rows, rng)


def _steps(found: Audit, asked: Asked) -> list[Step]:
    """What to type next."""
    steps, does = [], []
    if found.mendable and found.model:
        does.append(f"embed these {len(found.mendable):,} again, with a backup and a way back")
    if any(one.kind == "orphan" for one in found.bad):
        does.append("delete the metadata of no record")
    if does:
        every = ["--all"] if asked.every else []
        steps.append(Step(command_of(asked, *every, "--fix", "--yes"), "; ".join(does)))
    if any(one.high > one.records for one in found.bad):
        steps.append(Step(command_of(asked, "--all"), "name every one of them"))
    return steps


def caching(subject: Subject, embedder: Embedder, progress: Progress) -> VectorCache:
    """The state directory's cache, where runs keep what they pay for."""
    model = embedder.fingerprint()
    path = shared_cache(str(subject.state), model)
    make_private_dir(path.parent)
    sign_cache(path, model)
    return VectorCache(path, embedder.dimensions, note=progress.note)


def _ask(
    subject: Subject, candidate: Candidate, search: Search, formats: Formats, told: Told
) -> None:
    judge, asked = search.judge, subject.asked
    sample = search.draw(asked.sample, every=asked.every)
    if not len(sample):
        return
    _say_cost(judge, sample)
    judge.ask(sample)
    if len(search.bad) >= 0.5 * len(sample):
        _other_text(subject, search, formats, told)
    nearly = len(judge.rows(judged.NEARLY))
    search.drifted = nearly >= MOSTLY * (nearly + len(judge.rows(judged.SAME)))
    tell_model(told, search, candidate.model)
    if not len(search.good):
        return
    if not asked.every:
        search.spread()
    named, explained = kinds_of(search.held, judge, search.good, search.bad, formats, search.rng)
    tell_kinds(told, search, named, explained)


def _other_text(subject: Subject, search: Search, formats: Formats, told: Told) -> None:
    """Where most vectors are of one other text, judge by that one from now on."""
    judge, bad = search.judge, search.bad
    some = bad[:: max(1, len(bad) // 100)]
    explained = formats.explain(some, search.rng)
    for one, rows in explained.items():
        if one.template is not None and len(rows) >= MOSTLY * len(some):
            tell_text(told, one, chosen=subject.chosen_text)
            judge.template = one.template
            judge.forget()
            judge.ask(search.sample)
            return


def _say_cost(judge: Judge, rows: Rows) -> None:
    cost = _cost(judge.embedder, _tokens(judge, rows))
    usd = f", ${cost.usd:.4f}" if cost.usd else ""
    judge.progress.note(
        f"asks {shown(judge.embedder.model)} for {len(rows):,} of {judge.held.count:,} texts: "
        f"about {cost.tokens:,} tokens{usd}; more if something is wrong"
    )


def _tokens(judge: Judge, rows: Rows) -> int:
    """Of the texts of these rows, from some of them."""
    if not len(rows):
        return 0
    some = rows[:: max(1, len(rows) // COUNTED)][:COUNTED]
    found, batch = judge.fetch(some)
    texts = judge.template.texts_of(batch)
    if not texts:
        return 0
    counted = int(judge.embedder.count_tokens(texts).sum())
    lengths = judge.held.text_lengths
    return round(counted * float(lengths[rows].sum()) / max(1.0, float(lengths[found].sum())))


def _cost(embedder: Embedder, tokens: int) -> Cost:
    price = embedder.price
    return Cost(tokens, tokens * price.usd_per_million_tokens / 1e6 if price else None)


def _mend(judge: Judge, told: Told) -> Cost:
    rows = [rows for kind, rows in told.rows.items() if kind in MENDED]
    every = np.unique(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
    return _cost(judge.embedder, _tokens(judge, every))


def _median(judge: Judge, sample: Rows) -> float | None:
    cosines = judge.cosines[sample]
    cosines = cosines[np.isfinite(cosines)]
    return round(float(np.median(cosines)), 6) if len(cosines) else None


def _counts(search: Search) -> Judged:
    asked, by_vectors = search.judge.asked, len(search.by_vectors)
    rest = len(search.held.judgeable) - asked - by_vectors
    return Judged(asked, by_vectors, len(search.sample), max(0, rest))
