"""The budget of a run, at a real server that counts: it stops in order, resumes, and forgets no
token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reembed.embedders import registry
from reembed.embedders.fingerprint import PROBES
from reembed.embedders.provider import Price
from reembed.embedders.sending.checks import CONTROL_TEXT
from reembed.embedders.spending import SPENDING_FILE, read_spent
from reembed.errors import BudgetError, ManifestError, PreflightError
from reembed.run import events
from tests.support.chroma_data import chroma, names_in, plain_collection, records_of
from tests.support.commands import Command
from tests.support.crash import outcome, work
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.servers.embedding_server import OPENAI, EmbeddingServer
from tests.support.texts import sentence, vector_of

RECORDS = 300
BATCH = 10
WORKERS = 2
FIXED = {CONTROL_TEXT, *(text for _, text in PROBES)}
"""What a run sends to know its model: counted, and never stopped."""


@dataclass
class Scene:
    """A collection of RECORDS texts, and a server that gives their new vectors."""

    folder: Path
    server: EmbeddingServer
    manifests: int = 0

    @property
    def url(self) -> str:
        return f"chroma:{self.folder / 'db'}"

    def manifest(self, **changes: Any) -> Path:
        """Another manifest of the same migration."""
        self.manifests += 1
        model = {"provider": "openai", "name": "wordllama", "base_url": self.server.openai_url,
                 "options": {"batch_items": BATCH}}  # fmt: skip
        return write_manifest(
            self.folder,
            self.url,
            f"m{self.manifests}.yaml",
            model=model,
            **{"embed__concurrency": WORKERS, **changes},
        )

    def tokens(self, text: str) -> int:
        return len(self.server._model.ids(text))

    @property
    def all_tokens(self) -> int:
        return sum(self.tokens(sentence(number)) for number in range(RECORDS))

    @property
    def served(self) -> int:
        """Tokens of the texts that were paid for, without what is never stopped."""
        return sum(self.tokens(t) * n for t, n in self.server.served.items() if t not in FIXED)

    def times(self) -> list[int]:
        """How often each record's text was paid for."""
        return [self.server.served[sentence(number)] for number in range(RECORDS)]

    def forget(self) -> None:
        self.server.served.clear()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with chroma(tmp_path / "db") as client:
        plain_collection(client, count=RECORDS)
    with EmbeddingServer(OPENAI) as server:
        yield Scene(tmp_path, server)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of our own has no listed price: give its model one."""
    opened = registry.open_provider

    def open_provider(*arguments: Any) -> Any:
        provider: Any = opened(*arguments)
        provider.price = Price(1_000.0, "2026-01-01")  # a dollar for a thousand tokens
        return provider

    monkeypatch.setattr(registry, "open_provider", open_provider)


@follows_hint("What is paid for is kept. Raise the cap (about ")
def test_a_run_stops_half_way_and_resumes_with_a_higher_cap(scene: Scene, command: Command) -> None:
    migration(scene.manifest()).run(until="export")
    scene.forget()
    spent = read_spent(run_dir(scene.manifest()).path).tokens
    cap = spent + scene.all_tokens // 2
    path = scene.manifest(embed__max_tokens_total=cap)
    ended = command("run", path, "--json")
    assert ended.code == 5
    error = ended.json["error"]
    assert error["kind"] == "budget"
    assert f"embed.max_tokens_total {cap:,} would be passed" in error["message"]
    assert "embedding and verifying the rest takes about" in error["message"]
    assert "run the same command again: it resumes" in error["hint"]
    assert scene.served <= cap - spent
    assert scene.served > 0.8 * (cap - spent), "the budget is used before it stops"
    assert max(scene.times()) == 1
    run = run_dir(path)
    assert run.history.last(events.BudgetReached) is not None
    document = command("status", path, "--json").json
    assert document["spent"]["tokens"] == read_spent(run.path).tokens <= cap
    assert any("spent so far" in message for message in document["messages"])

    assert command("run", path, "--json").code == 5, "the budget is not renewed by another call"
    assert sum(scene.times()) * 25 <= cap - spent

    path = scene.manifest(embed__max_tokens_total=10 * cap)
    assert command("run", path, "--until", "embed", "--json").json["state"] == "embedded"
    assert scene.times() == [1] * RECORDS, "nothing was paid for twice, and nothing was left out"
    ended = command("run", path, "--swap", "--json")
    assert ended.json["state"] == "swapped", ended.err


def test_what_is_still_needed_is_about_right(scene: Scene) -> None:
    migration(scene.manifest()).run(until="export")
    path = scene.manifest(embed__max_tokens_total=2_500)
    with pytest.raises(BudgetError) as caught:
        migration(path).run()
    spent = read_spent(run_dir(path).path).tokens
    verification = 2 * scene.all_tokens  # every record again, and a question of each
    really = scene.all_tokens - spent + verification
    # The estimate counts letters where the server has a tokenizer: up to twice the truth.
    assert 0.8 * really < caught.value.tokens < 2.5 * really
    assert f"{caught.value.tokens:,} tokens more" in caught.value.message


@pytest.mark.parametrize(("kill", "at"), [("fsync", 12), ("journal", 3)])
def test_a_kill_does_not_renew_the_budget(scene: Scene, kill: str, at: int) -> None:
    path = scene.manifest()
    assert work(path, "run(until='export')") == 0
    scene.forget()
    before = read_spent(run_dir(path).path).tokens
    path = scene.manifest(embed__max_tokens_total=before + scene.all_tokens // 2)
    assert work(path, "run(until='embed')", kill, at) == -9
    killed = scene.served
    assert 0 < killed < scene.all_tokens // 2
    books = read_spent(run_dir(path).path).tokens - before
    assert books >= killed, "what was in flight counts as paid"
    assert work(path, "run(until='embed')") == BudgetError.exit_code
    assert outcome(path)["error"]["kind"] == "budget"
    assert killed < scene.served <= scene.all_tokens // 2
    paid_again = sum(times - 1 for times in scene.times() if times)
    assert paid_again <= WORKERS * BATCH

    assert work(scene.manifest(), "run(until='embed')") == 0
    assert sum(scene.times()) <= RECORDS + WORKERS * BATCH
    assert min(scene.times()) == 1


def test_books_that_are_lost_are_what_the_budget_lives_from(scene: Scene) -> None:
    """The same run without its books spends again: so it is they that keep the sum."""
    migration(scene.manifest()).run(until="export")
    path = scene.manifest(embed__max_tokens_total=3_000)
    with pytest.raises(BudgetError):
        migration(path).run(until="embed")
    served = scene.served
    with pytest.raises(BudgetError):
        migration(path).run(until="embed")
    assert scene.served == served
    (run_dir(path).path / SPENDING_FILE).unlink()
    with pytest.raises(BudgetError):
        migration(path).run(until="embed")
    assert scene.served > served


def test_a_plan_refuses_what_will_not_fit_and_pays_nothing_for_it(
    scene: Scene, command: Command
) -> None:
    path = scene.manifest(embed__max_tokens_total=2_000)
    ended = command("plan", path, "--json")
    assert ended.code == 5
    (blocker,) = ended.json["blockers"]
    assert "embed.max_tokens_total 2,000 would be passed: " in blocker["message"]
    assert "Raise the cap" in blocker["hint"]
    assert set(scene.server.served) == {CONTROL_TEXT}
    assert ended.json["budget"]["max_tokens_total"] == 2_000
    assert "budget" in command("plan", path).out
    with pytest.raises(PreflightError, match="would be passed"):
        migration(path).run()
    assert set(scene.server.served) == {CONTROL_TEXT}
    assert migration(path).status().run == "", "no run was begun"
    path = scene.manifest(embed__max_tokens_total=100_000)
    assert migration(path).plan().ok


def test_texts_in_the_cache_cost_nothing(scene: Scene) -> None:
    migration(scene.manifest()).run(until="embed")
    scene.forget()
    # Less than the texts, enough for a verification of 100 records.
    changes: dict[str, Any] = {"name": "again", "target__collection": "again",
                               "verify__sample": 100}  # fmt: skip
    path = scene.manifest(**changes, embed__max_tokens_total=2 * scene.all_tokens)
    assert 2 * scene.all_tokens < migration(path).plan().estimate.tokens + 1_000 * 20
    tight = scene.manifest(**changes, embed__max_tokens_total=13_000)
    plan = migration(tight).plan()
    assert plan.ok, plan.blockers
    assert plan.estimate.new_tokens == 0 < plan.estimate.tokens
    scene.forget()
    migration(tight).run(until="embed")
    assert sum(scene.times()) <= 32, "the plan's few timed texts"


@pytest.mark.usefixtures("priced")
def test_dollars_are_capped_at_the_listed_price(scene: Scene) -> None:
    migration(scene.manifest()).run(until="export")
    scene.forget()
    before = read_spent(run_dir(scene.manifest()).path).usd
    half = scene.all_tokens / 2 / 1_000
    path = scene.manifest(embed__max_cost=before + half)
    with pytest.raises(BudgetError, match=r"embed\.max_cost") as caught:
        migration(path).run()
    assert f"${before + half:.2f}" in caught.value.message
    assert 0.8 * half < scene.served / 1_000 <= half
    path = scene.manifest(embed__max_cost=1_000.0)
    assert migration(path).run(until="embed").state == "embedded"
    assert max(scene.times()) == 1


def test_dollars_of_a_model_without_a_price_are_refused(scene: Scene) -> None:
    path = scene.manifest(embed__max_cost=5)
    (blocker,) = migration(path).plan().blockers
    assert "no price is known for openai wordllama" in blocker.message
    assert "embed.max_tokens_total" in blocker.hint
    migration(scene.manifest()).run(until="export")
    scene.forget()
    with pytest.raises(PreflightError, match="no price is known"):
        migration(path).run()
    assert sum(scene.times()) == 0, "nor may a run that is begun pass it by"


def test_a_verification_that_does_not_fit_asks_nothing(scene: Scene) -> None:
    migration(scene.manifest()).run(until="load")
    scene.forget()
    spent = read_spent(run_dir(scene.manifest()).path).tokens
    path = scene.manifest(embed__max_tokens_total=spent + 1_000)
    with pytest.raises(BudgetError, match="verifying takes about"):
        migration(path).run()
    assert sum(scene.times()) == 0
    assert migration(path).status().state == "loaded"
    assert migration(scene.manifest(embed__max_tokens_total=200_000)).run().state == "verified"


def test_a_catch_up_is_stopped_before_the_move_and_nothing_after_it(scene: Scene) -> None:
    path = scene.manifest()
    migration(path).run()
    with chroma(scene.folder / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.add(ids=["late"], documents=["a late word"], embeddings=[vector_of("old", "late")])
    spent = read_spent(run_dir(path).path).tokens
    tight = scene.manifest(embed__max_tokens_total=spent)
    with pytest.raises(BudgetError):
        migration(tight).swap()
    assert migration(tight).status().state == "verified"
    assert scene.server.served["a late word"] == 0
    swapped = migration(path).swap()
    assert swapped.done
    assert scene.server.served["a late word"] == 1
    with chroma(scene.folder / "db") as client:
        old = client.get_collection(swapped.parked, embedding_function=None)
        old.add(ids=["later"], documents=["even later"], embeddings=[vector_of("old", "later")])
    assert migration(tight).sweep().swept == 1, "the live collection must not lack it"
    with chroma(scene.folder / "db") as client:
        assert "later" in records_of(client.get_collection("docs", embedding_function=None))
    over = read_spent(run_dir(path).path).tokens
    assert over > spent, "it is counted all the same"
    assert migration(tight).rollback().done
    assert "docs" in names_in(scene.url)


def test_the_old_model_s_tokens_count_too(scene: Scene) -> None:
    """The verdict asks both models."""
    path = scene.manifest(verify__sample=100)
    migration(path).run(until="load")
    scene.forget()
    before = read_spent(run_dir(path).path).tokens
    migration(path).run()
    new = sum(scene.tokens(text) * times for text, times in scene.server.served.items())
    after = read_spent(run_dir(path).path).tokens
    assert after - before > new + 100 * 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("max_cost", 0), ("max_cost", -1.0), ("max_cost", float("inf")), ("max_tokens_total", 0),
     ("max_tokens_total", 1.5), ("max_cost", "5")],
)  # fmt: skip
def test_a_cap_is_a_number_above_zero(scene: Scene, key: str, value: object) -> None:
    with pytest.raises(ManifestError, match=f"embed.{key}"):
        migration(scene.manifest(**{f"embed__{key}": value}))
