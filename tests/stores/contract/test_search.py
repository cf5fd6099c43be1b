"""What a store with a search of its own promises (`reembed.stores.store.Search`)."""

from __future__ import annotations

import numpy as np

from reembed.stores.store import Store
from tests.stores.contract.records import simple, vectors
from tests.stores.contract.stores import Fill

PARTS = ("search",)


def test_a_search_finds_each_vector_itself_first_and_at_most_k(store: Store, fill: Fill):
    id = fill("searched", simple(300), vectors(300)).id
    given = vectors(300)
    found = store.to_search().query(id, given[:150], 3)
    assert len(found) == 150
    assert all(len(hits) == 3 for hits in found)
    assert np.mean([hits[0] == f"r{i:05d}" for i, hits in enumerate(found)]) > 0.98
    assert (
        len(store.to_search().query(fill("small", simple(2), vectors(2)).id, given[:1], 10)[0]) == 2
    )
