"""A whole migration of a table that is an application's own, and everything held against it.

    scene = Scene(url, folder, "docs")
    scene.execute("CREATE TABLE docs (id serial PRIMARY KEY, content text, embedding vector(48))")
    scene.fill(40)
    scene.there_and_back()

What a table holds besides its vectors is compared as the bytes of a binary COPY, and what it is by
the catalog: columns, constraints, indexes, comments, owner, settings, statistics, sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from reembed.migration import Migration
from reembed.report.results import RunResult, SwapResult
from tests.support.manifests import migration, write_manifest
from tests.support.texts import sentence, vector_of

Row = tuple[Any, ...]

COLUMNS = """
SELECT attname, CASE WHEN attname = %(vector)s THEN 'vector' ELSE format_type(atttypid, atttypmod)
  END, attnotnull, attidentity, attgenerated, attstattarget, attstorage, attoptions,
  coll.collname, regexp_replace(pg_get_expr(adbin, adrelid), '__[^'']*', '', 'g'),
  CASE WHEN attname = %(vector)s THEN NULL ELSE col_description(attrelid, attnum) END
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
  LEFT JOIN pg_collation coll ON coll.oid = attcollation
  WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
CONSTRAINTS = """
SELECT conname, contype, pg_get_constraintdef(oid), convalidated, obj_description(oid,
  'pg_constraint') FROM pg_constraint WHERE conrelid = %(oid)s AND contype <> 't' ORDER BY conname
"""
INDEXES = r"""
SELECT regexp_replace(pg_get_indexdef(indexrelid), '\((48|64)\)', '(d)', 'g'), indisvalid,
  indisclustered, obj_description(indexrelid, 'pg_class') FROM pg_index
  WHERE indrelid = %(oid)s ORDER BY 1
"""
TABLE = """
SELECT relname, relowner::regrole::text, relpersistence, reloptions, obj_description(oid,
  'pg_class'), (SELECT t.reloptions FROM pg_class t WHERE t.oid = c.reltoastrelid)
  FROM pg_class c WHERE oid = %(oid)s
"""
STATISTICS = """
SELECT stxname, stxkind, stxkeys::text, stxstattarget, obj_description(oid, 'pg_statistic_ext'),
  pg_get_statisticsobjdef_expressions(oid) FROM pg_statistic_ext WHERE stxrelid = %(oid)s ORDER BY 1
"""
SEQUENCES = """
SELECT s.oid::regclass::text, attname, deptype, seqincrement, seqmax, seqmin, seqcycle, seqcache
  FROM pg_depend d JOIN pg_class s ON s.oid = objid AND relkind = 'S' JOIN pg_sequence ON
  seqrelid = s.oid JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
  WHERE refobjid = %(oid)s AND classid = 'pg_class'::regclass AND deptype IN ('a', 'i') ORDER BY 2
"""


class Scene:
    """One application's table.

    Args:
        url: of its database.
        folder: for the manifest and the runs.
        table: as the manifest names it.
        schema: where it is.
        name: its name in Postgres; default: `table`.
        key, vector, text: its columns.
        changes: of the manifest, see `manifests.manifest_data`.
    """

    def __init__(
        self, url: str, folder: Path, table: str = "docs", *, schema: str = "public",
        name: str | None = None, key: str = "id", vector: str = "embedding", text: str = "content",
        **changes: Any,
    ) -> None:  # fmt: skip
        self.url, self.folder, self.table = url, folder, table
        self.schema, self.name = schema, name or table
        self.key, self.vector, self.text = key, vector, text
        self.path = write_manifest(
            folder, url, **{"source__collection": table, "swap__keep_old": "0d"} | changes
        )

    @property
    def migration(self) -> Migration:
        return migration(self.path)

    # SQL

    def execute(self, *statements: Any, parameters: Sequence[Any] | None = None) -> list[Row]:
        """The rows of the last statement, each committed by itself."""
        rows: list[Row] = []
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement, parameters)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def oid(self) -> int:
        """Of the table that has the live name now."""
        return int(
            self.execute(
                "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE "
                "nspname = %s AND relname = %s",
                parameters=[self.schema, self.name],
            )[0][0]
        )

    def fill(
        self, count: int, first: int = 0, columns: Mapping[str, Callable[[int], Any]] | None = None
    ) -> None:
        """Insert rows with the sentences from number `first` on and vectors of the model `old`.

        Args:
            columns: more columns, each from the row's number.
        """
        columns = columns or {}
        names = [self.text, self.vector, *columns]
        query = sql.SQL("COPY {} ({}) FROM STDIN").format(
            self.identifier, sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with psycopg.connect(self.url) as connection, connection.cursor().copy(query) as copy:
            for number in range(first, first + count):
                text = sentence(number)
                given = [column(number) for column in columns.values()]
                copy.write_row([text, written(vector_of("old", text)), *given])

    def columns(self) -> list[str]:
        """Names of all columns."""
        found = self.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT "
            "attisdropped ORDER BY attnum",
            parameters=[self.oid],
        )
        return [name for (name,) in found]

    # What is there

    def contents(self) -> bytes:
        """Every column but the vector, of every row, as Postgres sends it in binary."""
        names = [name for name in self.columns() if name != self.vector]
        query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT (FORMAT BINARY)").format(
            sql.SQL(", ").join(map(sql.Identifier, names)), self.identifier,
            sql.Identifier(self.key),
        )  # fmt: skip
        with psycopg.connect(self.url) as connection, connection.cursor().copy(query) as copy:
            return b"".join(map(bytes, copy))

    def vectors(self) -> dict[str, str | None]:
        """Id to vector, as text."""
        query = sql.SQL("SELECT {}::text, {}::text FROM {}").format(
            sql.Identifier(self.key), sql.Identifier(self.vector), self.identifier
        )
        return dict(self.execute(query))

    def texts(self) -> dict[str, str | None]:
        """Id to text."""
        query = sql.SQL("SELECT {}::text, {}::text FROM {}").format(
            sql.Identifier(self.key), sql.Identifier(self.text), self.identifier
        )
        return dict(self.execute(query))

    def shape(self) -> dict[str, list[Row]]:
        """What the table is, but for the vector column's type and comment."""
        queries = {
            "columns": COLUMNS, "constraints": CONSTRAINTS, "indexes": INDEXES, "table": TABLE,
            "statistics": STATISTICS, "sequences": SEQUENCES,
        }  # fmt: skip
        parameters = {"oid": self.oid, "vector": self.vector}
        with psycopg.connect(self.url) as connection:
            return {
                key: connection.execute(query, parameters).fetchall()
                for key, query in queries.items()
            }

    def relations(self) -> set[str]:
        """Every table, index, sequence, trigger, function and statistics object of the database."""
        rows = self.execute(
            "SELECT nspname || '.' || relname FROM pg_class c JOIN pg_namespace n ON n.oid = "
            "relnamespace WHERE nspname !~ '^pg_|^information_schema' UNION ALL SELECT tgname FROM "
            "pg_trigger WHERE NOT tgisinternal UNION ALL SELECT proname FROM pg_proc WHERE "
            "proname ~ 'reembed' UNION ALL SELECT stxname FROM pg_statistic_ext"
        )
        return {name for (name,) in rows}

    # The migration

    def check_new_vectors(self, template: Callable[[str], str] = str) -> None:
        """Every vector is the new model's, of its row's text."""
        texts = self.texts()
        for id, vector in self.vectors().items():
            assert vector is not None, id
            expected = vector_of("new", template(texts[id] or ""))
            assert np.allclose(read(vector), expected, rtol=1e-3, atol=1e-3), id

    def run(self) -> RunResult:
        """Plan and run; the source is as it was."""
        before = self.contents(), self.vectors(), self.shape()
        plan = self.migration.plan()
        assert plan.ok, plan.blockers
        result = self.migration.run()
        assert result.verdict is not None and result.verdict.passed, result.verdict
        assert (self.contents(), self.vectors(), self.shape()) == before
        return result

    def swap(self) -> SwapResult:
        return self.migration.swap()

    def there_and_back(self) -> None:
        """Plan, run, swap, rollback, swap, clean; contents and shape are the same all along."""
        relations = self.relations()
        contents, vectors, shape = self.contents(), self.vectors(), self.shape()
        self.run()
        for number in range(2):
            assert self.swap().done
            self.check(contents, shape)
            self.check_new_vectors()
            if number == 0:
                assert self.migration.rollback().done
                self.check(contents, shape)
                assert self.vectors() == vectors
        assert self.migration.clean().done
        self.check(contents, shape)
        self.check_new_vectors()
        assert self.relations() ^ relations == set(), self.relations() ^ relations

    def check(self, contents: bytes, shape: dict[str, list[Row]]) -> None:
        assert self.contents() == contents
        now = self.shape()
        other = {key: (rows, now[key]) for key, rows in shape.items() if rows != now[key]}
        assert not other, other


def written(vector: Any) -> str:
    """A vector as pgvector reads it."""
    return "[" + ",".join(map(repr, np.asarray(vector, np.float32).tolist())) + "]"


def read(vector: str) -> np.ndarray:
    return np.array(vector.strip("[]").split(","), np.float32)
