"""What may surround a table in Postgres: each of a kind, as an application's migrations make it.

Used by `tests/stores/postgres/test_pg_neighbours.py` on the table of `tests/support/pg_docs.py`.
"""

from __future__ import annotations

from tests.support.cases.surrounding import Case
from tests.support.cases.surrounding_code import CODE
from tests.support.cases.surrounding_columns import COLUMNS
from tests.support.cases.surrounding_vectors import VECTORS

SURROUNDINGS: dict[str, Case] = {**CODE, **COLUMNS, **VECTORS}
