"""Store URLs: which schemes there are, and what a path in one is relative to."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from reembed.errors import ManifestError
from reembed.manifest.adapters import STORES, store_entry
from reembed.redaction import remember_url, shown_url

_EXAMPLES = (
    "For example chroma:./dir, chroma+http://host:8000, chroma+cloud://tenant/database, or "
    "postgresql://user@host/database."
)


def resolve_url(url: str, base_dir: Path) -> str:
    """Make the path of a path URL absolute: `chroma:./dir` becomes `chroma:/base/dir`."""
    scheme, separator, rest = url.partition(":")
    entry = store_entry(scheme)
    if entry is not None and entry.place == "path" and separator and not rest.startswith("//"):
        path, query = split_query(rest, base_dir)
        return f"{scheme}:{absolute(path, base_dir)}{query and f'?{query}'}"
    return url


def split_query(path: str, base_dir: Path | None = None) -> tuple[str, str]:
    """`./dir?database=d` as path and query, unless a folder has that very name."""
    head, mark, query = path.rpartition("?")
    if not mark or "=" not in query or ((base_dir or Path()) / path).exists():
        return path, ""
    return head, query


def place_of(url: str) -> Path | None:
    """The folder or file of a path URL; None for a server's."""
    scheme, _, rest = url.partition(":")
    entry = store_entry(scheme)
    if entry is None or entry.place != "path":
        return None
    return Path(split_query(rest.removeprefix("//"))[0]).expanduser()


def absolute(path: str, base_dir: Path) -> str:
    """`path` made absolute. Raises ManifestError if it is not a path at all."""
    try:
        return str((base_dir / Path(path).expanduser()).resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise ManifestError(f"{path[:100]!r} is not a usable path: {error}") from None


def is_url(text: str) -> bool:
    """Whether this is a store URL, and not a file's name."""
    scheme, separator, _ = text.partition(":")
    return bool(separator) and store_entry(scheme) is not None


def check_url(url: str, origin: str) -> None:
    """Raise ManifestError unless `url` has a known scheme and says where the store is."""
    remember_url(url)
    url = shown_url(url)
    scheme, separator, rest = url.partition(":")
    if url.strip() in (":memory:", "ephemeral", "memory") or rest.strip() == ":memory:":
        raise ManifestError(
            f"{origin}: {url!r} is an in-memory (ephemeral) client: it lives inside one process "
            "and cannot be migrated from another",
            "Use a persistent path (chroma:./dir) or a server (chroma+http://host:8000).",
        )
    entry = store_entry(scheme)
    if not separator or entry is None:
        raise ManifestError(
            f"{origin}: {url!r} is not a store URL: unknown scheme {scheme!r}",
            f"{_suggestion(url)}{_EXAMPLES}",
        )
    if entry.place == "host" and not rest.startswith("//"):
        raise ManifestError(
            f"{origin}: {url!r} is not a store URL: {scheme}: is followed by //",
            f"Did you mean {f'{scheme}://{rest}'!r}?",
        )
    if not rest.strip("/ ") and not entry.anywhere:
        raise ManifestError(f"{origin}: {url!r} does not say where the store is", _EXAMPLES)


def _suggestion(url: str) -> str:
    scheme, separator, _ = url.partition(":")
    if scheme in ("http", "https"):
        return f"Did you mean 'chroma+{url}'? "
    if not separator or re.match(r"[.~/\\]|[A-Za-z]:[/\\]", url):
        return f"Did you mean 'chroma:{url}'? " if url.strip() else ""
    close = difflib.get_close_matches(scheme, [entry.scheme for entry in STORES], n=1)
    return f"Did you mean {close[0]!r}? " if close else ""
