"""Functions that lead to a table by a name in their text, of which Postgres keeps no account.

They read whichever table has the name, so a swap moves them along, unless their text says how long
a vector is: `q vector(1536)` in a body refuses the new ones. (In a signature Postgres drops the
length.) Such a function is named, to be written without a length, which fits before and after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reembed.stores.postgres.client import Connection, fetch_all
from reembed.stores.postgres.schema.table import Table

_CANDIDATES = """
WITH RECURSIVE part (classid, objid) AS (
  SELECT 'pg_trigger'::regclass::oid, oid FROM pg_trigger WHERE tgrelid = %(oid)s
  UNION SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = %(oid)s
  UNION SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = %(oid)s
  UNION SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = %(oid)s
  UNION SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = %(oid)s
  UNION SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = %(oid)s
), bound (oid) AS (
  SELECT refobjid FROM pg_depend d JOIN part USING (classid, objid)
    WHERE refclassid = 'pg_proc'::regclass
  UNION SELECT d.objid FROM pg_depend d JOIN pg_type t ON refobjid IN (t.oid, t.typarray)
    WHERE refclassid = 'pg_type'::regclass AND d.classid = 'pg_proc'::regclass AND
    typrelid = %(oid)s
)
SELECT p.oid::regprocedure::text, prosrc, pg_get_expr(proargdefaults, 0), bound.oid IS NOT NULL
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace JOIN pg_language l ON l.oid = prolang
LEFT JOIN bound ON bound.oid = p.oid
WHERE lanname NOT IN ('internal', 'c') AND prosqlbody IS NULL AND prokind <> 'a'
  AND nspname NOT IN ('pg_catalog', 'information_schema') AND proname !~ '^reembed_'
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND
    e.objid = p.oid AND e.deptype = 'e')
  AND (bound.oid IS NOT NULL OR position(lower(%(name)s) IN lower(prosrc)) > 0)
ORDER BY 1
"""


@dataclass(frozen=True)
class Functions:
    """Functions with a text of their own that has to do with a table.

    Attributes:
        by_name: those whose text names it.
        pinned: those that take vectors of the old length only, each with what says so.
    """

    by_name: list[str]
    pinned: list[tuple[str, str]]


def functions(connection: Connection, table: Table, dimensions: int | None) -> Functions:
    """Functions that name a table, are run for its rows, or take or return them.

    Args:
        dimensions: of the new vectors; None looks for no length.
    """
    rows = fetch_all(connection, _CANDIDATES, {"oid": table.oid, "name": table.name})
    word = re.compile(rf"(?<![\w$]){re.escape(table.name)}(?![\w$])", re.IGNORECASE)
    found = Functions([], [])
    for signature, text, defaults, bound in rows:
        said = _without_comments(text)
        named = word.search(said) is not None
        if named:
            found.by_name.append(signature)
        if not (named or bound) or dimensions in (None, table.dimensions):
            continue
        pin = _pin(f"{said}\n{defaults or ''}", table.dimensions)
        if pin is not None:
            found.pinned.append((signature, pin))
    return found


def _without_comments(text: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)


def _pin(text: str, dimensions: int | None) -> str | None:
    """What in a text says that vectors have so many dimensions: a type with its length, or a vector
    that is written out."""
    if dimensions is None:
        return None
    typed = re.search(rf"\b(?:vector|halfvec)\s*\(\s*{dimensions}\s*\)", text, re.IGNORECASE)
    if typed is not None:
        return typed[0]
    for written in re.findall(r"'\[([^\]']*)\]'", text):
        if written.count(",") + 1 == dimensions and re.fullmatch(r"[\s\d.,eE+-]+", written):
            return f"a vector of {dimensions} numbers"
    return None
