"""The metric and the index settings a Chroma collection really has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reembed.errors import PreflightError
from reembed.records import unit
from reembed.stores.chroma import metric as chroma_metric
from reembed.stores.registry import open_store
from reembed.stores.values import CollectionSpec
from tests.stores.contract.records import MODEL
from tests.support.chroma_cases import lose_vectors, new_chroma_folder, points, upgraded_0_5
from tests.support.chroma_data import chroma
from tests.support.servers.chroma_server import chroma_server

METRICS = ["cosine", "l2", "ip"]


@pytest.fixture
def client(tmp_path):
    with chroma(new_chroma_folder(tmp_path / "db")) as opened:
        yield opened


def shapes() -> dict[str, Any]:
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(60, 8)).astype(np.float32)
    return {
        "unit": unit(vectors),
        "any": vectors,
        "tiny": vectors * 1e-4,
        "large": vectors * 1e3,
        "one alone": vectors[:1],
        "all the same": np.repeat(vectors[:1], 20, axis=0),
        "norm with ip and l2 alike": unit(vectors) * np.float32(np.sqrt(1 / 3)),
        "a zero first": np.vstack([np.zeros((1, 8), np.float32), vectors]),
        "square 3": unit(vectors) * np.float32(np.sqrt(3)),
    }


@pytest.mark.parametrize("shape", sorted(shapes()))
@pytest.mark.parametrize("metric", METRICS)
def test_the_probe_tells_the_metric_from_the_distances_alone(client, metric, shape):
    collection = client.create_collection(
        "probed", embedding_function=None, configuration={"hnsw": {"space": metric}}
    )
    vectors = shapes()[shape]
    collection.add(ids=[str(i) for i in range(len(vectors))], embeddings=vectors)
    assert chroma_metric.probe(collection) == metric


def test_the_probe_says_nothing_of_an_empty_collection_or_of_zero_vectors(client):
    collection = client.create_collection("nothing", embedding_function=None)
    assert chroma_metric.probe(collection) is None
    collection.add(ids=["a", "b"], embeddings=np.zeros((2, 4), np.float32))
    assert chroma_metric.probe(collection) is None


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e20, 3e38])
def test_the_probe_passes_over_vectors_beyond_what_it_can_reckon_with(client, metric, size):
    """Without a warning, which ends a test here."""
    collection = client.create_collection(
        "odd", embedding_function=None, configuration={"hnsw": {"space": metric}}
    )
    odd = np.full((2, 4), size, np.float32)
    collection.add(ids=["a", "b"], embeddings=odd)
    assert chroma_metric.probe(collection) is None
    collection.add(ids=["c"], embeddings=points([1.0, 0.5, 0.2, 0.1]))
    assert chroma_metric.probe(collection) in (metric, None)


def test_the_probe_passes_over_lost_vectors(tmp_path):
    folder = new_chroma_folder(tmp_path / "lost")
    with chroma(folder) as client:
        collection = client.create_collection(
            "lossy", embedding_function=None, configuration={"hnsw": {"space": "ip"}}
        )
        lose_vectors(folder, str(collection.id), ["lost-1", "lost-2"])
        collection.add(ids=["a", "b"], embeddings=points([1.0, 0.5], [0.2, 0.3]))
        assert chroma_metric.probe(collection) == "ip"


@pytest.mark.parametrize("metric", METRICS)
def test_collections_of_chroma_0_5_are_what_they_are_and_not_what_they_claim(tmp_path, metric):
    folder = upgraded_0_5(tmp_path)
    with chroma(folder) as client:
        claimed = client.get_collection(f"really-{metric}", embedding_function=None)
        assert claimed.configuration_json["hnsw"]["space"] == "l2"
        assert chroma_metric.probe(claimed) == metric
    store = open_store(f"chroma:{folder}")
    assert store.catalog.describe(f"really-{metric}").metric == metric
    store.close()


def test_the_same_holds_over_http_where_only_the_probe_can_tell(tmp_path):
    with chroma_server(upgraded_0_5(tmp_path)) as server:
        store = open_store(server.url)
        assert [store.catalog.describe(f"really-{metric}").metric for metric in METRICS] == METRICS
        store.close()


def test_an_empty_collection_of_chroma_0_5_is_what_its_segment_says(tmp_path):
    store = open_store(f"chroma:{upgraded_0_5(tmp_path)}")
    assert store.catalog.describe("empty-cosine").metric == "cosine"
    store.close()


def test_index_settings_of_chroma_0_5_are_read_where_it_kept_them(tmp_path):
    store = open_store(f"chroma:{upgraded_0_5(tmp_path)}")
    info = store.catalog.describe("really-cosine")
    assert (info.index["ef_construction"], info.index["max_neighbors"]) == (64, 12)
    made = store.to_write().create(CollectionSpec(
        "copied", dimensions=8, metric=info.metric, index=info.index, metadata=info.metadata,
        model=MODEL,
    ))  # fmt: skip
    assert (made.metric, made.index, made.metadata) == (info.metric, info.index, info.metadata)
    store.close()


def test_all_index_settings_reach_the_new_collection_and_come_back(tmp_path):
    store = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    index = {
        "ef_construction": 40, "max_neighbors": 8, "ef_search": 77, "num_threads": 3,
        "batch_size": 50, "sync_threshold": 500, "resize_factor": 1.5,
    }  # fmt: skip
    made = store.to_write().create(
        CollectionSpec(
            "set", dimensions=4, metric="cosine", index=index, metadata=None, model=MODEL
        )
    )
    assert made.index == index
    store.close()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"M": 16}, "max_neighbors"),
        ({"space": "l2"}, "target.metric"),
        ({"ef_search": "many"}, "ef_search"),
        ({"ef_search": 0}, "ef_search"),
        ({"ef_search": True}, "ef_search"),
        ({"spann": {"search_nprobe": 64}}, "SPANN"),
    ],
)
def test_a_setting_chroma_would_drop_or_misread_is_refused(tmp_path, index, said):
    store = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    with pytest.raises(PreflightError) as caught:
        store.to_write().create(
            CollectionSpec(
                "never", dimensions=4, metric="l2", index=index, metadata=None, model=MODEL
            )
        )
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert store.catalog.collections() == []
    store.close()


def test_a_spann_index_is_made_on_chroma_cloud_only():
    index = {"spann": {"search_nprobe": 64}}
    made = chroma_metric.configuration(index, "ip", cloud=True)
    assert made == {"spann": {"search_nprobe": 64, "space": "ip"}}


def test_a_spann_index_is_described_as_one():
    config = {"space": "cosine", "spann": {"space": "cosine", "search_nprobe": 64, "x": None}}
    schema = {"keys": {"#embedding": {"float_list": {"vector_index": {"config": config}}}}}
    recorded: Any = SimpleNamespace(
        metadata=None,
        get_model=lambda: SimpleNamespace(serialized_schema=schema, configuration_json={}),
    )
    metric, index, function = chroma_metric.recorded(recorded, {})
    assert (metric, index, function) == ("cosine", {"spann": {"search_nprobe": 64}}, None)


def test_metadata_of_every_type_is_carried_and_contradictions_are_left_out(tmp_path):
    store = open_store(f"chroma:{new_chroma_folder(tmp_path / 'db')}")
    metadata = {"s": "x", "i": 1, "f": 0.1 + 0.2, "b": True, "hnsw:space": "l2", "hnsw:M": 16}
    made = store.to_write().create(CollectionSpec(
        "carried", dimensions=4, metric="cosine", index={"max_neighbors": 16}, metadata=metadata,
        model=MODEL,
    ))  # fmt: skip
    del metadata["hnsw:space"]
    assert made.metadata == metadata
    assert store.to_write().create(CollectionSpec(
        "none", dimensions=4, metric="l2", index={}, metadata={}, model=MODEL
    )).metadata is None  # fmt: skip
    store.close()
