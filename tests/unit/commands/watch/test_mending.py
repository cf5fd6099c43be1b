"""`on_empty: restore`: what an upgrade deleted is there again, and nothing is overwritten."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from reembed.commands.watch import mending
from tests.support.chroma_data import chroma, plain_collection, records_of
from tests.support.commands import Command
from tests.support.forked import Forked
from tests.support.manifests import write_manifest
from tests.support.servers.webhook import Webhook
from tests.support.texts import vector_of


class Night:
    """A collection that is backed up and watched."""

    def __init__(self, command: Command, folder: Path, database: Path, **settings: Any) -> None:
        self.command, self.database = command, database
        watch = {"on_empty": "restore", "backups": "backups", "probe": False, **settings}
        self.path = write_manifest(folder, f"chroma:{database}", watch=watch)
        assert command("backup", self.path, "-o", folder / "backups").code == 0
        assert command("watch", self.path).code == 0

    def delete(self) -> None:
        with chroma(self.database) as client:
            client.delete_collection("docs")

    def records(self) -> Any:
        with chroma(self.database) as client:
            names = [one.name for one in client.list_collections()]
            return records_of(client.get_collection("docs")) if "docs" in names else None

    def leases(self) -> list[str]:
        with chroma(self.database) as client:
            return [one.name for one in client.list_collections() if "__lease" in one.name]

    def watch(self, *options: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and what was mended or not."""
        done = self.command("watch", self.path, "--json", *options)
        (found,) = [one for one in done.json["findings"] if one["check"] == "mend"] or ({},)
        return done.code, found


def test_a_person_says_yes_and_every_record_is_back(
    command: Command, tmp_path: Path, database: Path
) -> None:
    night = Night(command, tmp_path, database)
    before = night.records()
    night.delete()
    code, found = night.watch()
    assert (code, found["status"]) == (4, "warning") and "--yes" in found["hint"]
    assert night.records() is None, "nothing without a word"
    code, found = night.watch("--yes")
    assert code == 4 and "was restored" in found["message"]
    assert night.records() == before
    assert night.command("watch", night.path).code == 0, "and all is well"


KILLED = """
import os, signal, sys
from reembed.cli.entry import main
from reembed.stores.lease.lease import StoreLease
StoreLease.release = lambda lease: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["reembed", "watch", "{path}", "--yes"]
main()
"""


def test_the_lease_that_a_killed_watch_has_left_is_given_back_by_the_next_one(
    command: Command, tmp_path: Path, database: Path
) -> None:
    night = Night(command, tmp_path, database)
    before = night.records()
    night.delete()
    killed = Forked(KILLED.format(path=night.path), tmp_path)
    killed.communicate(60)
    assert killed.returncode == -signal.SIGKILL
    assert night.records() == before
    assert night.leases() == ["docs__lease"], "its process is gone, and the claim stands"
    assert night.command("watch", night.path).code == 4, "who restored it was not told any more"
    assert night.leases() == []


def test_the_manifest_says_yes_and_records_that_are_there_stay(
    command: Command, tmp_path: Path, database: Path
) -> None:
    night = Night(command, tmp_path, database, unattended=True)
    with chroma(database) as client:  # an upgrade made it anew, and the application wrote a record
        client.delete_collection("docs")
        docs = client.create_collection("docs", embedding_function=None)
        docs.add(ids=["new"], documents=["of tonight"], embeddings=[vector_of("old", "tonight")])
    code, found = night.watch()
    assert (code, found) == (4, {}) and set(night.records()) == {"new"}, "it is not empty"
    with chroma(database) as client:
        client.get_collection("docs").delete(ids=["new"])
    code, found = night.watch()
    assert code == 4 and "was restored" in found["message"]
    assert len(night.records()) == 40


def test_a_bug_that_ends_the_mending_keeps_nobody_from_being_told(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        night = Night(command, tmp_path, database, unattended=True, notify_env=["TOLD"])
        night.delete()
        monkeypatch.setattr(mending, "restore", broken)
        code, found = night.watch()
    assert (code, found["status"], found["exit_code"]) == (4, "alert", 1)
    gone, mend = (one["message"] for one in hook.messages[-2:])
    assert "ALERT gone: [docs]" in gone and "ALERT mend: [docs]" in mend
    assert "a bug" not in hook.text


def test_a_mending_that_takes_hours_or_is_killed_begins_with_a_message(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with Webhook() as hook:
        monkeypatch.setenv("TOLD", hook.url)
        night = Night(command, tmp_path, database, unattended=True, notify_env=["TOLD"])
        night.delete()
        with monkeypatch.context() as patched:
            patched.setattr(mending, "restore", killed)
            assert command("watch", night.path).code == 130
        assert "ALERT gone: [docs]" in hook.messages[-1]["message"]
        told = len(hook.messages)
        assert night.watch()[0] == 4
        assert len(hook.messages) == told + 1, "what is known is not told again"
        assert "was restored" in hook.messages[-1]["message"]
        assert command("watch", night.path).code == 0
        assert "OVER gone" in hook.messages[-1]["message"]
        assert "OVER mend" in hook.messages[-1]["message"]


@pytest.mark.parametrize("harm", ["damaged", "none", "elsewhere"])
def test_what_is_no_good_backup_of_this_database_is_not_restored(
    command: Command, tmp_path: Path, database: Path, harm: str
) -> None:
    night = Night(command, tmp_path, database, unattended=True)
    night.delete()
    backups = tmp_path / "backups"
    if harm == "damaged":
        for shard in backups.glob("*/shards/*.parquet"):
            shard.chmod(0o600)
            shard.write_bytes(shard.read_bytes()[:-9] + b"ninebytes")
    elif harm == "none":
        shutil.rmtree(backups)
    else:
        other = tmp_path / "other"
        with chroma(other) as client:
            plain_collection(client, count=50)
        assert command("backup", f"chroma:{other}", "-o", tmp_path / "theirs").code == 0
        shutil.rmtree(backups)
        (tmp_path / "theirs").rename(backups)
    code, found = night.watch()
    assert (code, found["status"]) == (4, "alert"), found
    assert night.records() is None
