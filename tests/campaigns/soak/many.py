"""Several collections killed at random: the same command again finishes what was begun, for all.

    python -m tests.campaigns.soak.many --collections 60 --kills 20 --seed 1 [--kind KIND] [--http]
    python -m tests.campaigns.soak.many --collections 60 --kills 40 --seed 1 --changes
    python -m tests.campaigns.soak.many --collections 1000 --kills 0

Collections of a few records each go through one manifest: run, swap, writes of an application,
rollback, swap again, clean. Every command is killed at a random journal line or fsync of its own,
again and again, and then left alone; after it a process with plain Chroma, without reembed, holds
every record and vector against what the application wrote. With `--changes` the application goes on
after each kill, and deletes a collection and makes one before each command. Without
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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.soak.many_app import Application
from tests.support import crash
from tests.support.manifests import write_group_manifest
from tests.support.servers.chroma_server import chroma_server

STEPS = ("run", "swap", "rollback", "swap", "clean")
ADDED = "added"
PLACES = ("journal", "torn", "fsync")
SECONDS = 1200.0

Finish = Callable[..., None]
"""Sees a call of a command through: the call, the exit code that it ends with, and the collection
that its error must name."""


@dataclass
class Campaign:
    """One story.

    Attributes:
        url: of the store.
        path: the manifest.
        collections: how many.
        records: of each; 0 for one to four.
        problems: what was not as it should be.
    """

    url: str
    path: Path
    collections: int
    kind: str
    records: int = 0
    problems: list[str] = field(default_factory=list)
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.application = Application(self.url, pointers=self.kind == "pointer")

    def names(self) -> list[str]:
        return [f"file-{number:04}" for number in range(self.collections)]

    def build(self) -> None:
        self.application.build(self.names(), self.records)

    def look(self, serves: str, step: str, others: Iterable[str] = ()) -> None:
        """Hold every name against the model that it should serve, and its records.

        Args:
            others: collections that have what they had.
        """
        application = self.application
        for name in application.serves.keys() - {*others}:
            application.serves[name] = serves
        found = application.looked(self.path.parent)
        left = [
            name for name in application.left()
            if "__lease" in name or "__hold" in name
            or (step == "clean" and ("__parked-" in name
                or ("__counting_model" in name and self.kind != "pointer")))
        ]  # fmt: skip
        found += [f"{name} is left" for name in left]
        self.problems += [f"after {step}: {told}" for told in found]
        print(f"{step}: {len(self.problems)} problems so far", file=sys.stderr, flush=True)

    def tell(self, finish: Finish) -> None:
        """The story of an application that writes after the swap."""
        for number, step in enumerate(STEPS):
            finish(f"{step}()")
            self.look("new" if step in ("swap", "clean") else "old", step)
            if number == 1:
                self.application.add_to_each(self.names(), ADDED)

    def tell_of_changes(self, finish: Finish) -> None:
        """The story of an application that deletes a collection, makes one, and writes to others
        before each step, and after each kill."""
        application, (first, second, third, fourth) = self.application, self.names()[-4:]
        application.spared = [first, second, third, fourth]
        finish("run()")
        self.look("old", "run")
        late = [self._change(first, "old")]
        if self.chance.random() < 0.5:
            finish("run()")
            late = []
        finish("swap()")
        self.look("new", "swap", late)
        old = deepcopy(application.want[second])
        late.append(self._change(second, "new"))
        finish("rollback()", 5, second)
        finish("rollback(accept_loss=True)")
        application.want[second], application.serves[second] = old, "old"
        self.look("old", "rollback", late)
        application.delete(second)
        self._change(third, "old")
        finish("run()")
        finish("swap()")
        self.look("new", "second swap")
        self._change(fourth, "new")
        finish("clean()", 5, fourth)
        finish("clean(accept_loss=True)")
        self.look("new", "clean")

    def _change(self, deleted: str, model: str) -> str:
        """What an application does meanwhile, which embeds with this model. Returns the name of the
        collection that it has made."""
        self.application.go_on(self.chance, 20)
        self.application.delete(deleted)
        return self.application.make(model)


def killed(campaign: Campaign, call: str, kills: int, wanted: int, named: str) -> int:
    """Give a command until it is through, killing it up to `kills` times, with an application that
    goes on writing after each. Returns how often it was killed."""
    done, within, chance = 0, 8 * campaign.collections, campaign.chance
    while True:
        place = chance.choice(PLACES) if done < kills else ""
        at = chance.randint(1, within)
        code = crash.work(campaign.path, call, place, at, seconds=SECONDS)
        if code != -9:
            break
        done += 1
        if campaign.application.spared:
            campaign.application.go_on(chance, 3)
    told = crash.outcome(campaign.path)
    error = told.get("error") or {}
    if error.get("exit_code", code) != wanted or named not in str(error):
        campaign.problems.append(f"{call} ended with {code}: {error or told}")
    elif wanted and f"1 of {len(told['members'])} collections" not in error["message"]:
        campaign.problems.append(f"{call} fails for others too: {error}")
    return done


def measured(campaign: Campaign, call: str, wanted: int) -> str:
    """A command as a process of its own; a line of a table of what it took."""
    step, _, given = call.partition("(")
    words = [step, str(campaign.path), *([] if step == "run" else ["--yes"])]
    words += ["--accept-loss"] if "accept_loss" in given else []
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
        if process.returncode != wanted:
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
    parser.add_argument("--records", type=int, default=0, help="of each; 0 for one to four")
    parser.add_argument("--changes", action="store_true",
                        help="the application deletes and makes collections meanwhile")  # fmt: skip
    given = parser.parse_args()
    kills, lines = 0, list[str]()
    with (
        tempfile.TemporaryDirectory(prefix="reembed-many-") as name,
        store(Path(name), given.http) as url,
    ):
        settings: dict[str, Any] = {"kind": given.kind, "accept_window": True, "keep_old": "0d"}
        path = write_group_manifest(Path(name), url, "file-*", swap=settings)
        chance = random.Random(given.seed)
        records = given.records or (5 if given.changes else 0)
        campaign = Campaign(url, path, given.collections, given.kind, records, chance=chance)
        campaign.build()

        def finish(call: str, wanted: int = 0, named: str = "") -> None:
            nonlocal kills
            if given.kills:
                each = -(-given.kills // (8 if given.changes else len(STEPS)))
                kills += killed(campaign, call, each, wanted, named)
            else:
                lines.append(measured(campaign, call, wanted))
                print(lines[-1], file=sys.stderr, flush=True)

        (campaign.tell_of_changes if given.changes else campaign.tell)(finish)
    for problem in campaign.problems[:20]:
        print(f"FAILED: {problem}")
    if lines:
        print("\n".join(["| command | time | of processors | most memory | most open files |",
                         "|---|---|---|---|---|", *lines]))  # fmt: skip
    print(f"{given.collections} collections, {kills} kills, {len(campaign.problems)} problems")
    return 1 if campaign.problems else 0


if __name__ == "__main__":
    sys.exit(main())
