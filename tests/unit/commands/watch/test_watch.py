"""`reembed watch` finds what is wrong with a live collection within one cycle, and says nothing of
one that is as it was."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reembed import Manifest, Migrations
from reembed.commands.watch import Orders, cycle, subject_of, watch_every, watcher
from reembed.commands.watch import watch as watch_once
from reembed.commands.watch.alerts import note_alerts
from reembed.commands.watch.looking import Seen
from reembed.commands.watch.looking import look as whole_look
from reembed.commands.watch.result import WatchResult
from reembed.errors import CollectionNotFoundError, DamagedStoreError, ReembedError
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.manifests import migration, run_dir, write_group_manifest, write_manifest
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer
from tests.support.texts import sentence, vector_of


def watch(path: object, folder: Path, accept: str | None = None, **options: Any) -> WatchResult:
    subject = subject_of(str(path), folder / ".reembed").with_options(**options)
    return watch_once(subject, Orders(accept))


def alerts(result: WatchResult) -> set[str]:
    return {finding.check for finding in result.alerts}


@pytest.fixture
def manifest(tmp_path: Path, database: Path) -> Path:
    return write_manifest(tmp_path, f"chroma:{database}")


def migrations(path: Path) -> Migrations:
    return Migrations(Manifest.load(path))


def memory_of(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("watch.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_what_is_as_it_was_is_fine(command: Command, tmp_path: Path, manifest: Path) -> None:
    for _ in range(2):
        done = command("watch", manifest, "--json")
        assert done.code == 0, done.out
    assert done.json["collections"][0]["records"] == 40
    assert done.json["collections"][0]["canaries"] == {
        "known": 8, "asked": 8, "gone": 0, "lost": [],
        "latency": done.json["collections"][0]["canaries"]["latency"],
    }  # fmt: skip
    assert {one["role"] for one in done.json["models"]} >= {"new"}
    assert "all is well" in command("watch", manifest).out
    kept = json.dumps(memory_of(tmp_path))
    assert sentence(3) not in kept, "no document is remembered"
    assert oct((tmp_path / ".reembed" / "move" / "watch.json").stat().st_mode)[-3:] == "600"


def test_a_collection_that_an_upgrade_deletes_alerts_within_one_cycle(
    command: Command, tmp_path: Path, database: Path, manifest: Path
) -> None:
    assert command("watch", manifest).code == 0
    with chroma(database) as client:
        client.delete_collection("docs")
    done = command("watch", manifest, "--json")
    assert done.code == 4
    assert done.json["findings"][0]["check"] == "gone"
    assert "40 records" in done.json["findings"][0]["message"]
    with chroma(database) as client:  # and the application makes a new one, which is empty
        client.create_collection("docs")
    done = command("watch", manifest, "--json")
    checks = {one["check"] for one in done.json["findings"] if one["status"] == "alert"}
    assert (done.code, {"empty", "identity"} <= checks) == (4, True), done.json["findings"]
    assert command("watch", manifest).code == 4, "it stays until somebody sees to it"


@pytest.mark.parametrize("made_anew, found", [(False, "gone"), (True, "identity")])
def test_what_is_deleted_during_a_look_is_told_as_what_is_there_now(
    tmp_path: Path, database: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch,
    made_anew: bool, found: str,
) -> None:  # fmt: skip
    """A look that fails on the collection that was there says nothing of the one that is."""
    assert watch(manifest, tmp_path).exit_code == 0
    looks = []

    def look(*about: Any) -> Seen:
        looks.append(about)
        if len(looks) == 1:
            with chroma(database) as client:
                client.delete_collection("docs")
                if made_anew:
                    plain_collection(client, count=40)
        return whole_look(*about)

    monkeypatch.setattr(cycle, "look", look)
    result = watch(manifest, tmp_path)
    assert (result.exit_code, alerts(result)) == (4, {found}), result.findings
    assert len(looks) == 1 + made_anew


@pytest.mark.parametrize("error", [CollectionNotFoundError, DamagedStoreError])
def test_what_lasts_a_moment_of_a_deletion_is_no_alert(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, error: type[ReembedError]
) -> None:
    looks = []

    def look(*about: Any) -> Seen:
        looks.append(about)
        if len(looks) == 1:
            raise error("a part of it is not there")
        return whole_look(*about)

    monkeypatch.setattr(cycle, "look", look)
    result = watch(manifest, tmp_path)
    assert (result.exit_code, len(looks)) == (0, 2), result.findings


def test_the_first_watch_of_a_manifest_knows_what_its_run_moved(
    tmp_path: Path, database: Path, manifest: Path
) -> None:
    """No cycle has seen it whole: the run has."""
    assert migration(manifest).run(swap=True).exit_code == 0
    assert watch(manifest, tmp_path).exit_code == 0
    (tmp_path / ".reembed" / "move" / "watch.json").unlink()
    shutil.rmtree(database)
    with chroma(database) as client:
        plain_collection(client, count=3)
    result = watch(manifest, tmp_path)
    assert {"drop", "identity", "dimension"} <= alerts(result)


def test_a_database_from_before_the_swap_is_another_collection(
    tmp_path: Path, database: Path, manifest: Path
) -> None:
    """Somebody put a copy of it back: the name leads to the old vectors again."""
    copy = tmp_path / "copy"
    shutil.copytree(database, copy)
    assert migration(manifest).run(swap=True).exit_code == 0
    assert watch(manifest, tmp_path).exit_code == 0
    shutil.rmtree(database)
    shutil.copytree(copy, database)
    assert "identity" in alerts(watch(manifest, tmp_path, probe=False))


def test_a_database_out_of_reach_is_an_alert(command: Command, tmp_path: Path) -> None:
    for url, code in (("chroma+http://127.0.0.1:1", 7), (f"chroma:{tmp_path / 'nowhere'}", 5)):
        path = write_manifest(tmp_path, url)
        done = command("watch", path, "--json")
        (found,) = [one for one in done.json["findings"] if one["check"] == "reachable"]
        assert (done.code, found["status"], found["exit_code"]) == (code, "alert", code)
        assert not done.json["reached"] and not done.json["collections"]
    assert not (tmp_path / "nowhere").exists()


def test_a_drop_is_held_against_a_week_and_stays_until_it_is_accepted(
    command: Command, tmp_path: Path, database: Path, manifest: Path
) -> None:
    assert watch(manifest, tmp_path).exit_code == 0
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=[f"r{number}" for number in range(15)])
        assert watch(manifest, tmp_path).exit_code == 0, "25 of 40 are left"
        docs.delete(ids=[f"r{number}" for number in range(15, 25)])
    for _ in range(2):  # little by little is a drop too
        result = watch(manifest, tmp_path)
        assert "drop" in alerts(result)
    assert watch(manifest, tmp_path, max_drop=0.9).exit_code == 0
    (tmp_path / ".reembed" / "move" / "watch.json").unlink()
    assert watch(manifest, tmp_path).exit_code == 0
    done = command("watch", manifest, "--accept", "the archive was taken out", "--json")
    assert done.code == 0
    assert memory_of(tmp_path)["accepted"][0]["why"] == "the archive was taken out"


def test_accepting_a_drop_settles_it(
    command: Command, tmp_path: Path, database: Path, manifest: Path
) -> None:
    assert command("watch", manifest).code == 0
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=[f"r{number}" for number in range(30)])
    assert command("watch", manifest).code == 4
    done = command("watch", manifest, "--accept", "meant", "--json")
    assert done.code == 0
    assert "accepted: 'docs' has 10 records" in done.out
    assert command("watch", manifest).code == 0
    assert memory_of(tmp_path)["accepted"][0]["findings"]


def test_one_user_who_loses_everything_is_seen_among_all(
    command: Command, tmp_path: Path, database: Path, manifest: Path
) -> None:
    """The total says little: 12 of 112 records."""
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        for user, count in (("ann@example.org", 60), ("ben@example.org", 12)):
            texts = [f"{user} {sentence(number)}" for number in range(count)]
            docs.add(
                ids=[f"{user} {number}" for number in range(count)], documents=texts,
                metadatas=[{"user_id": user}] * count,
                embeddings=[vector_of("old", text) for text in texts],
            )  # fmt: skip
    done = command("watch", manifest, "--by", "user_id", "--json")
    assert done.json["collections"][0]["by"] == {
        "ann@example.org": 60, "ben@example.org": 12,
    }  # fmt: skip
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).delete(
            where={"user_id": "ben@example.org"}
        )
    done = command("watch", manifest, "--by", "user_id", "--metrics", tmp_path / "x.prom", "--json")
    (found,) = [one for one in done.json["findings"] if one["status"] == "alert"]
    assert (done.code, found["check"]) == (4, "drop_by")
    assert "ben@example.org: 12 -> 0" in found["detail"]
    assert "example.org" not in found["message"], "what is sent away names nobody"
    metrics = (tmp_path / "x.prom").read_text()
    assert "reembed_collection_values" in metrics and "example.org" not in metrics
    assert "example.org" not in command("watch", manifest, "--by", "user_id", "--markdown").out


def test_records_that_were_replaced_by_others_are_told_by_the_canaries(
    tmp_path: Path, database: Path, manifest: Path
) -> None:
    assert watch(manifest, tmp_path).exit_code == 0
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=docs.get()["ids"])
        docs.add(
            ids=[f"other {number}" for number in range(40)],
            documents=[sentence(900 + number) for number in range(40)],
            embeddings=[vector_of("old", sentence(900 + number)) for number in range(40)],
        )  # fmt: skip
    result = watch(manifest, tmp_path)
    assert alerts(result) == {"canary"}
    assert "replaced" in result.alerts[0].hint


def test_a_model_that_is_replaced_behind_its_tag_is_found_before_a_run(
    command: Command, tmp_path: Path, database: Path
) -> None:
    with EmbeddingServer(OLLAMA) as server:
        model = {"provider": "ollama", "name": "nomic-embed-text", "base_url": server.url}
        path = write_manifest(tmp_path, f"chroma:{database}", model=model)
        assert command("watch", path).code == 0
        server.digest = "b" * 64  # pulled again: the same vectors so far as the probes can tell
        done = command("watch", path, "--json")
        (found,) = [one for one in done.json["findings"] if one["status"] == "alert"]
        assert (done.code, found["check"]) == (4, "model") and "digest" in found["message"]
        assert command("watch", path, "--accept", "pulled again").code == 0
        server.version = "0.14.0"  # another version of the server with the same vectors
        assert command("watch", path).code == 0
        server.shift = 0.05  # other weights
        done = command("watch", path, "--json")
        assert done.code == 4
        (asked,) = [one for one in done.json["models"] if one["role"] == "new"]
        assert asked["drifted"] and asked["cosine"] < 0.9999
        server.shift = 0.0
        assert command("watch", path).code == 0, "the old one is back"
        server.shift = 0.02  # another quantisation: cosines of 0.9998
        assert command("watch", path).code == 4
    done = command("watch", path, "--json")  # and nobody answers
    assert done.code == 7
    assert [one["check"] for one in done.json["findings"] if one["status"] == "alert"] == [
        "model_reachable"
    ]


def test_a_model_that_drifts_after_the_swap_is_held_against_the_run(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migration(manifest).run(swap=True).exit_code == 0
    monkeypatch.setenv("REEMBED_TEST_SHIFT", "0.4")
    result = watch(manifest, tmp_path)  # the first one
    assert "model" in alerts(result)
    assert "model" in alerts(watch(manifest, tmp_path, accept="no word can settle this"))
    monkeypatch.delenv("REEMBED_TEST_SHIFT")
    assert watch(manifest, tmp_path).exit_code == 0


def test_by_url_all_collections_are_watched(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"chroma:{database}"
    with chroma(database) as client:
        plain_collection(client, "more", count=12)
        client.create_collection("empty")
    assert command("watch", url).code == 0
    with chroma(database) as client:
        client.delete_collection("more")
        client.create_collection("one-more")
    done = command("watch", url, "--json")
    (found,) = [one for one in done.json["findings"] if one["status"] == "alert"]
    assert (done.code, found["check"], found["collection"]) == (4, "gone", "more")
    assert command("watch", url, "--collection", "docs").code == 0
    assert command("watch", url, "--accept", "it is not needed").code == 0
    assert command("watch", url).code == 0


def test_a_store_that_is_made_anew_is_no_store_that_is_well(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any memory of it: a watch that finds nothing at all does not say that all is well."""
    monkeypatch.chdir(tmp_path)
    with chroma(tmp_path / "fresh") as client:
        assert client.list_collections() == []
    assert command("watch", "chroma:fresh").code == 4
    with chroma(tmp_path / "fresh") as client:
        client.create_collection("docs")
    assert command("watch", "chroma:fresh").code == 4
    assert command("watch", "chroma:fresh", "--collection", "docs").code == 4


def test_a_run_that_stopped_is_told(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration(manifest).run(until="embed")
    result = watch(manifest, tmp_path)
    assert result.exit_code == 0 and result.run is not None and result.run.state == "embedded"
    later = time.time() + 3 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    assert alerts(watch(manifest, tmp_path)) == {"run"}
    assert watch(manifest, tmp_path, run_age="2w").exit_code == 0


def test_a_clock_that_jumped_hides_no_loss(
    tmp_path: Path, database: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 400 * 86_400)
    assert watch(manifest, tmp_path).exit_code == 0
    monkeypatch.setattr(time, "time", now)
    with chroma(database) as client:
        client.get_collection("docs").delete(ids=[f"r{number}" for number in range(30)])
    result = watch(manifest, tmp_path)
    assert alerts(result) == {"drop"}
    assert any(finding.check == "clock" for finding in result.findings)
    monkeypatch.setattr(time, "time", lambda: now() + 400 * 86_400)
    assert alerts(watch(manifest, tmp_path)) == {"drop"}, "a week that passed forgets nothing"


def test_a_memory_that_is_damaged_is_told_and_set_aside(tmp_path: Path, manifest: Path) -> None:
    assert watch(manifest, tmp_path).exit_code == 0
    path = tmp_path / ".reembed" / "move" / "watch.json"
    for damage in (b"", b"{", b'{"version": 99}', b"[1]", b'{"version": 1, "collections": 3}'):
        path.write_bytes(damage)
        result = watch(manifest, tmp_path)
        assert (result.exit_code, alerts(result)) == (5, {"memory"}), damage
        assert watch(manifest, tmp_path).exit_code == 0
    assert list(path.parent.glob("watch.json.damaged-*"))


def test_two_at_once_are_one_too_many(command: Command, manifest: Path) -> None:
    from reembed.run.lock import StateLock

    lock = StateLock(manifest.parent / ".reembed" / "move" / "watch.lock")
    lock.acquire()
    try:
        assert command("watch", manifest).code == 6
    finally:
        lock.release()
    assert run_is_free(manifest)


def run_is_free(manifest: Path) -> bool:
    """A watch does not keep a run from working, nor a run a watch."""
    return migration(manifest).run(until="export").state == "exported" and bool(run_dir(manifest))


def test_no_bug_ends_a_watch_that_goes_on(
    tmp_path: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, told = threading.Event(), list[WatchResult]()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    def tell(result: WatchResult) -> None:
        told.append(result)
        monkeypatch.setattr(watcher, "note_alerts", note_alerts)
        if len(told) == 2:
            stop.set()

    monkeypatch.setattr(watcher, "note_alerts", broken)
    watch_every(0.01, lambda: subject_of(str(manifest)), tell, stop)
    assert [one.exit_code for one in told] == [1, 0]


def test_options_that_are_wrong_are_usage_errors(command: Command, manifest: Path) -> None:
    assert command("watch", manifest, "--collection", "docs").code == 2
    assert command("watch", "chroma:x", "--model", "nobody:x").code == 2


def test_collections_that_move_together_are_watched_together(
    command: Command, tmp_path: Path, database: Path
) -> None:
    with chroma(database) as client:
        plain_collection(client, "more", count=30)
    path = write_group_manifest(tmp_path, f"chroma:{database}")
    assert command("watch", path).code == 0, "before there is a run"
    assert migrations(path).run(swap=True).exit_code == 0
    done = command("watch", path, "--json")
    assert done.code == 0, done.out
    assert [one["collection"] for one in done.json["collections"]] == ["docs", "more"]
    with chroma(database) as client:
        client.delete_collection("more")
    done = command("watch", path, "--json")
    (found,) = [one for one in done.json["findings"] if one["status"] == "alert"]
    assert (done.code, found["check"], found["collection"]) == (4, "gone", "more")
