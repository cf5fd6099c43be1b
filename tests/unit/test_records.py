"""Records and their Arrow forms: hashes, metadata text, vectors to columns and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reembed import records
from reembed.records import (
    EXPORT_SCHEMA,
    bad_rows,
    chunked,
    cosine_rows,
    embed_schema,
    export_batch,
    fixed_array_to_vectors,
    list_array_to_vectors,
    row_hash,
    row_hashes,
    unit,
    vectors_to_fixed_array,
    vectors_to_list_array,
)
from reembed.stores.canonical import metadata_text

rng = np.random.default_rng(7)


def vectors(n: int, d: int) -> records.Vectors:
    return rng.standard_normal((n, d)).astype(np.float32)


class TestMetadataText:
    def test_keys_are_sorted_and_nothing_is_escaped(self) -> None:
        assert metadata_text({"b": 1, "a": "é"}) == '{"a":"é","b":1}'

    def test_types_are_told_apart(self) -> None:
        texts = {metadata_text({"x": value}) for value in (1, 1.0, True, "1", [1], [1.0])}
        assert len(texts) == 6

    @pytest.mark.parametrize("empty", [None, {}])
    def test_no_metadata_is_null(self, empty: dict[str, str] | None) -> None:
        assert metadata_text(empty) == "null"

    def test_numbers_come_back_exactly(self) -> None:
        value = {"big": 2**63 - 1, "small": 5e-324, "third": 1 / 3}
        assert json.loads(metadata_text(value)) == value

    def test_nan_is_refused_because_json_has_none(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            metadata_text({"x": math.nan})


class TestRowHash:
    def test_null_is_not_empty(self) -> None:
        hashes = {
            row_hash("a", None, "null", None),
            row_hash("a", "", "null", None),
            row_hash("a", None, "null", ""),
            row_hash("a", "", "null", ""),
        }
        assert len(hashes) == 4

    def test_text_cannot_wander_between_fields(self) -> None:
        assert row_hash("ab", "c", "null", None) != row_hash("a", "bc", "null", None)

    def test_is_stable(self) -> None:
        """Snapshots and runs of earlier versions hold this value."""
        assert row_hash("id", "text", '{"a":1}', "file:///x").hex() == (
            "e59815d6f0c5cae67797ba02941378b9f65d172b38ee66a0af7110449f71f6ab"
        )

    @given(st.text(), st.text(), st.text())
    def test_depends_on_every_field(self, id: str, document: str, uri: str) -> None:
        base = row_hash(id, document, "null", uri)
        assert base != row_hash(id + "x", document, "null", uri)
        assert base != row_hash(id, document + "x", "null", uri)
        assert base != row_hash(id, document, "{}", uri)
        assert base != row_hash(id, document, "null", uri + "x")


class TestRowHashes:
    @given(
        st.lists(st.tuples(st.text(), st.none() | st.text(), st.text(), st.none() | st.text())),
        st.integers(0, 3),
    )
    def test_are_those_of_each_row(
        self, rows: list[tuple[str, str | None, str, str | None]], skipped: int
    ) -> None:
        columns = [pa.array([row[i] for row in rows], EXPORT_SCHEMA.field(i).type).slice(skipped)
                   for i in range(4)]  # fmt: skip
        hashes = row_hashes(*columns)
        assert hashes.type == EXPORT_SCHEMA.field("row_sha256").type
        assert hashes.to_pylist() == [row_hash(*row) for row in rows[skipped:]]


class TestExportBatch:
    def test_has_the_schema_and_the_hashes(self) -> None:
        batch = export_batch(
            ["a", "b"],
            ["text", None],
            ["null", '{"k":1}'],
            [None, "u"],
            vectors_to_list_array(vectors(2, 3)),
        )
        assert batch.schema == EXPORT_SCHEMA
        assert batch["row_sha256"].to_pylist() == [
            row_hash("a", "text", "null", None),
            row_hash("b", None, '{"k":1}', "u"),
        ]

    def test_without_vectors_the_column_is_null(self) -> None:
        batch = export_batch(["a"], ["t"], ["null"], [None])
        assert batch.schema == EXPORT_SCHEMA
        assert batch["embedding"].null_count == 1

    def test_empty(self) -> None:
        assert export_batch([], [], [], []).schema == EXPORT_SCHEMA

    def test_columns_of_unequal_length_are_refused(self) -> None:
        with pytest.raises(ValueError, match="same length"):
            export_batch(["a", "b"], ["t"], ["null"], [None])

    def test_survives_parquet(self, tmp_path: object) -> None:
        batch = export_batch(
            ["a", "ü"], ["", None], ["null", '{"k":1.0}'], [None, ""],
            pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
        )  # fmt: skip
        path = f"{tmp_path}/x.parquet"
        pq.write_table(pa.Table.from_batches([batch]), path)
        assert pq.read_table(path).to_batches()[0].equals(batch)


class TestVectorColumns:
    @pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 1), (5, 7)])
    def test_fixed_round_trip(self, n: int, d: int) -> None:
        given = vectors(n, d)
        column = vectors_to_fixed_array(given)
        assert column.type == embed_schema(d).field("embedding").type
        assert np.array_equal(fixed_array_to_vectors(column), given)

    @pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 7)])
    def test_list_round_trip(self, n: int, d: int) -> None:
        given = vectors(n, d)
        got, mask = list_array_to_vectors(vectors_to_list_array(given))
        assert np.array_equal(got, given)
        assert mask.all()

    def test_slices_and_chunks(self) -> None:
        given = vectors(6, 4)
        fixed = pa.chunked_array(
            [vectors_to_fixed_array(given[:2]), vectors_to_fixed_array(given[2:])]
        )
        assert np.array_equal(fixed_array_to_vectors(fixed), given)
        assert np.array_equal(fixed_array_to_vectors(fixed.slice(1, 3)), given[1:4])
        lists = pa.chunked_array(
            [vectors_to_list_array(given[:2]), vectors_to_list_array(given[2:])]
        )
        assert np.array_equal(list_array_to_vectors(lists.slice(1, 3))[0], given[1:4])

    def test_columns_without_rows(self) -> None:
        fixed = pa.chunked_array([], pa.list_(pa.float32(), 3))
        assert fixed_array_to_vectors(fixed).shape == (0, 3)
        got, mask = list_array_to_vectors(pa.chunked_array([], pa.list_(pa.float32())))
        assert got.shape == (0, 0)
        assert mask.shape == (0,)

    def test_missing_vectors_are_masked_not_shifted(self) -> None:
        column = pa.array([None, [1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32()))
        got, mask = list_array_to_vectors(column)
        assert got.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert mask.tolist() == [False, True, False, True]

    def test_ragged_vectors_are_refused(self) -> None:
        column = pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32()))
        with pytest.raises(ValueError, match="1 and of 2 dimensions"):
            list_array_to_vectors(column)

    def test_null_and_odd_bits_survive(self) -> None:
        given = np.array([[np.float32(1e-45), -0.0, 3.4e38]], np.float32)
        assert fixed_array_to_vectors(vectors_to_fixed_array(given)).tobytes() == given.tobytes()
        assert list_array_to_vectors(vectors_to_list_array(given))[0].tobytes() == given.tobytes()


class TestVectorChecks:
    def test_bad_rows(self) -> None:
        given = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0]], np.float32)
        assert bad_rows(given).tolist() == [False, True, True, True, False]

    def test_large_values_do_not_overflow(self) -> None:
        given = np.full((1, 1000), 3e38, np.float32)
        assert not bad_rows(given).any()
        assert np.isclose(np.linalg.norm(unit(given)[0]), 1)

    def test_unit(self) -> None:
        got = unit(vectors(10, 384))
        assert got.dtype == np.float32
        assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)

    def test_cosine_rows(self) -> None:
        a = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], np.float32)
        b = np.array([[2, 0], [0, 3], [-1, -1], [1, 1]], np.float32)
        assert np.allclose(cosine_rows(a, b), [1, 0, -1, 0])


@given(st.lists(st.text()), st.integers(1, 10))
def test_chunked_loses_nothing(items: list[str], size: int) -> None:
    parts = [list(part) for part in chunked(items, size)]
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)
