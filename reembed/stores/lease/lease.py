"""The lease on a live name, kept in its store: one run at a time, of any machine or directory.

The store holds one claim, an `Owner` as text, and changes it only by compare-and-set
(`Claims.claim`). A thread renews it (`Heart`). A claim is taken over at once if its process is
known to be gone, else only if its heartbeat is older than STALE_SECONDS *and* the claim does not
change while it is watched for WATCH_SECONDS: clocks of two machines may differ by any amount, and a
live owner is still seen to be alive. What it takes is that no machine's clock runs half as fast as
another's, because an owner writes only within VALID_SECONDS of a renewal, which is less than
WATCH_SECONDS.

No store takes a lease into its own transactions, so a process that is stopped in the middle of one
write, for longer than all that, still finishes this one write when it goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import replace

from reembed.errors import LockedError, ReembedError
from reembed.stores.lease.owner import Owner
from reembed.stores.store import Store

Beat = Callable[[], None]

_HEARTS: dict[str, Heart] = {}
_LOCK = threading.Lock()


class Heart:
    """Beats for those who joined, in a thread that ends when the last one has left. There is one a
    store: a command that moves a thousand collections holds a thousand leases, and as many threads
    would keep the store from the work that the leases are for.

    Args:
        pause: seconds between two beats of each of so many.
    """

    def __init__(self, pause: Callable[[int], float]) -> None:
        self._pause = pause
        self._due: dict[Hashable, float] = {}
        self._beats: dict[Hashable, Beat] = {}
        self._beating: Hashable = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def join(self, who: Hashable, beat: Beat) -> None:
        """Beat for `who` from now on. One whose beat raises has left."""
        with self._changed:
            self._beats[who] = beat
            self._due[who] = time.monotonic() + self._pause(len(self._beats))
            if self._thread is None or not self._thread.is_alive():
                self._start()
            self._changed.notify_all()

    def leave(self, who: Hashable, patience: float) -> None:
        """Beat for it no more; wait so many seconds for a beat that is under way."""
        with self._changed:
            self._forget(who)
            self._changed.wait_for(lambda: self._beating is not who, patience)

    def _forget(self, who: Hashable) -> None:
        self._beats.pop(who, None)
        self._due.pop(who, None)
        self._changed.notify_all()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (beat := self._next()) is not None:
            try:
                beat()
            except BaseException:
                with self._changed:
                    self._forget(self._beating)
                    self._start()  # for the others
                raise
            finally:
                with self._changed:
                    self._beating = None
                    self._changed.notify_all()

    def _next(self) -> Beat | None:
        """The next beat, when it is time for it; None once nobody is left."""
        with self._changed:
            while self._due:
                who = min(self._due, key=self._due.__getitem__)
                left = self._due[who] - time.monotonic()
                if left <= 0:
                    self._due[who] = time.monotonic() + self._pause(len(self._due))
                    self._beating = who
                    return self._beats[who]
                self._changed.wait(left)
            self._thread = None
            return None


def heart_of(store: str, pause: Callable[[int], float]) -> Heart:
    """The heart for a store, by its URL."""
    with _LOCK:
        return _HEARTS.setdefault(store, Heart(pause))


RENEW_SECONDS = 10.0
"""Between two heartbeats of one lease."""
MOST_RENEWED = 40
"""Leases that are renewed a second, all in all: where a process holds more of them than that allows
in RENEW_SECONDS, each is renewed less often, and asked for before a write instead."""
SELDOM_SECONDS = 25.0
"""Between two heartbeats, at most: a claim that is watched must be seen to change."""
VALID_SECONDS = 20.0
"""How long after its last confirmation an owner writes without asking the store again."""
WATCH_SECONDS = 30.0
"""How long a claim must stand unchanged before a live process, or one elsewhere, loses it."""
STALE_SECONDS = 60.0
"""A heartbeat younger than this, by this machine's clock, is refused at once."""
_LOOKS = 10
"""How often a claim is looked at while it is watched."""
_PATIENCE_SECONDS = 10.0
"""How long the end of a command waits for a renewal that is under way."""

_LEFT_BEHIND: set[str] = set()
"""Claims of this process that could not be given back: it lives on, and they are nobody's."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while a machine sleeps


def _now() -> float:
    return time.clock_gettime(_CLOCK)


def _pause(leases: int) -> float:
    """Seconds between two heartbeats of each of so many leases."""
    return max(RENEW_SECONDS, min(SELDOM_SECONDS, leases / MOST_RENEWED))


def _is_dead(claim: str) -> bool:
    """Whether a claim is known to be nobody's any more."""
    owner = Owner.from_text(claim) if claim else None
    return claim in _LEFT_BEHIND or (owner is not None and owner.is_gone())


class StoreLease:
    """The exclusive right to work on a live name of a store.

    Args:
        manifest, run: names of what is worked on, for those who are locked out.
        note: told why it takes a while.

    Raises:
        PreflightError: the store keeps no claims.
    """

    def __init__(
        self, store: Store, live: str, manifest: str, run: str = "",
        note: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._url, self._claims = store.url, store.to_claim()
        self._live, self._note = live, note
        self._owner = Owner.this_process(manifest, run)
        self._claim = ""
        self._unsure = ""  # a renewal without an answer: it may stand, or `_claim` may
        self._confirmed = 0.0
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._heart = heart_of(store.url, _pause)

    def acquire(self) -> None:
        """Take the lease and keep it.

        Raises:
            LockedError: another run holds it; names the owner.
            PreflightError: the store refuses to keep a claim.
        """
        watched, since = "", 0.0
        while True:
            dead = _is_dead(watched)
            dead = dead or (bool(watched) and _now() - since > WATCH_SECONDS)
            claim, asked = self._owner.beat().to_text(), _now()
            try:
                standing = self._claims.claim(self._live, claim, watched if dead else None)
            except ReembedError:
                _LEFT_BEHIND.add(claim)  # it may stand all the same
                raise
            if standing is None:
                self._claim, self._confirmed = claim, asked
                self._heart.join(self, self._beat)
                return
            if standing != watched:
                self._refuse_live(standing, changed=bool(watched))
                watched, since = standing, _now()
            elif not dead:
                time.sleep(WATCH_SECONDS / _LOOKS)

    def _refuse_live(self, standing: str, *, changed: bool) -> None:
        """Raise LockedError unless this claim may be an ended process's."""
        if _is_dead(standing):
            return
        owner = Owner.from_text(standing)
        age = time.time() - owner.heartbeat if owner else STALE_SECONDS
        if changed or abs(age) < STALE_SECONDS:
            raise LockedError(
                f"{self._url}: another run is active on {self._live!r}: "
                f"{owner or 'of another version of reembed'}",
                "Wait until it ends, or stop it; running again then resumes where it was. If its "
                f"machine is gone, run again once its heartbeat is {STALE_SECONDS:.0f} s old.",
            )
        self._note(
            f"{self._live!r} is claimed by {owner or 'another version of reembed'}; looking for "
            f"{WATCH_SECONDS:.0f} s whether it is alive"
        )

    def work_on(self, run: str) -> None:
        """Say from the next heartbeat on which run it is."""
        self._owner = replace(self._owner, run=run)

    def check(self, *, now: bool = False) -> None:
        """Raise LockedError if another run has taken the lease over.

        Args:
            now: ask the store even if it has confirmed the lease a moment ago.

        Raises:
            UnreachableError: the lease must be confirmed, and the store cannot be asked.
        """
        if self._lost is None and (now or _now() - self._confirmed > VALID_SECONDS):
            self._renew()
        self.refuse_lost()

    def refuse_lost(self) -> None:
        """Raise LockedError if it is known, without asking, that the lease is lost."""
        if self._lost is None:
            return
        owner = Owner.from_text(self._lost)
        if owner is not None:
            by = f"taken over by another run: {owner}"
        else:
            by = "taken over by another version of reembed" if self._lost else "taken away"
        raise LockedError(
            f"{self._url}: the lease on {self._live!r} was {by}. This process had stood "
            "still, or had not reached the store, for too long; it stops before its next write",
            "Wait until that run ends, then run again: what this one did is kept.",
        )

    def _renew(self) -> None:
        with self._lock:
            if self._lost is not None or self._ended.is_set():
                return
            self._unsure = self._unsure or self._owner.beat().to_text()
            asked = _now()
            standing = self._claims.renew(self._live, self._claim, self._unsure)
            if standing is not None:
                self._lost = standing
                return
            self._claim, self._unsure, self._confirmed = self._unsure, "", asked

    def _beat(self) -> None:
        with contextlib.suppress(ReembedError):  # `check` asks again before the next write
            self._renew()

    def release(self) -> None:
        """Give the lease back. A store out of reach is told: the claim is then taken over later."""
        self._ended.set()
        self._heart.leave(self, _PATIENCE_SECONDS)
        if self._lost is not None:
            return
        try:
            for claim in filter(None, (self._claim, self._unsure)):
                self._claims.unclaim(self._live, claim)
        except ReembedError as error:
            _LEFT_BEHIND.update(filter(None, (self._claim, self._unsure)))
            self._note(
                f"the lease on {self._live!r} could not be given back ({error.message}); the next "
                "run takes it over"
            )
