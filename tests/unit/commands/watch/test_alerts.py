"""Whoever is to be told is told: once, again when it stays, and when it is over; never a document,
and never lost where nobody could be reached."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from reembed.commands.watch import memory as remembering
from reembed.commands.watch import notify
from reembed.commands.watch.alerts import body
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command, Outcome
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer, Fault
from tests.support.servers.webhook import Webhook
from tests.support.texts import sentence
from tests.support.watched import recorded_collection


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(notify, "WAIT", 0.01)
    monkeypatch.chdir(tmp_path)


class Scene:
    """A store that is watched by its URL, and whom it is told to."""

    def __init__(self, command: Command, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.command, self.database, self.monkeypatch = command, database, monkeypatch

    def watch(self, *options: str) -> Outcome:
        return self.command("watch", f"chroma:{self.database}", "--json", *options)

    def told(self, *options: str) -> Outcome:
        return self.watch("--notify-env", "TOLD", *options)

    def wipe(self) -> None:
        with chroma(self.database) as client:
            client.delete_collection("docs")

    def put_back(self) -> None:
        with chroma(self.database) as client:
            plain_collection(client)

    def later(self, seconds: float) -> None:
        now = time.time() + seconds
        self.monkeypatch.setattr(time, "time", lambda: now)


@pytest.fixture
def scene(command: Command, database: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(command, database, monkeypatch)


def test_an_alert_is_told_once_and_again_a_day_later_and_when_it_is_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        assert scene.told().code == 0
        assert hook.messages == [], "all is well, and nobody is disturbed"
        scene.wipe()
        done = scene.told()
        assert (done.code, len(hook.messages)) == (4, 1)
        message = hook.messages[0]
        assert message["type"] == "failure" and "1 alert" in message["title"]
        assert "ALERT gone: [docs]" in message["message"] and "40 records" in message["message"]
        since = done.json["findings"][0]["since"]
        assert since == pytest.approx(time.time(), abs=600)
        assert scene.told().json["findings"][0]["since"] == since
        assert len(hook.messages) == 1, "it is known"
        scene.later(25 * 3600)
        assert scene.told().code == 4
        assert "STILL ALERT gone" in hook.messages[1]["message"]
        scene.put_back()
        assert scene.told("--accept", "made anew").code == 0
        assert "OVER gone" in hook.messages[2]["message"]
        assert sentence(1) not in hook.text and "hunter2" not in done.out + done.err


def test_a_store_out_of_reach_ends_no_other_alert(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        assert scene.told().code == 0
        scene.wipe()
        assert scene.told().code == 4
        away = scene.database.rename(scene.database.with_name("away"))
        assert scene.told().code == 5
        assert "OVER" not in hook.messages[-1]["message"]
        assert "reachable" in hook.messages[-1]["message"]
        away.rename(scene.database)
        assert scene.told().code == 4
        assert "OVER reachable" in hook.messages[-1]["message"]


def test_what_could_not_be_looked_at_is_not_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A model that drifted and then does not answer; backups that are old and then out of reach."""
    with Webhook() as hook, EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("TOLD", hook.url)
        path = write_manifest(
            tmp_path, f"chroma:{scene.database}",
            model={"provider": "ollama", "name": "nomic-embed-text", "base_url": server.url},
            watch={"notify_env": ["TOLD"], "backups": "backups"},
        )  # fmt: skip
        backups = tmp_path / "backups"
        assert scene.command("backup", path, "-o", backups).code == 0
        assert scene.command("watch", path).code == 0
        server.shift = 0.4
        scene.later(30 * 3600)
        assert scene.command("watch", path).code == 4
        assert "ALERT model:" in hook.messages[-1]["message"]
        assert "ALERT backup: [docs]" in hook.messages[-1]["message"]
        server.faults = lambda number, texts: Fault("status", 500)
        backups.rename(tmp_path / "away")
        assert scene.command("watch", path).code == 4
        message = hook.messages[-1]["message"]
        assert "ALERT model_reachable:" in message and "ALERT backup:" in message
        assert "OVER" not in message
        server.faults, server.shift = (), 0.0
        (tmp_path / "away").rename(backups)
        assert scene.command("watch", path).code == 4
        assert "OVER model:" in hook.messages[-1]["message"]
        assert "OVER model_reachable:" in hook.messages[-1]["message"]
        assert "OVER backup: [docs]" not in hook.messages[-1]["message"], "it is old still"


def test_a_look_at_one_collection_ends_and_forgets_nothing_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs may look at a collection of the same store each."""
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        with chroma(scene.database) as client:
            plain_collection(client, "more", count=12)
        assert scene.told().code == 0
        with chroma(scene.database) as client:
            client.delete_collection("more")
        assert scene.told().code == 4
        assert "ALERT gone: [more]" in hook.messages[-1]["message"]
        assert scene.told("--collection", "docs").code == 0
        assert scene.told("--collection", "docs", "--accept", "of docs alone").code == 0
        assert scene.told().code == 4, "what another one lost is not forgotten"
        assert len(hook.messages) == 1, "neither over nor new"
        assert scene.told("--accept", "of all").code == 0
        assert "OVER gone: [more]" in hook.messages[-1]["message"]


def test_what_nobody_took_is_told_here_kept_and_sent_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as hook:
        port = hook.port
        monkeypatch.setenv("TOLD", hook.url)
    assert scene.told().code == 0
    scene.wipe()
    done = scene.told()
    alerts = [one for one in done.json["findings"] if one["status"] == "alert"]
    assert done.code == 4 and done.json["undelivered"] == 1
    assert "notify" in {one["check"] for one in alerts}
    scene.put_back()
    done = scene.told("--accept", "made anew")
    assert (done.code, done.json["undelivered"]) == (7, 2), "well, but somebody was not told"
    kept = next(Path().rglob("watch.json")).read_text()
    assert "hunter2" not in kept and str(port) not in kept, "no address is written down"
    with Webhook(port) as hook:
        done = scene.told()
        assert (done.code, done.json["undelivered"], len(hook.messages)) == (0, 0, 1)
        assert "(and 1 before that could not be sent)" in hook.messages[0]["title"]
        assert "ALERT gone" in hook.text and "OVER gone" in hook.text
        assert scene.told().code == 0 and len(hook.messages) == 1


def test_a_target_that_hesitates_is_asked_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one of two that does not answer keeps the other from nothing."""
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", f"{hook.url} json://127.0.0.1:1/")
        hook.refusals = 2
        scene.wipe()
        done = scene.told()
        assert (len(hook.messages), hook.asked, done.json["undelivered"]) == (1, 3, 1)
        monkeypatch.setenv("TOLD", hook.url)  # the other one is given up
        assert scene.told().json["undelivered"] == 0
        assert len(hook.messages) == 1


def test_a_setting_that_reaches_nobody_is_told_before_it_is_needed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOLD", raising=False)
    done = scene.told()
    assert done.code == 5 and "TOLD is not set" in done.json["findings"][0]["message"]
    monkeypatch.setenv("TOLD", "carrier-pigeon://coop/hunter2secret")
    done = scene.told()
    assert done.code == 5 and "not a URL that Apprise knows" in done.json["findings"][0]["message"]
    assert "hunter2" not in done.out + done.err
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    done = scene.told()
    assert done.code == 5 and "reembed-pipeline[notify]" in done.json["findings"][0]["hint"]


def test_a_report_of_counts_comes_every_day(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        assert scene.told("--report").code == 0
        assert "[docs] 40 records (+0 to the most of the week)" in hook.messages[0]["message"]
        assert "all is well" in hook.messages[0]["message"]
        assert scene.told().code == 0 and len(hook.messages) == 1


def test_words_of_others_are_not_sent(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A provider may repeat what it was sent, and that is a document."""

    def echo(number: int, texts: list[str]) -> Fault:
        return Fault("body", 400, body={"error": f"cannot embed {texts[0]!r} {sentence(0)}"})

    with Webhook() as hook, EmbeddingServer(OLLAMA, faults=echo) as server:
        monkeypatch.setenv("TOLD", hook.url)
        path = write_manifest(
            tmp_path, f"chroma:{scene.database}",
            model={"provider": "ollama", "name": "nomic-embed-text", "base_url": server.url},
            watch={"notify_env": ["TOLD"]},
        )  # fmt: skip
        done = scene.command("watch", path, "--json")
        assert done.code == 5 and "cannot embed" in done.out
        assert hook.messages and "cannot embed" not in hook.text
        with chroma(scene.database) as client:  # and of a model that a store has on record alone
            recorded_collection(client, "ollama", "nomic-embed-text")
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = scene.told()
        assert done.code == 0 and "cannot embed" in done.out
        assert "on record" in hook.messages[-1]["message"] and "cannot embed" not in hook.text
        assert sentence(0)[:20] not in hook.text


def test_a_full_disk_keeps_nobody_from_being_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reembed.run.disk import full

    def no_space(path: Path, memory: Any) -> None:
        raise full(path)

    scene.wipe()
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        monkeypatch.setattr(remembering, "save", no_space)
        done = scene.told()
        assert done.code == 4 and len(hook.messages) == 1
        assert [one["check"] for one in done.json["findings"]].count("memory") == 1
        assert "ALERT empty" in hook.text and "ALERT memory" in hook.text


def test_metrics_that_cannot_be_written_are_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        assert scene.told("--metrics", "no/such/folder/x.prom").code == 5
        assert "ALERT metrics" in hook.messages[-1]["message"]
        assert scene.told("--metrics", "no/such/folder/x.prom").code == 5
        assert len(hook.messages) == 1
        assert scene.told("--metrics", "x.prom").code == 0
        assert "OVER metrics" in hook.messages[-1]["message"]


def test_a_long_message_fits_every_messenger() -> None:
    text = body([f"line {number} {'x' * 100}" for number in range(200)])
    assert len(text) < 3_500 and "more: `reembed watch` lists them" in text


def test_two_answers_in_one_document(scene: Scene) -> None:
    assert scene.command("watch", "chroma:x", "--json", "--markdown").code == 2
    done = scene.command("watch", f"chroma:{scene.database}", "--markdown")
    assert done.code == 0 and "| docs | 40 | 40 | 48 | cosine |" in done.out
    assert json.loads(scene.watch().out)["exit_code"] == 0
