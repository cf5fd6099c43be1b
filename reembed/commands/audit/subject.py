"""What is audited, and the model that is believed to have made it."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reembed.applications.mem0.plan import old_model
from reembed.backup.commands import Place, model_of, opened
from reembed.backup.directory import default_directory
from reembed.commands.discover import draft_model
from reembed.embedders.embedder import Embedder
from reembed.embedders.evidence import cosine_of, misfit
from reembed.embedders.recorded import believe
from reembed.embedders.registry import open_embedder
from reembed.embedders.shared import Shared
from reembed.embedders.spending import Spending
from reembed.errors import ReembedError, UsageError
from reembed.manifest import Embed, Manifest, Model
from reembed.manifest.template import TemplateError, TextTemplate
from reembed.redaction import without_secrets
from reembed.stores.collection import Collection
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

LOOKED_AT = 64
"""Records that candidates are asked for some of."""
ENOUGH = 0.9
"""Median cosine from which a candidate that nobody named made the vectors."""
STATIC_DIMENSIONS = (64, 128, 256)


@dataclass(frozen=True)
class Asked:
    """What a person asks for.

    Attributes:
        target: a store URL, or a manifest's path.
        models: `PROVIDER:NAME` or the keys of `model` as JSON; of several the one that fits best.
        text: the template that was embedded; default: the manifest's, else each record's own.
        sample: records the model is asked for at first; default: enough to see one of a hundred.
        every: ask the model for all.
        state: where vectors that are paid for are kept, by URL.
        caps: `max_cost` and `max_tokens_total`.
    """

    target: str
    collection: str | None = None
    models: tuple[str, ...] = ()
    text: str | None = None
    sample: int | None = None
    every: bool = False
    state: Path = Path(".reembed")
    caps: Embed = field(default_factory=Embed)


@dataclass(frozen=True)
class Candidate:
    """A model that may have made the vectors.

    Attributes:
        how: who says so: given, manifest, store, or detected, where nobody does.
    """

    model: Model
    how: str


@dataclass(frozen=True)
class Subject:
    """A collection that is open."""

    store: Store
    place: Place
    name: str
    info: CollectionInfo
    template: TextTemplate
    chosen_text: bool
    asked: Asked
    spending: Spending

    @property
    def collection(self) -> Collection:
        manifest = self.place.manifest
        return Collection(self.store, self.info.id, manifest.source.where if manifest else None)

    @property
    def state(self) -> Path:
        """The state directory."""
        manifest = self.place.manifest
        return Path(manifest.state) if manifest else self.asked.state.absolute()

    @property
    def base_dir(self) -> Path | None:
        return self.place.manifest.base_dir if self.place.manifest else None

    def open(self, model: Model) -> Embedder:
        """An embedder whose requests are counted, and stopped at the caps."""
        return open_embedder(
            model, self.asked.caps, self.base_dir, shared=Shared(self.spending, recalls=True)
        )


@contextlib.contextmanager
def opened_subject(asked: Asked, spending: Spending) -> Iterator[Subject]:
    """Open what is to be audited.

    Raises:
        UsageError: several collections and none is chosen, or a template that is none.
        as `opened`.
    """
    directory = default_directory(asked.state)
    with opened(asked.target, asked.collection, directory=directory) as (store, place):
        names = place.names or ()
        if len(names) != 1:
            raise UsageError(
                f"{place.url}: the manifest names {len(names)} collections; --collection names "
                f"one of them: {', '.join(names)}"
            )
        info = store.resolve(names[0])
        template = _template(asked, place.manifest, info)
        chosen = asked.text is not None or place.manifest is not None
        yield Subject(store, place, names[0], info, template, chosen, asked, spending)


def _template(asked: Asked, manifest: Manifest | None, info: CollectionInfo) -> TextTemplate:
    if asked.text is not None:
        try:
            return TextTemplate(asked.text, "auto")
        except TemplateError as error:
            raise UsageError(f"--text {asked.text}: {error}") from None
    return manifest.template() if manifest else TextTemplate("{document}", "auto")


def model_given(spec: str) -> Model:
    """The model that a person names. Raises UsageError."""
    if not spec.lstrip().startswith("{"):
        return Model(**draft_model(spec))
    try:
        return Model(**json.loads(spec))
    except (ValueError, TypeError, ValidationError) as error:
        raise UsageError(f"--model {spec}: these are not the keys of a model: {error}") from None


def choose(subject: Subject) -> tuple[Candidate | None, Embedder | None, str]:
    """The model that the vectors are held against, open; without one, why there is none.

    Raises:
        UsageError, RefusedError, UnreachableError: the model that a person named cannot be used.
    """
    if subject.asked.models:
        given = [Candidate(model_given(spec), "given") for spec in subject.asked.models]
        return _best(subject, given, sure=True)
    said, why = _said(subject)
    if said:
        found = _best(subject, said, sure=False)
        if found[0] is not None:
            return found
        why = found[2]
    found = _best(subject, _local(subject.info.dimensions), sure=False, least=ENOUGH)
    return found if found[0] is not None else (None, None, why)


def _said(subject: Subject) -> tuple[list[Candidate], str]:
    """The models that the manifest or the store names, and what is not believed."""
    manifest = subject.place.manifest
    found: list[Candidate] = []
    if manifest is not None:
        known = model_of(manifest, subject.name).get("model")
        models = [Model(**known)] if known else []
        models += [one for one in (manifest.source.model, old_model(manifest)) if one is not None]
        found += [Candidate(one, "manifest") for one in models]
    recorded = believe(subject.info.model, [manifest.new_model if manifest else None])
    if recorded is not None and recorded.model is not None:
        found.append(Candidate(recorded.model, "store"))
    elif recorded is not None:
        return found, f"{recorded.problem}; if it is right: --model '{recorded.keys()}'"
    return found, "nobody says which model made the vectors: name it with --model"


def _local(dimensions: int | None) -> list[Candidate]:
    """Models on this machine that cost nothing to ask."""
    if dimensions not in STATIC_DIMENSIONS:
        return []
    return [
        Candidate(Model(provider="static", name="wordllama", dimensions=dimensions), "detected")
    ]


def _best(
    subject: Subject, candidates: list[Candidate], *, sure: bool, least: float = -1.0
) -> tuple[Candidate | None, Embedder | None, str]:
    """The candidate whose vectors are the nearest, open.

    Args:
        sure: whether a person named them, so that one that cannot be asked is an error.
        least: median cosine below which a candidate is none.
    """
    why = ""
    best: tuple[float, Candidate, Embedder] | None = None
    with contextlib.ExitStack() as others:
        for one in candidates:
            try:
                embedder, cosine = _tried(subject, one, alone=len(candidates) == 1 and least < 0)
            except ReembedError as error:
                if sure and len(candidates) == 1:
                    raise
                why = f"{one.model.provider} {one.model.name} cannot be asked: {error.message}"
                continue
            if cosine < least or (best is not None and cosine <= best[0]):
                others.callback(embedder.close)
                continue
            if best is not None:
                others.callback(best[2].close)
            best = (cosine, one, embedder)
    return (best[1], best[2], "") if best else (None, None, why)


def _tried(subject: Subject, candidate: Candidate, *, alone: bool) -> tuple[Embedder, float]:
    model, dimensions = candidate.model, subject.info.dimensions
    wrong = misfit(model, dimensions)
    if wrong:
        raise UsageError(f"this model did not make these vectors: {wrong}")
    embedder = subject.open(model)
    try:
        wrong = misfit(model, dimensions, embedder.dimensions)
        if wrong:
            raise UsageError(f"this model did not make these vectors: {wrong}")
        if alone:
            return embedder, 0.0
        rows = subject.collection.some_with_vectors(LOOKED_AT)
        cosine = cosine_of(embedder, rows, subject.template) if rows.num_rows else None
        return embedder, -1.0 if cosine is None else cosine
    except BaseException:
        embedder.close()
        raise


def shown(model: Model) -> str:
    """Provider and name."""
    return f"{model.provider} {model.name}"


def command_of(asked: Asked, *more: str) -> str:
    """The command that audits the same subject, with more options."""
    found: list[str] = [without_secrets(asked.target)[0]]
    pairs: list[tuple[str, Any]] = [
        ("--collection", asked.collection), *(("--model", one) for one in asked.models),
        ("--text", asked.text),
    ]  # fmt: skip
    for option, value in pairs:
        found += [option, str(value)] if value is not None else []
    return shlex.join(["reembed", "audit", *found, *more])
