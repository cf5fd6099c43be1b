"""Postgres's own catalog, read whole and without reembed: what is in a database, attribute by
attribute, under names that do not change when oids do.

    before = snapshot(url)
    assert differences(before, snapshot(url)) == []

Every row of every catalog table that tells of an object of the database's users is taken, with
every column but those in EXCUSED; an oid is replaced by what Postgres calls the object that it
leads to (`pg_get_catalog_foreign_keys` says which columns do), an expression by its text.
"""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
from psycopg import sql

Snapshot = dict[str, dict[str, Any]]
"""Catalog and object, to its attributes."""

FIRST_OID = 16384
"""The first one that is no part of Postgres."""
DEFINITIONS = {
    "pg_attrdef": "pg_get_expr(t.adbin, t.adrelid)",
    "pg_class": "(SELECT string_agg(concat_ws(' ', privilege_type, is_grantable, grantee, "
                "grantor), ', ' ORDER BY privilege_type, grantee) FROM aclexplode(coalesce("
                "t.relacl, acldefault(CASE t.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", "
                "t.relowner))))",
    "pg_constraint": "pg_get_constraintdef(t.oid)",
    "pg_index": "pg_get_indexdef(t.indexrelid)",
    "pg_policy": "concat_ws(' / ', pg_get_expr(t.polqual, t.polrelid), "
                 "pg_get_expr(t.polwithcheck, t.polrelid))",
    "pg_proc": "CASE WHEN t.prokind <> 'a' THEN pg_get_functiondef(t.oid) END",
    "pg_publication_rel": "concat(pg_get_expr(t.prqual, t.prrelid), (SELECT array_agg(attname ORDER"
                          " BY attname) FROM pg_attribute WHERE attrelid = t.prrelid AND attnum = "
                          "ANY (t.prattrs)))",
    "pg_rewrite": "pg_get_ruledef(t.oid)",
    "pg_statistic_ext": "pg_get_statisticsobjdef(t.oid)",
    "pg_trigger": "CASE WHEN NOT t.tgisinternal THEN pg_get_triggerdef(t.oid) END",
}  # fmt: skip
"""The text of what a catalog keeps as a tree or by numbers of columns."""
KEYS = {
    "pg_aggregate": "pg_describe_object('pg_proc'::regclass, t.aggfnoid, 0)",
    "pg_attribute": "(SELECT pg_describe_object('pg_class'::regclass, oid, 0) || '.' || CASE "
                    "relkind WHEN 'i' THEN t.attnum::text ELSE t.attname END FROM pg_class WHERE "
                    "oid = t.attrelid)",
    "pg_attrdef": "pg_describe_object('pg_attrdef'::regclass, t.oid, 0)",
    "pg_description": "pg_describe_object(t.classoid, t.objoid, t.objsubid)",
    "pg_enum": "t.enumtypid::regtype || ' ' || t.enumlabel",
    "pg_index": "pg_describe_object('pg_class'::regclass, t.indexrelid, 0)",
    "pg_inherits": "t.inhrelid::regclass || ' of ' || t.inhparent::regclass",
    "pg_range": "pg_describe_object('pg_type'::regclass, t.rngtypid, 0)",
    "pg_seclabel": "t.provider || ' ' || pg_describe_object(t.classoid, t.objoid, t.objsubid)",
    "pg_sequence": "t.seqrelid::regclass::text",
    "pg_trigger": "CASE WHEN tgisinternal THEN (SELECT conname FROM pg_constraint WHERE oid = "
                  "t.tgconstraint) || t.tgtype || t.tgrelid::regclass ELSE "
                  "pg_describe_object('pg_trigger'::regclass, t.oid, 0) END",
}  # fmt: skip
"""What names a row, where `pg_describe_object` of its oid does not."""
TABLES = (
    *DEFINITIONS, "pg_aggregate", "pg_attribute", "pg_cast", "pg_collation",
    "pg_default_acl", "pg_description", "pg_enum", "pg_event_trigger", "pg_inherits",
    "pg_namespace", "pg_operator", "pg_publication", "pg_publication_namespace", "pg_range",
    "pg_seclabel", "pg_sequence", "pg_type",
)  # fmt: skip
OID_COLUMN = {
    "pg_aggregate": "aggfnoid", "pg_attribute": "attrelid", "pg_attrdef": "adrelid",
    "pg_description": "objoid", "pg_index": "indexrelid", "pg_inherits": "inhrelid",
    "pg_range": "rngtypid", "pg_seclabel": "objoid", "pg_sequence": "seqrelid",
}  # fmt: skip
EXCUSED = {
    "oid": "another object, by another number",
    "objoid": "in the key", "classoid": "in the key", "objsubid": "in the key",
    **dict.fromkeys(
        ("attnum", "adnum", "indkey", "conkey", "confkey", "tgattr", "stxkeys", "prattrs",
         "attname"),
        "numbers of columns: the definition names them",
    ),
    **dict.fromkeys(
        ("adbin", "conbin", "indexprs", "indpred", "polqual", "polwithcheck", "ev_qual",
         "ev_action", "tgqual", "stxexprs", "prqual", "prosqlbody", "proargdefaults",
         "typdefaultbin", "relpartbound"),
        "trees: the definition writes them",
    ),
    **dict.fromkeys(
        ("relfilenode", "relpages", "reltuples", "relallvisible", "relallfrozen", "relfrozenxid",
         "relminmxid", "relrewrite", "reltoastrelid"),
        "of the storage",
    ),
    **dict.fromkeys(("relhastriggers", "relhasrules", "relhasindex"), "a hint: VACUUM mends it"),
    "relacl": "none at all means what a new table has: the definition writes it",
    "relnatts": "counts columns that are gone",
    "attndims": "means nothing: Postgres does not copy it with LIKE",
    **dict.fromkeys(("atthasmissing", "attmissingval"), "values that rows lack since ADD COLUMN"),
    "indcheckxmin": "of transactions that are under way",
}  # fmt: skip
"""Columns that are not compared, and why."""
OURS = re.compile(r"reembed|docs__")
"""What a run has made, or a swap has put aside."""


def snapshot(url: str) -> Snapshot:
    """Everything that users have in a database, but for what extensions brought."""
    found: Snapshot = {}
    with psycopg.connect(url) as connection:
        leads = _leads(connection)
        for table in TABLES:
            key = KEYS.get(table, f"pg_describe_object('{table}'::regclass, t.oid, 0)")
            query = sql.SQL(
                "SELECT {key}, to_jsonb(t), {definition} FROM {table} t WHERE {oid}::oid >= {first}"
                " AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e' AND e.objid = {oid}"
                " ) ORDER BY 1"
            ).format(
                key=sql.SQL(key), table=sql.Identifier(table), first=sql.Literal(FIRST_OID),
                oid=sql.SQL(f"t.{OID_COLUMN.get(table, 'oid')}"),
                definition=sql.SQL(DEFINITIONS.get(table, "NULL")),
            )  # fmt: skip
            rows = connection.execute(query).fetchall()
            names = _names(connection, table, leads, [row for _, row, _ in rows])
            for named, row, definition in rows:
                if named is None or re.search("pg_(toast|temp)", f"{named} {row.get('relname')}"):
                    continue
                if table == "pg_attribute" and (row["attnum"] < 0 or row["attisdropped"]):
                    continue
                attributes = _attributes(table, row, leads, names)
                if definition is not None:
                    attributes["definition"] = definition
                found[f"{table}: {named}"] = attributes
    return found


def _leads(connection: psycopg.Connection[Any]) -> dict[tuple[str, str], str]:
    """Catalog and column, to the catalog whose objects the column leads to."""
    rows = connection.execute(
        "SELECT fktable::text, fkcols[1], pktable::text FROM pg_get_catalog_foreign_keys() WHERE "
        "array_length(fkcols, 1) = 1 AND pkcols = '{oid}'"
    ).fetchall()
    return {(table, column): to for table, column, to in rows}


def _oids(value: Any) -> list[int]:
    if isinstance(value, list):
        return [oid for one in value for oid in _oids(one)]
    return [int(one) for one in str(value).split()] if re.fullmatch(r"[\d ]+", str(value)) else []


def _names(
    connection: psycopg.Connection[Any], table: str, leads: dict[tuple[str, str], str],
    rows: list[dict[str, Any]],
) -> dict[tuple[str, int], str]:  # fmt: skip
    """What Postgres calls the objects that rows lead to."""
    wanted = {
        (leads[table, column], oid)
        for row in rows
        for column, value in row.items()
        if (table, column) in leads and column not in EXCUSED
        for oid in _oids(value)
        if oid
    }
    found = connection.execute(
        "SELECT c, o, CASE WHEN c = 'pg_authid' THEN o::regrole::text WHEN c = 'pg_trigger' THEN "
        "'a trigger' ELSE pg_describe_object(c::regclass, o::oid, 0) END FROM unnest(%s::text[], "
        "%s::bigint[]) u (c, o)",
        [[catalog for catalog, _ in wanted], [oid for _, oid in wanted]],
    ).fetchall()
    return {(catalog, oid): name for catalog, oid, name in found}


def _attributes(
    table: str, row: dict[str, Any], leads: dict[tuple[str, str], str],
    names: dict[tuple[str, int], str],
) -> dict[str, Any]:  # fmt: skip
    made = {}
    for column, value in row.items():
        if column in EXCUSED or (column == "tgname" and row["tgisinternal"]):
            continue
        to = leads.get((table, column))
        if to is not None:
            made[column] = [names.get((to, oid), oid) for oid in _oids(value)]
        else:
            made[column] = value
    return made


def plain(found: Snapshot) -> Snapshot:
    """A snapshot without what is to differ: the length of vectors, and the note that its
    comment is until `clean`."""
    text = re.sub(r"\b(vector|halfvec|bit)\((48|64)\)", r"\1(d)", json.dumps(found))
    # The names that a view keeps of what a function of the row type gives, one of them moved.
    text = re.sub(r"(FROM \w+\(\) \w+)\([^()]*\)", r"\1", text)
    shown: Snapshot = json.loads(text)
    for key, attributes in list(shown.items()):
        if key.startswith("pg_attribute") and attributes["atttypmod"] in (48, 64):
            del attributes["atttypmod"]
        comment = str(attributes.get("description", ""))
        if comment.startswith("reembed:"):
            kept = json.loads(comment.removeprefix("reembed:")).get("comment")
            attributes["description"] = kept
            if kept is None:
                del shown[key]
    return shown


def differences(before: Snapshot, now: Snapshot, *, more: bool = False) -> list[str]:
    """How two snapshots differ, in words; nothing that `plain` leaves out.

    Args:
        more: whether there may be more by now that is reembed's.
    """
    first, second = plain(before), plain(now)
    told = [f"gone: {key}" for key in first if key not in second]
    told += [
        f"new: {key}" for key, row in second.items()
        if key not in first and not (more and OURS.search(f"{key} {json.dumps(row)}"))
    ]  # fmt: skip
    for key in first.keys() & second.keys():
        told += [
            f"{key}: {column} was {first[key].get(column)!r}, is {second[key].get(column)!r}"
            for column in first[key].keys() | second[key].keys()
            if first[key].get(column) != second[key].get(column)
        ]
    return sorted(told)
