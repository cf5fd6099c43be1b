"""One cycle: look at everything, hold it against what is remembered, say what is wrong.

Nothing that fails here ends in silence: a store that does not answer, a model that refuses, a bug
of reembed's own are alerts, and what else can be looked at is looked at all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from reembed.commands.watch import applications, backups, collections, runs
from reembed.commands.watch.backups import BackupSeen
from reembed.commands.watch.collections import ELSEWHERE, Reference
from reembed.commands.watch.findings import Check, Finding, alert, of_bug, of_error, warning
from reembed.commands.watch.looking import Seen, look
from reembed.commands.watch.memory import Acceptance, Memory
from reembed.commands.watch.models import Answer, Asked, ask, models_of
from reembed.commands.watch.result import WatchResult
from reembed.commands.watch.subject import Live, Subject
from reembed.errors import CollectionNotFoundError, DamagedStoreError, ReembedError
from reembed.redaction import shown_url
from reembed.run.directory import RunDir
from reembed.stores.store import Store

DOUBTED: tuple[Check, ...] = (
    "gone", "empty", "drop", "drop_by", "dimension", "metric", "identity", "canary", "application",
)  # fmt: skip
"""What a person may accept, and what is not taken for good before."""
LOOKS = 3
"""How many collections a name may lead to, one after another, in one look at it."""
MOMENT = 0.2
"""Seconds in which a store has deleted a collection that it is deleting."""
AHEAD = 60.0
"""Seconds that the last cycle may lie in the future before the clock is doubted."""


class Cycle:
    """One look at a subject.

    Args:
        memory: what is remembered; brought up to date by `run`.
        accept: a person's word that what is there is meant to be so; None without one.
    """

    def __init__(self, subject: Subject, memory: Memory, accept: str | None = None) -> None:
        self.subject, self.memory, self.accept = subject, memory, accept
        self.now = time.time()
        self.findings: list[Finding] = []
        self.seen: list[Seen] = []
        self.lives: list[Live] = []
        self.answers: list[Answer] = []
        self.backups: list[BackupSeen] = []
        self.reached = False
        self._facts: dict[str, Any] | None = None
        self._asked: list[Asked] = []

    def run(self) -> WatchResult:
        """Look at everything. Raises nothing of what it finds."""
        started = time.monotonic()
        self._guarded("clock", self._clock)
        url = shown_url(self.subject.url)
        self._guarded("reachable", self._store)
        run_seen, found = runs.look(self.subject, self.now)
        self.findings += found
        self._guarded("backup", self._backups)
        self._remember(url)
        order = {"alert": 0, "warning": 1, "ok": 2}
        self.findings.sort(key=lambda finding: order[finding.status])
        good = {name: one.high.count for name, one in self.memory.collections.items()}
        return WatchResult(
            self.subject.name, url, self.now, time.monotonic() - started, self.reached, self.seen,
            good, [one.collection for one in self.findings if one.check == "gone"], self.answers,
            self.backups, run_seen, self.findings,
        )  # fmt: skip

    def _guarded(self, subject: str, look: Callable[[], None], collection: str = "") -> bool:
        """Do one look; whatever goes wrong with it is a finding. Returns whether it was done."""
        try:
            look()
        except ReembedError as error:
            check: Check = "reachable" if subject == "reachable" else "watch"
            self.findings.append(of_error(check, collection, error, subject=subject))
        except Exception as error:
            self.findings.append(of_bug("watch", collection, error, subject=subject))
        else:
            return True
        return False

    def _clock(self) -> None:
        ahead = self.memory.t - self.now
        if ahead > AHEAD:
            self.findings.append(
                warning(
                    "clock", "", f"the clock went back by {ahead / 60:.0f} minutes since the last "
                    "cycle", "Set the clock: ages of backups and runs are told by it.",
                )
            )  # fmt: skip

    def _store(self) -> None:
        store = self.subject.open()
        try:
            self.lives = self.subject.lives(store, set(self.memory.collections))
            self.reached = True
            if not self.lives:
                self.findings.append(alert("empty", "", "the store holds no collection", ELSEWHERE))
            for live in self.lives:
                self._guarded("look", partial(self._look, store, live), live.name)
            if self.subject.manifest is None and self.seen and not any(
                one.count for one in self.seen
            ) and not any(finding.check == "empty" for finding in self.findings):  # fmt: skip
                self.findings.append(
                    alert("empty", "", "no collection of the store holds a record", ELSEWHERE)
                )
            self._guarded("database", self._database)
            self._guarded("application", partial(self._application, store))
            if self.subject.settings.probe:
                self._guarded("model", partial(self._models, store))
        finally:
            store.close()

    def _look(self, store: Store, live: Live) -> None:
        good = self.memory.collections.get(live.name)
        reference = Reference(good, live.expected)
        settings = self.subject.settings
        seen = self._seen(store, live.name, good.canaries if good else [])
        if seen is None:
            self.findings.append(collections.gone(live, reference))
            return
        self.seen.append(seen)
        self.findings += collections.check(live, seen, reference, settings)

    def _seen(self, store: Store, name: str, known: list[str]) -> Seen | None:
        """Look at what a name leads to, or None where it leads to nothing.

        A collection that is deleted, replaced or swapped during the look makes the look fail. That
        says nothing of what is there now, so the name is asked again where it leads. A name that
        leads to a collection which is not there, or not whole, is looked at once more as well.
        """
        settings = self.subject.settings
        failed = None
        for _ in range(LOOKS):
            try:
                info = store.resolve(name)
            except CollectionNotFoundError:
                return None
            if failed is not None and info.id == failed[0]:
                if not isinstance(failed[1], CollectionNotFoundError | DamagedStoreError):
                    break
                time.sleep(MOMENT)  # the store is deleting it, part by part
            try:
                return look(store, name, info, settings.by, settings.canaries, known)
            except ReembedError as error:
                failed = info.id, error
        assert failed is not None
        raise failed[1]

    def _database(self) -> None:
        """Whether this is the database that it was, or the one of the run."""
        for seen in self.seen:
            live = next(live for live in self.lives if live.name == seen.name)
            was = self.memory.database or (live.expected.database if live.expected else {})
            differing = collections.other_database(seen.info.database, was)
            if differing:
                self.findings.append(
                    alert(
                        "identity", "", f"this is another database: {'; '.join(differing)}",
                        f"{ELSEWHERE} {collections.ACCEPT}", subject="database",
                    )
                )  # fmt: skip
                return
        url = shown_url(self.subject.url)
        if self.memory.url and self.memory.url != url:
            self.findings.append(
                alert(
                    "identity", "", f"the store's address was {self.memory.url}, now {url}",
                    f"{ELSEWHERE} {collections.ACCEPT}", subject="address",
                )
            )  # fmt: skip

    def _application(self, store: Store) -> None:
        manifest = self.subject.manifest
        if manifest is None:
            return
        info = next((one.info for one in self.seen if one.name == manifest.live), None)
        self._facts, found = applications.look(
            manifest, RunDir.latest(manifest.state_dir), info, store, self.memory.application
        )
        self.findings += found

    def _models(self, store: Store) -> None:
        self._asked = models_of(self.subject, self.lives, self.seen, self.memory.fingerprints)
        for asked in self._asked:
            answer = ask(asked, self.subject, store, self.seen)
            self.answers.append(answer)
            self.findings += answer.findings

    def _backups(self) -> None:
        names = [live.name for live in self.lives] or self.subject.names(self.memory.collections)
        self.backups, found = backups.look(self.subject, names, self.now)
        self.findings += found

    # What is remembered of it

    def _remember(self, url: str) -> None:
        memory, wrong = self.memory, self._wrong()
        meant = self.accept is not None
        if self.accept is not None:
            told = [finding.key for finding in self.findings if finding.status == "alert"]
            memory.accepted.append(Acceptance(self.now, self.accept, told))
        for seen in self.seen:
            live = next(live for live in self.lives if live.name == seen.name)
            reference = Reference(memory.collections.get(seen.name), live.expected)
            settings = self.subject.settings
            if meant:
                memory.collections[seen.name] = collections.accepted(seen, self.now, settings)
            elif not wrong & {"", seen.name}:
                memory.collections[seen.name] = collections.remembered(
                    seen, reference, self.now, settings
                )
        if meant and self.reached:
            for finding in self.findings:
                if finding.check == "gone":
                    memory.collections.pop(finding.collection, None)
        if self.reached and (meant or not wrong):
            memory.url = url
            memory.database = next((one.info.database for one in self.seen), memory.database)
            memory.application = self._facts if self._facts is not None else memory.application
        for asked, answer in zip(self._asked, self.answers, strict=False):
            new = asked.role not in memory.fingerprints and not answer.drifted
            if answer.fingerprint is not None and not asked.from_run and (meant or new):
                memory.fingerprints[asked.role] = answer.fingerprint.to_dict()
        memory.t = self.now
        if meant and self.reached:
            self.findings = [self._settled(finding) for finding in self.findings]

    def _settled(self, finding: Finding) -> Finding:
        """An alert that a person's word has settled is told as such; others stay."""
        of_run = {asked.name for asked in self._asked if asked.from_run}
        ours = finding.check == "model" and finding.subject not in of_run
        if finding.status != "alert" or not (finding.check in DOUBTED or ours):
            return finding
        return replace(finding, status="ok", message=f"accepted: {finding.message}", hint="")

    def _wrong(self) -> set[str]:
        """Collections, and "" for the store, of which something is wrong that must not be taken for
        good."""
        doubted = {*DOUBTED, "reachable", "watch"}
        return {
            finding.collection for finding in self.findings
            if finding.status == "alert" and finding.check in doubted
        }  # fmt: skip
