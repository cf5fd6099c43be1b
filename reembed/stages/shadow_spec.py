"""Which collection the shadow is."""

from __future__ import annotations

from reembed.manifest import Manifest
from reembed.stores.store import Writer
from reembed.stores.values import CollectionInfo, CollectionSpec


def target_name(manifest: Manifest, writer: Writer, dimensions: int) -> str:
    """The shadow's name: target.collection, or `<collection>__<model>-<dimensions>`."""
    return manifest.target.collection or writer.default_target(
        manifest.source.collection, manifest.model.name.removeprefix("package:"), dimensions
    )


def shadow_spec(
    manifest: Manifest, source: CollectionInfo, name: str, dimensions: int
) -> CollectionSpec:
    """The shadow: as the source is, where the store is the same, but for the target's settings."""
    same_store = manifest.target_url == manifest.source.url
    return CollectionSpec(
        name,
        dimensions=dimensions,
        metric=manifest.target.metric or source.metric,
        index=(source.index if same_store else {}) | manifest.target.index,
        metadata=source.metadata,
        model=manifest.model,
        like=source.id if same_store else None,
        function=manifest.target.embedding_function,
        function_before=source.function,
        key_indexes=source.key_indexes,
    )
