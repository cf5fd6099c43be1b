"""Did this model make these vectors of these texts? It is asked for a few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from reembed.embedders.embedder import Embedder
from reembed.manifest import LineBreaks, Model
from reembed.manifest.template import TextTemplate
from reembed.records import cosine_rows, list_array_to_vectors

SAMPLE = 16
SAME = 0.99
"""Median cosine from which a model is the one that made the vectors."""
DOCUMENT = TextTemplate("{document}")
_DIMENSIONS = {("chroma", "default"): 384, ("chroma", "onnx_mini_lm_l6_v2"): 384}
"""Of models that need not be opened, or fetched, to be told from another."""


def misfit(model: Model, dimensions: int | None, given: int | None = None) -> str:
    """What is wrong with the dimensions of a model that is said to have made vectors.

    Args:
        dimensions: that the vectors have; None where there are none.
        given: that the model gives, where it was asked; default: what is known of it.

    Returns:
        the end of a sentence; empty where they fit, or are not known.
    """
    given = given or model.dimensions or _DIMENSIONS.get((model.provider, model.name))
    if given is None or dimensions is None or given == dimensions:
        return ""
    return f"{model.provider} {model.name} ({given}-d), but the vectors have {dimensions}"


def cosine_of(embedder: Embedder, rows: pa.RecordBatch, template: TextTemplate) -> float | None:
    """Median cosine of the vectors that records have with those that the model gives their texts.

    Args:
        rows: records with vectors, of which SAMPLE that have a text are asked for.

    Returns:
        None where the template gives no text.

    Raises:
        as `Embedder.embed_documents`.
    """
    texts = template.texts_of(rows)
    chosen = [row for row, text in enumerate(texts) if text.strip()][:SAMPLE]
    if not chosen:
        return None
    expected, _ = list_array_to_vectors(rows.take(pa.array(chosen)).column("embedding"))
    embedded = embedder.embed_documents([texts[row] for row in chosen])
    fine = [row for row in range(len(chosen)) if row not in embedded.rejected]
    if not fine:
        return None
    return float(np.median(cosine_rows(expected[fine], embedded.vectors[fine])))


def doubt(
    embedder: Embedder, rows: pa.RecordBatch, template: TextTemplate
) -> tuple[str, str] | None:
    """What speaks against a model as the one that made the vectors, and the way on; None where
    nothing does. Raises as `Embedder.embed_documents`."""
    cosine = cosine_of(embedder, rows, template)
    if cosine is None or cosine >= SAME:
        return None
    model = f"{embedder.model.provider} {embedder.model.name}"
    for what, hint, other in _others(template):
        found = cosine_of(embedder, rows, other)
        if found is not None and found >= SAME:
            return (
                f"the text that was embedded is not this text: cosine {cosine:.2f} with what "
                f"{model} makes of it, and {found:.2f} with what it makes of {what}",
                f"If the application goes on to embed that, say {hint}.",
            )
    return (
        f"{model} does not make these vectors of these texts: cosine {cosine:.2f}. It is another "
        "model, or was given another prefix or text",
        "Give the model that made them as source.model, and the text that the application embeds "
        "as text.",
    )


def _others(template: TextTemplate) -> Sequence[tuple[str, str, TextTemplate]]:
    """Other texts that may have been embedded, with the keys that say so."""
    breaks: LineBreaks = "keep" if template.line_breaks == "space" else "space"
    turned = TextTemplate(template.template, template.layout, breaks)
    blanks = "line breaks" if breaks == "keep" else "spaces for its line breaks"
    return (
        (f"the same with {blanks}", f"line_breaks: {breaks}", turned),
        ("the document alone", 'source.layout: plain and text: "{document}"', DOCUMENT),
        ("what its framework embeds", 'source.layout: auto and text: "{document}"',
         TextTemplate("{document}", "auto")),
    )  # fmt: skip
