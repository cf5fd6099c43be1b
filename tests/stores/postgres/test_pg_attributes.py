"""Every attribute that Postgres keeps of a column, an index, a check or a table is compared where
surroundings are moved, or it is known why not: one that a new version brings is looked at."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.pg_catalog import EXCUSED, TABLES

CARRIED = {
    "pg_attribute": "attrelid atttypid attlen atttypmod attbyval attalign attstorage "
                    "attcompression attnotnull atthasdef attidentity attgenerated attisdropped "
                    "attislocal attinhcount attcollation attstattarget attacl attoptions "
                    "attfdwoptions attcacheoff",
    "pg_class": "relname relnamespace reltype reloftype relowner relam reltablespace relisshared "
                "relpersistence relkind relchecks relrowsecurity relforcerowsecurity "
                "relispopulated relreplident relispartition reloptions relhassubclass",
    "pg_constraint": "conname connamespace contype condeferrable condeferred conenforced "
                     "convalidated conrelid contypid conindid conparentid confrelid confupdtype "
                     "confdeltype confmatchtype conislocal coninhcount connoinherit conperiod "
                     "conpfeqop conppeqop conffeqop confdelsetcols conexclop",
    "pg_index": "indexrelid indrelid indnatts indnkeyatts indisunique indnullsnotdistinct "
                "indisprimary indisexclusion indimmediate indisclustered indisvalid indisready "
                "indislive indisreplident indcollation indclass indoption",
    "pg_attrdef": "adrelid",
    "pg_description": "description",
    "pg_seclabel": "provider label",
    "pg_statistic_ext": "stxrelid stxname stxnamespace stxowner stxstattarget stxkind",
}  # fmt: skip
"""What hangs on a column or a table, by catalog; `snapshot` takes all of it."""


@pytest.mark.parametrize("catalog", CARRIED)
def test_every_attribute_is_carried_or_excused(postgres_url: str, catalog: str) -> None:
    assert catalog in TABLES
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT "
            "attisdropped",
            [catalog],
        ).fetchall()
    unknown = {name for (name,) in rows} - set(CARRIED[catalog].split()) - EXCUSED.keys()
    assert not unknown, f"carry it, or say in pg_catalog.EXCUSED why not: {unknown}"
    assert not set(CARRIED[catalog].split()) & EXCUSED.keys()
