"""What a night of a following job takes, as a share of the first call that builds everything.

    python -m tests.campaigns.benchmarks.nightly [--records 20000] [--changed 0.01]

The corpus is JSON lines, the live collection is Chroma on a path, the model is WordLlama (static,
no download). Each call is `reembed run --swap` in a process of its own, and what counts is the CPU
time of it and its children, so that its start is in it and other work on the machine is not; the
share of a night without a change shows how much the start is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import chromadb
import yaml

WORDS = 60
CALL = [sys.executable, "-c", "from reembed.cli.entry import main; main()"]


def text(number: int) -> str:
    chance = random.Random(number)
    return " ".join("".join(chance.choices("etaoinshrdlu", k=6)) for _ in range(WORDS))


def write(folder: Path, texts: dict[str, str]) -> None:
    lines = (json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items())
    (folder / "new").write_text("".join(lines))
    (folder / "new").rename(folder / "corpus.jsonl")


def cpu() -> float:
    """CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def call(folder: Path) -> float:
    """CPU seconds of one call, whose modules are compiled, as those of an installed package are."""
    before = cpu()
    environment = {key: value for key, value in os.environ.items()
                   if key != "PYTHONDONTWRITEBYTECODE"}  # fmt: skip
    done = subprocess.run([*CALL, "run", "m.yaml", "--swap", "--json"], cwd=folder,
                          capture_output=True, text=True, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return cpu() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--nights", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chromadb.PersistentClient(folder / "db")
        texts = {f"r{n}": text(n) for n in range(given.records)}
        write(folder, texts)
        manifest = {
            "name": "nightly", "mode": "follow",
            "source": {"url": "jsonl:./corpus.jsonl", "collection": "corpus"},
            "target": {"url": "chroma:./db", "collection": "search", "index": {"ef_search": 400}},
            "verify": {"index_recall": 0.8},  # random letters lie all alike
            "model": {"provider": "static", "name": "wordllama"},
        }  # fmt: skip
        (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
        full, nothing, nights = call(folder), call(folder), list[float]()
        number = given.records
        for _ in range(given.nights):
            for id in random.sample(sorted(texts), round(given.changed * given.records)):
                texts[id], number = text(number), number + 1
            write(folder, texts)
            nights.append(call(folder))
        night = sorted(nights)[len(nights) // 2]
        found = {
            "records": given.records, "changed": given.changed, "full_cpu_seconds": round(full, 2),
            "unchanged_cpu_seconds": round(nothing, 2), "night_cpu_seconds": round(night, 2),
            "share": round(night / full, 4),
        }  # fmt: skip
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
