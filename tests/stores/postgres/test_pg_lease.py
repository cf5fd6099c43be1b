"""Claims in Postgres: one row whatever the name is called, and no table left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reembed.errors import PreflightError
from reembed.stores.lease import lease
from reembed.stores.lease.owner import Owner
from reembed.stores.registry import open_store
from tests.support.manifests import migration, write_manifest
from tests.support.servers.postgres_server import PostgresServer
from tests.support.texts import sentence, vector_of


def make_docs(connection: psycopg.Connection, count: int = 40) -> None:
    connection.execute(
        "CREATE TABLE docs (id text PRIMARY KEY, document text, metadata jsonb, "
        "embedding vector(48))"
    )
    for number in range(count):
        text = sentence(number)
        vector = json.dumps([float(one) for one in vector_of("old", text)])
        connection.execute(
            "INSERT INTO docs VALUES (%s, %s, %s, %s)",
            [f"r{number}", text, json.dumps({"n": number}), vector],
        )


def tables(connection: psycopg.Connection) -> set[str]:
    rows = connection.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = "
                              "'public'::regnamespace").fetchall()  # fmt: skip
    return {str(row[0]) for row in rows}


def test_a_table_has_one_claim_by_whatever_name_it_goes(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        make_docs(connection, 1)
        first, second = open_store(postgres_url), open_store(postgres_url)
        assert first.to_claim().claim("docs", "one") is None
        assert second.to_claim().claim("public.docs", "two") == "one"
        assert second.to_claim().claim("other", "two") is None
        assert "reembed_lease" in tables(connection)
        assert first.catalog.collections() == ["docs"]
        first.to_claim().unclaim("docs", "one")
        assert second.to_claim().claim("public.docs", "two") is None
        for name in ("docs", "other"):
            second.to_claim().unclaim(name, "two")
        assert tables(connection) == {"docs"}
        first.close()
        second.close()


def test_a_role_that_may_only_read_is_refused(postgres_url: str, postgres: PostgresServer) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        make_docs(connection, 1)
        connection.execute("DROP ROLE IF EXISTS lease_reader")
        connection.execute("CREATE ROLE lease_reader LOGIN PASSWORD 'x'")
        connection.execute("GRANT SELECT ON docs TO lease_reader")
        store = open_store(postgres_url)
        store.claims._connection.execute("SET ROLE lease_reader")  # type: ignore[union-attr]
        with pytest.raises(PreflightError, match="permission denied"):
            store.to_claim().claim("docs", "one")
        store.close()
        connection.execute("DROP OWNED BY lease_reader")
        connection.execute("DROP ROLE lease_reader")


def test_a_migration_keeps_its_lease_and_leaves_none(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its heart beats while the export reads a snapshot, which must not show it."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        make_docs(connection)
        path = write_manifest(tmp_path, postgres_url, verify__margin=0.5)
        claims: list[str] = []
        from reembed.stores.postgres.records import Records

        fetch = Records.fetch

        def looked_at(self: Records, *arguments: Any, **options: Any) -> object:
            claims.extend(row[0] for row in connection.execute("SELECT claim FROM reembed_lease"))
            return fetch(self, *arguments, **options)

        monkeypatch.setattr(Records, "fetch", looked_at)
        assert migration(path).run(swap=True).state == "swapped"
        assert len(set(claims)) > 1, "renewed"
        owners = [Owner.from_text(claim) for claim in claims]
        assert {owner.manifest for owner in owners if owner} == {"move"}
        assert "reembed_lease" not in tables(connection)
