"""What is to be said of a table before it is moved."""

from __future__ import annotations

from reembed.stores.postgres import capture as pg_capture
from reembed.stores.postgres.catalog import Catalog
from reembed.stores.postgres.client import fetch_one
from reembed.stores.postgres.schema.dependents import dependents
from reembed.stores.postgres.schema.replication import publications, slots
from reembed.stores.postgres.schema.table import Table
from reembed.stores.values import Survey


def survey(catalog: Catalog, id: str) -> Survey:
    """See `Store.survey`."""
    notes, blockers, refusals = [], [], []
    for table in catalog.tables(id):
        stays = catalog.schema not in (None, table.schema)
        held = dependents(catalog.main, table, stays=stays)
        notes.append(_layout_note(table))
        if held.forbidden:
            blockers.append(f"{table.label}: {'; '.join(held.forbidden)}")
        elif held.held_by or stays:
            holding = held.held_by or [f"target.schema, which is {catalog.schema}"]
            notes.append(
                f"{table.label} keeps its place at the swap and exchanges its vector column, "
                f"since these hold on to it: {', '.join(holding)}. Writers wait while the "
                "vectors are copied and indexed, which rewrites each row: a REPEATABLE READ "
                "transaction that is under way and writes to it fails, to be tried again. The "
                "vector becomes the last column, and a record in quarantine keeps its row, "
                "without a vector"
            )
        else:
            notes.append(f"{table.label} is exchanged by renaming: nothing else hangs on it")
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
                f"reembed writes rows. Rather run as {owner!r}"
            )
        if (taken := pg_capture.in_the_way(catalog.main, table, catalog.schema)) is not None:
            refusals.append(taken)
        elif not pg_capture.allowed(catalog.main, table, catalog.schema):
            notes.append(
                f"the role {catalog.database.role!r} may not make triggers on "
                f"{table.label}: every round of catch-up compares all of its rows, the last "
                "one while writers wait"
            )
    return Survey(tuple(notes), tuple(blockers), tuple(refusals))


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
    metadata = ", ".join(filter(None, [table.metadata, *(c.name for c in table.others)])) or "none"
    return (
        f"{table.label} is laid out as {table.layout}: id {table.id}, text {text}, metadata "
        f"{metadata}, vector {table.vector} {table.column(table.vector).written}"
    )
