"""mem0's configuration: read, and held against the table that it names."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reembed.applications.mem0.connection import connection_parts
from reembed.errors import ManifestError, PreflightError
from reembed.manifest import Model
from reembed.manifest.reader import MAX_BYTES, read_yaml
from reembed.manifest.secrets import is_secret
from reembed.redaction import remember_in

Form = Literal["json", "yaml", "python"]
FORMS: dict[str, Form] = {
    ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".py": "python", ".txt": "python",
}  # fmt: skip
"""A file's suffix to how it is read, and written again."""

MOST = 65_535
"""Dimensions that `Model` takes."""

ENTITIES = "_entities"
"""What mem0 adds to the collection's name for the table of its entities."""

OPENAI_DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
EMBEDDERS: dict[str, tuple[str, str]] = {
    "openai": ("text-embedding-3-small", "openai_base_url"),
    "ollama": ("nomic-embed-text", "ollama_base_url"),
}
"""Provider to mem0's default model and to its key for the address."""

_WRITE_IT = (
    "Write the dictionary that the application gives to Memory.from_config as JSON, YAML or a "
    "Python literal into a file of that suffix: .json, .yaml or .py."
)


@dataclass(frozen=True)
class Mem0Config:
    """A configuration of mem0.

    Attributes:
        connection: where its Postgres is, without passwords: user, host, port, dbname, ...
        collection: the memories' table.
        embedding_model_dims: the width that mem0 makes a new table with.
        embedder: the model that mem0 embeds texts and queries with; `dimensions` is what the
            configuration says of it, or what is known of OpenAI's, or None.
        history_db: mem0's SQLite file with every change of a memory; None for mem0's own default.
        data: everything, secrets included.
    """

    path: Path
    form: Form
    connection: dict[str, str]
    collection: str
    embedding_model_dims: int
    embedder: Model
    history_db: Path | None
    data: dict[str, Any] = field(repr=False)

    @property
    def tables(self) -> tuple[str, str]:
        """The tables that must move together: memories and entities."""
        return self.collection, f"{self.collection}{ENTITIES}"


def read_config(path: Path) -> Mem0Config:
    """Read a configuration; a relative `history_db_path` is relative to the file's folder.

    Raises:
        PreflightError: it cannot be read, or it is none that reembed can move.
    """
    form, data = _read(path)
    store = _section(data, "vector_store", path)
    if (provider := store.get("provider", "qdrant")) != "pgvector":
        raise PreflightError(
            f"{path}: vector_store.provider is {_shown(provider)}, and reembed moves mem0's "
            "memories in pgvector alone",
            "Name the configuration of the application whose memories are in Postgres.",
        )
    settings = _section(store, "config", path, "vector_store.")
    history = data.get("history_db_path")
    if not isinstance(history, str | None):
        raise PreflightError(f"{path}: history_db_path is not a path", _WRITE_IT)
    try:
        connection = connection_parts(settings)
    except ValueError as error:
        raise PreflightError(
            f"{path}: vector_store.config.connection_string {error}", _WRITE_IT
        ) from None
    return Mem0Config(
        path=path,
        form=form,
        connection=connection,
        collection=_text(settings, "collection_name", "mem0", f"{path}: vector_store.config."),
        embedding_model_dims=_whole(settings, "embedding_model_dims", path, "vector_store.config.")
        or 1536,
        embedder=_embedder(data, path),
        history_db=None if history is None else path.resolve().parent / history,
        data=data,
    )


def check(
    config: Mem0Config,
    table_dimensions: int,
    *,
    table: str | None = None,
    model_dimensions: int | None = None,
) -> None:
    """Refuse a configuration that does not fit the table it reads.

    Args:
        table_dimensions: n of the table's vector(n).
        table: the table's name, if it is not the memories' own.
        model_dimensions: what the embedder really gives, where that was asked; else what the
            configuration says.

    Raises:
        PreflightError: the embedder, `embedding_model_dims` and the table disagree.
    """
    table = table or config.collection
    model = config.embedder
    given = model_dimensions or model.dimensions
    if given is not None and given != table_dimensions:
        raise PreflightError(
            f"{config.path}: the embedder {model.name} gives vectors of {given} dimensions, and "
            f"the table {table} holds vector({table_dimensions}): mem0's search, add and update "
            "fail on it, while get, get_all, history and delete answer as if nothing were wrong",
            "Put the embedder back that wrote the table, then move the memories, and deploy the "
            "changed configuration together with the swap.",
        )
    if config.embedding_model_dims != table_dimensions:
        raise PreflightError(
            f"{config.path}: vector_store.config.embedding_model_dims is "
            f"{config.embedding_model_dims}, and the table {table} holds "
            f"vector({table_dimensions}): mem0 makes its next table, in a new database or for its "
            "entities, too wide or too narrow for its embedder, and loses what does not fit",
            f"Set embedding_model_dims to {table_dimensions}.",
        )


# Reading


def _read(path: Path) -> tuple[Form, dict[str, Any]]:
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise PreflightError(f"{path}: {path.suffix or 'no suffix'} tells no form", _WRITE_IT)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PreflightError(f"{path}: larger than {MAX_BYTES:,} bytes", _WRITE_IT)
        data = read_yaml(path) if form == "yaml" else _parsed(path.read_text("utf-8-sig"), form)
    except ManifestError as error:
        raise PreflightError(error.message, _WRITE_IT) from None
    except OSError as error:
        raise PreflightError(
            f"{path}: mem0's configuration cannot be read: {error.strerror}",
            "Check source.mem0.config.",
        ) from None
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        # Not the error's own text, which may show a secret.
        name = {"json": "JSON", "python": "a Python literal"}[form]
        raise PreflightError(f"{path}: is not {name}", _WRITE_IT) from None
    if not isinstance(data, dict):
        raise PreflightError(f"{path}: is not a dictionary", _WRITE_IT)
    remember_in(data)
    return form, data


def _parsed(text: str, form: Form) -> Any:
    if form == "json":
        return json.loads(text)
    data = ast.literal_eval(text.strip())
    return json.loads(json.dumps(data))  # tuples as lists; bytes and sets are no configuration


def _embedder(data: dict[str, Any], path: Path) -> Model:
    section = _section(data, "embedder", path) if "embedder" in data else {}
    provider = section.get("provider", "openai")
    if not isinstance(provider, str) or provider not in EMBEDDERS:
        raise PreflightError(
            f"{path}: embedder.provider is {_shown(provider)}, which reembed cannot call",
            f"Known: {', '.join(sorted(EMBEDDERS))}. With another, leave source.mem0.config out "
            "(source.mem0.history may stay), give the old model as source.model by a provider of "
            "reembed's, e.g. openai with base_url or python, and write the new configuration "
            "yourself.",
        )
    default, address = EMBEDDERS[provider]
    settings = _section(section, "config", path, "embedder.") if section.get("config") else {}
    where = f"{path}: embedder.config."
    name = _text(settings, "model", default, where)
    known = OPENAI_DIMENSIONS.get(name) if provider == "openai" else None
    url = settings.get(address)
    if url is not None and (not isinstance(url, str) or is_secret(address, url)):
        raise PreflightError(f"{where}{address} is not an address, or holds a password", _WRITE_IT)
    return Model(
        provider=provider,
        name=name,
        dimensions=_whole(settings, "embedding_dims", path, "embedder.config.") or known,
        base_url=url,
    )


def _section(data: dict[str, Any], key: str, path: Path, above: str = "") -> dict[str, Any]:
    found = data.get(key)
    if found is None and key == "vector_store":
        raise PreflightError(
            f"{path}: has no vector_store, so mem0 keeps its memories in a local Qdrant",
            "Name the configuration of the application whose memories are in Postgres.",
        )
    if not isinstance(found, dict):
        raise PreflightError(f"{path}: {above}{key} is not a dictionary", _WRITE_IT)
    return found


def _text(settings: dict[str, Any], key: str, default: str, where: str) -> str:
    found = settings.get(key) or default
    if not isinstance(found, str) or is_secret(key, found):
        raise PreflightError(f"{where}{key} is not a name", _WRITE_IT)
    return found


def _whole(settings: dict[str, Any], key: str, path: Path, above: str) -> int | None:
    found = settings.get(key)
    if found is not None and (type(found) is not int or not 1 <= found <= MOST):
        raise PreflightError(f"{path}: {above}{key} is not a number of dimensions", _WRITE_IT)
    return found


def _shown(provider: Any) -> str:
    """A provider's name for a message: a short word, or that it is none."""
    is_name = isinstance(provider, str) and re.fullmatch(r"[a-z0-9_-]{1,30}", provider)
    return repr(provider) if is_name and not is_secret("", str(provider)) else "no known name"
