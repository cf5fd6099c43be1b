"""`model.options`: each provider takes the keys it knows, and an unknown key is an error.

The keys that every provider but `chroma` shares: `retry_attempts`, `retry_wait` and
`retry_seconds`, see `retry.py`.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from reembed.errors import ManifestError
from reembed.manifest import Model

T = TypeVar("T")

SHARED = ("retry_attempts", "retry_wait", "retry_seconds")


class Options:
    """Reads `model.options` key by key."""

    def __init__(self, model: Model) -> None:
        self._provider = model.provider
        self._options = model.options
        self._known: list[str] = []

    def take(self, key: str, kind: type[T], default: T) -> T:
        """The value of `key`, or `default` where it is absent or null.

        Raises:
            ManifestError: it is of another type.
        """
        self._known.append(key)
        value: Any = self._options.get(key)
        if value is None:
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ManifestError(
                f"model.options.{key}: is a {kind.__name__}, not {value!r}",
                f"Known options of {self._provider}: {', '.join(sorted(self._known))}.",
            )
        return value

    def take_positive(self, key: str, kind: type[T], default: T) -> T:
        """As `take`, for numbers above zero."""
        value = self.take(key, kind, default)
        if not value > 0:  # type: ignore[operator]
            raise ManifestError(f"model.options.{key}: is above zero, not {value!r}")
        return value

    def finish(self) -> None:
        """Raise ManifestError for a key that nobody took: no option does nothing in silence."""
        for key in self._options:
            if key in self._known or key in SHARED:
                continue
            known = sorted({*self._known, *SHARED})
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            raise ManifestError(
                f"model.options.{key}: the provider {self._provider} knows no such option",
                f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}.",
            )
