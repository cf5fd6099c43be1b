"""What a run spends on its models, and the caps that it stops at.

Every request is written down before it leaves, in `spending.jsonl` of the run directory, with the
tokens that it may cost at most; once it is answered, a second line corrects the first if it cost
less. What is spent is the sum of the lines. So nothing is forgotten by a process that is killed: a
request in flight counts as paid, and the next call goes on counting where this one stopped.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reembed.embedders.provider import Price
from reembed.errors import BudgetError, DamagedError, PreflightError
from reembed.manifest import Embed, Model
from reembed.run import files
from reembed.run.disk import open_private, write_errors
from reembed.run.files import WRONG

SPENDING_FILE = files.SPENDING.name
LARGEST = 2**53
"""More tokens than were ever sold."""
TICK = 0.2
"""Seconds after which a waiting thread looks whether its call was cancelled."""


@dataclass(frozen=True)
class Spent:
    """Tokens, and US dollars at the listed prices (0 for a model without one)."""

    tokens: int = 0
    usd: float = 0.0

    def __add__(self, more: Spent) -> Spent:
        return Spent(self.tokens + more.tokens, self.usd + more.usd)

    def __neg__(self) -> Spent:
        return Spent(-self.tokens, -self.usd)

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens" + (f" ({dollars(self.usd)})" if self.usd else "")


def dollars(usd: float) -> str:
    """`$1,234.50`; small amounts with six decimals."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.6f}"


def cost(tokens: int, price: Price | None) -> Spent:
    """What `tokens` cost."""
    return Spent(tokens, tokens * price.usd_per_million_tokens / 1e6 if price else 0.0)


def read_spent(run: Path) -> Spent:
    """What a run has spent so far, over all its calls.

    Raises:
        DamagedError: the file is damaged, so the sum is not known.
        PreflightError: it may not be read.
    """
    return files.read(run / SPENDING_FILE, files.SPENDING, _sum) or Spent()


def _sum(path: Path) -> Spent:
    total = Spent()
    *lines, _torn = path.read_bytes().split(b"\n")  # what it says was never sent
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            total += Spent(int(entry["tokens"]), float(entry["usd"]))
        except WRONG:
            raise ValueError(f"line {number} is not an entry") from None
    if not (math.isfinite(total.usd) and abs(total.tokens) < LARGEST):
        raise ValueError("its sum is not a sum of money")
    return total


@dataclass(frozen=True)
class Budget:
    """The caps of a run, None where there is none, and what is spent of them."""

    max_cost: float | None
    max_tokens_total: int | None
    spent: Spent

    def __str__(self) -> str:
        cost_cap = [] if self.max_cost is None else [dollars(self.max_cost)]
        token_cap = [] if self.max_tokens_total is None else [f"{self.max_tokens_total:,} tokens"]
        return f"at most {' and '.join(cost_cap + token_cap) or 'no cap'}; {self.spent} spent"


class Spending:
    """The books of one run, shared by its models. Safe to use from several threads.

    Args:
        run: the run directory; None before there is one: see `keep_in`.
        caps: the manifest's `embed`, for `max_cost` and `max_tokens_total`.
        writes: False where nothing may be written: what is spent is then counted in memory.
    """

    def __init__(
        self, run: Path | None = None, caps: Embed | None = None, *, writes: bool = True
    ) -> None:
        caps = caps or Embed()
        self.max_cost = caps.max_cost
        self.max_tokens = caps.max_tokens_total
        self._settled = Spent()
        self._damage: DamagedError | None = None
        try:
            self._settled = read_spent(run) if run else Spent()
        except DamagedError as error:  # a cap cannot be kept then; without one nothing is lost
            self._damage = error
        self._in_flight = Spent()
        self._requests = 0
        self._path = run / SPENDING_FILE if run and writes else None
        self._fd: int | None = None
        self._lifted = False
        self._changed = threading.Condition()

    @property
    def spent(self) -> Spent:
        """Over all calls of the run, requests in flight included."""
        with self._changed:
            return self._settled + self._in_flight

    def budget(self) -> Budget:
        """The caps, and what is spent."""
        return Budget(self.max_cost, self.max_tokens, self.spent)

    def unpriced(self, model: Model, price: Price | None) -> PreflightError | None:
        """The refusal of a cap on the cost of a model whose price is not known: it would stop
        nothing."""
        if self.max_cost is None or price is not None:
            return None
        return PreflightError(
            f"embed.max_cost: no price is known for {model.provider} {model.name}",
            "Cap its tokens instead, with embed.max_tokens_total.",
        )

    def keep_in(self, run: Path) -> None:
        """Write from now on into this new run directory, first what was spent before it was."""
        with self._changed:
            self._path = run / SPENDING_FILE
            if self._settled != Spent():
                self._write(self._settled)

    def lift(self) -> None:
        """Go on counting, and stop nothing any more: the live name has moved, or moves back."""
        self._lifted = True

    def account(self, price: Price | None) -> Account:
        """Where one model's requests are counted."""
        return Account(self, price)

    def add(self, more: Spent) -> None:
        """Count what was spent by a call that could not count it itself."""
        with self._changed:
            self._write(more)
            self._settled += more

    def exceeded(self, more: Spent) -> list[str]:
        """The caps, with their values, that spending this much more would pass."""
        return self._passed(self.spent + more)

    def _passed(self, total: Spent) -> list[str]:
        found = []
        if self.max_cost is not None and total.usd > self.max_cost:
            found.append(f"embed.max_cost {dollars(self.max_cost)}")
        if self.max_tokens is not None and total.tokens > self.max_tokens:
            found.append(f"embed.max_tokens_total {self.max_tokens:,}")
        return found

    def _refuse_damage(self) -> None:
        """Raise DamagedError if there is a cap, and what is spent of it is not known."""
        capped = self.max_cost is not None or self.max_tokens is not None
        if self._damage is not None and capped and not self._lifted:
            raise self._damage

    def refusal(self, needed: Spent, what: str) -> BudgetError:
        """The error that says how much is spent, and how much more `what` takes.

        Args:
            needed: an estimate, from above where the tokens are.
        """
        total = self.spent + needed
        caps = " and ".join(self._passed(total)) or "the budget"
        need = f"{dollars(total.usd)} or {total.tokens:,} tokens" if total.usd else (
            f"{total.tokens:,} tokens"
        )  # fmt: skip
        return BudgetError(
            f"{caps} would be passed: {self.spent} are spent, and {what} takes about {needed} more",
            f"What is paid for is kept. Raise the cap (about {need} are needed in all) and run the "
            "same command again: it resumes.",
            tokens=needed.tokens,
        )

    def reserve(self, most: Spent, cancelled: threading.Event, *, capped: bool) -> bool:
        """Write down what a request may cost at most. False if `cancelled` was set meanwhile.

        Where only requests in flight stand between it and the cap, it waits for what they really
        cost.

        Raises:
            BudgetError: it would pass a cap, and is `capped`.
            DamagedError: there is a cap, and what was spent of it is not known.
            PreflightError: the disk is full.
        """
        with self._changed:
            if capped:
                self._refuse_damage()
            while capped and not self._lifted and not cancelled.is_set():
                if not self._passed(self._settled + self._in_flight + most):
                    break
                if not self._requests or self._passed(self._settled + most):
                    raise self.refusal(most, "the next request")
                self._changed.wait(TICK)
            if cancelled.is_set():
                return False
            # What is free and uncapped needs no wait for the disk: a kill loses nothing either way.
            self._write(most, durable=most.usd > 0 or self.max_tokens is not None)
            self._in_flight += most
            self._requests += 1
            return True

    def settle(self, most: Spent, real: Spent) -> None:
        """A request that was reserved with `most` has ended, and cost `real`."""
        with self._changed:
            self._in_flight += -most
            self._settled += real
            self._requests -= 1
            self._changed.notify_all()
            if real != most:
                # A line that lowers the sum may be lost: too much counts then, never too little.
                self._write(real + -most, durable=real.tokens > most.tokens)

    def _write(self, entry: Spent, *, durable: bool = True) -> None:
        if self._path is None:
            return
        line = json.dumps({"t": round(time.time(), 3), "tokens": entry.tokens, "usd": entry.usd})
        with write_errors(self._path):
            if self._fd is None:
                self._fd = _open(self._path)
            left = line.encode() + b"\n"
            try:
                while left:  # a disk that is nearly full takes a part
                    left = left[os.write(self._fd, left) :]
                if durable:
                    os.fsync(self._fd)
            except OSError:
                self._close_file()  # opening it again cuts off the part
                raise

    def close(self) -> None:
        """Write nothing any more; a request that is still in flight then counts in full."""
        with self._changed:
            self._path = None
            self._close_file()

    def _close_file(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: Path) -> int:
    """Open for appending, without the half line of a crash."""
    fd = open_private(path, os.O_RDWR | os.O_APPEND)
    with contextlib.ExitStack() as failing:
        failing.callback(os.close, fd)
        data = path.read_bytes()
        os.ftruncate(fd, data.rfind(b"\n") + 1)
        failing.pop_all()
    return fd


@dataclass(frozen=True)
class Account:
    """One model's part of the books."""

    books: Spending
    price: Price | None

    def require(self, tokens: int) -> None:
        """Raise BudgetError if this many tokens, which are of use only together, pass a cap."""
        self.books._refuse_damage()
        if not self.books._lifted and self.books.exceeded(cost(tokens, self.price)):
            raise self.books.refusal(cost(tokens, self.price), "the next step")

    def reserve(self, tokens: int, cancelled: threading.Event, *, capped: bool) -> Bill | None:
        """See `Spending.reserve`. None if `cancelled` was set."""
        most = cost(tokens, self.price)
        if not self.books.reserve(most, cancelled, capped=capped):
            return None
        return Bill(self, most)


@dataclass
class Bill:
    """One request, from before it leaves until what it cost is known."""

    account: Account
    most: Spent
    settled: bool = False

    def settle(self, tokens: int | None = None) -> None:
        """It cost `tokens`; None: what was written down. Only the first call counts."""
        if self.settled:
            return
        self.settled = True
        real = self.most if tokens is None else cost(tokens, self.account.price)
        self.account.books.settle(self.most, real)
