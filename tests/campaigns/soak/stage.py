"""One trial of the crash campaign: a copy of everything, a kill, the same command again, a look."""

from __future__ import annotations

import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from reembed.run.directory import RunDir
from reembed.run.events import FingerprintTaken
from reembed.stages.estimate import TIMED_TEXTS
from tests.campaigns.soak import processes, scene
from tests.campaigns.soak.harm import HARMS
from tests.campaigns.soak.processes import KILLED, LOG, Kill, apart, command
from tests.campaigns.soak.scene import STEPS, Look, Step
from tests.support.servers.chroma_server import chroma_server, free_port

PLACES = ("before", "torn", "unsynced", "after", "fsync", "time", "time", "time")
HARM_SHARE = 0.15
"""Of the trials, how many harm the run directory instead of killing."""
HARM_STEPS = ("embed", "load", "verify", "swap", "sweep", "rollback", "swap again")
WHOLE_STORY = 5
"""Every so many-th trial goes on to the end of the story."""
DRAWS = 6
"""Tries to kill a command before it ends."""


@dataclass
class Told:
    """The story without a kill: where the copies are, and what each step led to."""

    codes: dict[str, int] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)
    billed: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass
class Outcome:
    """How a trial ended."""

    seed: int
    step: str
    what: str
    problems: list[str]
    twice: int = 0
    kills: int = 0
    sampled: int = 0
    """Texts that plan had asked for to measure the model, where the kill came before their use."""


def _after(step: Step) -> Step | None:
    """The command that the story goes on with."""
    return next((following for following in STEPS if following.after == step.name), None)


class Stage:
    """A folder in which the story is told again and again, one trial at a time.

    Args:
        kind: swap kind.
        over_http: whether a server stands between reembed and the store.
        bulk: `always` fills the new collection past Chroma's `add`.
    """

    def __init__(
        self, work: Path, kind: str, over_http: bool, base_url: str, bulk: str = "never"
    ) -> None:
        self.kind, self.base_url, self.bulk = kind, base_url, bulk
        self.folder, self.copies = work / "stage", work / "copies"
        self.port = free_port() if over_http else 0
        self.url = f"chroma+http://127.0.0.1:{self.port}" if over_http else ""
        self.url = self.url or f"chroma:{self.folder / 'db'}"
        self.told = Told()

    @contextmanager
    def store(self) -> Iterator[None]:
        """The store, reachable."""
        database = self.folder / "db"
        server = chroma_server(database, port=self.port) if self.port else nullcontext()
        with server:
            yield

    def tell(self) -> None:
        """Make the beginning of the story, and keep a copy of it."""
        self.folder.mkdir(parents=True)
        self.build()
        self.keep("done-")

    def reach(self, step: Step) -> None:
        """Tell the story without a kill up to this step, where that has not been done, and keep a
        copy before each step."""
        if step.name in self.told.codes:
            return
        for before in STEPS:
            if before.name == step.after:
                self.reach(before)
        self.restore(f"done-{step.after}")
        with self.store():
            self.write(step)
        self.keep(f"before-{step.name}")
        self._first(step)
        self.keep(f"done-{step.name}")

    def _first(self, step: Step) -> None:
        told, lines, before = self.told, self._lines(), processes.served()
        with self.store():
            ended = command(self.folder, *step.arguments)
            assert ended.code in (0, 3), f"{step.name}: {ended.code} {ended.out} {ended.err}"
            told.looks[step.name] = self.look()
        told.codes[step.name], told.seconds[step.name] = ended.code, ended.seconds
        told.lines[step.name] = self._lines() - lines
        told.billed[step.name] = processes.billed(self.folder / LOG, before, processes.served())
        problems = scene.differences(told.looks[step.name], told.looks[step.name])
        assert not problems, f"{step.name}, never killed: {problems}"

    def _lines(self) -> int:
        run = RunDir.latest(self.folder / ".reembed" / "soak")
        return len(run.journal.read()) if run else 0

    def build(self) -> None:
        """Make the source and the manifest."""
        with self.store():
            apart(scene.build, self.url, self.base_url)
        scene.write_manifest(self.folder, self.url, self.base_url, self.kind, self.bulk)

    def write(self, step: Step) -> None:
        """Let applications write what they do before a step."""
        apart(scene.write, step, self.url, self.base_url)

    def look(self) -> Look:
        """What is there."""
        return apart(scene.look, self.folder, self.url)

    def keep(self, name: str) -> None:
        """Copy everything."""
        (self.folder / LOG).unlink(missing_ok=True)
        shutil.copytree(self.folder, self.copies / name, dirs_exist_ok=True)

    def restore(self, name: str) -> None:
        """Take a copy."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copies / name, self.folder)
        (self.folder / LOG).unlink(missing_ok=True)

    # Trials

    def trial(self, seed: int, given: tuple[Step, Kill] | None = None) -> Outcome:
        """One trial; what it does follows from the seed, or is given."""
        chance = random.Random(seed)
        kill: Kill | None
        if given is not None:
            step, kill = given
            outcome = Outcome(seed, step.name, str(kill), [])
        elif chance.random() < HARM_SHARE:
            name = chance.choice(HARM_STEPS)
            step = next(step for step in STEPS if step.name == name)
            harm = chance.choice(sorted(HARMS))
            outcome = Outcome(seed, step.name, harm, [])
            kill = None
            self._tell_for(step, seed)
        else:
            step = chance.choice(STEPS)
            self._tell_for(step, seed)
            kill = self._kill(step, chance)
            outcome = Outcome(seed, step.name, kill.place, [])
        try:
            self._try(step, kill, outcome, chance)
        except Exception:
            outcome.problems.append(traceback.format_exc(limit=3))
        outcome.problems[:] = [f"{self.kind}: {problem}" for problem in outcome.problems]
        return outcome

    def _tell_for(self, step: Step, seed: int) -> None:
        """Tell what a trial at this step is compared with."""
        last = step
        while seed % WHOLE_STORY == 0 and (following := _after(last)):
            last = following
        self.reach(last)

    def each_line(self) -> list[tuple[Step, Kill]]:
        """A kill before each journal line of each command."""
        for step in STEPS:
            self.reach(step)
        return [
            (step, Kill("before", line))
            for step in STEPS
            for line in range(1, self.told.lines[step.name] + 1)
        ]

    def _kill(self, step: Step, chance: random.Random) -> Kill:
        place = chance.choice(PLACES)
        if place == "time":
            return Kill(place, chance.random() * self.told.seconds[step.name])
        most = max(1, self.told.lines[step.name]) * (3 if place == "fsync" else 1)
        return Kill(place, chance.randint(1, most))

    def _try(self, step: Step, kill: Kill | None, outcome: Outcome, chance: random.Random) -> None:
        for draw in range(DRAWS):
            self.restore(f"before-{step.name}")
            with self.store():
                before = processes.served()
                if kill is None:
                    run = RunDir.latest(self.folder / ".reembed" / "soak")
                    assert run is not None
                    HARMS[outcome.what](run, chance)
                else:
                    ended = command(self.folder, *step.arguments, kill=kill)
                    if ended.code != KILLED and draw < DRAWS - 1:
                        kill = Kill(kill.place, max(1, kill.at // 2) if kill.place != "time"
                                    else kill.at * 0.6)  # fmt: skip
                        continue  # it was done sooner
                    outcome.kills += ended.code == KILLED
                    self._interrupted(outcome)
                self._again(step, before, outcome)
                if outcome.seed % WHOLE_STORY == 0 and not outcome.problems:
                    self._go_on(step, outcome)
            return

    def _interrupted(self, outcome: Outcome) -> None:
        """Note in the log that a command was cut short."""
        outcome.sampled = 0 if self._has_asked() else TIMED_TEXTS
        time.sleep(0.1)  # what was in flight is counted too
        processes.note(self.folder / LOG, "killed")

    def _has_asked(self) -> bool:
        """Whether embedding has begun, which takes over what plan's sample was answered."""
        run = RunDir.latest(self.folder / ".reembed" / "soak")
        return run is not None and bool(run.history.all(FingerprintTaken))

    def _again(self, step: Step, before: dict[str, int], outcome: Outcome) -> None:
        told = self.told
        ended = command(self.folder, *step.arguments)
        after = processes.served()
        if ended.code != told.codes[step.name]:
            outcome.problems.append(
                f"exit code {ended.code}: {ended.out[-700:]} {ended.err[-700:]}"
            )
            return
        got = self.look()
        outcome.problems += scene.differences(told.looks[step.name], got)
        billed = processes.billed(self.folder / LOG, before, after)
        once = told.billed[step.name]
        for text, count in billed.items():
            if "record " in text:  # not one of the probes that fingerprint a model
                outcome.twice += max(0, count - max(1, once[text]))
        allowed = scene.IN_FLIGHT * outcome.kills + outcome.sampled
        if outcome.what == "truncated cache" or outcome.what == "deleted cache":
            allowed = 0  # what is in whole shards needs no cache
        if outcome.twice > allowed:
            outcome.problems.append(f"{outcome.twice} texts billed again, {allowed} in flight")

    def _go_on(self, step: Step, outcome: Outcome) -> None:
        """The rest of the story after this trial."""
        last = step
        while (following := _after(last)) is not None:
            self.write(following)
            ended = command(self.folder, *following.arguments)
            if ended.code != self.told.codes[following.name]:
                outcome.problems.append(f"later, {following.name}: {ended.code} {ended.out[-900:]}")
                return
            last = following
        got = self.look()
        found = scene.differences(self.told.looks[last.name], got)
        outcome.problems += [f"at the end: {problem}" for problem in found]
