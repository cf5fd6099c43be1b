"""Which collection the shadow is."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from reembed.manifest import Manifest, Model
from reembed.stores.foreign import kind_of
from reembed.stores.store import Writer
from reembed.stores.values import CollectionInfo, CollectionSpec


def target_name(manifest: Manifest, writer: Writer, dimensions: int) -> str:
    """The shadow's name: target.collection, or `<collection>__<model>-<dimensions>`."""
    model = manifest.new_model.name.removeprefix("package:") if manifest.new_model else "kept"
    return manifest.target.collection or writer.default_target(
        manifest.source.collection, model, dimensions
    )


def kept_model(manifest: Manifest, source: CollectionInfo) -> Model | None:
    """What made vectors that are moved as they are, as the manifest or else the store says. Nobody
    calls it: it is kept on record."""
    return manifest.source.model or recorded_model(source.model)


def recorded_model(said: Mapping[str, Any] | None) -> Model | None:
    """A model as a store has it on record, None where that is no model's settings."""
    with contextlib.suppress(ValidationError):
        return Model.model_validate(said) if said is not None else None
    return None


def _kept_index(manifest: Manifest, source: CollectionInfo) -> dict[str, Any]:
    """The source's index settings, where the target builds such an index: the same database, or
    Chroma and another Chroma. Chroma's cloud has another kind of index than every other Chroma,
    and another `target.index.type` has other settings."""
    urls = (manifest.source.url, manifest.target_url)
    chromas = all(kind_of(url) == "chroma" for url in urls)
    clouds = {url.startswith("chroma+cloud") for url in urls}
    kept = manifest.target_url == manifest.source.url or (chromas and len(clouds) == 1)
    kind = source.index.get("type")
    same = kind == manifest.target.index.get("type", kind)
    return source.index if kept and same else {}


def shadow_spec(
    manifest: Manifest, source: CollectionInfo, name: str, dimensions: int
) -> CollectionSpec:
    """The shadow: as the source is, as far as the store can, but for the target's settings."""
    same_store = manifest.target_url == manifest.source.url
    return CollectionSpec(
        name,
        dimensions=dimensions,
        metric=manifest.target.metric or source.metric,
        index=_kept_index(manifest, source) | manifest.target.index,
        metadata=source.metadata,
        model=manifest.new_model or kept_model(manifest, source),
        like=source.id if same_store else None,
        function=manifest.target.embedding_function,
        function_before=source.function,
        key_indexes=source.key_indexes,
    )
