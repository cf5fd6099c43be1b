"""Live writers: applications write through a whole migration, swap and rollback, and afterwards
everything they were told was written is there.

    python -m tests.campaigns.soak.writers --seconds 60 --rate 50 --path --kind transaction
    python -m tests.campaigns.soak.writers --seconds 60 --rate 50 --http --kind pointer
    python -m tests.campaigns.soak.writers --http --kind rename --without-catch-up  # control

Over HTTP three processes write: one through reembed.live, two through Chroma handles opened once,
before the migration and after the swap, and never again. On a local path Chroma allows one writing
process, so there one process holds the writer through reembed.live, a held handle and reembed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.campaigns.soak import scene
from tests.campaigns.soak.crash import embedding_server
from tests.campaigns.soak.writer import Row, Told, Writer
from tests.support.servers.chroma_server import chroma_server

COSINE = 0.9999


@dataclass
class Found:
    """The store held against the writers' logs, at one moment.

    Attributes:
        lost: rows acknowledged and not there.
        stale: rows there in an older version.
        resurrected: rows there though their deletion was acknowledged.
        mismatched: rows whose vector is not that of their text under the live model.
        rows: in the live collection.
    """

    lost: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    resurrected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    rows: int = 0

    @property
    def wrong(self) -> int:
        return len(self.lost) + len(self.stale) + len(self.resurrected) + len(self.mismatched)

    def __str__(self) -> str:
        return (
            f"{self.rows} rows: {len(self.lost)} lost, {len(self.stale)} stale, "
            f"{len(self.resurrected)} resurrected, {len(self.mismatched)} vectors that don't match"
        )


def compare(logs: list[Told], url: str, base_url: str, which: str) -> Found:
    """What the live name leads to, against the logs, under the model that is live."""
    from reembed import live
    from reembed.embedders.registry import open_embedder
    from reembed.records import cosine_rows

    found = Found()
    with live.open(url, "docs") as docs:
        ids = docs.get(include=[])["ids"]
        page: dict[str, list[Any]] = {"documents": [], "metadatas": [], "embeddings": []}
        for start in range(0, len(ids), 300):
            part: Any = docs.get(ids=ids[start : start + 300], include=list(page))
            place = {id: row for row, id in enumerate(part["ids"])}
            for key, column in page.items():
                column += [part[key][place[id]] for id in ids[start : start + 300]]
    there = dict(zip(ids, zip(page["documents"], page["metadatas"], strict=True), strict=True))
    for told in logs:
        for id, row in told.rows.items():
            if id in told.uncertain:
                continue
            now = there.get(id)
            if row is None and now is not None:
                found.resurrected.append(id)
            elif row is not None and now is None:
                found.lost.append(id)
            elif row is not None and now is not None and (now[0], dict(now[1] or {})) != row:
                found.stale.append(id)
    texts = [(row, text) for row, text in enumerate(page["documents"]) if text and text.strip()]
    with open_embedder(scene.model(which, base_url)) as embedder:
        vectors = embedder.embed_documents([text for _, text in texts]).vectors
    served = np.asarray([page["embeddings"][row] for row, _ in texts], np.float32)
    if served.shape == vectors.shape:
        cosines = cosine_rows(served, vectors)
        bad = [texts[n][0] for n in np.flatnonzero(cosines < COSINE)]
    else:
        bad = [row for row, _ in texts]
    found.mismatched = [ids[row] for row in bad]
    found.rows = len(ids)
    return found


# Writers, in this process or another


@contextmanager
def opened(role: str, url: str, base_url: str) -> Iterator[tuple[Any, Any]]:
    """What a writer writes through: reembed.live, or a handle that is never opened again."""
    from reembed import live
    from reembed.embedders.registry import open_embedder
    from tests.support.chroma_data import chroma_at

    if role == "live":
        live.trust(*(scene.model(which, base_url) for which in ("old", "new")))
        with live.open(url, "docs", model=scene.model("old", base_url)) as docs:
            yield docs, None
        return
    which = "old" if role == "held-old" else "new"
    with ExitStack() as stack:
        embedder = stack.enter_context(open_embedder(scene.model(which, base_url)))
        client = stack.enter_context(chroma_at(url))
        with live.LiveCollection.from_client(client, "docs") as now:
            handle = client.get_collection(now.collection.name, embedding_function=None)
        yield handle, lambda texts: embedder.embed_documents(texts).vectors


def _write(
    role: str, url: str, base_url: str, rate: float, rows: dict[str, Row], ready: Any, stop: Any,
    logs: Any, number: int,
) -> None:  # fmt: skip
    with opened(role, url, base_url) as (docs, embed):
        writer = Writer(role, docs, rate, rows, embed, number)
        ready.set()
        writer.work(stop)
    logs.put((role, writer.told))


class Crew:
    """The writers at work. They go on where they were when they are started again."""

    def __init__(self, url: str, base_url: str, rate: float, over_http: bool) -> None:
        self.logs: dict[str, Told] = {}
        self._url, self._base_url, self._rate = url, base_url, rate
        self._context: Any = multiprocessing.get_context("spawn") if over_http else None
        self._stop: Any = None
        self._team: list[Any] = []
        self._queue: Any = None

    def start(self, roles: list[str]) -> None:
        """Begin to write in these roles."""
        import queue

        own = self._context
        self._stop = own.Event() if own else threading.Event()
        self._queue = own.Queue() if own else queue.Queue()
        rate = self._rate / len(roles)
        for role in roles:
            ready = own.Event() if own else threading.Event()
            known = self.logs.get(role)
            rows = {id: row for id, row in known.rows.items() if row} if known else {}
            arguments = (
                role, self._url, self._base_url, rate, rows, ready, self._stop, self._queue,
                known.acknowledged if known else 0,
            )  # fmt: skip
            make = own.Process if own else threading.Thread
            worker = make(target=_write, args=arguments, daemon=True)
            worker.start()
            self._team.append(worker)
            assert ready.wait(120), f"{role} does not begin"

    def stop(self) -> None:
        """Let every writer finish its call, and take its log."""
        self._stop.set()
        for _ in self._team:
            role, told = self._queue.get(timeout=120)
            before = self.logs.get(role)
            if before:
                told.acknowledged += before.acknowledged
                told.errors = before.errors + told.errors
                told.uncertain |= before.uncertain
                told.slowest = max(told.slowest, before.slowest)
                told.seconds += before.seconds
                told.rows = before.rows | told.rows
            self.logs[role] = told
        for worker in self._team:
            worker.join(60)
        self._team.clear()


# The story


def story(
    work: Path, *, seconds: float, rate: float, over_http: bool, kind: str, catch_up: bool = True
) -> tuple[dict[str, Found], dict[str, Told], list[str]]:
    """Migration, swap and rollback under writers; what was found after each sweep."""
    notes: list[str] = []
    found: dict[str, Found] = {}
    with ExitStack() as stack:
        base_url = stack.enter_context(embedding_server())
        database = work / "db"
        server: Any = chroma_server(database) if over_http else nullcontext()
        running = stack.enter_context(server)
        url = running.url if over_http else f"chroma:{database}"
        scene.build(url, base_url)
        scene.write_manifest(work, url, base_url, kind)
        if not catch_up:
            for name in ("sync.build.catch_up", "cutover.swap.catch_up", "cutover.swap.sweep"):
                nothing = _nothing(name.rpartition(".")[2])
                stack.enter_context(mock.patch(f"reembed.{name}", nothing))
        crew = Crew(url, base_url, rate, over_http)
        crew.start(["live", "held-old"])
        time.sleep(seconds / 6)
        result = _step(work, "run()", notes)
        time.sleep(seconds / 6)
        _step(work, "swap()", notes)
        time.sleep(seconds / 6)
        _step(work, "sweep()", notes)
        crew.stop()
        _step(work, "sweep()", notes)
        found["after the swap"] = compare(list(crew.logs.values()), url, base_url, "new")
        notes.append(f"verdict {result['verdict'] and result['verdict']['passed']}")
        gate = _step(work, "verify()", notes)["verdict"]["gates"][-1]
        notes.append(f"verify: {gate['name']} {gate['status']}: {gate['message']}")
        if catch_up:
            crew.start(["live", "held-new"])
            time.sleep(seconds / 6)
            _step(work, "rollback()", notes)
            time.sleep(seconds / 6)
            _step(work, "sweep()", notes)
            crew.stop()
            _step(work, "sweep()", notes)
            found["after the rollback"] = compare(list(crew.logs.values()), url, base_url, "old")
    return found, crew.logs, notes


def _nothing(name: str) -> Any:
    from reembed.sync.difference import Carried

    return lambda *arguments, **options: 0 if name == "catch_up" else Carried()


def _step(work: Path, call: str, notes: list[str]) -> Any:
    from reembed.errors import UnreachableError
    from reembed.manifest import Manifest
    from reembed.migration import Migration

    start = time.monotonic()
    migration = Migration(Manifest.load(work / scene.MANIFEST))
    try:
        result = eval(f"migration.{call}", {"migration": migration}).to_dict()
    except UnreachableError as error:  # "run again": at times Chroma's own threads collide
        notes.append(f"{call} again, after: {error}")
        result = eval(f"migration.{call}", {"migration": migration}).to_dict()
    keys = ("caught_up", "swept", "conflicts", "lost", "gap_seconds", "messages", "state")
    told = {key: result[key] for key in keys if result.get(key)}
    notes.append(f"{call} {time.monotonic() - start:.1f} s {json.dumps(told)}")
    return result


def main() -> int:
    """Tell the story once, print what was found, and fail if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="of writing besides the work")
    parser.add_argument("--rate", type=float, default=50, help="records written a second")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--path", action="store_true", help="a local folder (default)")
    where.add_argument("--http", action="store_true", help="through a real Chroma server")
    parser.add_argument("--kind", choices=("transaction", "pointer", "rename"))
    parser.add_argument("--without-catch-up", action="store_true", help="the negative control")
    given = parser.parse_args()
    kind = given.kind or ("rename" if given.http else "transaction")
    os.environ.setdefault("OPENAI_API_KEY", "none")
    with tempfile.TemporaryDirectory(prefix="reembed-writers-") as folder:
        found, logs, notes = story(
            Path(folder), seconds=given.seconds, rate=given.rate, over_http=given.http, kind=kind,
            catch_up=not given.without_catch_up,
        )  # fmt: skip
    print("\n".join(notes))
    for role, told in logs.items():
        print(
            f"{role}: {told.acknowledged} records acknowledged in {told.seconds:.0f} s, "
            f"slowest call {told.slowest:.2f} s, {len(told.errors)} errors {told.errors[:3]}"
        )
    for moment, one in found.items():
        print(f"{moment}: {one}")
        for kind_ in ("lost", "stale", "resurrected", "mismatched"):
            if getattr(one, kind_):
                print(f"  {kind_}: {getattr(one, kind_)[:5]}")
    wrong = sum(one.wrong for one in found.values())
    if given.without_catch_up:
        told_so = any("late writes fail" in note for note in notes)
        print(f"{wrong} wrong, and verify {'says so' if told_so else 'does not say so'}")
        return 0 if wrong and told_so else 1
    print("0 lost" if not wrong else f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
