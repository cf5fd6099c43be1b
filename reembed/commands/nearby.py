"""What `reembed init` offers: databases of this folder and this environment, and models in reach.

Nothing is written, no collection is opened, and nobody but a local Ollama is asked.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reembed.embedders.families import family_of
from reembed.embedders.registry import installed_models

DEEPEST, MOST_FOLDERS, MOST_FOUND = 3, 2_000, 20
"""How far folders are looked through for databases of Chroma."""
_PASSED_OVER = {"node_modules", "site-packages", "__pycache__", "venv"}
_CHROMA_FILE = "chroma.sqlite3"
_POSTGRES_URLS = ("DATABASE_URL", "POSTGRES_URL")
_POSTGRES_PARTS = ("PGDATABASE", "PGHOST", "PGSERVICE", "PGUSER")


@dataclass(frozen=True)
class Found:
    """Something to choose.

    Attributes:
        value: a store URL, or a model as `PROVIDER:NAME`.
        about: where it was found.
    """

    value: str
    about: str


def stores_nearby(folder: Path, environment: Mapping[str, str]) -> list[Found]:
    """Store URLs, with paths relative to `folder`; a URL may hold a password."""
    return [*_chroma_folders(folder), *_servers(environment)]


def _chroma_folders(folder: Path) -> Iterator[Found]:
    found = 0
    for looked, (place, names, files) in enumerate(os.walk(folder), 1):
        path = Path(place).relative_to(folder)
        if _CHROMA_FILE in files:
            found += 1
            yield Found(f"chroma:./{path}" if path.parts else "chroma:.", "a folder of Chroma's")
        if looked >= MOST_FOLDERS or found >= MOST_FOUND:
            return
        deep = len(path.parts) >= DEEPEST or _CHROMA_FILE in files
        names[:] = [] if deep else sorted(
            name for name in names if not name.startswith(".") and name not in _PASSED_OVER
        )  # fmt: skip


def _servers(environment: Mapping[str, str]) -> Iterator[Found]:
    for name in _POSTGRES_URLS:
        url = re.sub(r"^(postgres(?:ql)?)\+\w+:", r"\1:", environment.get(name, ""))
        if re.match(r"postgres(ql)?://", url):
            yield Found(url, name)
    parts = [name for name in _POSTGRES_PARTS if environment.get(name)]
    if parts:
        yield Found("postgresql://", ", ".join(parts))
    tenant, database = (environment.get(f"CHROMA_{one}") for one in ("TENANT", "DATABASE"))
    if environment.get("CHROMA_API_KEY") and tenant and database:
        yield Found(f"chroma+cloud://{tenant}/{database}", "CHROMA_API_KEY")
    host = environment.get("CHROMA_HOST") or environment.get("CHROMA_SERVER_HOST")
    port = environment.get("CHROMA_PORT") or environment.get("CHROMA_SERVER_HTTP_PORT")
    if host:
        scheme, _, name = host.rpartition("://")
        address = name if ":" in name else f"{name}:{port or 8000}"
        yield Found(f"chroma+{scheme or 'http'}://{address}", "CHROMA_HOST")


def models_in_reach(environment: Mapping[str, str]) -> list[Found]:
    """Models as `PROVIDER:NAME` that could be called from here; those of this machine first."""
    return [*_local(), *_remote(environment)]


def _local() -> Iterator[Found]:
    for name in installed_models("ollama"):
        if family_of(name) is not None or "embed" in name.lower():
            yield Found(f"ollama:{name}", "in Ollama")
    for package, value, about in (
        ("wordllama", "static:wordllama", "installed, small and quick"),
        ("sentence_transformers", "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2",
         "sentence-transformers is installed"),
        ("fastembed", "fastembed:BAAI/bge-small-en-v1.5", "fastembed is installed"),
    ):  # fmt: skip
        if importlib.util.find_spec(package) is not None:
            yield Found(value, about)
    yield Found("chroma:default", "Chroma's own, all-MiniLM-L6-v2 by ONNX")


def _remote(environment: Mapping[str, str]) -> Iterator[Found]:
    if environment.get("OPENAI_API_KEY"):
        for size in ("small", "large"):
            yield Found(f"openai:text-embedding-3-{size}", "OPENAI_API_KEY is set; costs money")
