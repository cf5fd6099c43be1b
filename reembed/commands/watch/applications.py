"""Does the application still have the configuration that its collection was moved with?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reembed.applications.mem0 import Mem0Config, check, read_config
from reembed.applications.mem0.plan import application_config, compare_history
from reembed.commands.watch.findings import Finding, alert, fine, warning
from reembed.errors import ReembedError
from reembed.manifest import Manifest
from reembed.redaction import shown_url
from reembed.run.directory import RunDir
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

DEPLOY = (
    "Give the application the configuration that its collection was moved with. If the new one is "
    'meant: give the same command with --accept "why".'
)


def facts(config: Mem0Config) -> dict[str, Any]:
    """What of a configuration decides where it writes and with which model; no secret."""
    embedder = config.embedder
    return {
        "collection": config.collection,
        "embedding_model_dims": config.embedding_model_dims,
        **{f"connection.{key}": value for key, value in sorted(config.connection.items())},
        "embedder.provider": embedder.provider,
        "embedder.name": embedder.name.removesuffix(":latest"),
        "embedder.dimensions": embedder.dimensions,
        "embedder.address": shown_url(embedder.base_url) if embedder.base_url else None,
    }


def look(
    manifest: Manifest, run: RunDir | None, info: CollectionInfo | None, store: Store,
    remembered: dict[str, Any] | None,
) -> tuple[dict[str, Any] | None, list[Finding]]:  # fmt: skip
    """Hold the application's configuration of now against the one of the swap, and against its
    table.

    Args:
        info: the memories' table; None where it is gone.
        remembered: `facts` of an earlier cycle.

    Returns:
        the facts of now, None where there are none, and what was found.
    """
    files = manifest.source.mem0
    if files is None:
        return None, []
    found: list[Finding] = []
    now: dict[str, Any] | None = None
    if files.config is not None:
        try:
            config = read_config(Path(files.config))
            now = facts(config)
            was = _of_the_swap(manifest, run) or remembered
            found += _changed(now, was)
            if info is not None and info.dimensions is not None:
                check(config, info.dimensions, table=info.name)
        except ReembedError as error:
            found.append(_wrong(manifest, error, "configuration"))
    if info is not None:
        try:
            found += [
                warning("application", manifest.live, told, subject="history")
                for told in compare_history(manifest, info, store)
            ]
        except ReembedError as error:
            found.append(_wrong(manifest, error, "history"))
    return now, found or [fine("application", manifest.live, "mem0's configuration is as it was")]


def _of_the_swap(manifest: Manifest, run: RunDir | None) -> dict[str, Any] | None:
    """The facts of the configuration that was to be deployed with the last move."""
    moved = run.history.last_move if run else None
    path = application_config(manifest, run.path, moved) if run and moved else None
    return facts(read_config(path)) if path is not None and path.exists() else None


def _changed(now: dict[str, Any], was: dict[str, Any] | None) -> Iterator[Finding]:
    differing = [
        f"{key} was {was.get(key)!r}, now {now.get(key)!r}"
        for key in sorted(now.keys() | (was or {}).keys())
        if was is not None and was.get(key) != now.get(key)
    ]
    if differing:
        yield alert(
            "application", "",
            f"mem0 has another configuration than it had: {'; '.join(differing)}", DEPLOY,
            subject="configuration",
        )  # fmt: skip


def _wrong(manifest: Manifest, error: ReembedError, subject: str) -> Finding:
    return alert("application", manifest.live, error.message, error.hint, subject=subject)
