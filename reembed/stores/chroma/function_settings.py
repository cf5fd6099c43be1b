"""The embedding function `reembed` by name and settings, as a collection has it on record; Chroma's
own package is needed for the function itself (`function.py`) alone."""

from __future__ import annotations

from typing import Any

from reembed.manifest import Model
from reembed.redaction import shown_url

NAME = "reembed"


def settings(model: Model) -> dict[str, Any]:
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
