"""Does a model still give the vectors that it gave? It is asked for the probe texts and for a few
records of the live collection.

The reference is the fingerprint that the run began with; without a run, that of the first cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reembed.applications.source_model import source_model
from reembed.commands.watch.findings import Finding, alert, fine, of_error, warning
from reembed.commands.watch.looking import Seen
from reembed.commands.watch.subject import Live, Subject
from reembed.embedders.embedder import Embedder
from reembed.embedders.evidence import SAMPLE, doubt, misfit
from reembed.embedders.fingerprint import Fingerprint, compare
from reembed.embedders.identity import same_model
from reembed.embedders.options import Options
from reembed.embedders.recorded import believe
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ModelChangedError, ReembedError
from reembed.manifest import Embed, Manifest, Model
from reembed.manifest.template import TextTemplate
from reembed.records import cosine_rows
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.stores.collection import Collection
from reembed.stores.store import Store

ATTEMPTS, PATIENCE = 3, 30.0
"""Tries and seconds: the next cycle comes soon, and a run is more patient."""
BRING_BACK = (
    "Searches and new records go wrong from now on: bring the old model back, or move the "
    "collection to the one that is there now with a manifest of another name."
)

MADE_THEM = "Say with --model which model made these vectors."


@dataclass(frozen=True)
class Asked:
    """A model that is to be asked.

    Attributes:
        role: `new` is the manifest's model; `live` is the one of the live vectors, where that is
            another.
        lives: collections whose vectors it is to have made.
        reference: what it was; None before the first cycle.
        from_run: whether a run has taken the reference, which no word of a person changes.
        sure: whether somebody says that it is the model. What a store has on record may be the
            default of a client that embedded with another, so it is believed once it was right.
    """

    role: str
    model: Model
    lives: tuple[Live, ...] = ()
    reference: Fingerprint | None = None
    from_run: bool = False
    sure: bool = True

    @property
    def name(self) -> str:
        return f"{self.model.provider} {self.model.name}"


@dataclass(frozen=True)
class Answer:
    """What came of it.

    Attributes:
        fingerprint: of now; None where the model did not answer.
        cosine: the least of a probe's with its reference; None without one.
        drifted: whether it is another model by now.
        doubted: a store has it on record, and it is not what made the vectors there.
    """

    role: str
    model: str
    fingerprint: Fingerprint | None = None
    cosine: float | None = None
    drifted: bool = False
    doubted: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def answers(self) -> bool:
        return self.fingerprint is not None

    def to_dict(self) -> dict[str, Any]:
        return {
            "role": self.role, "model": self.model, "cosine": self.cosine,
            "drifted": self.drifted, "answers": self.answers,
            "digest": self.fingerprint.digest if self.fingerprint else "",
        }  # fmt: skip


def models_of(
    subject: Subject, lives: list[Live], seen: list[Seen], remembered: dict[str, dict[str, Any]]
) -> list[Asked]:
    """The models to ask: the manifest's own, and the one that made the live vectors."""
    infos = {one.name: one.info for one in seen}
    there = [live for live in lives if live.name in infos]
    known = {role: Fingerprint.from_dict(data) for role, data in remembered.items()}
    if subject.manifest is None:
        found: dict[str, Asked] = {}
        for live in there:
            recorded = believe(infos[live.name].model)
            model = subject.model or (recorded.model if recorded else None)
            dimensions = infos[live.name].dimensions
            if (
                model is not None
                and dimensions
                and (subject.model or not misfit(model, dimensions))
            ):
                role = f"live:{model.settings_sha256()[:12]}"
                sure = subject.model is not None or role in known
                one = found.get(role) or Asked(role, model, (), known.get(role), sure=sure)
                found[role] = replace(one, lives=(*one.lives, live))
        return list(found.values())
    taken, model = _taken(subject.run()), subject.manifest.new_model
    asked: list[Asked] = []
    if model is not None:
        swapped = tuple(live for live in there if live.swapped)
        reference = taken or known.get("new")
        asked.append(Asked("new", model, swapped, reference, taken is not None))
    for live in there:
        if (model is None or not live.swapped) and live.manifest is not None:
            old = _old_model(live, infos[live.name])
            same = old and model and old.settings_sha256() == model.settings_sha256()
            if old is not None and not same:
                role = f"live:{old.settings_sha256()[:12]}"
                asked.append(Asked(role, old, (live,), known.get(role)))
    return _merged(asked)


def _merged(asked: list[Asked]) -> list[Asked]:
    found: dict[str, Asked] = {}
    for one in asked:
        before = found.get(one.role)
        found[one.role] = replace(one, lives=(*before.lives, *one.lives)) if before else one
    return list(found.values())


def _taken(run: RunDir | None) -> Fingerprint | None:
    taken = run.history.last(events.FingerprintTaken) if run else None
    return Fingerprint.from_dict(taken.fingerprint) if taken else None


def _old_model(live: Live, info: Any) -> Model | None:
    """None where it cannot be told, or is not of these dimensions."""
    assert live.manifest is not None, "by URL there is no old model"
    try:
        model, _ = source_model(live.manifest, info)
    except ReembedError:
        return None
    return None if model is None or misfit(model, info.dimensions) else model


def ask(asked: Asked, subject: Subject, store: Store, seen: list[Seen]) -> Answer:
    """Ask one model. What is wrong is a finding, that it does not answer too."""
    model = asked.model
    name = asked.name
    answer = Answer(asked.role, name)
    manifest = subject.manifest
    embed = manifest.embed if manifest else Embed()
    try:
        with open_embedder(model, embed, _base(manifest), _retry(model)) as embedder:
            now = embedder.fingerprint()
            answer = replace(answer, fingerprint=now, cosine=_least(asked.reference, now))
            if asked.reference is not None:
                answer = _held_against(answer, asked.reference, now)
            if not answer.drifted:
                found = list(_of_records(asked, embedder, store, seen))
                answer = replace(answer, findings=[*answer.findings, *found], drifted=bool(found))
    except ReembedError as error:
        failed = of_error("model_reachable", "", error, subject=name)
        answer = replace(answer, findings=[*answer.findings, failed])
        return answer if asked.sure else _doubted(answer)
    if answer.drifted and not asked.sure:
        return _doubted(answer)
    if not answer.findings:
        told = "as it was" if asked.reference else "answers; what it gives is remembered"
        answer.findings.append(fine("model", "", f"{name}: {told}", subject=name))
    return answer


def _doubted(answer: Answer) -> Answer:
    """What a store has on record, and is not so: worth a line."""
    alerts = [finding for finding in answer.findings if finding.status == "alert"]
    begin = f"the store has {answer.model} on record, and it is not asked: "
    told = warning(
        "model", "", begin + "; ".join(one.message for one in alerts),
        "Say with --model which model made the vectors, this one or another.", subject=answer.model,
        sent=begin + "; ".join(one.sent or one.message for one in alerts),
    )  # fmt: skip
    return replace(answer, fingerprint=None, drifted=False, doubted=True, findings=[told])


def _base(manifest: Manifest | None) -> Path | None:
    return manifest.base_dir if manifest else None


def _retry(model: Model) -> RetryPolicy:
    if model.provider == "chroma":
        return RetryPolicy(attempts=ATTEMPTS, total=PATIENCE)
    given = RetryPolicy.from_options(Options(model))
    return replace(given, attempts=min(given.attempts, ATTEMPTS), total=min(given.total, PATIENCE))


def _least(old: Fingerprint | None, new: Fingerprint) -> float | None:
    if old is None or old.vectors.shape != new.vectors.shape:
        return None
    return float(cosine_rows(old.vectors, new.vectors).min())


def _held_against(answer: Answer, old: Fingerprint, new: Fingerprint) -> Answer:
    name = answer.model
    try:
        notes = compare(old, new)
    except ModelChangedError as error:
        found = alert("model", "", f"{name}: {error.message}", BRING_BACK, subject=name)
        return replace(answer, drifted=True, findings=[found])
    if not same_model(old, new):
        found = alert(
            "model", "",
            f"{name} gives nearly the same vectors, but not the same: the least cosine of a probe "
            f"is {answer.cosine or 0:.5f}. It is another quantisation, or another version",
            BRING_BACK, subject=name,
        )  # fmt: skip
        return replace(answer, drifted=True, findings=[found])
    told = f"{name}: as it was" + (f", but {'; '.join(notes)}" if notes else "")
    return replace(answer, findings=[fine("model", "", told, subject=name)])


def _of_records(
    asked: Asked, embedder: Embedder, store: Store, seen: list[Seen]
) -> Iterator[Finding]:
    """Whether the model gives the texts of known records the vectors that they have."""
    looks = {one.name: one for one in seen}
    for live in asked.lives:
        one = looks[live.name]
        ids = one.canaries.ids[:SAMPLE]
        wrong = misfit(asked.model, one.info.dimensions, embedder.dimensions)
        if wrong:
            yield alert("dimension", live.name, f"the model is {wrong}", BRING_BACK)
            continue
        if not ids:
            continue
        rows = Collection(store, one.info.id).fetch(ids, vectors=True)
        rows = rows.filter(rows.column("embedding").is_valid())
        template = live.manifest.template() if live.manifest else TextTemplate("{document}", "auto")
        told = doubt(embedder, rows, template) if rows.num_rows else None
        if told is not None:
            message, hint = told
            hint = hint if live.manifest else MADE_THEM
            yield alert("model", live.name, message, hint, subject=asked.name)
