"""A live name in Postgres: the right table and the right query model at every call.

A call looks where the name leads, embeds its texts outside of any transaction, and then, in one
short transaction, locks the table as the statement itself would (`ACCESS SHARE` to read, `ROW
EXCLUSIVE` to write), looks again, and only then asks. A swap needs a stronger lock, so it comes
before that look or after the answer, and never in between: of the exchange of names and of columns
alike, a vector never meets the vectors of another model. Where a swap came while texts were
embedded, they are embedded again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from psycopg import sql

from reembed.embedders import kept
from reembed.embedders.recorded import believe
from reembed.errors import PreflightError, SourceChangedError
from reembed.manifest import Model
from reembed.records import Vectors
from reembed.stores.live import Leads, Live, Own
from reembed.stores.postgres.client import (
    Connection,
    beside_parameters,
    fetch_all,
    fetch_one,
    mapped,
)
from reembed.stores.postgres.copy.encode import VectorDumper
from reembed.stores.postgres.live import writing as pg_writing
from reembed.stores.postgres.live.pool import Pool
from reembed.stores.postgres.live.rows import View, columns_of
from reembed.stores.postgres.live.search import nearest
from reembed.stores.postgres.live.whereabouts import Lock, State, Whereabouts
from reembed.stores.postgres.live.writing import Batch, listed
from reembed.stores.postgres.schema.ids import BITS

_SWAPS_PER_CALL = 20
Result = TypeVar("Result")


def open(
    url: str, name: str, *, model: Model | None = None, embeds_with: Own | None = None
) -> LiveTable:
    """Open the live name `name` of the database at `url`. See `reembed.live.open`."""
    return LiveTable(url, name, model=model, embeds_with=embeds_with)


class LiveTable(Live):
    """A Postgres table by its live name; see `stores.live.Live`.

    Errors of Postgres come through as reembed's, with what Postgres said. Writers wait while a swap
    holds them, and go on in the table that is live then.
    """

    keeps_nested = True

    def __init__(
        self, url: str, name: str, *, model: Model | None = None, embeds_with: Own | None = None
    ) -> None:
        super().__init__(name, model, embeds_with)
        self._pool = Pool(url)
        self._where = Whereabouts(name, url)
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    # --- which table -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _at(self, lock: Lock) -> Iterator[tuple[Connection, State]]:
        """A connection in a transaction that locks the table, and the table's state, which holds
        until the end of the block."""
        with (
            mapped(self._pool.url),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            yield connection, self._where.locked(connection, lock)

    def leads(self) -> Leads:
        with self._at("ACCESS SHARE") as (_, state):
            return state.leads

    @property
    def names_records(self) -> bool:  # type: ignore[override]
        """Whether ids are texts or UUIDs, which no database makes up by itself."""
        with self._at("ACCESS SHARE") as (_, state):
            return state.view.id.type not in BITS

    # --- which model -----------------------------------------------------------------------------

    def vectors(self, texts: Sequence[str], *, query: bool) -> Vectors:
        with self._at("ACCESS SHARE") as (_, state):
            pass
        return self._embedded(state, texts, query)

    def _embedded(self, state: State, texts: Sequence[str], query: bool) -> Vectors:
        model = self._model_of(state)
        return self._recalled(
            f"{state.leads.key} {model.model_dump_json()}", texts, query,
            lambda missing: kept.embed(model, missing, query=query),
        )  # fmt: skip

    def _model_of(self, state: State) -> Model:
        """The model on record, else the one given to `open`.

        Raises:
            PreflightError: there is none, or the store's word is not enough for it.
        """
        said = state.leads.said
        if said is None:
            if self._model is None:
                raise PreflightError(
                    f"{self.name}: the comment of its vector column does not say which model "
                    "embeds its texts. Pass query_embeddings, or model= to reembed.live.open"
                )
            return self._model
        recorded = believe(said, [self._model])
        assert recorded is not None, "something is said"
        if recorded.model is None:
            raise recorded.refusal(self.name)
        if state.foreign and (self._model is None or self._model.name != recorded.model.name):
            raise PreflightError(
                f"{self.name}: its comment was copied from another table or database, where "
                f"{recorded.name} made the vectors. If that holds here too, pass model= to "
                f"reembed.live.open: {recorded.keys()}"
            )
        return recorded.model

    def _with_vectors(
        self, lock: Lock, texts: Sequence[str],
        work: Callable[[Connection, State, Vectors], Result],
    ) -> Result:  # fmt: skip
        """Embed `texts` for the table of this moment, then `work`; from the start if a swap came
        between, because the vectors would be another model's."""
        query = lock == "ACCESS SHARE"
        with self._at("ACCESS SHARE") as (_, state):
            pass
        for _ in range(_SWAPS_PER_CALL):
            vectors = self._embedded(state, texts, query)
            with self._at(lock) as (connection, now):
                if now.leads.key == state.leads.key and now.foreign == state.foreign:
                    return work(connection, now, vectors)
            state = now
        raise SourceChangedError(f"{self.name} moved {_SWAPS_PER_CALL} times during one call")

    def _without_texts(
        self, lock: Lock, work: Callable[[Connection, State], Result], own: bool = False
    ) -> Result:
        """`work` on the table of this moment.

        Args:
            own: whether it uses vectors that the application has made.
        """
        for _ in range(_SWAPS_PER_CALL):
            with self._at(lock) as (connection, state):
                if not own or self.knows_own(state.leads):
                    if own:
                        self.check_own(state.leads)
                    return work(connection, state)
            self.check_own(state.leads)  # it may ask a model, and no lock waits for that
        raise SourceChangedError(f"{self.name} moved {_SWAPS_PER_CALL} times during one call")

    # --- reading ---------------------------------------------------------------------------------

    def query(
        self, query_embeddings: Any = None, query_texts: str | list[str] | None = None,
        n_results: int = 10, where: Mapping[str, Any] | None = None,
        include: Sequence[str] = ("documents", "metadatas", "distances"),
    ) -> dict[str, Any]:  # fmt: skip
        """The nearest records of each text or vector, nearest first, in Chroma's form.

        Args:
            query_texts: embedded with the model that fits.
            query_embeddings: `(n, d)`, in place of texts.
            where: `{key: value}`, `{key: {"$gt": 3}}`, `$and`, `$or` over metadata and columns.
            include: documents, metadatas, distances, uris, embeddings.

        Returns:
            lists of lists, one a query. Distances are Chroma's: 1 - cosine, squared l2, 1 - inner
            product.
        """
        if (query_texts is None) == (query_embeddings is None):
            raise ValueError("query takes query_texts or query_embeddings, one of them")

        def ask(connection: Connection, state: State, vectors: Vectors) -> dict[str, Any]:
            answers = [
                nearest(
                    connection, state.view, vector, n_results, where,
                    "embeddings" in include,
                )
                for vector in vectors
            ]  # fmt: skip
            columns = [columns_of(one, include.__contains__) for one in answers]
            return {
                key: None if columns and columns[0][key] is None else [one[key] for one in columns]
                for key in ("ids", "documents", "metadatas", "uris", "embeddings", "distances")
            }

        if query_texts is not None:
            return self._with_vectors("ACCESS SHARE", listed(query_texts) or [], ask)
        given = np.atleast_2d(np.asarray(query_embeddings, np.float32))
        return self._without_texts("ACCESS SHARE", lambda c, s: ask(c, s, given), own=True)

    def get(
        self, ids: str | Sequence[str] | None = None, where: Mapping[str, Any] | None = None,
        limit: int | None = None, offset: int | None = None,
        include: Sequence[str] = ("documents", "metadatas"),
    ) -> dict[str, Any]:  # fmt: skip
        """Records by id or condition (as in `query`), in the order of their ids."""

        def ask(connection: Connection, state: State) -> dict[str, Any]:
            condition, values = self._meant(state, ids, where)
            rows = fetch_all(
                connection,
                sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT %s OFFSET %s").format(
                    beside_parameters(state.view.selected("embeddings" in include)),
                    beside_parameters(state.view.table.identifier), condition,
                    beside_parameters(state.view.id_expression()),
                ),
                [*values, limit, offset or 0],
            )  # fmt: skip
            return columns_of([state.view.record(row) for row in rows], include.__contains__)

        return self._without_texts("ACCESS SHARE", ask)

    def _meant(
        self, state: State, ids: str | Sequence[str] | None, where: Mapping[str, Any] | None
    ) -> tuple[sql.Composable, list[Any]]:
        condition, values = state.view.where(where or {})
        if ids is None:
            return condition, values
        of_ids, wanted = state.view.ids(listed(ids) or [])
        return sql.SQL("{} AND {}").format(of_ids, condition), [*wanted, *values]

    def count(self) -> int:
        """Number of rows."""

        def ask(connection: Connection, state: State) -> int:
            row = fetch_one(
                connection, sql.SQL("SELECT count(*) FROM {}").format(state.view.table.identifier)
            )
            return int(row[0]) if row else 0

        return self._without_texts("ACCESS SHARE", ask)

    # --- writing ---------------------------------------------------------------------------------

    def add(
        self, ids: str | Sequence[str] | None = None, *, documents: Any = None,
        metadatas: Any = None, embeddings: Any = None, uris: Any = None,
        texts: Any = None,
    ) -> list[str]:  # fmt: skip
        """Insert records; a taken id is an error, and then nothing is written.

        Args:
            ids: None lets Postgres make them, where the column has a default.
            documents: embedded with the model that fits, unless `embeddings` are given.
            metadatas: a dict a record: columns by name, all else into the JSON column.
            texts: embedded in the documents' place.

        Returns:
            the ids.
        """
        return self._write(
            pg_writing.insert, Batch.of(ids, documents, metadatas, uris, texts), embeddings
        )

    def upsert(
        self, ids: str | Sequence[str], *, documents: Any = None, metadatas: Any = None,
        embeddings: Any = None, uris: Any = None,
        texts: Any = None,
    ) -> list[str]:  # fmt: skip
        """Insert records, or change those columns of them that are given. A metadata dict takes the
        place of the whole JSON column."""
        return self._write(
            pg_writing.upsert, Batch.of(ids, documents, metadatas, uris, texts), embeddings
        )

    def update(
        self, ids: str | Sequence[str], *, documents: Any = None, metadatas: Any = None,
        embeddings: Any = None, uris: Any = None,
        texts: Any = None,
    ) -> list[str]:  # fmt: skip
        """Change those columns of records that are given. Ids that are not there are left out of
        the answer."""
        return self._write(
            pg_writing.update, Batch.of(ids, documents, metadatas, uris, texts), embeddings
        )

    def _write(
        self, verb: Callable[[Connection, View, Sequence[dict[str, Any]]], list[str]],
        batch: Batch, embeddings: Any,
    ) -> list[str]:  # fmt: skip
        def write(connection: Connection, state: State, vectors: Vectors | None) -> list[str]:
            if state.view.table.layout == "mem0":
                raise PreflightError(
                    f"{self.name} is mem0's table, which mem0 alone writes: its rows hold a hash "
                    "and a history. Read it here, and write through mem0"
                )
            connection.adapters.register_dumper(np.ndarray, VectorDumper)
            with mapped(state.view.table.label):
                return verb(connection, state.view, batch.rows(state.view, vectors))

        if embeddings is not None:
            given = np.atleast_2d(np.asarray(embeddings, np.float32))
            return self._without_texts("ROW EXCLUSIVE", lambda c, s: write(c, s, given), own=True)
        if batch.to_embed is None:
            return self._without_texts("ROW EXCLUSIVE", lambda c, s: write(c, s, None))
        return self._with_vectors("ROW EXCLUSIVE", batch.to_embed or [], write)

    def delete(
        self, ids: str | Sequence[str] | None = None, where: Mapping[str, Any] | None = None
    ) -> int:
        """Delete records by id or condition, one of which is needed. Returns how many."""
        if ids is None and not where:
            raise ValueError("delete takes ids or where: it never deletes all")

        def work(connection: Connection, state: State) -> int:
            condition, values = self._meant(state, ids, where)
            statement = sql.SQL("DELETE FROM {} WHERE {}").format(
                beside_parameters(state.view.table.identifier), condition
            )
            return connection.execute(statement, values).rowcount

        return self._without_texts("ROW EXCLUSIVE", work)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()
