"""The refusal of a secret in a manifest.

Manifests are shared, committed and copied into run directories, so they may name the environment
variable that holds a key, never the key. What is a secret of this process's environment is refused
by its value, and a look-alike by its form rather than let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reembed.errors import ManifestError
from reembed.redaction import redacted_values, without_secrets
from reembed.redaction.forms import IN_PLACE, is_secret_name, known_form, starred_forms
from reembed.redaction.urls import secrets_in_text

_ADDRESSES = ("url", "base_url", "tracking_uri")
_HINT = (
    "Put it into an environment variable (OPENAI_API_KEY, CHROMA_API_KEY, PGPASSWORD, "
    "QDRANT_API_KEY, or one that model.api_key_env names) and remove it here."
)
_ADDRESS_HINT = (
    "Put the whole address into OPENAI_BASE_URL or OLLAMA_HOST and leave base_url out; a header's "
    "key goes into the variable that model.api_key_env names."
)
_HINTS = {
    "base_url": _ADDRESS_HINT,
    "tracking_uri": "Put it into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
    "MLFLOW_TRACKING_TOKEN, and remove it here.",
}


def starred(text: str) -> str:
    """`text` with every secret known by its form replaced."""
    return starred_forms(text, "[secret]")


def is_secret(key: str, text: str) -> bool:
    """Whether a text, found under this key or being the key itself, looks like a key or a
    password."""
    if known_form(text) or any(re.search(pattern, text) for pattern in IN_PLACE):
        return True
    if secrets_in_text(text):
        return True
    if key in _ADDRESSES and without_secrets(text)[1]:
        return True
    return text != key and is_secret_name(key)


def refuse_secrets(data: Any, origin: str) -> None:
    """Raise ManifestError, without repeating it, if any value looks like a key or a password, or is
    one that the environment holds."""
    for path, text in _texts(data):
        key = path[-1] if path else ""
        if path[-2:-1] == ("headers_env",):  # Authorization: the name of a variable
            key = ""
        if is_secret(key, text):
            where = starred(".".join(path))
            raise ManifestError(
                f"{origin}: {where} looks like a secret, and manifests are shared",
                _HINTS.get(key, _HINT),
            )
        if redacted_values(text, words=False) != text:
            raise ManifestError(
                f"{origin}: {'.'.join(path)} holds the value of an environment variable that is "
                "named like a secret, and manifests are shared",
                _HINT,
            )


def _texts(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in `data`, keys included, with the path of keys that leads to it; and numbers that
    stand under the name of a secret."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, str(key)), str(key)
            yield from _texts(value, (*path, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*path, str(index)))
    elif isinstance(data, str):
        yield path, data
    elif isinstance(data, int) and not isinstance(data, bool) and path and is_secret_name(path[-1]):
        yield path, str(data)
