"""What the tests of the stages share: awkward collections, manifests, looks at what is there."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import sqlite3
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import chromadb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings

from reembed.manifest import Manifest, Model
from reembed.migration import Migration
from reembed.run.directory import RunDir

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "support" / "cases"
NORMAL = int(os.environ.get("REEMBED_TEST_RECORDS", "600"))
"""Records of the end-to-end collection; 5000 in a thorough run."""

WORDS = """
    alcove anchor beacon bishop candle cinder copper dagger dragon easel ember falcon fiddle garnet
    glacier gravel hamlet harbour hollow inkwell island jasper juniper kettle keystone ladder
    lantern marble meadow needle orchard oyster parcel pebble quarry quiver raven ribbon saddle
    sickle thistle timber umbrella velvet violin walnut yonder zephyr
""".split()  # noqa: SIM905


def sentence(number: int) -> str:
    """Text number `number`, unlike every other one."""
    chance = random.Random(number)
    return f"record {number} {' '.join(chance.choice(WORDS) for _ in range(14))}"


def vector_of(model: str, text: str) -> Any:
    """The vector that a model of `cases/counting_model.py` gives, uncounted."""
    spec = importlib.util.spec_from_file_location("cases_model", CASES / "counting_model.py")
    assert spec and spec.loader
    module = _MODULES.get("model")
    if module is None:
        module = _MODULES["model"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    seed, dimensions = {"old": (1, 48), "new": (2, 64), "other": (3, 48)}[model]
    return module._vector(text, seed, dimensions)


_MODULES: dict[str, Any] = {}


@contextmanager
def chroma(folder: Path) -> Iterator[ClientAPI]:
    """An application's own client on a folder."""
    client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
    try:
        yield client
    finally:
        client.close()  # type: ignore[attr-defined]


@contextmanager
def chroma_at(url: str) -> Iterator[ClientAPI]:
    """An application's own client on `chroma:PATH` or `chroma+http://HOST:PORT`."""
    if url.startswith("chroma:"):
        with chroma(Path(url.removeprefix("chroma:"))) as client:
            yield client
        return
    host, _, port = url.removeprefix("chroma+http://").partition(":")
    http = chromadb.HttpClient(host, int(port), settings=Settings(anonymized_telemetry=False))
    try:
        yield http
    finally:
        http.close()  # type: ignore[attr-defined]
        for server in (http._server, http._admin_client._server):  # type: ignore[attr-defined]
            server._session.close()


def plain_collection(
    client: ClientAPI, name: str = "docs", count: int = 40, **settings: Any
) -> Collection:
    """`count` records r0, r1, ... with a text, a title and vectors of the model `old`."""
    made = client.create_collection(
        name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}, **settings
    )
    texts = [sentence(number) for number in range(count)]
    if count:
        made.add(
            ids=[f"r{number}" for number in range(count)],
            documents=texts,
            metadatas=[{"title": f"title {number}", "n": number} for number in range(count)],
            embeddings=[vector_of("old", text) for text in texts],
        )
    return made


# The awkward collection

SPECIAL: list[tuple[str, str | None, dict[str, Any] | None, str | None]] = [
    ("null document", None, {"title": "no document"}, None),
    ("empty document", "", {"title": "an empty document"}, None),
    ("uri only", None, None, "file:///a b/ü.txt"),
    ("no metadata", "a text without metadata", None, None),
    ("nothing at all", None, None, None),
    ("blank document", " \n\t ", None, ""),
    ("types", "every type", {"s": "x", "i": 1, "f": 1.0, "b": True, "n": 0, "e": "", "no": False},
     "u"),
    ("lists", "every list", {"s": ["b", "a", ""], "i": [2, 1], "f": [0.5, 1.0, 2.5e-300],
     "b": [True, False]}, None),
    ("int64", "long integers", {"most": 2**63 - 1, "least": -(2**63), "odd": 2**53 + 1}, None),
    ("floats", "floats", {"a": 1e300, "b": 1e-300, "c": 0.1, "d": 1.7976931348623157e308,
     "e": 5e-324, "f": 2.2250738585072014e-308, "g": -123456789.123456789, "h": 1e16}, None),
    ("keys", "odd keys", {"a b": 1, "ünï": 2, "a.b": "x", " ": "blank", "k" * 300: 1}, "u"),
    ("ünïcödé ☃ 𝄞 \u202e rtl", "日本語 \r\n tab\t 🤖", {"é": "e\u0301"}, "u\u00e9"),
    ("line\nbreak", "text with a line\nbreak and 'quotes' \"of\" both kinds", None, None),
    ("'; DROP TABLE embeddings; --", 'quotes " and \\ backslash', {"a": "' OR 1=1"}, None),
    ("%s {} {0} ${HOME} ../../etc/passwd", "braces {document} {metadata.title} {{}}", None, None),
    (" leading and trailing ", " text ", None, " uri "),
    ("x" * 4_000, "a long id", None, None),
    ("long document", "word " * 30_000, {"text": "y" * 20_000}, None),
    ("0", "looks like a number", None, None),
    ("NULL", "looks like nothing", {"none": "None", "null": "null"}, None),
    ("Case", "case matters", None, None),
    ("case", "in ids", None, None),
]  # fmt: skip
LOST = "lost vector"
COLLECTION_METADATA = {"owner": "tests", "count": 3, "share": 0.1, "on": True, "ü": "é'\""}
HNSW: Any = {"space": "cosine", "ef_construction": 120, "max_neighbors": 20, "ef_search": 110}


def awkward_collection(client: ClientAPI, name: str, count: int) -> Collection:
    """Every record of SPECIAL and plain ones up to `count`, embedded by the model `old`."""
    made = client.create_collection(
        name,
        embedding_function=None,
        configuration=cast(Any, {"hnsw": HNSW}),
        metadata=COLLECTION_METADATA,
    )
    chance = random.Random(7)
    rows = list(SPECIAL)
    for number in range(count - len(rows) - 1):
        metadata: dict[str, Any] = {"title": f"title {number}", "at": 1.7e9 + chance.random() * 1e8}
        rows.append(
            (f"r{number}", sentence(number // 2 if number < 40 else number), metadata, None)
        )
    for start in range(0, len(rows), 500):
        part = rows[start : start + 500]
        ids, documents, metadatas, uris = zip(*part, strict=True)
        made.add(
            ids=list(ids), documents=list(documents), metadatas=list(metadatas), uris=list(uris),
            embeddings=[vector_of("old", (text or id)[:500]) for id, text, *_ in part],
        )  # fmt: skip
    return made


def lose_vector(folder: Path, collection_id: str, document: str = "its vector is lost") -> None:
    """Leave a record as a crash of Chroma does (#2912): there, but without its vector."""
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as db, db:
        (segment,) = db.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'METADATA'", (collection_id,)
        ).fetchone()
        (last,) = db.execute("SELECT max(seq_id) FROM embeddings").fetchone()
        row = db.execute(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id) VALUES (?, ?, ?)",
            (segment, LOST, last),
        ).lastrowid
        db.execute(
            "INSERT INTO embedding_metadata (id, key, string_value) "
            "VALUES (?, 'chroma:document', ?), (?, 'title', 'lost')",
            (row, document, row),
        )


Records = dict[str, tuple[str | None, str, str | None]]


def records_of(collection: Collection) -> Records:
    """Id to document, metadata (JSON that tells 1 from 1.0) and uri, through Chroma's own API."""
    found: Records = {}
    offset = 0
    while True:
        page = collection.get(
            limit=300,
            offset=offset,
            include=["documents", "metadatas", "uris"],
        )
        metadatas, documents, uris = page["metadatas"], page["documents"], page["uris"]
        assert metadatas is not None and documents is not None and uris is not None
        for row, id in enumerate(page["ids"]):
            metadata = json.dumps(metadatas[row] or None, sort_keys=True)
            found[id] = (documents[row], metadata, uris[row])
        if len(page["ids"]) < 300:
            return found
        offset += 300


def vectors_of(collection: Collection, ids: list[str]) -> np.ndarray:
    """Vectors of these records, in this order."""
    page = collection.get(ids=ids, include=["embeddings"])
    place = {id: row for row, id in enumerate(page["ids"])}
    vectors = np.asarray(page["embeddings"], np.float32)
    return vectors[[place[id] for id in ids]]


def rows_in_file(folder: Path, collection_id: str) -> dict[str, list[Any]]:
    """Every row of chroma.sqlite3 that belongs to a collection, but for the collection's name."""
    parts = "SELECT id FROM segments WHERE collection = ?"
    records = f"SELECT id FROM embeddings WHERE segment_id IN ({parts})"
    queries = {
        "collections": "SELECT * FROM collections WHERE id = ?",
        "collection_metadata": "SELECT * FROM collection_metadata WHERE collection_id = ?",
        "segments": "SELECT * FROM segments WHERE collection = ?",
        "segment_metadata": f"SELECT * FROM segment_metadata WHERE segment_id IN ({parts})",
        "embeddings": f"SELECT * FROM embeddings WHERE segment_id IN ({parts})",
        "embedding_metadata": f"SELECT * FROM embedding_metadata WHERE id IN ({records})",
        "embedding_metadata_array":
            f"SELECT * FROM embedding_metadata_array WHERE id IN ({records})",
        "embeddings_queue": "SELECT * FROM embeddings_queue WHERE topic LIKE '%/' || ?",
        "max_seq_id": f"SELECT * FROM max_seq_id WHERE segment_id IN ({parts})",
    }  # fmt: skip
    with closing(sqlite3.connect(f"file:{folder}/chroma.sqlite3?mode=ro", uri=True)) as db:
        found = {
            table: sorted(db.execute(query, (collection_id,)).fetchall(), key=repr)
            for table, query in queries.items()
        }
        names = [row[1] for row in db.execute("PRAGMA table_info(collections)")]
    place = names.index("name")
    found["collections"] = [(*row[:place], *row[place + 1 :]) for row in found["collections"]]
    return found


def everything_in(folder: Path) -> list[str]:
    """chroma.sqlite3 as SQL, but for what Chroma leaves at every opening (`acquire_write`)."""
    with closing(sqlite3.connect(f"file:{folder}/chroma.sqlite3?mode=ro", uri=True)) as db:
        return [line for line in db.iterdump() if '"acquire_write"' not in line]


def names_in(url: str) -> dict[str, str]:
    """Name to object id of every collection."""
    with chroma_at(url) as client:
        return {found.name: str(found.id) for found in client.list_collections()}


# Manifests and runs


def manifest_data(url: str, **changes: Any) -> dict[str, Any]:
    """A manifest from `docs` of the model `old` to the model `new`; `a__b=x` sets `a: {b: x}`."""
    data: dict[str, Any] = {
        "name": "move",
        "source": {
            "url": url,
            "collection": "docs",
            "model": {"provider": "python", "name": "counting_model:old"},
        },
        "model": {"provider": "python", "name": "counting_model:new", "dimensions": 64},
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return data


def write_manifest(folder: Path, url: str, file: str = "m.yaml", **changes: Any) -> Path:
    """A manifest file with the models beside it."""
    shutil.copy(CASES / "counting_model.py", folder)
    path = folder / file
    path.write_text(yaml.safe_dump(manifest_data(url, **changes), sort_keys=False))
    return path


def write_group_manifest(
    folder: Path, url: str, collections: Any = "*", file: str = "m.yaml", **changes: Any
) -> Path:
    """As `write_manifest`, for several collections."""
    path = write_manifest(folder, url, file, source__collections=collections, **changes)
    data = yaml.safe_load(path.read_text())
    del data["source"]["collection"]
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def model_of(manifest: Manifest) -> Model:
    """The model of a manifest that names one."""
    model = manifest.new_model
    assert model is not None, "its vectors are kept"
    return model


def migration(path: Path) -> Migration:
    return Migration(Manifest.load(path))


def run_dir(path: Path) -> RunDir:
    """The newest run of a manifest."""
    run = RunDir.latest(Manifest.load(path).state_dir)
    assert run is not None
    return run


@dataclass
class Calls:
    """What `cases/counting_model.py` was asked for, by model name."""

    path: Path

    def texts(self, model: str) -> list[int]:
        """The hash of every text embedded, in order."""
        if not self.path.exists():
            return []
        lines = map(json.loads, self.path.read_text().splitlines())
        return [text for name, texts in lines if name == model for text in texts]

    def of(self, model: str, text: str) -> int:
        """How often a text was embedded."""
        return self.texts(model).count(zlib.crc32(text.encode()))

    def repeated(self, model: str, records: int) -> int:
        """How many of the first plain records' texts were embedded again, each time counted."""
        texts = {zlib.crc32(sentence(number).encode()) for number in range(records)}
        asked = Counter(text for text in self.texts(model) if text in texts)
        return sum(count - 1 for count in asked.values())

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


@dataclass
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout, in JSON that every reader takes."""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


class Command:
    """`reembed` in this process, for its output and exit code: quicker than a process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> Outcome:
        import signal

        from reembed.cli.entry import main

        self._monkeypatch.setattr(sys, "argv", ["reembed", *map(str, arguments)])
        handler = signal.getsignal(signal.SIGTERM)
        self._capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        captured = self._capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)


REEMBED = [sys.executable, "-c", "from reembed.cli.entry import main; main()"]


def quarantined(run: RunDir) -> dict[str, str]:
    """Id to reason."""
    table = pq.read_table(run.path / "quarantine.parquet")
    return dict(
        zip(table.column("id").to_pylist(), table.column("reason").to_pylist(), strict=True)
    )


def tree(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
