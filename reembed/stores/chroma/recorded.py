"""What a collection has on record, read back: a store's word, believed only as far as
`embedders.recorded` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reembed.embedders.recorded import Recorded, believe
from reembed.manifest import Model
from reembed.redaction import remember_in, shown_url
from reembed.stores.chroma.function_settings import NAME, settings

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection


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
            return settings(Model.model_validate(config))
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
