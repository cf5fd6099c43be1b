"""What a secret looks like, and the refusal of one in a manifest.

Manifests are shared, committed and copied into run directories, so they may name the environment
variable that holds a key, never the key. A look-alike is refused rather than let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from reembed.errors import ManifestError

SECRET_PATTERNS = (
    r"\bsk-[A-Za-z0-9_-]{16,}",  # OpenAI and those who copy its form
    r"\bck-[A-Za-z0-9]{20,}",  # Chroma Cloud
    r"\bAKIA[0-9A-Z]{16}\b",  # AWS
    r"\bAIza[0-9A-Za-z_-]{30,}",  # Google
    r"\b(?:hf|gsk|pa|jina|voyage|co)_[A-Za-z0-9]{20,}",
    r"\bgh[pousr]_[A-Za-z0-9]{30,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.",  # JSON web token
    r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{12,}",
)
"""Secrets known by their own form, wherever they stand."""

_NAME = r"(?:password|passwd|api[_-]?key|(?:secret|private|access)[_-]?key|secret|token)"
_IN_PLACE = (
    r"://[^/@\s:]*:[^/\s]+@",  # a URL's user:password@
    r"(?i)[?&]key=[^&\s]+",
    # A URL's or a command's name=value; a value like $TOKEN or {metadata.token} is none.
    rf"(?i){_NAME}=(?![\"']?[$`{{<])[^\s&]+",
)
_KEY = re.compile(
    r"(?i)(?:api[_-]?key|(?:secret|private|access)[_-]?key|secret|password|passwd|authorization"
    r"|(?:^|(?:auth|access|api|bearer|secret|hf)[_-]?)token)$"
)
_HINT = (
    "Put it into an environment variable (OPENAI_API_KEY, CHROMA_API_KEY, PGPASSWORD, "
    "QDRANT_API_KEY, or one that model.api_key_env names) and remove it here."
)


def redacted(text: str) -> str:
    """`text` with every secret known by its form replaced."""
    for pattern in SECRET_PATTERNS:
        text = re.sub(pattern, "[secret]", text)
    return text


def is_secret(key: str, text: str) -> bool:
    """Whether a text, found under this key or being the key itself, looks like a key or a
    password."""
    known = any(re.search(pattern, text) for pattern in (*SECRET_PATTERNS, *_IN_PLACE))
    return known or (text != key and _KEY.search(key) is not None)


def refuse_secrets(data: Any, origin: str) -> None:
    """Raise ManifestError, without repeating it, if any value looks like a key or a password."""
    for path, text in _texts(data):
        if is_secret(path[-1] if path else "", text):
            where = redacted(".".join(path))
            raise ManifestError(
                f"{origin}: {where} looks like a secret, and manifests are shared", _HINT
            )


def _texts(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in `data`, keys included, with the path of keys that leads to it."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, str(key)), str(key)
            yield from _texts(value, (*path, str(key)))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _texts(value, (*path, str(index)))
    elif isinstance(data, str):
        yield path, data
