"""Texts that may have been embedded in the place of the one that is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from reembed.commands.audit.held import Rows
from reembed.commands.audit.judge import Judge
from reembed.embedders.embedder import Embedder
from reembed.embedders.families import FAMILIES, family_of
from reembed.manifest import LineBreaks, Model
from reembed.manifest.template import TextTemplate
from reembed.records import Vectors, cosine_rows

FEW, MANY = 8, 2_000
"""Records that every format is tried on, and those that the one which fits is."""
TITLES = frozenset(
    ("title", "name", "heading", "header", "subject", "question", "summary", "topic", "section",
     "file_name", "filename", "source")
)  # fmt: skip
JOINTS = ("\n", " ", "\n\n", ". ", ": ", " - ")
CUTS = (200, 256, 300, 400, 500, 512, 800, 1_000, 1_024, 1_500, 2_000, 2_048, 4_000, 4_096, 8_000)
"""Characters at which applications cut texts."""


Make = Callable[[pa.RecordBatch], list[str]]


@dataclass(frozen=True)
class Format:
    """A way to make a text of a record.

    Attributes:
        name: in words.
        template: what to give as `--text`, or the manifest's `text`; None where it is no template.
        prefix: that is put before it in the place of the model's.
        make: texts of records.
    """

    name: str
    template: TextTemplate | None
    prefix: str | None
    make: Make

    @property
    def hint(self) -> str:
        if self.template is None:
            return ""
        if self.template.line_breaks == "space":
            return "If the application goes on to embed that, say line_breaks: space."
        text = json.dumps(self.template.template)
        return f"If the application goes on to embed that, say --text {text}."


def known_formats(template: TextTemplate, model: Model, batch: pa.RecordBatch) -> list[Format]:
    """Formats that differ from `template` for some of these records."""
    base = template.texts_of(batch)
    found, seen = [], {tuple(_sent(base, model.document_prefix))}
    for one in _all(template, model, batch):
        texts = tuple(
            _sent(one.make(batch), model.document_prefix if one.prefix is None else one.prefix)
        )
        if texts not in seen:
            seen.add(texts)
            found.append(one)
    return found


def _sent(texts: Sequence[str], prefix: str) -> list[str]:
    return [prefix + text for text in texts]


def _all(template: TextTemplate, model: Model, batch: pa.RecordBatch) -> Iterator[Format]:
    def same(batch: pa.RecordBatch) -> list[str]:
        return template.texts_of(batch)

    breaks: LineBreaks = "keep" if template.line_breaks == "space" else "space"
    yield _of(
        TextTemplate(template.template, template.layout, breaks),
        "the text with " + ("its line breaks" if breaks == "keep" else "spaces for line breaks"),
    )
    yield _of(TextTemplate("{document}"), "the document alone")
    yield _of(TextTemplate("{document}", "auto"), "what its framework embeds")
    for prefix in _prefixes(model):
        yield Format(
            f"the text after the prefix {json.dumps(prefix)}"
            if prefix
            else "the text without the model's prefix",
            None,
            prefix,
            same,
        )
    keys = _keys(batch)
    titles = [key for key in keys if key.lower().rpartition(".")[2] in TITLES]
    for key in titles + [key for key in keys if key not in titles][:4]:
        field = f"{{metadata.{key}}}"
        for joint in JOINTS:
            yield _of(
                TextTemplate(f"{field}{joint}{{document}}", template.layout),
                f"{key}, {json.dumps(joint)} and the document",
            )
            yield _of(
                TextTemplate(f"{{metadata.{key}|{joint}}}{{document}}", template.layout),
                f"{key} and {json.dumps(joint)} where there is one, and the document",
            )
        yield _of(TextTemplate(field), f"{key} alone")
        yield _of(
            TextTemplate(f"{{document}}\n{field}", template.layout), f"the document and then {key}"
        )
    yield Format("lines of `key: value` and then the text", None, None, _lines)
    yield Format(
        "the text without blanks at its ends",
        None,
        None,
        lambda batch: [text.strip() for text in same(batch)],
    )
    yield Format(
        "the text in lower case", None, None, lambda batch: [text.lower() for text in same(batch)]
    )
    yield Format(
        "the text with single blanks",
        None,
        None,
        lambda batch: [" ".join(text.split()) for text in same(batch)],
    )
    for most in CUTS:
        yield Format(
            f"the first {most:,} characters",
            None,
            None,
            partial(_cut, same, most),
        )


def _cut(make: Make, most: int, batch: pa.RecordBatch) -> list[str]:
    return [text[:most] for text in make(batch)]


def _of(template: TextTemplate, name: str) -> Format:
    return Format(name, template, None, lambda batch: template.texts_of(batch))


def _prefixes(model: Model) -> list[str]:
    family = family_of(model.name)
    own = [family] if family else []
    rest = [one for one in FAMILIES if one.document] if not own else []
    found = ["", model.query_prefix]
    for one in (*own, *rest):
        found += [one.document, one.query]
    return [prefix for prefix in dict.fromkeys(found) if prefix != model.document_prefix]


def _keys(batch: pa.RecordBatch) -> list[str]:
    """Metadata keys that hold a text or a number in these records, the commonest first."""
    counts: dict[str, int] = {}
    for text in batch.column("metadata").to_pylist():
        parsed = json.loads(text)
        for key, value in parsed.items() if isinstance(parsed, dict) else ():
            if isinstance(value, str | int | float) and not set("{}") & set(key):
                counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: -counts[key])


def _lines(batch: pa.RecordBatch) -> list[str]:
    """As LlamaIndex and others put metadata before a text."""
    columns = (batch.column(name).to_pylist() for name in ("document", "metadata"))
    found = []
    for document, metadata in zip(*columns, strict=True):
        parsed = json.loads(metadata)
        pairs = parsed.items() if isinstance(parsed, dict) else ()
        lines = "\n".join(f"{key}: {value}" for key, value in pairs)
        found.append(f"{lines}\n\n{document or ''}" if lines else document or "")
    return found


class Formats:
    """Tries formats on records that are not as the model makes them of their texts.

    Args:
        bare: opens the model without a prefix of its own.
    """

    def __init__(self, judge: Judge, bare: Callable[[], Embedder]) -> None:
        self._judge, self._bare = judge, bare
        self._embedder: Embedder | None = None

    def explain(self, rows: Rows, rng: np.random.Generator) -> dict[Format, Rows]:
        """Which format made the vectors of which rows; a rare one may be missed.

        Args:
            rows: whose vectors are not of the text that is looked at.
        """
        explained, left = dict[Format, Rows](), rows
        for _ in range(3):  # several may be mixed
            some = np.sort(rng.choice(left, min(FEW, len(left)), replace=False))
            few, batch = self._judge.fetch(some)
            formats = known_formats(self._judge.template, self._judge.embedder.model, batch)
            scores = [self._cosines(one, batch, few) for one in formats]
            fits = [int((score >= self._judge.least).sum()) for score in scores]
            if not fits or not max(fits):
                break
            best = formats[int(np.argmax(fits))]
            found, batch = self._judge.fetch(left[:MANY])
            right = found[self._cosines(best, batch, found) >= self._judge.least]
            explained[best] = right
            left = np.setdiff1d(left, right)
            if not len(left):
                break
        return explained

    def _cosines(
        self, one: Format, batch: pa.RecordBatch, rows: Rows
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        texts, held = one.make(batch), self._judge.held
        fine = [place for place, text in enumerate(texts) if text.strip()]
        cosines = np.zeros(len(texts))
        if fine:
            vectors = self._vectors([texts[place] for place in fine], one.prefix)
            cosines[fine] = cosine_rows(np.asarray(held.vectors[rows[fine]]), vectors)
        return cosines

    def _vectors(self, texts: list[str], prefix: str | None) -> Vectors:
        if prefix is None:
            return self._judge.expected(texts)[0]
        if not self._judge.embedder.model.document_prefix:
            return self._judge.expected(_sent(texts, prefix))[0]
        if self._embedder is None:
            self._embedder = self._bare()
        return self._embedder.embed_documents(_sent(texts, prefix)).vectors

    def close(self) -> None:
        if self._embedder is not None:
            self._embedder.close()


def bare_model(model: Model) -> Model:
    """The same model, which puts no prefix before a document."""
    return model.model_copy(update={"document_prefix": ""})
