"""What is to be said of a table before it is moved."""

from __future__ import annotations

import time

from psycopg import sql

from reembed.errors import PreflightError
from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import Connection, fetch_all, fetch_one, mapped
from reembed.stores.postgres.schema.dependents import dependents, unwritable
from reembed.stores.postgres.schema.fitting import misfits
from reembed.stores.postgres.schema.functions import functions
from reembed.stores.postgres.schema.replication import publications, slots
from reembed.stores.postgres.schema.table import Table
from reembed.stores.postgres.vectors import VectorCounts, count_vectors
from reembed.stores.values import Survey


def survey(catalog: Catalog, id: str, dimensions: int) -> Survey:
    """See `Store.survey`. Raises RefusedError where no text could be read."""
    notes, blockers, refusals = [], [], []
    fired = fetch_all(
        catalog.main,
        "SELECT evtname FROM pg_event_trigger WHERE evtenabled <> 'D' AND NOT EXISTS (SELECT FROM "
        "pg_depend WHERE classid = 'pg_event_trigger'::regclass AND objid = pg_event_trigger.oid "
        "AND deptype = 'e') ORDER BY 1",
    )
    if fired:
        notes.append(
            f"the event trigger {', '.join(name for (name,) in fired)} fires for the statements by "
            "which tables are made, changed and dropped here; one that refuses them ends the run"
        )
    for table in catalog.tables(id):
        stays = catalog.stays(table)
        held = dependents(catalog.main, table, stays=stays)
        notes.append(_layout_note(table))
        named = functions(catalog.main, table, dimensions)
        pinned = [
            f"the function {signature} takes vectors of {table.dimensions} dimensions alone, as "
            f"{pin} in it says: write the type without a length, which fits before and after"
            for signature, pin in named.pinned
        ]
        in_place = bool(held.held_by) or stays
        unfit = misfits(catalog.main, table, dimensions, stays=in_place)
        if not held.forbidden:
            unfit += unwritable(catalog.main, table, stays=in_place)
        if held.forbidden or pinned or unfit:
            blockers.append(f"{table.label}: {'; '.join([*held.forbidden, *unfit, *pinned])}")
        elif held.held_by or stays:
            chosen = (
                "source.without_vector, which is keep" if table.only_with_vector
                else f"target.schema, which is {catalog.schema}"
            )  # fmt: skip
            holding = held.held_by or [chosen]
            notes.append(
                f"{table.label} keeps its place at the swap and exchanges its vector column, "
                f"since these depend on it: {', '.join(holding)}. The new vectors are copied "
                "beside the old ones in small groups, its triggers off, and indexed, while the "
                f"application goes on; {_wait(catalog, table)}. Each row is rewritten: the table "
                "takes about twice its room until it is vacuumed, and a REPEATABLE READ "
                "transaction that is under way and writes to it fails, to be tried again. The "
                "vector becomes the last column, and a record in quarantine keeps its row, "
                "without a vector"
            )
        else:
            notes.append(f"{table.label} is exchanged by renaming: nothing else depends on it")
        if named.by_name:
            notes.append(
                f"these functions name {table.label} in their text, and read the table that has "
                f"its name at each call: {', '.join(named.by_name)}"
            )
        sent = publications(catalog.main, table)
        if sent and not slots(catalog.main):
            notes.append(
                f"the publication {', '.join(one.name for one in sent)} sends {table.label}, and "
                "nobody follows it now; who subscribes after the swap needs the new type of vector"
            )
        if (owner := _weaker_owner(catalog, table)) is not None:
            notes.append(
                f"{table.label} belongs to {owner!r}, and the role {catalog.database.role!r} is a "
                "superuser: triggers, checks and defaults of that table run with its rights when "
                f"reembed writes rows. Better run as {owner!r}"
            )
        if table.text_query is not None:
            _check_texts(catalog, table)
            notes.append(
                f"source.text_query is run as it stands; what is written to the texts of "
                f"{table.label} fires no trigger, so every round of catch-up compares all of its "
                "rows, and texts are not held while the live name moves"
            )
        elif (taken := pg_capture.in_the_way(catalog.main, table, catalog.schema)) is not None:
            refusals.append(taken)
        elif not pg_capture.allowed(catalog.main, table, catalog.schema):
            notes.append(
                f"the role {catalog.database.role!r} may not make triggers on "
                f"{table.label}: every round of catch-up compares all of its rows, the last "
                "one while writers wait"
            )
        counts = count_vectors(catalog.main, table, catalog.options.where)
        if len(counts.dimensions) > 1:
            refusals.append(counts.mixed())
        lacks = catalog.options.without_vector == "embed" and not catalog.options.embeds
        if counts.without and (lacks or catalog.options.without_vector == "refuse"):
            refusals.append(_refuse_without(table, counts, embeds=not lacks))
        elif counts.without:
            becomes = "go on without one" if table.only_with_vector else "get one of their text"
            notes.append(
                f"{counts.without:,} rows of {table.label} have no vector and {becomes} "
                f"(source.without_vector: {catalog.options.without_vector})"
            )
    return Survey(tuple(notes), tuple(blockers), tuple(refusals))


def _refuse_without(table: Table, counts: VectorCounts, *, embeds: bool) -> PreflightError:
    if not embeds:
        return PreflightError(
            f"{counts.without:,} rows of {table.label} have no vector, and model: keep gives them "
            "none",
            f"They are those with {table.vector} IS NULL. source.without_vector: keep leaves them "
            f'as they are, and source.where: "{table.vector} IS NOT NULL" leaves them out.',
        )
    return PreflightError(
        f"{counts.without:,} rows of {table.label} have no vector, and source.without_vector is "
        "refuse",
        f"They are those with {table.vector} IS NULL. source.without_vector: embed gives each a "
        "vector of its text; keep leaves them as they are.",
    )


def _check_texts(catalog: Catalog, table: Table) -> None:
    """Raise RefusedError where `source.text_query` gives no text that could be read."""
    twice = sql.SQL(
        "SELECT q.key::text, count(*) FROM {} GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
    ).format(table.queried_texts())
    with mapped("source.text_query"):
        found = fetch_one(catalog.main, twice)
    if found is not None:
        raise PreflightError(
            f"source.text_query gives {found[1]:,} texts for the key {found[0]!r}",
            "It has to give one text a key: join them, e.g. SELECT key, string_agg(text, ' ' ORDER "
            "BY part) FROM ... GROUP BY key.",
        )


def _wait(catalog: Catalog, table: Table) -> str:
    logged = table.text_query is None and pg_capture.allowed(catalog.main, table, catalog.schema)
    return hold_forecast(catalog.main, table, logged=logged)


def _weaker_owner(catalog: Catalog, table: Table) -> str | None:
    """The table's owner, if we are a superuser and the owner is none."""
    row = fetch_one(
        catalog.main,
        "SELECT pg_get_userbyid(relowner)::text FROM pg_class JOIN pg_roles o ON o.oid = relowner "
        "WHERE pg_class.oid = %s AND NOT o.rolsuper AND (SELECT rolsuper FROM pg_roles WHERE "
        "rolname = current_user)",
        [table.oid],
    )
    return None if row is None else str(row[0])


def _layout_note(table: Table) -> str:
    text = table.text_sql or table.text or "none (give the text template)"
    if table.text_query is not None:
        text = "from source.text_query"
    metadata = ", ".join(filter(None, [table.metadata, *(c.name for c in table.others)])) or "none"
    return (
        f"{table.label} is laid out as {table.layout}: id {table.id}, text {text}, metadata "
        f"{metadata}, vector {table.vector} {table.column(table.vector).written}"
    )


FIXED_SECONDS = 1.0
"""Of the last comparison and its files, which are synced, of locks, and of changes of the catalog;
measured on two cores, and several times as long where others keep them busy."""
LAST_ROWS = 50
"""That are carried while writers wait, at most, where their writes are logged."""
ROW_SECONDS = {"hnsw": 0.004, "ivfflat": 0.001}
"""To index one more vector of 768 dimensions (measured with pgvector 0.8); it grows with them."""
SAMPLE = 1_000


def hold_forecast(connection: Connection, table: Table, *, logged: bool) -> str:
    """How long writers will wait for the exchange of a vector column, in words.

    Args:
        logged: whether the table's writes are logged, so that only the last ones are looked at.
    """
    began = time.monotonic()
    row = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(table.identifier))
    counted = time.monotonic() - began
    rows, each = int(row[0]) if row else 0, _seconds_of_row(connection, table)
    held = FIXED_SECONDS + 2 * counted + min(rows, LAST_ROWS) * 2 * each
    if not logged:
        began = time.monotonic()
        found = fetch_all(
            connection,
            sql.SQL("SELECT md5({}::text) FROM {} LIMIT {}").format(
                sql.Identifier(table.vector), table.identifier, sql.Literal(SAMPLE)
            ),
        )
        held += 2 * rows * (time.monotonic() - began) / max(len(found), 1)
    return (
        f"writers wait for about {held:.1f} s at its end ({rows:,} rows, counted in {counted:.2f} s"
        + ("" if logged else "; all of them are compared, since no writes are logged") + ")"
    )  # fmt: skip


def _seconds_of_row(connection: Connection, table: Table) -> float:
    """To index one row's vector."""
    methods = fetch_all(
        connection,
        "SELECT amname FROM pg_index i JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid "
        "= relam WHERE indrelid = %s AND amname IN ('hnsw', 'ivfflat')",
        [table.oid],
    )
    share = (table.dimensions or 768) / 768
    return 0.001 + sum(ROW_SECONDS[method] * share for (method,) in methods)
