"""`reembed init`: look into a store and write the manifest of a migration from it."""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from reembed.commands.draft import draft_yaml
from reembed.embedders.evidence import SAMPLE as ASKED
from reembed.embedders.evidence import doubt, misfit
from reembed.embedders.families import OWN_PREFIXES, family_of
from reembed.embedders.recorded import believe
from reembed.embedders.registry import open_embedder
from reembed.errors import PreflightError, ReembedError, UsageError
from reembed.manifest import Provider, json_schema
from reembed.manifest.layouts import Kind, kind_of, sends_blanks
from reembed.manifest.template import TextTemplate
from reembed.manifest.urls import resolve_url
from reembed.redaction import remember_url, without_secrets
from reembed.redaction.terminal import harmless
from reembed.run.disk import make_private_dir, write_output
from reembed.stores.collection import Collection
from reembed.stores.named import left_by_run
from reembed.stores.registry import open_store
from reembed.stores.store import Store
from reembed.stores.values import CollectionInfo

HEADER = """\
# yaml-language-server: $schema={schema}
# A migration manifest. A line in comment marks is an option at its default.
# Next: check the model below, then `reembed plan` this file.
"""
_NO_SCHEMA = "# `reembed schema > {schema}` lets an editor check and complete this file.\n"
SCHEMA_FILE = "manifest.schema.json"
STATE_DIR = ".reembed"
SCHEMA_PLACE = f"{STATE_DIR}/{SCHEMA_FILE}"
"""Seen from the manifest."""

_NOTE = (
    "The password of the URL is not written here: set PGPASSWORD, or keep it in ~/.pgpass or a "
    "service file."
)

LOOKED_AT = 4 * ASKED
"""Records that are fetched to ask a model for some of them."""
SAMPLE = 50
"""Records that are looked at to see whose they are."""

EXAMPLE_MODEL = {
    "provider": "ollama",
    "name": "nomic-embed-text",
    "dimensions": 768,
    "document_prefix": "search_document: ",
    "query_prefix": "search_query: ",
    "max_tokens": 2048,
}


@dataclass(frozen=True)
class Discovery:
    """What a store holds, and a manifest for one of its collections.

    Attributes:
        url: as given, without secrets.
        collections: every collection of the store that can be moved.
        manifest: for the chosen one.
        refused: collections that cannot be moved as they are, with the reason.
        doubts: what speaks against the model that the store says made the chosen one's vectors.
        note: where to put a secret of the URL, which no manifest holds; empty without one.
    """

    url: str
    collections: list[CollectionInfo]
    manifest: dict[str, Any]
    refused: dict[str, str] = field(default_factory=dict)
    note: str = ""
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "collections": [info.to_dict() for info in self.collections],
            "refused": self.refused,
            "manifest": self.manifest,
            "doubts": list(self.doubts),
        } | ({"note": self.note} if self.note else {})

    def to_yaml(self, schema: str = "") -> str:
        """The manifest as YAML, with every other option as a comment.

        Args:
            schema: where its JSON Schema lies, seen from it; empty: nowhere yet.
        """
        chosen = next(
            info for info in self.collections
            if info.name == self.manifest["source"]["collection"]
        )  # fmt: skip
        found = f"# Found: {_described(chosen)}; model {_model_text(chosen)}"
        told = [found, *(f"# But {doubt}" for doubt in self.doubts)]
        lines = [" ".join(harmless(line).split()) for line in told]
        lines += [f"# {self.note}"] if self.note else []
        header = HEADER if schema else HEADER + _NO_SCHEMA
        header = header.format(schema=schema or SCHEMA_FILE)
        return header + "\n".join(lines) + "\n\n" + draft_yaml(self.manifest)

    def write(self, path: Path) -> None:
        """Write the manifest, and its JSON Schema into `.reembed` beside it for editors.

        Raises:
            PreflightError: one of them cannot be written.
        """
        schema = path.parent / STATE_DIR / SCHEMA_FILE
        make_private_dir(schema.parent)
        write_output(schema, json.dumps(json_schema(), indent=1))
        write_output(path, self.to_yaml(SCHEMA_PLACE))


def draft_model(spec: str) -> dict[str, Any]:
    """The section `model` for `PROVIDER:NAME`, with the prefixes and the limit of its family.

    Raises:
        UsageError: it names no provider, or one that there is not.
    """
    provider, separator, name = spec.partition(":")
    known = get_args(Provider)
    if not separator or not name or provider not in known:
        raise UsageError(
            f"--model {spec}: should be PROVIDER:NAME",
            f"PROVIDER is one of {', '.join(known)}.{_meant(provider, name or provider)}",
        )
    model: dict[str, Any] = {"provider": provider, "name": name}
    family = family_of(name)
    if family is not None and provider not in OWN_PREFIXES:
        prefixes = {"document_prefix": family.document, "query_prefix": family.query}
        model |= {key: prefix for key, prefix in prefixes.items() if prefix}
        model |= {"max_tokens": family.max_tokens} if family.max_tokens else {}
    return model


def _meant(provider: str, name: str) -> str:
    """`Did you mean` with the provider of nearly this name, or of a model whose name alone was
    given."""
    close = difflib.get_close_matches(provider, get_args(Provider), n=1)
    if not close and name == "wordllama":
        close = ["static"]
    return f" Did you mean `--model {close[0]}:{name}`?" if close else ""


def legal_name(text: str) -> str:
    """A text as a part of a migration's name."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


def discover(
    url: str,
    collection: str | None = None,
    folder: str | Path | None = None,
    model: str | None = None,
) -> Discovery:
    """Describe every collection and draft a manifest for one of them.

    Args:
        url: a store URL; a relative path is relative to the working directory.
        collection: which one; needed only where there are several.
        folder: where the manifest is to lie, from which its relative paths are read; default: the
            working directory.
        model: the new model as `PROVIDER:NAME`; default: an example, to be replaced.

    Raises:
        UsageError: there are several and none is chosen; the hint lists them.
        PreflightError: there is none.
        CollectionNotFoundError: the chosen one does not exist.
    """
    remember_url(url)
    chosen_model = draft_model(model) if model else EXAMPLE_MODEL
    store = open_store(resolve_url(url, Path.cwd()))
    url, secrets = without_secrets(url)
    try:
        infos, refused = _describe_all(store)
        if collection is None and len(infos) + len(refused) == 1 and refused:
            store.catalog.describe(*refused)  # raises, with the way out
        if not infos and not refused:
            raise PreflightError(f"{url}: holds no collection", "Check the path or the database.")
        # A whole name may be what a run has left; without one, it is not meant.
        meant = [info for info in infos if not left_by_run(info.name)]
        alone = len(meant) == 1 and all(map(left_by_run, refused))
        if collection is None and len(infos) + len(refused) > 1 and not alone:
            names = ", ".join(
                [f"`--collection {shlex.quote(info.name)}` ({_described(info)})" for info in infos]
                + [f"{name} (not as it is: {why})" for name, why in refused.items()]
            )
            raise UsageError(
                f"{url}: holds {len(infos) + len(refused)} collections",
                f"Choose one of them: {names}.",
            )
        chosen = store.catalog.describe(collection or (meant or infos)[0].name)
        kind, text = _looked_at(store, chosen)
        doubts = _doubts(store, chosen)
    finally:
        store.close()
    source: dict[str, Any] = {
        "url": _seen_from(Path(folder or "."), url), "collection": chosen.name,
    }  # fmt: skip
    if chosen.layout not in ("", "table"):
        source["layout"] = chosen.layout
    elif kind in ("llamaindex", "mem0"):
        source["layout"] = kind
    if chosen.model is None or doubts:
        source["model"] = None
    manifest = {
        "name": f"migrate-{legal_name(chosen.name)}"[:100],
        "source": source,
        "model": chosen_model,
    }
    if text is not None:
        manifest["text"] = text
    if sends_blanks(kind, str(chosen_model["provider"])):
        manifest["line_breaks"] = "space"
    return Discovery(url, infos, manifest, refused, _NOTE if secrets else "", tuple(doubts))


def _doubts(store: Store, info: CollectionInfo) -> list[str]:
    """Ask the model that the store has on record for a few records, if its word is enough to call
    it; what speaks against it."""
    recorded = believe(info.model)
    if recorded is None or recorded.model is None:
        return []
    wrong, found = misfit(recorded.model, info.dimensions), None
    try:
        rows = None if wrong else Collection(store, info.id).some_with_vectors(LOOKED_AT)
        if rows is not None and rows.num_rows:
            with open_embedder(recorded.model) as embedder:
                wrong = misfit(recorded.model, info.dimensions, embedder.dimensions)
                if not wrong:
                    found = doubt(embedder, rows, TextTemplate("{document}", "auto"))
    except ReembedError as error:
        return [f"it could not be asked ({error.message})."]
    if wrong:
        return [f"recorded as {wrong}: another model made them."]
    return [f"{found[0]}. {found[1]}"] if found else []


def _looked_at(store: Store, info: CollectionInfo) -> tuple[Kind, str | None]:
    """Which framework's the records are, by some of them, and the template of their text where it
    is not the document."""
    rows = Collection(store, info.id).some(SAMPLE, vectors=False)
    documents, metadatas = (rows.column(name).to_pylist() for name in ("document", "metadata"))
    if info.layout == "mem0":
        return "mem0", None
    kinds = Counter(map(kind_of, documents, metadatas))
    kind = kinds.most_common(1)[0][0] if kinds else "plain"
    if kind != "plain" or any(document and document.strip() for document in documents):
        return kind, None
    return kind, _text_in(metadatas)


def _text_in(metadatas: Sequence[str]) -> str | None:
    """The template for records without a document: the key of their metadata whose values are text
    of several words in most records, and the longest. None where there is no such key."""
    letters: Counter[str] = Counter()
    worded: Counter[str] = Counter()
    for metadata in map(json.loads, metadatas):
        for key, value in metadata.items() if isinstance(metadata, dict) else ():
            if isinstance(value, str) and len(value.split()) > 1 and not {*"{}"} & {*key}:
                worded[key] += 1
                letters[key] += len(value)
    likely = [key for key in letters if worded[key] * 2 > len(metadatas)]
    return f"{{metadata.{max(likely, key=lambda key: letters[key])}}}" if likely else None


def collections_in(url: str) -> tuple[list[CollectionInfo], dict[str, str]]:
    """Every collection of a store, and why those that are refused cannot be described. Raises as
    `discover`."""
    remember_url(url)
    store = open_store(resolve_url(url, Path.cwd()))
    try:
        return _describe_all(store)
    finally:
        store.close()


def _describe_all(store: Store) -> tuple[list[CollectionInfo], dict[str, str]]:
    """Every collection, and why those that are refused cannot be described."""
    infos, refused = [], {}
    for name in store.catalog.collections():
        try:
            infos.append(store.catalog.describe(name))
        except PreflightError as error:
            refused[name] = error.message
    return infos, refused


def _described(info: CollectionInfo) -> str:
    layout = [f"layout {info.layout}"] if info.layout else []
    dimensions = f"{info.dimensions} dimensions" if info.dimensions else "no vectors yet"
    return ", ".join([f"{info.count:,} records", *layout, dimensions, info.metric])


def _seen_from(folder: Path, url: str) -> str:
    """A store URL given in the working directory, for a manifest in `folder`."""
    scheme, _, path = url.partition(":")
    here = folder.resolve() == Path.cwd()
    if here or resolve_url(url, Path.cwd()) == url or path.startswith("~"):
        return url
    return f"{scheme}:{os.path.relpath(path, folder)}"


def _model_text(info: CollectionInfo) -> str:
    """What the store says of the model, on one line: it is data, and this is a comment."""
    recorded = believe(info.model)
    if recorded is None:
        return "not recorded (give it as source.model to compare old and new)."
    if recorded.model is None:
        return f"as the store says {recorded.keys()}: if it is right, give it as source.model."
    return f"{recorded.name}."
