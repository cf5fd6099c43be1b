"""The embedding function that Chroma keeps with a collection: what to record, how to read it back.

Chroma embeds `query_texts` with the function on record, so a shadow must carry its own model's.
Chroma's built-in functions are recorded where they give exactly the model's vectors; for everything
else there is `reembed`, registered by `import reembed.live`, which embeds as the manifest says.
What is read back is a store's word: `embedders.recorded` says what of it is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any

from chromadb.api.models.Collection import Collection
from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space
from chromadb.utils.embedding_functions import (
    known_embedding_functions,
    register_embedding_function,
)
from pydantic import ValidationError

from reembed.embedders.recorded import Recorded, believe, trust
from reembed.errors import PreflightError
from reembed.manifest import FunctionChoice, Model
from reembed.redaction import remember_in, shown_url

NAME = "reembed"
OLLAMA_URL = "http://127.0.0.1:11434"


@register_embedding_function
class ReembedEmbeddingFunction(EmbeddingFunction[Documents]):
    """A manifest's model as a Chroma embedding function, prefixes and normalisation included.

    Building it needs neither network nor key; the embedder is opened at the first text, once a
    process, because Chroma builds the function anew at every query. Who makes one with a model of
    its own gives its word for that model; one that Chroma builds from what a store has on record
    embeds only what `embedders.recorded` believes, and else refuses at the first text.
    """

    def __init__(self, model: Model) -> None:
        trust(model)
        self._model: Model | None = model
        self._config = _settings(model)

    @property
    def model(self) -> Model:
        """The model to embed with.

        Raises:
            PreflightError: it is a store's word, which is not enough for it.
        """
        if self._model is not None:
            return self._model
        recorded = believe(self._config)
        assert recorded is not None, "there is a config"
        if recorded.model is None:
            raise recorded.refusal("the collection's embedding function reembed")
        return recorded.model

    def __call__(self, input: Documents) -> Embeddings:
        embedded = _embedder(self.model.model_dump_json()).embed_documents(list(input))
        if embedded.rejected:
            place, rejection = min(embedded.rejected.items())
            raise PreflightError(
                f"document {place} of {len(input)} cannot be embedded: {rejection}"
            )
        return list(embedded.vectors)

    def embed_query(self, input: Documents) -> Embeddings:
        return list(_embedder(self.model.model_dump_json()).embed_queries(list(input)))

    @staticmethod
    def name() -> str:
        return NAME

    def default_space(self) -> Space:
        return "cosine"

    def supported_spaces(self) -> list[Space]:
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        return deepcopy(self._config)

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ReembedEmbeddingFunction:
        made = ReembedEmbeddingFunction.__new__(ReembedEmbeddingFunction)
        made._model, made._config = None, deepcopy(dict(config))
        return made


@lru_cache(maxsize=8)
def _embedder(model: str) -> Any:
    """The embedder of a model given as JSON, kept open. Imported late: a store needs none."""
    from reembed.embedders.registry import open_embedder

    return open_embedder(Model.model_validate_json(model))


def _settings(model: Model) -> dict[str, Any]:
    """All of a model's manifest keys that are not at their default; no key, only the name of the
    environment variable that holds one."""
    defaults = Model(provider=model.provider, name=model.name)
    plain = model.model_dump(mode="json")
    plain["base_url"] = model.base_url and shown_url(model.base_url)
    return {
        key: value
        for key, value in plain.items()
        if key in ("provider", "name") or value != getattr(defaults, key)
    }


MODEL_KEY = "reembed:model"
"""Metadata of a collection that records no function: the settings of its model, for `reembed.live`.
Applications and Chroma do not look at it."""


def is_chromas_own(name: str) -> bool:
    """Whether Chroma itself brings an embedding function of this name, so that every application
    has it."""
    known = known_embedding_functions.get(name)
    return known is not None and known.__module__.startswith("chromadb.")


def keeps(choice: FunctionChoice, before: str, model: Model) -> str:
    """Name of the function to keep with a new collection; empty for none.

    An application passes a function of its own at every opening, and Chroma refuses it where one
    of another name is on record. So `auto` records none where none was, or where the one that was
    is not Chroma's own and can only have come from the application.

    Args:
        before: name of the one that the source keeps.
    """
    name, _ = _function_for(model)
    if choice == "record" or (choice == "auto" and before == NAME):
        return name
    if choice == "auto" and is_chromas_own(before) and is_chromas_own(name):
        return name
    return ""


def told(choice: FunctionChoice, before: str, model: Model) -> str:
    """What `plan` says of the function that is kept, and of the ways of opening that will work."""
    name = keeps(choice, before, model)
    variable = _variable(model) if is_chromas_own(name) else ""
    if is_chromas_own(name):
        return (
            f"embedding function: Chroma's own {name!r} is kept with the new collection, as "
            f"{before!r} was with the old one: get_collection(name) embeds query_texts by itself"
            + (f" where {variable} is set" if variable else "")
            + "; a function of another name is refused, as before"
        ) if before else (
            f"embedding function: Chroma's own {name!r} is kept with the new collection "
            "(target.embedding_function: record), and none was with the old one: an application "
            "that passes one of another name will be refused"
        )  # fmt: skip
    if name:
        return (
            f"embedding function: {name!r} is kept with the new collection: applications open it "
            "by get_collection(name) after `import reembed.live`; one that passes a function of "
            "its own is refused" + ("" if before == NAME else ", which target.embedding_function: "
            "none avoids")
        )  # fmt: skip
    lost = (
        f"; the old one keeps Chroma's own {before!r}, so query_texts without a function worked "
        "there and will not any more"
        if is_chromas_own(before)
        else ""
    )
    return (
        "embedding function: none is kept with the new collection: get_collection(name) opens it, "
        "with or without a function of the application's own; query_texts need one, or "
        f"reembed.live{lost}"
    )


def _variable(model: Model) -> str:
    """The environment variable that Chroma's own function takes its key from."""
    return (model.api_key_env or "OPENAI_API_KEY") if model.provider == "openai" else ""


def noted(model: Model) -> str:
    """What `MODEL_KEY` holds. Like a function that is made, it gives this process's word."""
    trust(model)
    return json.dumps(_settings(model), sort_keys=True)


def without_note(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The application's own metadata of a collection; None without any."""
    return {key: value for key, value in (metadata or {}).items() if key != MODEL_KEY} or None


def from_note(metadata: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The function that a collection's metadata tells of in place of one on record."""
    text = (metadata or {}).get(MODEL_KEY)
    if not isinstance(text, str):
        return None
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    return {"type": "known", "name": NAME, "config": config if isinstance(config, dict) else {}}


def to_record(model: Model) -> EmbeddingFunction[Any]:
    """An object that makes `create_collection` record the function for `model`.

    It is never called. A built-in function is not constructed, because OpenAI's wants its key at
    construction; `recording` keeps the registry as it was.
    """
    name, config = _function_for(model)
    if name == NAME:
        return ReembedEmbeddingFunction(model)
    return _Record.of(name, config)


def _function_for(model: Model) -> tuple[str, dict[str, Any]]:
    plain = not (
        model.document_prefix
        or model.query_prefix
        or model.on_too_long != "fail"
        or model.normalize is True
    )
    if plain and model.provider == "chroma":
        return model.name, dict(model.options)
    options = set(model.options) - {"batch_api"}
    if plain and model.provider == "openai" and not options and _openai_keeps(model):
        return "openai", {
            "api_key_env_var": model.api_key_env or "OPENAI_API_KEY",
            "model_name": model.name,
            "organization_id": None,
            "api_base": model.base_url and shown_url(model.base_url),
            "api_type": None,
            "api_version": None,
            "deployment_id": None,
            "default_headers": None,
            "dimensions": model.dimensions,
        }
    # Chroma's Ollama function cannot ask for dimensions.
    if plain and model.provider == "ollama" and not options and model.dimensions is None:
        url = model.base_url or os.environ.get("OLLAMA_HOST") or OLLAMA_URL
        return "ollama", {"url": shown_url(url), "model_name": model.name, "timeout": 60}
    return NAME, _settings(model)


def _openai_keeps(model: Model) -> bool:
    """Whether Chroma's OpenAI function asks for the same dimensions: it leaves `dimensions` out
    unless the name contains `text-embedding-3`. And it uses OPENAI_API_KEY wherever that is set,
    which would send one provider's key to another."""
    if model.base_url and model.api_key_env not in (None, "OPENAI_API_KEY"):
        return False
    native = {"text-embedding-ada-002": 1536}.get(model.name)
    return model.dimensions in (None, native) or "text-embedding-3" in model.name


class _Record(EmbeddingFunction[Any]):
    """Stands for a registered embedding function while a collection is created."""

    config: dict[str, Any]

    def __init__(self) -> None:
        pass

    @staticmethod
    def of(name: str, config: dict[str, Any]) -> _Record:
        kind = type("_Record", (_Record,), {"name": staticmethod(lambda: name), "config": config})
        record: _Record = kind()
        return record

    def __call__(self, input: Any) -> Embeddings:
        raise AssertionError("a record of an embedding function embeds nothing")

    @classmethod
    def build_from_config(cls, config: dict[str, Any]) -> _Record:
        return cls()

    def get_config(self) -> dict[str, Any]:
        return dict(self.config)


@contextmanager
def recording() -> Iterator[None]:
    """Keep Chroma's registry as it was: creating a collection registers the class of the function
    it is given, which would put a `_Record` in the place of the real one."""
    before = dict(known_embedding_functions)
    try:
        yield
    finally:
        for name in set(known_embedding_functions) - set(before):
            del known_embedding_functions[name]
        known_embedding_functions.update(before)


def model_of(function: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A recorded embedding function as manifest keys of `model`; None if it tells nothing usable.

    Args:
        function: `{type, name, config}` as the collection's schema holds it.
    """
    if not function or function.get("type") != "known" or not function.get("name"):
        return None
    name, config = str(function["name"]), dict(function.get("config") or {})
    remember_in(config)
    if name == NAME:
        try:
            return _settings(Model.model_validate(config))
        except ValidationError:  # written by a version of reembed with other keys
            return None
    if name == "openai" and not (config.get("api_type") or config.get("deployment_id")):
        found = {
            "name": config.get("model_name"),
            "base_url": shown_url(str(config.get("api_base") or "")),
            "dimensions": config.get("dimensions"),
            "api_key_env": config.get("api_key_env_var"),
        }
        return _known("openai", found)
    if name == "ollama":
        url = shown_url(str(config.get("url") or "")).removesuffix("/api/embeddings")
        return _known("ollama", {"name": config.get("model_name"), "base_url": url or None})
    return _known("chroma", {"name": name, "options": config or None})


def _known(provider: str, found: dict[str, Any]) -> dict[str, Any] | None:
    keys = {"provider": provider} | {key: value for key, value in found.items() if value}
    try:
        Model.model_validate(keys)
    except ValidationError:
        return None
    return keys


def open_recorded(
    said: Mapping[str, Any] | None, words: Iterable[Model | None], where: str
) -> EmbeddingFunction[Any] | None:
    """A recorded model as a function that is ready to embed; None where none is recorded.

    Args:
        said: manifest keys, as `model_of` and a pointer give them.
        words: models that the application names.

    Raises:
        PreflightError: a store's word is not enough for it, it is not registered in this process,
            or it cannot be built here.
    """
    if said is not None and said.get("provider") == "chroma":
        _require_registered(str(said.get("name")))
    recorded = believe(said, words)
    if recorded is None:
        return None
    if recorded.model is None:
        raise recorded.refusal(where)
    if recorded.model.provider != "chroma":
        return ReembedEmbeddingFunction(recorded.model)
    return _built(recorded.model)


def _require_registered(name: str) -> None:
    if name not in known_embedding_functions:
        raise PreflightError(
            f"the collection's embedding function {name!r} is not registered in this process",
            "Import the module that registers it before the first query.",
        )


def _built(model: Model) -> EmbeddingFunction[Any]:
    """One of Chroma's registered functions."""
    try:
        built: EmbeddingFunction[Any] = known_embedding_functions[model.name].build_from_config(
            dict(model.options)
        )
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        raise PreflightError(
            f"the collection's embedding function {model.name!r} cannot be built here: {error}",
            "Set the environment variable or install the package that it names.",
        ) from error
    return built


def disarm(collection: Collection, words: Iterable[Model | None]) -> Recorded | None:
    """Take from a collection's handle the functions that a store's word is not enough for: Chroma
    builds all that are on record at each write. The collection itself stays as it is.

    Returns:
        a sparse function that was taken, with which Chroma would have embedded what is written.
    """
    model: Any = collection.get_model()
    words, sparse = list(words), list[Recorded]()

    def cleaned(part: Any, inside_sparse: bool) -> Any:
        if isinstance(part, list):
            return [cleaned(one, inside_sparse) for one in part]
        if not isinstance(part, dict):
            return part
        return {
            key: taken(value, inside_sparse) if key == "embedding_function"
            else cleaned(value, inside_sparse or key == "sparse_vector")
            for key, value in part.items()
        }  # fmt: skip

    def taken(function: Any, inside_sparse: bool) -> Any:
        if not isinstance(function, dict) or function.get("type") in ("legacy", "unknown"):
            return function
        if function.get("name") == NAME and not inside_sparse:
            return function  # builds nothing, and asks by itself
        said = model_of(function)
        recorded = believe(said if said is not None else {"provider": None}, words)
        if recorded is not None and recorded.model is not None:
            return function
        if inside_sparse and recorded is not None:
            sparse.append(recorded)
        return {"type": "legacy"}

    model["serialized_schema"] = cleaned(model.serialized_schema, False)
    model["configuration_json"] = cleaned(model.configuration_json, False)
    return sparse[0] if sparse else None
