"""The configuration of mem0 to deploy with a swap, without secrets."""

from __future__ import annotations

import copy
import json
import os
import pprint
import re
from typing import Any

import yaml

from reembed.applications.mem0.config import EMBEDDERS, Form, Mem0Config
from reembed.applications.mem0.connection import without_password
from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.manifest.secrets import is_secret
from reembed.redaction import redacted_values
from reembed.redaction.forms import is_secret_name

OLLAMA_DEFAULT = "http://127.0.0.1:11434"
FIXED = frozenset({"text-embedding-ada-002"})
"""OpenAI's models that refuse to be asked for dimensions."""


def changed_config(config: Mem0Config, model: Model, dimensions: int | None = None) -> str:
    """The configuration to deploy with the swap, in the form that it was read in.

    The embedder and `embedding_model_dims` are the new model's. Secrets are replaced by the names
    of environment variables, as `${OPENAI_API_KEY}`; comments of a YAML file are not kept.

    Args:
        dimensions: what the model gives, where `model.dimensions` does not say.

    Raises:
        PreflightError: mem0 cannot embed as `model` does.
    """
    if model.provider not in EMBEDDERS:
        raise PreflightError(
            f"model.provider {model.provider!r} has no counterpart in mem0's configuration that "
            "reembed can write",
            f"Use one of: {', '.join(sorted(EMBEDDERS))}.",
        )
    if model.document_prefix or model.query_prefix:
        raise PreflightError(
            "mem0 sends its texts and queries as they are, and this model has a document_prefix "
            "or a query_prefix: what mem0 asks for later would not fit what reembed embedded",
            "Leave both prefixes out of `model`.",
        )
    width = dimensions or model.dimensions
    if width is None:
        raise PreflightError(
            f"the dimensions of {model.name} are not known",
            "Set model.dimensions, which mem0's configuration needs.",
        )
    data = copy.deepcopy(config.data)
    data["vector_store"]["config"]["embedding_model_dims"] = width
    data["embedder"] = _changed_embedder(data.get("embedder") or {}, model, width)
    return _written(_without_secrets(data, config.embedder.provider), config.form)


def _changed_embedder(old: dict[str, Any], model: Model, width: int) -> dict[str, Any]:
    """The section `embedder` for `model`; what it does not decide stays, for the same provider."""
    same = old.get("provider", "openai") == model.provider
    settings = dict(old.get("config") or {}) if same else {}
    _, address = EMBEDDERS[model.provider]
    settings["model"] = model.name
    settings.pop("embedding_dims", None)
    # mem0 sends this number to OpenAI's API, where a model of a fixed width refuses it.
    asked = model.dimensions is not None and model.name not in FIXED
    if asked or model.provider == "ollama":
        settings["embedding_dims"] = width
    known = settings.pop(address, None)
    if model.base_url is not None:
        settings[address] = model.base_url
    elif model.provider == "ollama":  # left out, mem0 would ask the container that it is in
        settings[address] = known or os.environ.get("OLLAMA_HOST") or OLLAMA_DEFAULT
    if model.provider == "openai" and model.api_key_env is not None:
        settings["api_key"] = f"${{{model.api_key_env}}}"
    return {"provider": model.provider, "config": settings}


# Secrets

_REFERENCE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?")


def _without_secrets(data: Any, provider: str, key: str = "") -> Any:
    """`data` with the name of an environment variable in place of every secret. `provider`: of the
    section that `data` is in, whose key it is."""
    if isinstance(data, dict):
        provider = str(data.get("provider", provider))
        inside = (
            f"{key}_secret" if is_secret_name(key) else ""
        )  # credentials: {user: .., value: ..}
        return {
            name: _without_secrets(value, provider, f"{name}_{inside}" if inside else name)
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [_without_secrets(value, provider, key) for value in data]
    if data is None or isinstance(data, bool) or data == "" or _REFERENCE.fullmatch(str(data)):
        return data
    if key == "connection_string":
        return without_password(data, "${PGPASSWORD}")
    if is_secret(key, str(data)) or redacted_values(str(data), words=False) != str(
        data
    ):  # a password of digits is a number in YAML
        return f"${{{_variable(key, provider)}}}"
    return data


def _variable(key: str, provider: str) -> str:
    if (provider, key) == ("pgvector", "password"):
        return "PGPASSWORD"  # and openai's api_key is OPENAI_API_KEY, as clients call them
    return re.sub(r"[^A-Z0-9]+", "_", f"{provider}_{key}".upper())


def _written(data: dict[str, Any], form: Form) -> str:
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if form == "yaml":
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return pprint.pformat(data, width=100, sort_dicts=False) + "\n"
