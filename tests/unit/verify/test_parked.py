"""Before the name moves back, the old collection is held against what was exported of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from reembed.errors import LossError
from reembed.run import events
from tests.support.chroma_data import chroma, names_in, records_of, vectors_of
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import migration, run_dir, write_manifest
from tests.support.pg_docs import app, make_docs, pg_manifest
from tests.support.texts import vector_of
from tests.unit.verify.test_shadow import meddle, named, reverse


def parked_of(database: Path) -> str:
    return next(name for name in names_in(f"chroma:{database}") if "parked" in name)


@follows_hint("With --accept-loss the exported vectors are put in their place")
@pytest.mark.parametrize("share", [1, 4])
def test_a_parked_collection_with_other_vectors_is_refused_and_mended_on_a_persons_word(
    tmp_path: Path, database: Path, command: Command, share: int
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert migration(path).run(swap=True).state == "swapped"
    with chroma(database) as client:
        live = named(client, "docs")
        live.update(ids=["r1"], documents=["other"], embeddings=[vector_of("new", "other")])
    meddle(database, lambda one: reverse(one, share), parked_of(database))
    before = names_in(f"chroma:{database}")
    assert "other vectors than were exported" in command("rollback", path).out.replace("\n", " ")
    ended = command("rollback", path, "--yes", "--json")
    assert ended.code == 5
    told = ended.json["error"]
    assert (
        f"{40 // share} of 40 records of the old collection have another vector" in told["message"]
    )
    assert names_in(f"chroma:{database}") == before
    result = migration(path).rollback(accept_loss=True)
    assert "--accept-loss" in told["hint"]
    assert f"vectors of {40 // share} records" in result.messages[0]
    with chroma(database) as client:
        docs = named(client, "docs")
        found = records_of(docs)
        expected = [vector_of("old", str(found[id][0])) for id in found]
        np.testing.assert_allclose(vectors_of(docs, list(found)), expected, rtol=1e-5)
    assert len(run_dir(path).history.all(events.ParkedMended)) == 1
    assert migration(path).run(swap=True).state == "swapped"
    assert migration(path).rollback().done


def test_vectors_that_an_application_wrote_again_are_no_fault(
    tmp_path: Path, database: Path
) -> None:
    """The same model gives the same text nearly the same vector; a late write is its own matter."""
    path = write_manifest(tmp_path, f"chroma:{database}")
    migration(path).run(swap=True)

    def write_again(parked: Any) -> None:
        ids = [f"r{n}" for n in range(20)]
        noise = np.random.default_rng(0).normal(0, 1e-3, (20, 48)) * 0.1
        parked.update(ids=ids, embeddings=(vectors_of(parked, ids) + noise).tolist())
        parked.update(ids=["r30"], documents=["late"], embeddings=[vector_of("old", "late")])

    meddle(database, write_again, parked_of(database))
    assert migration(path).rollback().done


@pytest.mark.parametrize("held", [False, True], ids=["rename", "columns"])
def test_a_parked_table_is_looked_at_too(postgres_url: str, tmp_path: Path, held: bool) -> None:
    more = ["CREATE VIEW titles AS SELECT id, content FROM docs"] if held else []
    make_docs(postgres_url, 30, *more)
    one = migration(pg_manifest(tmp_path, postgres_url))
    one.run(swap=True)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        (table,) = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'docs\\_\\_parked%' AND relkind = 'r'"
        ).fetchone() or ("",)
        connection.execute(
            f'UPDATE "{table}" t SET embedding = o.embedding FROM "{table}" o '
            "WHERE o.id = 31 - t.id"
        )
    with pytest.raises(LossError, match="30 of 30 records"):
        one.rollback()
    assert one.rollback(accept_loss=True).done
    with app(postgres_url) as docs:
        assert (docs.model, docs.wrong_vectors("old")) == ("old", [])
