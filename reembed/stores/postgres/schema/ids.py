"""Ids as texts, and as what a table's id column holds."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from reembed.stores.postgres.schema.table import Table

FORMS = {
    "uuid": "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",
    "int2": "-?[0-9]{1,5}", "int4": "-?[0-9]{1,10}", "int8": "-?[0-9]{1,19}",
}  # fmt: skip
"""Regular expressions of ids, by the type of their column. None has a character that an array of
Postgres quotes."""
BITS = {"int2": 16, "int4": 32, "int8": 64}


def usable(table: Table, names: Sequence[str]) -> list[str]:
    """Those that can be ids of the table at all: Postgres refuses a whole statement for one."""
    form = FORMS.get(table.column(table.id).type)
    if form is None:
        return [name for name in names if "\x00" not in name]
    array = pa.array(names, pa.string())
    fits: list[str] = array.filter(pc.match_substring_regex(array, f"^(?:{form})$")).to_pylist()
    bits = BITS.get(table.column(table.id).type)
    if bits is None:
        return fits
    most = 2 ** (bits - 1)
    longest = len(str(most))
    return [one for one in fits if len(one) < longest or -most <= int(one) < most]


def any_of(table: Table, ids: Sequence[str]) -> sql.Composed:
    """The condition that a row's id is one of these `usable` ones."""
    type = table.column(table.id)
    array = sql.Literal("{" + ",".join(ids) + "}" if type.type in FORMS else list(ids))
    return sql.SQL("{} = ANY ({}::{}[])").format(
        sql.Identifier(table.id), array, sql.SQL(type.written)
    )
