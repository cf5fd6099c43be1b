"""The books of a run: no token forgotten, no cap passed, whatever becomes of a request."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reembed.embedders.provider import Price
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.embedders.shared import Shared
from reembed.embedders.spending import SPENDING_FILE, Bill, Spending, Spent, read_spent
from reembed.errors import BudgetError, DamagedError, PreflightError, ReembedError
from reembed.manifest import Embed, Model
from tests.support.servers.embedding_server import OPENAI, EmbeddingServer, Fault

PRICE = Price(2.0, "2026-01-01")


def books(run: Path, **caps: float) -> Spending:
    return Spending(run, Embed.model_validate(caps))


def reserve(spending: Spending, tokens: int, *, capped: bool = True) -> Bill:
    bill = spending.account(PRICE).reserve(tokens, threading.Event(), capped=capped)
    assert bill is not None
    return bill


def test_what_one_call_spent_the_next_one_knows(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 1_000).settle()
        reserve(spending, 500).settle(400)
        reserve(spending, 70)  # in flight when the process dies
    assert read_spent(tmp_path).tokens == 1_470
    assert read_spent(tmp_path).usd == pytest.approx(1_470 * 2e-6)
    with books(tmp_path) as spending:
        assert spending.spent.tokens == 1_470
        reserve(spending, 30).settle(0)
    assert read_spent(tmp_path).tokens == 1_470
    assert (tmp_path / SPENDING_FILE).stat().st_mode & 0o077 == 0


def test_it_is_written_before_the_request_leaves(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 123)
        assert read_spent(tmp_path).tokens == 123


def test_a_bill_is_settled_once(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        bill = reserve(spending, 100)
        bill.settle(40)
        bill.settle()
        assert spending.spent.tokens == read_spent(tmp_path).tokens == 40


def test_more_than_was_foreseen_counts(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 100).settle(130)
    assert read_spent(tmp_path).tokens == 130


@pytest.mark.parametrize(
    ("caps", "says"),
    [
        ({"max_tokens_total": 1_000}, "embed.max_tokens_total 1,000"),
        ({"max_cost": 0.002}, r"embed.max_cost \$0.002000"),
        ({"max_cost": 0.002, "max_tokens_total": 5_000}, "embed.max_cost"),
    ],
)
def test_a_cap_is_reached_and_not_passed(tmp_path: Path, caps: dict[str, float], says: str) -> None:
    with books(tmp_path, **caps) as spending:
        reserve(spending, 900).settle()
        reserve(spending, 100).settle()
        with pytest.raises(BudgetError, match=says) as caught:
            reserve(spending, 1)
        assert "1,000 tokens ($0.002000) are spent" in caught.value.message
        assert caught.value.exit_code == 5
        assert "Raise the cap" in caught.value.hint
        assert spending.spent.tokens == 1_000
        reserve(spending, 5, capped=False).settle()
        assert spending.spent.tokens == 1_005, "what is not stopped is counted"
        spending.lift()
        reserve(spending, 5).settle()
    assert read_spent(tmp_path).tokens == 1_010


def test_a_request_waits_for_what_those_in_flight_really_cost(tmp_path: Path) -> None:
    """Estimates are from above: a cap that the truth would not pass must not stop the run."""
    with books(tmp_path, max_tokens_total=1_000) as spending:
        first, got = reserve(spending, 700), list[Bill]()
        waiting = threading.Thread(target=lambda: got.append(reserve(spending, 600)))
        waiting.start()
        time.sleep(0.3)
        assert not got
        first.settle(350)
        waiting.join(10)
        assert len(got) == 1
        assert spending.spent.tokens == 950
        got[0].settle()


def test_a_cancelled_request_does_not_wait(tmp_path: Path) -> None:
    with books(tmp_path, max_tokens_total=1_000) as spending:
        reserve(spending, 700)
        cancelled = threading.Event()
        threading.Timer(0.2, cancelled.set).start()
        assert spending.account(PRICE).reserve(600, cancelled, capped=True) is None
        assert spending.spent.tokens == 700


def test_threads_lose_nothing(tmp_path: Path) -> None:
    with books(tmp_path) as spending:

        def spend() -> None:
            for _ in range(50):
                reserve(spending, 10).settle(7)

        threads = [threading.Thread(target=spend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spending.spent.tokens == 8 * 50 * 7
    assert read_spent(tmp_path).tokens == 8 * 50 * 7


def test_half_a_line_was_never_sent(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 100).settle()
    path = tmp_path / SPENDING_FILE
    with path.open("ab") as file:
        file.write(b'{"t": 1, "tokens": 99')
    with books(tmp_path) as spending:
        assert spending.spent.tokens == 100
        reserve(spending, 11).settle()
    assert read_spent(tmp_path).tokens == 111


@pytest.mark.parametrize("damage", [b"garbage", b"[]", b'{"tokens": "many", "usd": 0}', b"{}"])
def test_a_damaged_line_stops_what_has_a_cap(tmp_path: Path, damage: bytes) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 100).settle()
    path = tmp_path / SPENDING_FILE
    path.write_bytes(path.read_bytes() + damage + b"\n" + path.read_bytes())
    with pytest.raises(DamagedError, match="damaged: line 2"):
        read_spent(tmp_path)
    with (
        books(tmp_path, max_tokens_total=10**9) as spending,
        pytest.raises(DamagedError, match="damaged: line 2"),
    ):
        reserve(spending, 1)
    with books(tmp_path, max_tokens_total=10**9) as spending:
        spending.lift()  # the way back is never stopped
        reserve(spending, 1)
    with books(tmp_path) as spending:  # what is not capped goes on
        reserve(spending, 1)


def test_what_was_spent_before_the_run_began_is_written_with_it(tmp_path: Path) -> None:
    with Spending() as spending:
        reserve(spending, 50).settle()
        spending.keep_in(tmp_path)
        assert read_spent(tmp_path).tokens == 50
        reserve(spending, 5).settle()
    assert read_spent(tmp_path).tokens == 55


def test_a_plan_knows_and_writes_nothing(tmp_path: Path) -> None:
    with books(tmp_path) as spending:
        reserve(spending, 50).settle()
    before = (tmp_path / SPENDING_FILE).read_bytes()
    with Spending(tmp_path, Embed(), writes=False) as spending:
        reserve(spending, 5).settle()
        assert spending.spent.tokens == 55
    assert (tmp_path / SPENDING_FILE).read_bytes() == before


def test_a_full_disk_is_told_and_the_file_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = os.write, [False]

    def take_a_part(fd: int, data: bytes) -> int:
        if full.pop():
            raise OSError(errno.ENOSPC, "No space left on device")
        full.append(True)
        return write(fd, data[:9])

    with books(tmp_path) as spending:
        reserve(spending, 10).settle()
        with monkeypatch.context() as patch, pytest.raises(PreflightError, match="no space left"):
            patch.setattr("reembed.embedders.spending.os.write", take_a_part)
            reserve(spending, 10)
        reserve(spending, 7).settle()
        assert spending.spent.tokens == 17
    assert read_spent(tmp_path).tokens == 17


def test_amounts_are_shown_with_what_they_are() -> None:
    assert str(Spent(12_345, 0.0)) == "12,345 tokens"
    assert str(Spent(12_345, 0.000247)) == "12,345 tokens ($0.000247)"
    assert str(Spent(1, 1_234.5)) == "1 tokens ($1,234.50)"


# By how a request ended, at a real server

TEXTS = [f"the falcon number {number} sits on the marble quarry" for number in range(8)]


def tokens_served(server: EmbeddingServer) -> int:
    return sum(len(server._model.ids(text)) * times for text, times in server.served.items())


@pytest.mark.parametrize(
    ("fault", "counted"),
    [
        (Fault("status", 429, retry_after="0"), 1),
        (Fault("status", 503), 1),
        (Fault("status", 500), 1),
        (Fault("status", 504), 2),
        (Fault("cut_off"), 2),
        (Fault("reset"), 2),
        (Fault("nan"), 2),
        (Fault("html"), 2),
        (None, 1),
    ],
    ids=lambda value: getattr(value, "kind", None) and f"{value.kind}-{value.status}",
)
def test_a_failed_request_counts_unless_it_was_surely_not_worked_on(
    tmp_path: Path, fault: Fault | None, counted: int
) -> None:
    with EmbeddingServer(OPENAI, faults=[None, fault]) as server, books(tmp_path) as spending:
        model = Model(provider="openai", name="wordllama", base_url=server.openai_url)
        retry = RetryPolicy(wait=0.01)
        with open_embedder(model, Embed(concurrency=1), None, retry, Shared(spending)) as embedder:
            embedder.check_reachable()
            before = spending.spent.tokens
            embedder.embed_documents(TEXTS)
            once = sum(len(server._model.ids(text)) for text in TEXTS)
            estimate = int(embedder.count_tokens(TEXTS).sum())
        assert estimate > once, "what fails is counted as it was foreseen, from above"
        assert spending.spent.tokens - before == once + (counted - 1) * (
            once if fault and fault.kind == "nan" else estimate
        )
        assert spending.spent.tokens >= tokens_served(server)
    assert read_spent(tmp_path).tokens == spending.spent.tokens


@pytest.mark.parametrize("call", ["embed_documents", "embed_queries"])
def test_what_is_kept_only_as_a_whole_is_sent_whole_or_not_at_all(
    tmp_path: Path, call: str
) -> None:
    with (
        EmbeddingServer(OPENAI) as server,
        books(tmp_path, max_tokens_total=100) as spending,
        open_embedder(
            Model(provider="openai", name="wordllama", base_url=server.openai_url,
                  options={"batch_items": 2}),
            Embed(concurrency=1), shared=Shared(spending),
        ) as embedder,
    ):  # fmt: skip
        embedder.check_reachable()
        asked: Callable[[list[str]], object] = getattr(embedder, call)
        sent = len(server.requests)
        with pytest.raises(BudgetError):
            asked(TEXTS)
        assert len(server.requests) == sent
        asked(TEXTS[:1])
        fingerprint = embedder.fingerprint()
        assert fingerprint.dimensions == 256, "probes are not stopped"
        assert spending.spent.tokens > 100


def test_documents_that_are_kept_batch_by_batch_use_the_budget_up(tmp_path: Path) -> None:
    with (
        EmbeddingServer(OPENAI) as server,
        books(tmp_path, max_tokens_total=100) as spending,
        open_embedder(
            Model(provider="openai", name="wordllama", base_url=server.openai_url,
                  options={"batch_items": 1}),
            Embed(concurrency=4), shared=Shared(spending),
        ) as embedder,
    ):  # fmt: skip
        kept: list[int] = []
        with pytest.raises(ReembedError) as caught:
            embedder.embed_documents(TEXTS, on_batch=lambda rows, *_: kept.extend(rows))
        assert isinstance(caught.value, BudgetError)
        assert 60 < spending.spent.tokens <= 100
        assert len(kept) == sum(server.served[text] for text in TEXTS)
        assert len(kept) >= 3, "what was paid for is kept"
