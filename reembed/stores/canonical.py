"""Metadata as text: one text for one meaning, so that hashes of it can be compared.

Only the standard library is imported here, since small processes that read metadata import it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NO_METADATA = "null"

_ENCODE = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


def metadata_text(metadata: Mapping[str, Any] | None) -> str:
    """Metadata as canonical JSON text: keys sorted, 1 and 1.0 told apart, no metadata is `null`.

    For stores that hand metadata out as objects in no fixed order (Chroma). A store that keeps
    JSON text (Postgres) passes its own text on instead.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is none of JSON's.
    """
    return _ENCODE(metadata) if metadata else NO_METADATA
