"""The nights' campaign: kill -9 in a backup, prune, restore, mending watch or mending audit, once
or again and again: no good backup is ever lost, no live name half restored, and the same command
then comes to its end.

    python -m tests.campaigns.soak.nights --kills 300 --seed 1 [--postgres] [--only SEED]

Everything is kept before each command. A trial makes it so again, kills the command before one of
its steps (`tests/support/steps.py`) or at a random moment, and in a third of the trials the same
command too, once or twice. After each kill plain clients look: plain Parquet and JSON at every good
snapshot, plain chromadb or psycopg at what the live name leads to, and `reembed check` names what
can be restored. Then the command is given again and left alone, and what is there must be as if
nothing had happened. What a trial does follows from its seed, but for the moment of a kill by time.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns.soak import processes
from tests.campaigns.soak.night_scene import (
    DAY,
    FOREIGN,
    KEPT,
    RECORDS,
    InFolder,
    InPostgres,
    Live,
    Store,
    good_snapshots,
    manifest_in,
    rows_of,
    unlike,
)
from tests.campaigns.soak.processes import KILLED, STEPS, Ended, Kill, command
from tests.support.servers.postgres_server import postgres_server
from tests.support.texts import CASES

NIGHTS = 4
AGAIN = 0.33
"""Share of the trials in which the command that is given again is killed, too."""
DRAWS = 6
"""Tries to kill a command before it ends."""
MODEL = "python:counting_model:old"


@dataclass(frozen=True)
class Scene:
    """A command, and what is there before it.

    Attributes:
        arguments: `URL` stands for the store's.
        before: brings it about, from the collection with four snapshots.
        by_record: after a kill each record may be as before or as after the command; otherwise all
            of them are as before, or all as after.
        codes: with which exit codes the command may end when it is given again.
    """

    name: str
    arguments: tuple[str, ...]
    before: Callable[[Night], None]
    by_record: bool = False
    codes: tuple[int, ...] = (0,)


def _more(night: Night) -> None:
    night.store.write(rows_of(DAY))
    night.store.write(rows_of(range(20), word=" changed"))


def _gone(night: Night) -> None:
    night.store.delete()


def _begun_anew(night: Night) -> None:
    night.store.delete()
    night.store.write(rows_of(DAY))


def _restored(night: Night) -> None:
    _begun_anew(night)
    night.must("restore", KEPT, "--yes", "--accept-window")
    night.store.write(rows_of([2000]))


def _watched(night: Night) -> None:
    manifest_in(night.folder, night.store.url)
    night.must("watch", "m.yaml")
    night.store.delete()


def _foreign(night: Night) -> None:
    foreign = [row[2] for row in rows_of(FOREIGN, "other")]
    night.store.write([(id, text, vector) for (id, text, _), vector in
                       zip(rows_of(FOREIGN), foreign, strict=True)])  # fmt: skip


def _mended(night: Night) -> None:
    _foreign(night)
    night.must(*AUDIT, "--fix", "--yes")


AUDIT = ("audit", "URL", "--collection", "docs", "--model", MODEL)
SCENES = (
    Scene("backup", ("backup", "URL", "--collection", "docs", "-o", KEPT), _more),
    Scene("prune", ("prune", KEPT, "--keep", "2", "--yes"), _more),
    Scene("restore", ("restore", KEPT, "--yes"), _gone),
    Scene("restore over", ("restore", KEPT, "--yes", "--accept-window"), _begun_anew),
    Scene("restore --back", ("restore", KEPT, "--back", "--yes", "--accept-loss"), _restored,
          codes=(0, 2)),
    Scene("watch", ("watch", "m.yaml", "--yes"), _watched, codes=(0, 4)),
    Scene("audit --fix", (*AUDIT, "--fix", "--yes"), _foreign, by_record=True),
    Scene("audit --undo", (*AUDIT, "--undo", "--yes"), _mended, by_record=True, codes=(0, 2)),
)  # fmt: skip


@dataclass
class Told:
    """A scene without a kill."""

    steps: int
    seconds: float
    code: int
    before: Live
    live: Live
    names: list[str]
    good: dict[str, str]


@dataclass
class Outcome:
    """How a trial ended."""

    seed: int
    scene: str
    what: str = ""
    kills: int = 0
    problems: list[str] = field(default_factory=list)


class Night:
    """A collection with four snapshots, and each command told once without a kill."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        shutil.copy(CASES / "counting_model.py", folder)
        for night in range(NIGHTS):
            self.store.write(rows_of(range(night * 40, night * 40 + 40 if night < 3 else RECORDS)))
            self.store.write(rows_of([night], word=" of another night"))
            self.must("backup", "URL", "--collection", "docs", "-o", KEPT)
        self.store.keep("whole")
        self.kept = good_snapshots(folder)
        assert len(self.kept) == NIGHTS
        self._told: dict[str, Told] = {}

    def must(self, *arguments: str) -> None:
        """Give a command that has to end well."""
        ended = self.command(*arguments)
        assert ended.code == 0, f"{arguments}: {ended.code}: {ended.out}{ended.err}"

    def command(self, *arguments: str, kill: Kill | None = None) -> Ended:
        """Give a command; `URL` in it is the store's."""
        told = [self.store.url if one == "URL" else one for one in arguments]
        return command(self.folder, *told, kill=kill)

    def told(self, scene: Scene) -> Told:
        """A scene without a kill; the first time it is asked for it is told."""
        if scene.name not in self._told:
            self.store.restore("whole")
            scene.before(self)
            self.store.keep(scene.name)
            before = self.store.live()
            ended = self.command(*scene.arguments, kill=Kill("step", 0))
            assert ended.code in scene.codes, f"{scene.name}: {ended.code}: {ended.out}{ended.err}"
            steps = int((self.folder / STEPS).read_text())
            self._told[scene.name] = Told(
                steps, ended.seconds, ended.code, before, self.store.live(), self.store.names(),
                good_snapshots(self.folder),
            )  # fmt: skip
        return self._told[scene.name]

    # A trial

    def trial(self, seed: int) -> Outcome:
        """One trial."""
        scene, chance = SCENES[seed % len(SCENES)], random.Random(seed)
        outcome = Outcome(seed, scene.name)
        told = self.told(scene)
        for kill in [_draw(told, chance) for _ in range(DRAWS)]:
            self.store.restore(scene.name)
            ended = self.command(*scene.arguments, kill=kill)
            if ended.code == KILLED:
                break
        outcome.what = str(kill)
        if ended.code != KILLED:
            return outcome
        outcome.problems += self._after_kill(scene, told)
        outcome.kills = 1
        for _ in range(chance.choice((1, 2)) if chance.random() < AGAIN else 0):
            more = _draw(told, chance)
            if self.command(*scene.arguments, kill=more).code == KILLED:
                outcome.what += f", {more}"
                outcome.kills += 1
                outcome.problems += self._after_kill(scene, told)
        outcome.problems += self._to_the_end(scene, told)
        return outcome

    def _after_kill(self, scene: Scene, told: Told) -> Iterator[str]:
        """What is wrong after a kill."""
        live = self.store.live()
        if scene.by_record:
            known = [told.before, told.live]
            wrong = [
                id for id in live.keys() | told.live.keys()
                if all(unlike(_only(live, id), _only(one, id)) for one in known)
            ]  # fmt: skip
            if wrong:
                yield f"after the kill {wrong} are neither as before nor as after"
        elif unlike(live, told.before) and unlike(live, told.live):
            yield f"the live name leads to {len(live)} records: neither those before nor after"
        yield from self._good(scene, told)

    def _good(self, scene: Scene, told: Told) -> Iterator[str]:
        """What is wrong with the good snapshots."""
        now = good_snapshots(self.folder)
        stay = told.good if scene.name == "prune" else self.kept
        for id in stay:
            if id in self.kept and now.get(id) != self.kept[id]:
                yield f"the good snapshot {id} is {'gone' if id not in now else 'another one'}"
        ended = self.command("check", KEPT)
        if ended.code not in (0, 4):
            yield f"check ended with {ended.code}: {ended.err}"
            return
        restorable = {id for one in ended.json["folders"] for id in one["restorable"]}
        missing = (stay.keys() & self.kept.keys()) - restorable
        if missing:
            yield f"check says that {sorted(missing)} cannot be restored: {ended.out}"

    def _to_the_end(self, scene: Scene, told: Told) -> Iterator[str]:
        """What is wrong once the command was given again and left alone."""
        ended = self.command(*scene.arguments)
        if ended.code not in scene.codes:
            yield f"given again it ended with {ended.code}: {ended.out}{ended.err}"
            return
        if scene.name == "watch":  # a cycle that is killed may leave it to the next one
            self.command(*scene.arguments)
        wrong = unlike(self.store.live(), told.live)
        if wrong:
            yield f"in the end these records are otherwise: {wrong[:10]} ({len(wrong)})"
        names = self.store.names()
        if names != told.names:
            yield f"in the end there is {names}, not {told.names}"
        if scene.name != "backup":
            now = good_snapshots(self.folder)
            if now.keys() != told.good.keys():
                yield f"in the end there are the snapshots {sorted(now)}"
        yield from self._good(scene, told)
        ended = self.command("check", KEPT)
        if ended.code:
            yield f"in the end check says {ended.out}{ended.err}"


def _only(live: Live, id: str) -> Live:
    return {id: live[id]} if id in live else {}


def _draw(told: Told, chance: random.Random) -> Kill:
    if chance.random() < 0.5:
        return Kill("step", chance.randint(1, told.steps))
    return Kill("time", chance.random() * told.seconds)


def campaign(
    seeds: list[int], work: Path, postgres: bool, minutes: float = float("inf")
) -> list[Outcome]:
    """All trials of these seeds; none is begun after `minutes`. In Chroma by turns on a collection
    whose index is written often, and on one of the usual kind."""
    processes.preload()
    outcomes = list[Outcome]()
    deadline = time.monotonic() + 60 * minutes
    with ExitStack() as stack:
        if postgres:
            server = stack.enter_context(postgres_server())
            folder = work / "pg" / "now"
            nights = [Night(InPostgres(folder, server), folder)]
        else:
            nights = [Night(InFolder(folder, often=often), folder)
                      for often in (True, False)
                      for folder in [work / f"chroma {often}" / "now"]]  # fmt: skip
        for seed in seeds:
            if time.monotonic() > deadline:
                break
            outcome = nights[seed // len(SCENES) % len(nights)].trial(seed)
            outcomes.append(outcome)
            for problem in outcome.problems:
                print(f"FAILED seed {seed}, {outcome.scene}, {outcome.what}: {problem}", flush=True)
            if len(outcomes) % 10 == 0:
                print(f"{len(outcomes)} trials", file=sys.stderr, flush=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Trials, kills and failures by command."""
    lines = ["| command | trials | kills | failed |", "|---|---|---|---|"]
    for scene in SCENES:
        mine = [one for one in outcomes if one.scene == scene.name]
        kills, failed = sum(one.kills for one in mine), sum(bool(one.problems) for one in mine)
        lines.append(f"| {scene.name} | {len(mine)} | {kills} | {failed} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign, print the table, and fail if any trial did."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="trials")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial")
    parser.add_argument("--postgres", action="store_true", help="in a real Postgres")
    parser.add_argument("--minutes", type=float, default=float("inf"),
                        help="begin no trial after so long")  # fmt: skip
    parser.add_argument("--only", type=int, help="this trial alone")
    given = parser.parse_args()
    seeds = list(range(given.seed, given.seed + given.kills))
    seeds = seeds if given.only is None else [given.only]
    with tempfile.TemporaryDirectory(prefix="reembed-nights-") as folder:
        outcomes = campaign(seeds, Path(folder), given.postgres, given.minutes)
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    print(table(outcomes))
    print(f"{sum(one.kills for one in outcomes)} kills")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
