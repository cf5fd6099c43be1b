"""What an application imports to read a live name: always the right collection and query model.

    from reembed import live
    docs = live.open("chroma:./chroma_db", "docs")
    docs.query(query_texts=["how to parse dates"], n_results=5)

The same for a table in Postgres: `live.open("postgresql://app@db/app", "docs")`. Importing this
module registers the embedding function `reembed`, with which a plain Chroma client can open
collections that reembed made. What a store says of a model that calls code, reads files, or is
elsewhere than at its provider's own address takes the application's word: `live.trust`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reembed.embedders import recorded as model_record
from reembed.manifest import Manifest, Model
from reembed.stores import registry
from reembed.stores.chroma.function import ReembedEmbeddingFunction
from reembed.stores.chroma.live import LiveCollection
from reembed.stores.live import Live, Own

__all__ = ["Live", "LiveCollection", "ReembedEmbeddingFunction", "open", "trust"]


def open(
    url: str, name: str, *, model: Model | None = None, embeds_with: Own | None = None
) -> Live:
    """Open the live name `name` of the store at `url`.

    Args:
        url: `chroma:/path`, `chroma+http://host:port`, `chroma+cloud://tenant/database`, or
            `postgresql://role@host/database`.
        model: embeds texts for a collection that records no model of its own, and is the
            application's word for one that does (see `trust`).
        embeds_with: what the application embeds with where it brings vectors of its own: a model,
            or a callable from query texts to vectors. Then every call that brings vectors asks
            whether that is still the live name's model, and raises ModelChangedError if not: by the
            settings, else by the vectors of one probe text, once for each model.

    Raises:
        ManifestError, PreflightError, UnreachableError: as `reembed.stores.registry.open_store`.
        ModelChangedError: `embeds_with` is another model than the live name's.
    """
    return registry.open_live(url, name, model=model, embeds_with=embeds_with)


def trust(*words: Model | Manifest | Mapping[str, Any] | str | Path) -> None:
    """Give the application's word for models that stores have on record, in this whole process.

    Args:
        words: models, as `Model` or as a mapping of the manifest's keys; or a manifest or its path,
            for its `model` and its `source.model`.

    Raises:
        ManifestError: one of them is no manifest.
        pydantic.ValidationError: one of them is no model.
    """
    for word in words:
        if isinstance(word, str | Path):
            word = Manifest.load(word)
        if isinstance(word, Manifest):
            models = [one for one in (word.new_model, word.source.model) if one]
        else:
            models = [word if isinstance(word, Model) else Model.model_validate(dict(word))]
        for model in models:
            model_record.trust(model)
