"""Several collections killed at random: the same command again finishes what was begun, for all.

    python -m tests.campaigns.soak.many --collections 60 --kills 20 --seed 1 [--kind KIND] [--http]
    python -m tests.campaigns.soak.many --collections 1000 --kills 0

Collections of a few records each go through one manifest: run, swap, writes of an application,
rollback, swap again, clean. Every command is killed at a random journal line or fsync of its own,
again and again, and then left alone; after it every name is looked at with plain Chroma. Without
kills each command is a process of its own, and its time, that of processors (which a busy machine
does not change much), its most memory and its most open files are printed.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from chromadb.api import ClientAPI
from chromadb.api.models.Collection import Collection

from tests.support import crash
from tests.support.chroma_data import chroma_at, plain_collection
from tests.support.manifests import write_group_manifest
from tests.support.servers.chroma_server import chroma_server
from tests.support.texts import sentence, vector_of

STEPS = ("run", "swap", "rollback", "swap", "clean")
WIDTHS = {"old": 48, "new": 64}
ADDED = "added"
PLACES = ("journal", "torn", "fsync")
SECONDS = 1200.0


@dataclass
class Campaign:
    """One story.

    Attributes:
        url: of the store.
        path: the manifest.
        collections: how many.
        problems: what was not as it should be.
    """

    url: str
    path: Path
    collections: int
    kind: str
    problems: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        return [f"file-{number:04}" for number in range(self.collections)]

    def build(self) -> None:
        with chroma_at(self.url) as client:
            for number, name in enumerate(self.names()):
                self.ids[name] = str(plain_collection(client, name, 1 + number % 4).id)

    def look(self, serves: str, step: str, added: bool) -> None:
        """Hold every name against the model that it should serve, and its records."""
        with chroma_at(self.url) as client:
            every = {one.name: one for one in _all(client)}
            for number, name in enumerate(self.names()):
                told = self._wrong(every, name, 1 + number % 4, serves, added)
                self.problems += [f"after {step}: {name}: {told}"] if told else []
            left = [name for name in every if "__lease" in name or "__hold" in name]
            if step == "clean":
                left += [name for name in every if "__parked-" in name]
                left += [name for name in every if "__counting_model" in name and self._plain]
            self.problems += [f"after {step}: {name} is left" for name in left]

    @property
    def _plain(self) -> bool:
        """Whether the plain name itself moves."""
        return self.kind != "pointer"

    def _wrong(
        self, every: dict[str, Collection], name: str, count: int, serves: str, added: bool
    ) -> str:
        found = self._live(every, name)
        if found is None:
            return "leads to nothing"
        if serves == "old" and str(found.id) != self.ids[name]:
            return "is not the collection that it was"
        page = found.get(include=["embeddings", "documents"])
        documents, vectors = page["documents"], page["embeddings"]
        assert documents is not None and vectors is not None
        texts = dict(zip(page["ids"], documents, strict=True))
        want = {f"r{n}": sentence(n) for n in range(count)}
        want |= {ADDED: _added(name)} if added else {}
        if texts != want:
            return f"has {sorted(texts)}, not {sorted(want)}"
        made = np.stack([vector_of(serves, texts[id]) for id in page["ids"]])
        given = np.asarray(vectors)
        if given.shape != made.shape or np.abs(given - made).max() > 1e-5:
            return f"has vectors {given.shape} that are not of the model {serves!r}"
        return ""

    def _live(self, every: dict[str, Collection], name: str) -> Collection | None:
        pointer = every.get(f"{name}__pointer")
        if pointer is None:
            return every.get(name)
        target = (pointer.metadata or {}).get("target_id")
        return next((one for one in every.values() if str(one.id) == target), None)

    def write(self) -> None:
        """An application adds a record to each collection, with the new model's vector."""
        with chroma_at(self.url) as client:
            every = {one.name: one for one in _all(client)}
            for name in self.names():
                found = self._live(every, name)
                assert found is not None, name
                found.add(ids=[ADDED], documents=[_added(name)],
                          embeddings=[vector_of("new", _added(name))])  # fmt: skip

    def tell(self, finish: Callable[[str], None]) -> None:
        """The story. `finish` sees a command through."""
        added = False
        for number, step in enumerate(STEPS):
            finish(step)
            live = "new" if step in ("swap", "clean") else "old"
            self.look(live, step, added)
            print(f"{step}: {len(self.problems)} problems so far", file=sys.stderr, flush=True)
            if number == 1:
                self.write()
                added = True


def _all(client: ClientAPI) -> Iterator[Collection]:
    for offset in range(0, 1_000_000, 300):
        page = client.list_collections(limit=300, offset=offset)
        yield from page
        if len(page) < 300:
            return


def _added(name: str) -> str:
    return f"a text that was added to {name} after the swap"


def killed(campaign: Campaign, step: str, kills: int, chance: random.Random) -> int:
    """Give a command until it is through, killing it up to `kills` times. Returns how often it
    was killed."""
    done, within = 0, 8 * campaign.collections
    while True:
        place = chance.choice(PLACES) if done < kills else ""
        at = chance.randint(1, within)
        code = crash.work(campaign.path, f"{step}()", place, at, seconds=SECONDS)
        if code != -9:
            break
        done += 1
    if code:
        campaign.problems.append(f"{step} ended with {code}: {crash.outcome(campaign.path)}")
    return done


def measured(campaign: Campaign, step: str) -> str:
    """A command as a process of its own; a line of a table of what it took."""
    words = [step, str(campaign.path), *([] if step == "run" else ["--yes"])]
    start, memory, files = time.monotonic(), 0, 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "reembed", *words], stdout=out, stderr=subprocess.STDOUT,
            cwd=campaign.path.parent,
        )  # fmt: skip
        while process.poll() is None:
            memory, files = _most(process.pid, memory, files)
            time.sleep(0.05)
        seconds = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if process.returncode:
            out.seek(0)
            told = out.read().decode(errors="replace")[-2000:]
            campaign.problems.append(f"{step} ended with {process.returncode}: {told}")
    return f"| {step} | {seconds:.1f} s | {worked:.1f} s | {memory / 1024:.0f} MB | {files} |"


def _most(pid: int, memory: int, files: int) -> tuple[int, int]:
    process = Path("/proc") / str(pid)
    try:
        status = (process / "status").read_text()
        files = max(files, len(list((process / "fd").iterdir())))
    except OSError:  # it has just ended
        return memory, files
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return max(memory, int(lines.get("VmHWM", "0 kB").split()[0])), files


@contextmanager
def store(folder: Path, http: bool) -> Iterator[str]:
    """The URL of a new store."""
    if not http:
        yield f"chroma:{folder / 'db'}"
        return
    with chroma_server(folder / "db") as server:
        yield server.url


def main() -> int:
    """Tell the story, and fail if something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--collections", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20, help="of all commands together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--http", action="store_true", help="through a real Chroma server")
    given = parser.parse_args()
    chance, kills, lines = random.Random(given.seed), 0, list[str]()
    with (
        tempfile.TemporaryDirectory(prefix="reembed-many-") as name,
        store(Path(name), given.http) as url,
    ):
        settings: dict[str, Any] = {"kind": given.kind, "accept_window": True, "keep_old": "0d"}
        path = write_group_manifest(Path(name), url, "file-*", swap=settings)
        campaign = Campaign(url, path, given.collections, given.kind)
        campaign.build()

        def finish(step: str) -> None:
            nonlocal kills
            if given.kills:
                kills += killed(campaign, step, -(-given.kills // len(STEPS)), chance)
            else:
                lines.append(measured(campaign, step))
                print(lines[-1], file=sys.stderr, flush=True)

        campaign.tell(finish)
    for problem in campaign.problems[:20]:
        print(f"FAILED: {problem}")
    if lines:
        print("\n".join(["| command | time | of processors | most memory | most open files |",
                         "|---|---|---|---|---|", *lines]))  # fmt: skip
    print(f"{given.collections} collections, {kills} kills, {len(campaign.problems)} problems")
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
