"""The losses that nobody saw, replayed: whoever watches is told in the first night."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
import yaml

from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.servers.postgres_server import PostgresServer

DROPPED = "DROP TABLE docs"
EMPTY = "CREATE TABLE docs (id text PRIMARY KEY, content text, meta jsonb, embedding vector(48))"


def test_a_fresh_database_with_other_credentials_alerts_on_the_first_night(
    command: Command, tmp_path: Path, docs_url: str, postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An update of the application wrote its own settings: it, and the watch beside it, read a new
    and empty database from then on."""
    path = write_manifest(tmp_path, docs_url, source__layout="auto")
    data = yaml.safe_load(path.read_text())
    data["source"]["url"] = "${APP_DATABASE}"
    path.write_text(yaml.safe_dump(data))
    monkeypatch.setenv("APP_DATABASE", docs_url)
    done = command("watch", path, "--json")
    assert done.code == 0, done.out
    with postgres.database() as fresh:
        with psycopg.connect(fresh) as connection:
            connection.execute("CREATE ROLE newcomer LOGIN SUPERUSER PASSWORD 'of-the-update'")
            connection.execute(EMPTY)
        monkeypatch.setenv("APP_DATABASE", as_role(fresh, "newcomer"))
        monkeypatch.setenv("PGPASSWORD", "of-the-update")
        for night in range(2):
            done = command("watch", path, "--json")
            found = {one["check"] for one in done.json["findings"] if one["status"] == "alert"}
            assert done.code == 4 and {"empty", "identity"} <= found, (night, done.out)
            told = " ".join(one["message"] for one in done.json["findings"])
            assert "the role was" in told and "newcomer" in told
            assert "of-the-update" not in done.out
        (tmp_path / ".reembed" / "move" / "watch.json").unlink()  # and nobody remembers
        assert command("watch", path).code == 4
        monkeypatch.setenv("APP_DATABASE", docs_url)
    with psycopg.connect(docs_url) as connection:
        connection.execute("DROP ROLE newcomer")
    monkeypatch.delenv("PGPASSWORD")
    assert command("watch", path).code == 0, "the right one is back"


def test_a_table_that_is_dropped_at_night_alerts(
    command: Command, tmp_path: Path, docs_url: str
) -> None:
    path = write_manifest(tmp_path, docs_url, source__layout="auto")
    assert command("watch", path).code == 0
    with psycopg.connect(docs_url) as connection:
        connection.execute(DROPPED)
    done = command("watch", path, "--json")
    assert (done.code, done.json["findings"][0]["check"]) == (4, "gone")


def test_a_table_that_keeps_its_place_is_well_before_and_after_the_old_vectors_are_dropped(
    command: Command, tmp_path: Path, docs_url: str
) -> None:
    """It is known by the shadow's id after the swap, and by its own again after the clean."""
    with psycopg.connect(docs_url) as connection:
        connection.execute("CREATE VIEW shown AS SELECT id, content FROM docs")
    path = write_manifest(
        tmp_path, docs_url, source__layout="auto", verify={"margin": 0.5}, swap={"keep_old": "0d"}
    )
    ids = [seen_id(command, path)]
    assert command("run", path, "--swap").code == 0
    ids.append(seen_id(command, path))
    assert command("clean", path, "--yes").code == 0
    ids.append(seen_id(command, path))
    assert ids[0] == ids[2] != ids[1]


def seen_id(command: Command, path: Path) -> str:
    """The object id that a watch finds, and finds well."""
    done = command("watch", path, "--json")
    assert done.code == 0, done.out
    (seen,) = done.json["collections"]
    return str(seen["id"])


def as_role(url: str, role: str) -> str:
    """The same database, as another role."""
    scheme, _, place = url.partition("://")
    return f"{scheme}://{role}@{place.rpartition('@')[2]}"
