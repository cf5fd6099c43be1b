"""A disk that really is full: a small tmpfs with the store and the run directory on it.

    python -m tests.campaigns.soak.full_disk --trials 40 --seed 1

Each trial fills the disk but for a random rest, gives a command of a migration, frees the space and
gives the same command again. The first may end well, or with exit code 5 or 7 and a message; the
second ends well, and the live name holds every record. It mounts the tmpfs in a namespace of its
own (`unshare`), for which Linux wants root or user namespaces; without them it says so and ends
with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.support.chroma_data import Records, chroma, plain_collection, records_of
from tests.support.commands import REEMBED
from tests.support.manifests import write_manifest
from tests.support.texts import sentence, vector_of

MEGABYTES = 48
RECORDS = 400
INSIDE = "REEMBED_SMALL_DISK"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--trials", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    if os.environ.get(INSIDE) is None:
        return in_a_namespace()
    disk = Path(os.environ[INSIDE])
    size = ["-o", f"size={MEGABYTES}m"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "none", str(disk)], check=True)
    ends: Counter[str] = Counter()
    for number in range(chosen.trials):
        seed = chosen.seed + number
        for path in disk.iterdir():
            shutil.rmtree(path)
        ends.update(trial(disk / str(seed), random.Random(seed)))
        print(f"seed {seed}: {dict(ends)}", flush=True)
    print(f"{chosen.trials} passed")
    return 0


def in_a_namespace() -> int:
    """Run this again where a tmpfs can be mounted without anybody else seeing it."""
    unshare = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    found = shutil.which("unshare")
    if found is None or subprocess.run([*unshare, "true"], check=False).returncode:
        print("no disk can be mounted here: it takes Linux, and root or user namespaces")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        command = [*unshare, sys.executable, "-m", "tests.campaigns.soak.full_disk", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | {INSIDE: folder}, check=False).returncode


def trial(folder: Path, chance: random.Random) -> Counter[str]:
    """One migration whose every command first meets a disk with next to no room left."""
    folder.mkdir()
    with chroma(folder / "db") as client:
        expected = records_of(plain_collection(client, count=RECORDS))
    manifest = write_manifest(folder, f"chroma:{folder / 'db'}", swap__keep_old="0d")
    ends: Counter[str] = Counter()
    for step, arguments in (("run", []), ("swap", ["--yes"]), ("rollback", ["--yes"])):
        if step != "run":
            expected = write(folder, "new" if step == "rollback" else "old")
        rest = int(10 ** chance.uniform(2, 6.5))
        filler = folder / "filler"
        fill(filler, rest)
        first = reembed(step, manifest, *arguments)
        filler.unlink()
        told = f"{step} with {rest:,} bytes free: exit code {first.returncode}\n{first.stderr}"
        assert first.returncode in (0, 5, 7), told
        assert "Traceback" not in first.stderr, told
        assert not list(folder.rglob("*.tmp")), told
        check(folder, expected, told)
        second = reembed(step, manifest, *arguments)
        assert second.returncode == 0, f"{told}\nand then {second.returncode}\n{second.stderr}"
        check(folder, expected, told)
        ends[f"{step} {first.returncode}"] += 1
    return ends


def write(folder: Path, model: str) -> Records:
    """What an application writes between two commands."""
    with chroma(folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        texts = [sentence(10_000 * len(model) + ord(model[0]) + number) for number in range(60)]
        docs.add(
            ids=[f"{model}{number}" for number in range(60)], documents=texts,
            embeddings=[vector_of(model, text) for text in texts],
        )  # fmt: skip
        docs.delete(ids=["r1" if model == "new" else "r2"])
        return records_of(docs)


def fill(path: Path, rest: int) -> None:
    free = shutil.disk_usage(path.parent).free
    with path.open("wb") as file:
        for start in range(0, max(0, free - rest), 1 << 20):
            file.write(b"\0" * min(1 << 20, free - rest - start))


def reembed(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*REEMBED, *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def check(folder: Path, expected: Records, told: str) -> None:
    with chroma(folder / "db") as client:
        found = records_of(client.get_collection("docs", embedding_function=None))
    assert found == expected, told


if __name__ == "__main__":
    sys.exit(main())
