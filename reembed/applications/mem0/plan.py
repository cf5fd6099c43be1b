"""What mem0's own files say of a migration: whether they fit the tables, and what is to change.

mem0 embeds its own queries, so its configuration must change in the same step as the live name; and
its history, which lies beside the database, tells a fresh database from the one with the memories.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reembed.applications.mem0 import (
    Mem0Config,
    changed_config,
    check,
    living_memories,
    read_config,
    refuse_fresh_database,
)
from reembed.errors import PreflightError
from reembed.manifest import Manifest, Model
from reembed.records import SHARD_ROWS, chunked
from reembed.run.disk import write_atomic
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

FEW = 5
CONFIG_FILE = "mem0-config"
"""The configuration to deploy, in the run directory; its suffix is that of the one given."""
CONFIG_BEFORE = "mem0-config-before"
"""The one for the old model, where the one given is the new model's already."""


@dataclass(frozen=True)
class Examined:
    """What was found.

    Attributes:
        changed_config: the configuration to deploy with the swap, as text; None where none is
            given.
        suffix: of the file that the configuration was read from.
        blockers: refusals, with their ways out.
        notes: what is worth knowing.
    """

    changed_config: str | None = None
    suffix: str = ""
    blockers: list[PreflightError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


AT_TARGET = (
    "{}: mem0 is set to {} already, and its tables are not: its search, add and update fail until "
    "the swap, which repairs them. What made the old vectors is not in this file: give it as "
    "source.model, or the models are not compared, and no configuration is written for a rollback"
)


def _is_at_target(config: Mem0Config, manifest: Manifest) -> bool:
    """Whether the application is configured with the new model already."""
    has, wanted = config.embedder, manifest.new_model
    assert wanted is not None, "model: keep takes no files of mem0"
    return (has.provider, has.name.removesuffix(":latest")) == (
        wanted.provider, wanted.name.removesuffix(":latest")
    )  # fmt: skip


def old_model(manifest: Manifest) -> Model | None:
    """The model that mem0 is configured with; None where no configuration is given."""
    files = manifest.source.mem0
    if files is None or files.config is None:
        return None
    config = read_config(Path(files.config))
    return None if _is_at_target(config, manifest) else config.embedder


def history_of(manifest: Manifest) -> Path | None:
    """mem0's history, None where no file of it is named. Raises PreflightError."""
    files = manifest.source.mem0
    if files is None:
        return None
    config = read_config(Path(files.config)) if files.config else None
    return Path(files.history) if files.history else config.history_db if config else None


def compare_history(manifest: Manifest, source: CollectionInfo, store: Store) -> list[str]:
    """Look for the memories that mem0's history says are alive. Returns what is worth knowing.

    Raises:
        PreflightError: the table lacks most of them, so it is not the one that mem0 wrote; or a
            file cannot be read.
    """
    history = history_of(manifest)
    if history is None:
        return []
    living = living_memories(history)
    missing: list[str] = []
    for ids in chunked(living, SHARD_ROWS):
        there = store.reader.fetch(source.id, ids, vectors=False).column("id").to_pylist()
        missing += sorted(set(ids).difference(there))
    refuse_fresh_database(history, living, missing, source.name, source.count)
    if not missing:
        return []
    return [
        f"{history} knows {len(missing):,} living memories that {source.name} lacks, e.g. "
        f"{', '.join(missing[:FEW])}: they were lost, deleted by something other than mem0, or "
        "written to another database since this one was dumped (docs/mem0.md merges such)"
    ]


def examine(manifest: Manifest, source: CollectionInfo, dimensions: int) -> Examined:
    """Hold mem0's configuration against the tables and the new model.

    Args:
        source: the memories' collection.
        dimensions: that the new model gives.

    Raises:
        PreflightError: the file cannot be read.
    """
    files = manifest.source.mem0
    if files is None or files.config is None:
        return Examined()
    config = read_config(Path(files.config))
    at_target = _is_at_target(config, manifest)
    blockers = _misfits(config, source, fits=not at_target)
    text, model = None, manifest.new_model
    assert model is not None, "model: keep takes no files of mem0"
    try:
        text = changed_config(config, model, dimensions)
    except PreflightError as error:
        blockers.append(error)
    notes = []
    if at_target and source.dimensions != dimensions:
        notes.append(AT_TARGET.format(config.path, config.embedder.name))
    return Examined(text, config.path.suffix, blockers, notes)


def prepare(
    manifest: Manifest, source: CollectionInfo, store: Store, dimensions: int, folder: Path
) -> Path | None:
    """Look again right before the swap, and write the configuration to deploy with it.

    Args:
        folder: where the file goes; it holds no secret, but says how the application is set up.

    Returns:
        the file; None where no configuration is given.

    Raises:
        PreflightError: mem0's files do not fit the collection.
    """
    compare_history(manifest, source, store)
    found = examine(manifest, source, dimensions)
    if found.blockers:
        raise found.blockers[0]
    if found.changed_config is None:
        return None
    texts = {CONFIG_FILE: found.changed_config}
    files, old = manifest.source.mem0, manifest.source.model
    assert files is not None and files.config is not None, "it was changed"
    config = read_config(Path(files.config))
    if old is not None and _is_at_target(config, manifest):
        texts[CONFIG_BEFORE] = changed_config(config, old, source.dimensions)
    for name, text in texts.items():
        write_atomic(folder / f"{name}{found.suffix}", text.encode())
    return folder / f"{CONFIG_FILE}{found.suffix}"


def application_config(manifest: Manifest, folder: Path, action: str) -> Path | None:
    """The file that fits the tables after a move: what `prepare` wrote after a swap, what was given
    after a rollback. None where no configuration is given."""
    files = manifest.source.mem0
    if files is None or files.config is None:
        return None
    given = Path(files.config)
    if action != "rollback":
        return folder / f"{CONFIG_FILE}{given.suffix}"
    if not _is_at_target(read_config(given), manifest):
        return given
    before = folder / f"{CONFIG_BEFORE}{given.suffix}"
    return before if before.exists() else None


def _misfits(config: Mem0Config, source: CollectionInfo, *, fits: bool) -> list[PreflightError]:
    """Why a configuration is not that of the application which reads this collection.

    Args:
        fits: whether its embedder should fit the tables as they are.
    """
    found = []
    if config.collection != source.name.rpartition(".")[2]:
        found.append(
            PreflightError(
                f"{config.path}: mem0 reads the collection {config.collection!r}, and the manifest "
                f"moves {source.name!r}",
                "Name the same one in both.",
            )
        )
    database, named = source.database.get("name"), config.connection.get("dbname")
    if database and named and named != database:
        found.append(
            PreflightError(
                f"{config.path}: mem0 reads the database {named!r}, and source.url is that of "
                f"{database!r}",
                "Name the same one in both: a migration of another database would move nothing "
                "that mem0 reads.",
            )
        )
    if source.dimensions is not None and fits:
        try:
            check(config, source.dimensions, table=source.name)
        except PreflightError as error:
            found.append(error)
    return found
