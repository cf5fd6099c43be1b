"""What is watched: the live collections of a manifest or of a store's URL, and what their newest
run says of them."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reembed.commands.discover import draft_model
from reembed.commands.watch.findings import Finding
from reembed.errors import UsageError
from reembed.manifest import Manifest, Model, Source, Watch
from reembed.manifest.urls import check_url, is_url, resolve_url
from reembed.migration.group.members import FOLDER, taken
from reembed.redaction import shown_url
from reembed.run import events
from reembed.run.counts import count_records
from reembed.run.directory import RunDir
from reembed.run.steps import shown_path, with_manifest
from reembed.stores.named import named
from reembed.stores.registry import open_source, open_store, open_store_of_live, open_target
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

FILE = "watch.json"
LOCK = "watch.lock"
FOLDER_OF_URLS = "watch"
"""Of a state directory: holds what is remembered of stores that are watched by their URL."""


@dataclass(frozen=True)
class Expected:
    """What a run says of its live collection.

    Attributes:
        ids: object ids that the live name may lead to; empty while it moves.
        records: the most that it had.
        database: which it is in.
    """

    ids: frozenset[str] = frozenset()
    records: int = 0
    dimensions: int | None = None
    metric: str = ""
    database: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """A live name that is watched.

    Attributes:
        asked: whether somebody named it, so that it has to be there.
        expected: by its run; None without one.
        manifest: of the migration that it belongs to; None by URL.
        swapped: whether the new model's vectors are live.
    """

    name: str
    asked: bool = True
    expected: Expected | None = None
    manifest: Manifest | None = None
    swapped: bool = False


@dataclass(frozen=True)
class Subject:
    """A manifest or a URL that is watched.

    Attributes:
        name: of the migration, or the URL without secrets.
        folder: where the memory and its lock lie.
        settings: the manifest's `watch`, with the options of the command line.
        collections: live names that were asked for by URL; empty for all.
        model: what the vectors are of, by URL; None: what the store recorded.
    """

    name: str
    folder: Path
    settings: Watch
    url: str
    manifest: Manifest | None = None
    collections: tuple[str, ...] = ()
    model: Model | None = None

    @property
    def address(self) -> str:
        """What a command names to mean it, quoted for a shell: the manifest's file or the URL."""
        path = self.manifest.path if self.manifest else None
        return shown_path(path) if path else shlex.quote(shown_url(self.url))

    @property
    def backups(self) -> str:
        """The directory of its backups, quoted for a shell."""
        return shown_path(Path(self.settings.backups or "DIR"))

    @property
    def memory(self) -> Path:
        return self.folder / FILE

    def with_options(self, **options: Any) -> Subject:
        """With what the command line says in the place of the manifest's `watch`. Raises
        UsageError."""
        given = {key: value for key, value in options.items() if value is not None}
        try:
            settings = Watch.model_validate(self.settings.model_dump() | given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = str(first["loc"][0]).replace("_", "-")
            raise UsageError(f"--{key}: {first['msg']}", "See `reembed watch --help`.") from None
        return replace(self, settings=settings)

    def copyable(self, finding: Finding) -> Finding:
        """A finding whose commands name the manifest."""
        path = self.manifest.path if self.manifest else None
        return replace(finding, hint=with_manifest(finding.hint, path)) if path else finding

    def run(self) -> RunDir | None:
        """The newest run of the manifest; None without one."""
        if self.manifest is not None and self.manifest.mode == "follow":
            runs = RunDir.every(self.manifest.state_dir)  # the newest may be in work
            return next((run for run in runs if run.history.last_move == "swap"), None)
        return RunDir.latest(self.manifest.state_dir) if self.manifest else None

    def names(self, known: Iterable[str]) -> list[str]:
        """The live names as far as they are known without the store."""
        if self.manifest is None or self.manifest.is_group:
            return sorted({*self.collections, *known})
        return [self.manifest.live]

    def open(self) -> Store:
        """The store in which the live names are now. Raises as `open_store`."""
        if self.manifest is None:
            return open_store(self.url)
        if self.manifest.mode == "follow":
            return open_store_of_live(self.manifest)
        run = self.run()
        away = self.manifest.target_url != self.manifest.source.url
        if away and run is not None and _has_swapped(self.manifest, run):
            return open_target(self.manifest)
        return open_source(self.manifest)

    def lives(self, store: Store, known: set[str]) -> list[Live]:
        """The live names to look at.

        Args:
            known: those that an earlier cycle has seen: one that is gone is looked for.

        Raises:
            as `Catalog.collections`.
        """
        run = self.run()
        if self.manifest is None:
            names = set(self.collections) or known | _all(store, self.url)
            return [Live(name, bool(self.collections)) for name in sorted(names)]
        if not self.manifest.is_group:
            return [_live(self.manifest, self.manifest.live, run)]
        members = taken(run) if run else {}
        found = {
            name: _live(
                self.manifest.member(name, folder, run.path / FOLDER), name,
                RunDir.latest(run.path / FOLDER / folder),
            )
            for folder, name in members.items() if run
        }  # fmt: skip
        for name in {*named(store, self.manifest.source).names, *known} - found.keys():
            found[name] = Live(name, asked=False, manifest=self.manifest)
        return [found[name] for name in sorted(found)]


def subject_of(
    target: str,
    state: Path = Path(".reembed"),
    collections: tuple[str, ...] = (),
    model: str | None = None,
) -> Subject:
    """What `reembed watch` is asked to watch.

    Args:
        target: a manifest's file or a store URL.
        state: where the memory of a URL lies.
        collections, model: by URL: which, and `PROVIDER:NAME`.

    Raises:
        ManifestError: the manifest or the URL cannot be used.
        UsageError: an option is for a URL, and a manifest is given.
    """
    if is_url(target) and not Path(target).exists():
        check_url(target, "store URL")
        url = resolve_url(target, Path.cwd())
        shown = shown_url(url)
        name = hashlib.sha256(shown.encode()).hexdigest()[:16]
        return Subject(
            shown, state.absolute() / FOLDER_OF_URLS / name, Watch(), url,
            collections=collections,
            model=Model(**draft_model(model)) if model else None,
        )  # fmt: skip
    if collections or model:
        raise UsageError(
            "--collection and --model are for a store's URL",
            "A manifest says both: source.collection and model.",
        )
    manifest = Manifest.load(target)
    return Subject(manifest.name, manifest.state_dir, manifest.watch, manifest.target_url, manifest)


def _all(store: Store, url: str) -> set[str]:
    if not store.catalog.collections():
        return set()
    return set(named(store, Source(url=url, collections="*")).names)


def _has_swapped(manifest: Manifest, run: RunDir) -> bool:
    """Whether the live names lead to the new collections."""
    if run.history.last_move == "swap":
        return True
    if not manifest.is_group:
        return False
    members = [RunDir.latest(run.path / FOLDER / folder) for folder in taken(run)]
    return any(one is not None and one.history.last_move == "swap" for one in members)


def _live(manifest: Manifest, name: str, run: RunDir | None) -> Live:
    if run is None or run.history.census is None:
        return Live(name, manifest=manifest)
    history, census = run.history, run.history.census
    source = history.value(CollectionInfo, census.source, "the census")
    metric = manifest.target.metric or source.metric
    swapped = history.last_move == "swap"
    begun = history.last(events.SwapBegun)
    if swapped and begun is not None and begun.kind == "config":
        name = history.shadow_name  # no name moves: the application is told the new one
    if history.pending_move:
        return Live(name, True, Expected(records=history.most_records), manifest, swapped)
    if not swapped:
        expected = Expected(
            frozenset({source.id}), history.most_records, source.dimensions, source.metric,
            source.database,
        )  # fmt: skip
        return Live(name, True, expected, manifest)
    ids = {history.require(events.ShadowCreated).id}
    if history.state in ("cleaning", "cleaned"):
        # A table that kept its place and took the new vectors in stands for the shadow until the
        # old ones are dropped: from then on it is known by its own id again.
        ids.add(source.id)
    taken_of = history.last(events.FingerprintTaken)
    total, quarantined = count_records(run, [])
    same_store = manifest.target_url == manifest.source.url
    expected = Expected(
        frozenset(ids), total - quarantined,
        int(taken_of.fingerprint["dimensions"]) if taken_of
        else source.dimensions if manifest.keeps else None, metric,
        source.database if same_store else {},
    )  # fmt: skip
    return Live(name, True, expected, manifest, swapped)
