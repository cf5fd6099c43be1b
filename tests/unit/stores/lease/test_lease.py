"""The lease on a live name: who holds it, who takes it over, and what its loser may still do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from typing import Any

import pytest

from reembed.errors import LockedError, UnreachableError
from reembed.progress import Progress
from reembed.stores.lease import lease as leases
from reembed.stores.lease import owner as owners
from reembed.stores.lease.guarded import LeasedProgress, leased
from reembed.stores.lease.lease import Heart, StoreLease
from reembed.stores.lease.owner import Owner
from reembed.stores.store import Capture, Cutover, Store, Writer
from tests.support.array_store import Arrays

READS = {"default_target", "check", "kinds", "follow", "fit_name"}
MOVES = {"create", "drop", "exchange", "prepare"}
"""Before these the store itself is asked whose the lease is."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(leases, "VALID_SECONDS", 0.2)
    monkeypatch.setattr(leases, "WATCH_SECONDS", 0.4)


@pytest.fixture
def store() -> Store:
    return Arrays().store()


@pytest.fixture
def gone() -> Iterator[int]:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    yield process.pid


def standing(store: Store) -> Owner | None:
    return Owner.from_text(store.to_claim().claim("docs", "probe", "never") or "{}")


def stop(lease: StoreLease) -> None:
    """Stop the heartbeat, as if the whole process stood still."""
    lease._heart.leave(lease, patience=60.0)


def elsewhere(**changes: Any) -> Owner:
    """An owner on another machine."""
    owner = Owner.this_process("theirs", "r7")
    there: dict[str, Any] = {"machine": "another", "host": "build-3", "pid": 4711}
    return replace(owner, **there | changes)


# Owners


def test_an_owner_is_read_as_it_was_written() -> None:
    owner = Owner.this_process("move", "20261121t134502-3f9a")
    assert Owner.from_text(owner.to_text()) == owner
    assert not owner.is_gone()
    assert owner.beat().heartbeat >= owner.heartbeat
    assert owner.token != Owner.this_process("move").token


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", "1", '{"pid": 1}', "null"],
)
def test_what_is_no_owner_is_none(text: str) -> None:
    assert Owner.from_text(text) is None


@pytest.mark.parametrize(
    "field", [{"pid": -1}, {"since": 1e300}, {"heartbeat": "NaN"}, {"heartbeat": None}, {"pid": []}]
)
def test_an_owner_that_cannot_be_is_none(field: dict[str, Any]) -> None:
    data = json.loads(Owner.this_process("move").to_text())
    assert Owner.from_text(json.dumps(data)) is not None
    assert Owner.from_text(json.dumps(data | field)) is None


def test_a_message_shows_no_control_characters() -> None:
    owner = replace(Owner.this_process("move"), user="\x1b[2Jroot\n", host="h" * 9_000)
    assert "\x1b" not in str(owner)
    assert "\n" not in str(owner)
    assert len(str(owner)) < 1_000


def test_only_a_process_of_this_machine_can_be_known_to_be_gone(gone: int) -> None:
    here = Owner.this_process("move")
    assert replace(here, pid=gone).is_gone()
    assert not replace(here, pid=gone, machine="another").is_gone()
    assert not replace(here, pid=2**80).is_gone()


def test_a_number_that_was_given_to_another_process_is_no_sign_of_life() -> None:
    here = Owner.this_process("move")
    assert here.started, "Linux tells"
    assert replace(here, started="1").is_gone()
    assert not replace(here, started="").is_gone()


def test_a_process_that_waits_to_be_reaped_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    here = Owner.this_process("move")
    deadline = time.monotonic() + 30
    while not replace(here, pid=process.pid, started=here.started + "0").is_gone():
        assert time.monotonic() < deadline
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owners._started(process.pid) == "ended"
    process.wait()


# Taking


def test_the_second_is_told_who_is_first(store: Store) -> None:
    first = StoreLease(store, "docs", "move", "r1")
    first.acquire()
    with pytest.raises(LockedError) as caught:
        StoreLease(store, "docs", "another").acquire()
    assert caught.value.exit_code == 6
    for part in ("'docs'", "move", "r1", f"pid {os.getpid()}", "since ", "last heartbeat 0 s ago"):
        assert part in caught.value.message
    assert "60 s" in caught.value.hint
    StoreLease(store, "other", "another").acquire()
    first.release()
    second = StoreLease(store, "docs", "another")
    second.acquire()
    second.release()
    assert standing(store) is None, "no leftover lease"


def test_the_owner_is_heard_of_and_says_its_run(store: Store) -> None:
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    before = standing(store)
    assert before is not None
    assert before.run == ""
    lease.work_on("r1")
    deadline = time.monotonic() + 10
    while (now := standing(store)) is None or now.run != "r1":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert now.heartbeat > before.heartbeat
    assert (now.token, now.since) == (before.token, before.since)
    lease.check(now=True)
    lease.release()
    assert standing(store) is None


def test_a_dead_process_is_followed_at_once(store: Store, gone: int) -> None:
    dead = replace(Owner.this_process("theirs"), pid=gone)
    assert store.to_claim().claim("docs", dead.to_text()) is None
    notes: list[str] = []
    lease = StoreLease(store, "docs", "move", note=notes.append)
    lease.acquire()
    assert notes == []
    lease.release()
    assert standing(store) is None


def test_a_young_heartbeat_from_elsewhere_is_refused_at_once(store: Store) -> None:
    store.to_claim().claim("docs", elsewhere().to_text())
    began = time.monotonic()
    with pytest.raises(LockedError, match=r"theirs.* r7.* build-3 \(pid 4711\)"):
        StoreLease(store, "docs", "move").acquire()
    assert time.monotonic() - began < leases.WATCH_SECONDS


@pytest.mark.parametrize("seconds", [-61, -3_600, 61, 3_600])
def test_an_old_heartbeat_is_watched_and_then_followed(store: Store, seconds: float) -> None:
    """One far ahead too: that is a clock that goes wrong, not a sign of life."""
    at = time.time() + seconds
    store.to_claim().claim("docs", elsewhere(heartbeat=at).to_text())
    notes: list[str] = []
    lease = StoreLease(store, "docs", "move", note=notes.append)
    began = time.monotonic()
    lease.acquire()
    assert time.monotonic() - began >= leases.WATCH_SECONDS
    assert "build-3" in notes[0]
    lease.release()
    assert standing(store) is None


def test_an_owner_whose_clock_goes_wrong_is_seen_to_live(store: Store) -> None:
    owner = elsewhere(heartbeat=time.time() - 3_600)
    store.to_claim().claim("docs", owner.to_text())
    beaten = threading.Timer(
        0.15, store.to_claim().renew,
        ("docs", owner.to_text(), replace(owner, heartbeat=owner.heartbeat + 10).to_text()),
    )  # fmt: skip
    beaten.start()
    with pytest.raises(LockedError, match="build-3"):
        StoreLease(store, "docs", "move").acquire()
    beaten.join()


def test_a_claim_of_another_version_is_watched(store: Store) -> None:
    store.to_claim().claim("docs", "something else")
    beaten = threading.Timer(0.15, store.to_claim().renew, ("docs", "something else", "and more"))
    beaten.start()
    with pytest.raises(LockedError, match="another version"):
        StoreLease(store, "docs", "move").acquire()
    beaten.join()
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    lease.release()


# Losing


def test_an_owner_that_stood_still_finds_out_before_it_writes(store: Store) -> None:
    lease = StoreLease(store, "docs", "move", "r1")
    lease.acquire()
    stop(lease)
    claim = store.to_claim().claim("docs", "probe", "never")
    assert claim is not None
    assert store.to_claim().claim("docs", elsewhere().to_text(), claim) is None
    lease.check()  # confirmed a moment ago, and whoever took over has watched for longer
    time.sleep(leases.VALID_SECONDS)
    for _ in range(2):
        with pytest.raises(LockedError, match=r"taken over by another run.*build-3"):
            lease.check()
    with pytest.raises(LockedError):
        lease.refuse_lost()
    lease.release()
    assert standing(store) is not None, "the lease of the other one stays"


def test_a_move_asks_even_if_the_lease_was_confirmed_just_now(store: Store) -> None:
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    stop(lease)
    claim = store.to_claim().claim("docs", "probe", "never")
    assert claim is not None
    store.to_claim().unclaim("docs", claim)
    lease.check()
    with pytest.raises(LockedError, match="taken away"):
        lease.check(now=True)


def test_the_heartbeat_finds_out_by_itself(store: Store) -> None:
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    deadline = time.monotonic() + 10
    while True:  # between two heartbeats
        claim = store.to_claim().claim("docs", "probe", "never")
        assert claim is not None
        if store.to_claim().claim("docs", elsewhere().to_text(), claim) is None:
            break
    with pytest.raises(LockedError):
        while time.monotonic() < deadline:
            lease.refuse_lost()
            time.sleep(0.01)
    lease.release()


def test_a_store_out_of_reach_costs_no_lease_but_stops_writes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    with monkeypatch.context() as patch:

        def fail(*_: object) -> str | None:
            raise UnreachableError("nobody answers")

        patch.setattr(store.claims, "renew", fail)
        time.sleep(leases.VALID_SECONDS * 1.5)
        with pytest.raises(UnreachableError):
            lease.check()
    lease.check()
    lease.release()
    assert standing(store) is None


def test_a_renewal_whose_answer_is_lost_costs_no_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = StoreLease(store, "docs", "move")
    lease.acquire()
    stop(lease)
    renew = store.to_claim().renew

    def lose(*arguments: str) -> str | None:
        renew(*arguments)
        raise UnreachableError("the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(store.claims, "renew", lose)
        for _ in range(3):
            with pytest.raises(UnreachableError):
                lease.check(now=True)
    lease.check(now=True)
    with monkeypatch.context() as patch:
        patch.setattr(store.claims, "renew", lose)
        with pytest.raises(UnreachableError):
            lease.check(now=True)
    lease.release()
    assert standing(store) is None, "whichever of the two claims stood"


def test_a_lease_that_cannot_be_given_back_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    lease = StoreLease(store, "docs", "move", note=notes.append)
    lease.acquire()

    def fail(*_: object) -> None:
        raise UnreachableError("nobody answers")

    monkeypatch.setattr(store.claims, "unclaim", fail)
    lease.release()
    assert "nobody answers" in notes[0]


# Under a lease


class Part:
    """Every method of every part, which notes that it was reached."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name == "kinds":  # a property
            self.reached.append(name)
        return lambda *_: self.reached.append(name)


def methods(part: type) -> list[str]:
    return sorted(name for name in vars(part) if not name.startswith("_"))


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (part, name)
        for part, protocol in {"writer": Writer, "capture": Capture, "cutover": Cutover}.items()
        for name in methods(protocol)
    ],
)
def test_a_write_asks_first_and_a_read_does_not(store: Store, part: str, name: str) -> None:
    asked: list[bool] = []

    def refuse(now: bool) -> None:
        asked.append(now)
        raise LockedError("lost")

    whole = Part()
    under = leased(replace(store, writer=whole, capture=whole, cutover=whole), refuse)
    guarded = getattr(under, part)
    if name == "kinds":
        _ = guarded.kinds
    else:
        method = getattr(guarded, name)
        with pytest.raises(LockedError) if name not in READS else nullcontext():
            method(*signature(method).parameters)
    assert whole.reached == ([name] if name in READS else [])
    assert asked == ([] if name in READS else [name in MOVES])


def test_indexes_are_built_under_the_lease_and_what_a_store_lacks_it_lacks_still(
    store: Store,
) -> None:
    def refuse(now: bool) -> None:
        raise LockedError("lost")

    built: list[str] = []
    with pytest.raises(LockedError):
        index = leased(replace(store, build_index=built.append), refuse).build_index
        assert index is not None
        index("docs")
    assert built == []
    guarded = leased(replace(store, writer=None), refuse)
    assert guarded.catalog is store.catalog and guarded.reader is store.reader
    assert guarded.claims is store.claims, "they are the lease's own"
    lacking = (guarded.writer, guarded.build_index, guarded.capture, guarded.cutover)
    assert lacking == (None, None, None, None)


def test_a_stage_that_needs_no_store_ends_too() -> None:
    counted: list[float | None] = []
    lost = False

    class Counting(Progress):
        def note(self, message: str) -> None:
            counted.append(-1)

    def check() -> None:
        if lost:
            raise LockedError("lost")

    progress = LeasedProgress(Counting(), check)
    progress.note("told")
    assert counted == [-1]
    with progress.stage("embed", 10) as counter:
        counter.update(3)
        lost = True
        with pytest.raises(LockedError):
            counter.update(1)


# Many leases


def test_many_leases_are_renewed_by_one_thread(store: Store) -> None:
    held = [StoreLease(store, f"docs{number}", "move") for number in range(50)]
    for lease in held:
        lease.acquire()
    assert [thread.name for thread in threading.enumerate()].count("lease") == 1
    before = [store.to_claim().claim(lease._live, "probe", "never") for lease in held]
    until = time.monotonic() + 60
    while any(
        store.to_claim().claim(lease._live, "probe", "never") == claim
        for lease, claim in zip(held, before, strict=True)
    ):
        assert time.monotonic() < until, "each of them is renewed"
        time.sleep(0.01)
    for lease in held:
        lease.release()
    assert standing(store) is None


def test_a_lease_whose_beat_fails_leaves_the_others_theirs() -> None:
    heart = Heart(lambda _: 0.01)
    beaten = threading.Event()

    def fail() -> None:
        raise ValueError("a fault")

    seen: list[object] = []
    hook, threading.excepthook = threading.excepthook, lambda told: seen.append(told.exc_value)
    try:
        heart.join("bad", fail)
        heart.join("good", beaten.set)
        deadline = time.monotonic() + 60
        while not seen:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        beaten.clear()
        assert beaten.wait(60)
        heart.leave("good", 60.0)
    finally:
        threading.excepthook = hook
    assert [str(error) for error in seen] == ["a fault"]


@pytest.mark.parametrize(
    ("leases_held", "seconds"), [(1, 10.0), (400, 10.0), (800, 20.0), (9_000, 25.0)]
)
def test_many_leases_are_renewed_less_often(
    monkeypatch: pytest.MonkeyPatch, leases_held: int, seconds: float
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 10.0)
    assert leases._pause(leases_held) == seconds
    assert seconds < 30.0, "a claim is watched for so long"
