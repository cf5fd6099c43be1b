"""Which embedding function a new collection keeps.

Chroma embeds `query_texts` with the function on record, so a shadow must carry its own model's.
Chroma's built-in functions are recorded where they give exactly the model's vectors; for everything
else there is `reembed` (`function.py`). `recording.py` makes Chroma record it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from reembed.embedders.recorded import trust
from reembed.manifest import FunctionChoice, Model
from reembed.redaction import shown_url
from reembed.stores.chroma.function_settings import NAME, settings

OLLAMA_URL = "http://127.0.0.1:11434"
MODEL_KEY = "reembed:model"
"""Metadata of a collection that records no function: the settings of its model, for `reembed.live`.
Applications and Chroma do not look at it."""


def is_chromas_own(name: str) -> bool:
    """Whether Chroma itself brings an embedding function of this name, so that every application
    has it."""
    if not name:
        return False
    from chromadb.utils.embedding_functions import known_embedding_functions

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
    name, _ = function_for(model)
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
    return json.dumps(settings(model), sort_keys=True)


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


def function_for(model: Model) -> tuple[str, dict[str, Any]]:
    """Name and settings of the function that embeds as the model does."""
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
    return NAME, settings(model)


def _openai_keeps(model: Model) -> bool:
    """Whether Chroma's OpenAI function asks for the same dimensions: it leaves `dimensions` out
    unless the name contains `text-embedding-3`. And it uses OPENAI_API_KEY wherever that is set,
    which would send one provider's key to another."""
    if model.base_url and model.api_key_env not in (None, "OPENAI_API_KEY"):
        return False
    native = {"text-embedding-ada-002": 1536}.get(model.name)
    return model.dimensions in (None, native) or "text-embedding-3" in model.name
