"""From a store URL to its adapter, imported lazily so that a missing extra is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reembed.disk import require_memory
from reembed.errors import ManifestError, MissingExtraError, PreflightError
from reembed.manifest import Layout, Manifest
from reembed.manifest.adapters import STORES, install_hint, store_entry
from reembed.manifest.urls import check_url
from reembed.redaction import shown_url
from reembed.stores.store import Store
from reembed.stores.values import StoreOptions

LIBRARY_BYTES = 3 << 29
"""Address space that Chroma's library, Arrow and OpenBLAS take on two cores: with 0.5 to 1.4 GB one
or the other ended the process without an error."""


def open_store(
    url: str,
    data_dir: Path | None = None,
    *,
    layout: Layout = "auto",
    columns: Mapping[Any, str] | None = None,
    headers_env: Mapping[str, str] | None = None,
    schema: str | None = None,
) -> Store:
    """Open the store behind `url`.

    Args:
        data_dir: Chroma over HTTP: the server's own directory, if this machine can reach it.
        layout: pgvector: how the table is laid out, which `plain` leaves to its columns.
        columns: pgvector: names of columns, by what they hold.
        headers_env: Chroma over HTTP: headers of every request, each with the environment variable
            that holds its value.
        schema: Postgres: where a run makes its tables.

    Raises:
        ManifestError: the URL is no store URL, or its store has no tables to be laid out.
        PreflightError: no adapter for this store yet.
        MissingExtraError: the adapter's packages are not installed; names the extra.
        UnreachableError: nothing answers there.
    """
    check_url(url, "store URL")
    scheme = url.partition(":")[0]
    entry = store_entry(scheme)
    if entry is None or entry.module is None:
        supported = sorted(entry.scheme for entry in STORES if entry.module)
        raise PreflightError(
            f"{shown_url(url)}: {scheme} is not supported yet",
            f"Supported: {', '.join(supported)}.",
        )
    if not entry.tables and (layout == "table" or columns):
        raise ManifestError(
            "source.columns and layout: table are for Postgres tables",
            f"Leave them out: {scheme} has no tables.",
        )
    if schema is not None and not entry.tables:
        raise ManifestError(
            "target.schema is for Postgres", f"Leave it out: {scheme} has no schemas."
        )
    if headers_env and not scheme.startswith("chroma"):
        raise ManifestError(
            f"headers_env: {scheme} takes no headers", "They are for a Chroma server."
        )
    require_memory(LIBRARY_BYTES)
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{scheme} needs the package {error.name}", install_hint(entry.extra)
        ) from error
    layout = "auto" if layout == "plain" else layout
    opener: Callable[[str, StoreOptions], Store] = module.open_store
    return opener(url, StoreOptions(data_dir, layout, columns or {}, headers_env or {}, schema))


def open_source(manifest: Manifest) -> Store:
    """The store of a manifest's source, told what the manifest says of it."""
    source = manifest.source
    return open_store(
        source.url, Path(source.data_dir) if source.data_dir else None,
        layout=source.layout, columns=source.columns, headers_env=source.headers_env,
        schema=manifest.target.schema_ if manifest.target_url == source.url else None,
    )  # fmt: skip


def open_target(manifest: Manifest) -> Store:
    """The store of a manifest's target, where that is another one than the source's."""
    return open_store(
        manifest.target_url, headers_env=manifest.target.headers_env, schema=manifest.target.schema_
    )
