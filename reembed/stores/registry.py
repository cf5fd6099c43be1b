"""From a store URL to its adapter, imported lazily so that a missing extra is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from reembed.errors import MissingExtraError, PreflightError
from reembed.store_url import check_url
from reembed.stores.base import Store

ADAPTERS = {
    "chroma": "reembed.stores.chroma",
    "chroma+http": "reembed.stores.chroma",
    "chroma+https": "reembed.stores.chroma",
    "chroma+cloud": "reembed.stores.chroma",
}
"""URL scheme to the module whose `open_store(url, data_dir)` opens it."""

COMING = ("postgresql", "postgres", "qdrant", "qdrant+http", "qdrant+https", "lancedb", "milvus")
"""Schemes of the contract without an adapter yet; named so that the refusal is exact."""


def open_store(url: str, data_dir: Path | None = None) -> Store:
    """Open the store behind `url`.

    Args:
        data_dir: Chroma over HTTP: the server's own directory, if this machine can reach it.

    Raises:
        ManifestError: the URL is no store URL.
        PreflightError: no adapter for this store yet.
        MissingExtraError: the adapter's packages are not installed; names the extra.
        UnreachableError: nothing answers there.
    """
    check_url(url, "store URL")
    scheme = url.partition(":")[0]
    if scheme in COMING:
        raise PreflightError(
            f"{url}: {scheme} is not supported yet", f"Supported: {', '.join(sorted(ADAPTERS))}."
        )
    module_name = ADAPTERS[scheme]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        extra = module_name.rpartition(".")[2]
        raise MissingExtraError(
            f"{scheme} needs the package {error.name}", f"pip install 'reembed-pipeline[{extra}]'"
        ) from error
    opener: Callable[[str, Path | None], Store] = module.open_store
    return opener(url, data_dir)
