"""From a store URL to its adapter, imported lazily so that a missing extra is named."""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from reembed.errors import ManifestError, PreflightError
from reembed.manifest import Manifest, Model
from reembed.manifest.adapters import STORES, StoreEntry, missing_extra, store_entry
from reembed.manifest.urls import check_url
from reembed.redaction import shown_url
from reembed.run.disk import require_memory
from reembed.stores.live import Live, Own
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions

LIBRARY_BYTES = 3 << 29
"""Address space that Chroma's library, Arrow and OpenBLAS take on two cores: with 0.5 to 1.4 GB one
or the other ended the process without an error."""


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Open the store behind `url`.

    Args:
        options: what a manifest says of it besides.

    Raises:
        ManifestError: the URL is not a store URL, or an option is none of this store's.
        PreflightError: no adapter for this store yet.
        MissingExtraError: the adapter's packages are not installed; names the extra.
        UnreachableError: nothing answers there.
    """
    options = options or StoreOptions()
    check_url(url, "store URL")
    entry = _entry(url)
    if options.columns and not (entry.tables or entry.columns):
        raise ManifestError(
            "source.columns is for Postgres tables, Parquet and JSON lines",
            f"Leave it out: {entry.scheme} keeps records, which have no columns.",
        )
    if not entry.tables:
        _refuse_table_options(options, entry.scheme)
    if options.headers_env and not entry.scheme.startswith("chroma"):
        raise ManifestError(
            f"headers_env: {entry.scheme} takes no headers", "They are for a Chroma server."
        )
    require_memory(LIBRARY_BYTES)
    opener: Callable[[str, StoreOptions], Store] = _adapter(entry, entry.module).open_store
    if options.layout == "plain":
        options = replace(options, layout="auto")
    return opener(url, options)


def open_live(
    url: str, name: str, *, model: Model | None = None, embeds_with: Own | None = None
) -> Live:
    """The live name `name` of the store behind `url`, for an application; see `reembed.live.open`.

    Raises:
        ManifestError: the URL is not a store URL.
        PreflightError: no adapter for this store yet.
        MissingExtraError: the adapter's packages are not installed; names the extra.
        UnreachableError: nothing answers there.
    """
    check_url(url, "store URL")
    entry = _entry(url)
    opener: Callable[..., Live] = _adapter(entry, entry.live).open
    return opener(url, name, model=model, embeds_with=embeds_with)


def _entry(url: str) -> StoreEntry:
    scheme = url.partition(":")[0]
    entry = store_entry(scheme)
    if entry is None or entry.module is None:
        supported = sorted(entry.scheme for entry in STORES if entry.module)
        raise PreflightError(
            f"{shown_url(url)}: {scheme} is not supported yet",
            f"Supported: {', '.join(supported)}.",
        )
    return entry


def _adapter(entry: StoreEntry, module: str | None) -> Any:
    """The module of an adapter."""
    if module is None:
        raise PreflightError(f"reembed.live does not know {entry.scheme} yet")
    try:
        with _uncollected():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(f"{entry.scheme} needs", error, entry.extra) from error


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without looking for garbage, of which there is none: a tenth of Chroma's import."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _refuse_table_options(options: StoreOptions, scheme: str) -> None:
    """Raise ManifestError for what only a store of tables can do."""
    if options.layout == "table":
        raise ManifestError(
            "source.layout: table is for Postgres tables",
            f"Leave them out: {scheme} has no tables.",
        )
    if options.text_query is not None:
        raise ManifestError(
            "source.text_query is for Postgres tables",
            f"Leave it out: {scheme} keeps documents, and `text` makes the text of a record's own "
            'metadata, e.g. text: "{metadata.KEY}".',
        )
    if options.without_vector != "embed":
        raise ManifestError(
            f"source.without_vector: {options.without_vector} is for Postgres tables",
            f"Leave it out: {scheme} takes no record without a vector, so a record without one "
            "has lost it and gets a new one.",
        )
    if options.schema is not None:
        raise ManifestError(
            "target.schema is for Postgres", f"Leave it out: {scheme} has no schemas."
        )


def open_source(manifest: Manifest) -> Store:
    """The store of a manifest's source, told what the manifest says of it."""
    source = manifest.source
    return open_store(
        source.url,
        StoreOptions(
            data_dir=Path(source.data_dir) if source.data_dir else None,
            layout=source.layout, columns=source.columns, headers_env=source.headers_env,
            schema=manifest.target.schema_ if manifest.target_url == source.url else None,
            where=source.where, text_query=source.text_query,
            without_vector=source.without_vector, embeds=not manifest.keeps,
        ),
    )  # fmt: skip


def open_store_of_live(manifest: Manifest) -> Store:
    """The store in which the live name is, or is before a migration moves it to another store."""
    if manifest.live_url == manifest.source.url:
        return open_source(manifest)
    return open_target(manifest)


def open_target(manifest: Manifest) -> Store:
    """The store of a manifest's target, where that is another one than the source's."""
    target = manifest.target
    return open_store(
        manifest.target_url, StoreOptions(headers_env=target.headers_env, schema=target.schema_)
    )
