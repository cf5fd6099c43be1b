"""Which stores and which providers there are: one line each, and nowhere else.

`urls` tells from here what a store URL may look like, and the registries which module opens it.
docs/adding-a-store.md and docs/adding-a-provider.md say what such a module holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reembed.errors import MissingExtraError


@dataclass(frozen=True)
class StoreEntry:
    """A scheme of store URLs.

    Attributes:
        place: what follows the scheme: a `path`, as in `chroma:./dir`, or a `host`, as in
            `chroma+http://host:8000`.
        module: whose `open_store(url, options)` opens it; None for one that is still to come.
        extra: the extra of this package that brings what the module needs; None where nothing more
            is needed.
        tables: whether `source.layout` and `source.columns` say how its tables are laid out.
        anywhere: whether the host may be left out.
        columns: whether `source.columns` says what its files hold where.
        live: module whose `open(url, name, model=, embeds_with=)` opens a live name for an
            application; None where `reembed.live` does not know the store.
    """

    scheme: str
    place: Literal["path", "host"]
    module: str | None = None
    extra: str | None = None
    tables: bool = False
    anywhere: bool = False
    columns: bool = False
    live: str | None = None


@dataclass(frozen=True)
class ProviderEntry:
    """A provider of models.

    Attributes:
        module: whose `open_provider(model, base_dir)` opens it.
        extra: the extra of this package that brings what the module needs; None where nothing more
            is needed.
    """

    name: str
    module: str
    extra: str | None = None


_CHROMA = "reembed.stores.chroma.store"
_CHROMA_LIVE = "reembed.stores.chroma.live"
_POSTGRES = "reembed.stores.postgres.store"
_CORPUS = "reembed.stores.corpus.store"
_POSTGRES_LIVE = "reembed.stores.postgres.live.table"
STORES = (
    StoreEntry("chroma", "path", _CHROMA, live=_CHROMA_LIVE),
    StoreEntry("chroma+http", "host", _CHROMA, live=_CHROMA_LIVE),
    StoreEntry("chroma+https", "host", _CHROMA, live=_CHROMA_LIVE),
    StoreEntry("chroma+cloud", "host", _CHROMA, live=_CHROMA_LIVE),
    StoreEntry(
        "postgresql", "host", _POSTGRES, "pgvector", tables=True, anywhere=True, live=_POSTGRES_LIVE
    ),
    StoreEntry(
        "postgres", "host", _POSTGRES, "pgvector", tables=True, anywhere=True, live=_POSTGRES_LIVE
    ),
    StoreEntry("parquet", "path", _CORPUS, columns=True),
    StoreEntry("jsonl", "path", _CORPUS, columns=True),
    StoreEntry("qdrant", "path"),
    StoreEntry("qdrant+http", "host"),
    StoreEntry("qdrant+https", "host"),
    StoreEntry("lancedb", "path"),
    StoreEntry("milvus", "path"),
)

_PROVIDERS = "reembed.embedders.providers"
PROVIDERS = (
    ProviderEntry("openai", f"{_PROVIDERS}.openai"),
    ProviderEntry("ollama", f"{_PROVIDERS}.ollama"),
    ProviderEntry("onnx", f"{_PROVIDERS}.onnx"),
    ProviderEntry("static", f"{_PROVIDERS}.static", "static"),
    ProviderEntry(
        "sentence-transformers", f"{_PROVIDERS}.sentence_transformers", "sentence-transformers"
    ),
    ProviderEntry("fastembed", f"{_PROVIDERS}.fastembed", "fastembed"),
    ProviderEntry("chroma", f"{_PROVIDERS}.chroma"),
    ProviderEntry("python", f"{_PROVIDERS}.python"),
)


def store_entry(scheme: str) -> StoreEntry | None:
    """The line of a scheme; None of an unknown one."""
    return next((entry for entry in STORES if entry.scheme == scheme), None)


def provider_entry(name: str) -> ProviderEntry:
    """The line of a provider that a manifest may name."""
    return next(entry for entry in PROVIDERS if entry.name == name)


def missing_extra(what: str, error: ImportError, extra: str | None) -> MissingExtraError:
    """The error of a package that is not installed, with how to install it.

    Args:
        what: what needs it, with its verb.
        extra: of this package, which brings it; None where nothing more should be needed.
    """
    named = f"[{extra}]" if extra else ""
    return MissingExtraError(
        f"{what} the package {error.name}", f"pip install 'reembed-pipeline{named}'"
    )
