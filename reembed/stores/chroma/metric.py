"""What a Chroma collection's index is really set to: its HNSW settings and its metric.

A collection of Chroma 1.x says so in its configuration. One that 0.5 made was given a
configuration of defaults by the upgrade (it claims l2 whatever it is); the truth is in the
segment's metadata, or, where only the API is at hand, in the collection's own `hnsw:*` metadata.
The metric decides what every distance means, so `probe` measures it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt
from chromadb.errors import InternalError

from reembed.errors import PreflightError
from reembed.records import Metric
from reembed.stores.chroma.keeping import from_note

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

LEGACY_KEYS = {
    "hnsw:space": "space",
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:M": "max_neighbors",
    "hnsw:num_threads": "num_threads",
    "hnsw:batch_size": "batch_size",
    "hnsw:sync_threshold": "sync_threshold",
    "hnsw:resize_factor": "resize_factor",
}
"""Metadata key of Chroma 0.5 to configuration key of 1.x."""

INDEX_KEYS = tuple(key for key in LEGACY_KEYS.values() if key != "space")
_DEFAULTS = {"space": "l2", "ef_construction": 100, "ef_search": 100, "max_neighbors": 16,
             "batch_size": 100, "sync_threshold": 1000, "resize_factor": 1.2}  # fmt: skip
_NEIGHBOURS = 2, 10_000
"""Bounds of `max_neighbors`. Chroma 1.5.9 takes any, and fails at the first compaction or finds
one record; 10,000 is where the index library itself ends."""
_KINDS = {1: "integer", 2: "number"}
_PROBES = 8
_SQUARES = (1e-30, 1e30)
"""Squared lengths between which a vector, the query made of it and their distance by each metric
are numbers that a float32 holds."""


def recorded(
    collection: Collection, legacy: Mapping[str, Any]
) -> tuple[Metric, dict[str, Any], dict[str, Any] | None]:
    """The metric and the HNSW settings on record, and the embedding function's `{name, config}`.

    Args:
        legacy: `hnsw:*` settings from the segment where the file is at hand; they decide.

    Returns:
        metric, index settings as `create` takes them, persisted embedding function. A SPANN index
        (Chroma Cloud) is `{"spann": {...}}`.
    """
    vector_index = _vector_index(collection)
    settings = dict(vector_index.get("hnsw") or {})
    spann = vector_index.get("spann")
    settings["space"] = vector_index.get("space") or (settings or spann or {}).get("space", "l2")
    metadata: Mapping[str, Any] = collection.metadata or {}
    for old, new in LEGACY_KEYS.items():
        if old in legacy:
            settings[new] = legacy[old]
        elif old in metadata and settings.get(new) == _DEFAULTS.get(new) and not spann:
            settings[new] = metadata[old]
    space = settings.pop("space")
    metric = cast(Metric, space if space in get_args(Metric) else "l2")
    function = vector_index.get("embedding_function")
    if spann:
        kept = {key: value for key, value in spann.items() if key != "space" and value is not None}
        return metric, {"spann": kept}, function
    return metric, {key: settings[key] for key in INDEX_KEYS if settings.get(key)}, function


def recorded_function(collection: Collection) -> dict[str, Any] | None:
    """The persisted embedding function as `{type, name, config}`, else the one that a collection of
    ours tells of in its metadata; None for none or a legacy one."""
    function = _vector_index(collection).get("embedding_function")
    if function and function.get("type") == "known":
        return dict(function)
    return from_note(collection.metadata)


def _vector_index(collection: Collection) -> dict[str, Any]:
    """`{space, hnsw, spann, embedding_function}` from the schema, else (before 1.3) from the
    configuration. The schema also holds batch_size and num_threads. Read as JSON, because
    Chroma's own accessors build the embedding function and fail where it is not registered."""
    model = collection.get_model()
    schema = model.serialized_schema or {}
    field = (schema.get("keys", {}).get("#embedding") or {}).get("float_list") or {}
    config = (field.get("vector_index") or {}).get("config")
    if config:
        return dict(config)
    configuration = model.configuration_json or {}
    return {key: configuration.get(key) for key in ("hnsw", "spann", "embedding_function")}


def probe(collection: Collection) -> Metric | None:
    """The metric that explains the distances a query returns; None where that cannot be told.

    Reads only. The query is a stored vector v scaled so that its dot product with v is 3 or 5: then
    v's own distance is 0 for cosine, negative for ip and positive for l2 whatever the length of v
    (with unit vectors and an unscaled query the three would order alike). Every hit is checked,
    with Chroma's definitions: l2 is squared, cosine is 1 - cos, ip is 1 - dot
    (https://docs.trychroma.com/docs/collections/configure).
    """
    vector = _stored_vector(collection)
    if vector is None:
        return None
    square = float(vector @ vector)
    query = vector * ((3.0 if abs(square - 3) > 1 else 5.0) / square)
    try:
        answer = collection.query(
            query_embeddings=query.astype(np.float32)[None, :],
            n_results=_PROBES,
            include=["distances", "embeddings"],
        )
    except InternalError:  # an index that cannot be queried as it is
        return None
    hits = np.asarray((answer["embeddings"] or [[]])[0], np.float64)
    distances = np.asarray((answer["distances"] or [[]])[0], np.float64)
    if hits.ndim != 2 or not len(hits):
        return None
    return _explain(query, hits, distances)


def _stored_vector(collection: Collection) -> npt.NDArray[np.float64] | None:
    """The vector of one of the first records that has one of a length to reckon with."""
    for id in collection.get(limit=_PROBES, include=[])["ids"]:
        try:
            page = collection.get(ids=[id], include=["embeddings"])
        except InternalError:  # this record's vector is lost
            continue
        vector = np.asarray(page["embeddings"], np.float64).reshape(-1)
        if _SQUARES[0] < float(vector @ vector) < _SQUARES[1]:
            return vector
    return None


def _explain(
    query: npt.NDArray[np.float64], hits: npt.NDArray[np.float64], got: npt.NDArray[np.float64]
) -> Metric | None:
    dots = hits @ query
    norms = np.linalg.norm(hits, axis=1) * np.linalg.norm(query)
    expected: dict[Metric, npt.NDArray[np.float64]] = {
        "cosine": 1 - np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0),
        "l2": np.square(hits - query).sum(axis=1),
        "ip": 1 - dots,
    }
    fits = [
        metric
        for metric, values in expected.items()
        if np.allclose(got, values, rtol=1e-3, atol=1e-3)
    ]
    return fits[0] if len(fits) == 1 else None


def configuration(index: Mapping[str, Any], metric: Metric, cloud: bool) -> dict[str, Any]:
    """A new collection's configuration: `{"hnsw": {...}}`, or `{"spann": {...}}` on Chroma Cloud.

    Raises:
        PreflightError: an unknown setting, or SPANN on a server or a local path, which would build
            HNSW instead without a word.
    """
    if "spann" in index:
        if cloud and len(index) == 1:
            return {"spann": {**index["spann"], "space": metric}}
        raise PreflightError(
            "target.index: this Chroma builds HNSW indexes only, and the source's is SPANN",
            f"Set target.index to HNSW settings ({', '.join(INDEX_KEYS)}), or {{ef_search: 100}}.",
        )
    unknown = sorted(set(index) - set(INDEX_KEYS))
    if unknown:
        raise PreflightError(
            f"target.index: Chroma has no setting {', '.join(unknown)}",
            f"Known: {', '.join(INDEX_KEYS)}. The metric is target.metric.",
        )
    for key, value in index.items():
        kinds = (int, float) if key == "resize_factor" else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or value <= 0:
            raise PreflightError(
                f"target.index.{key}: {value!r} is not a positive {_KINDS[len(kinds)]}",
                f"Set it to {_DEFAULTS.get(key, 4)}, which is Chroma's default, or remove it.",
            )
    neighbours = index.get("max_neighbors")
    if neighbours is not None and not _NEIGHBOURS[0] <= neighbours <= _NEIGHBOURS[1]:
        raise PreflightError(
            f"target.index.max_neighbors: {neighbours:,} is not between {_NEIGHBOURS[0]} and "
            f"{_NEIGHBOURS[1]:,}: an index of one neighbour finds nothing, and Chroma has no "
            "memory for so many",
            "Set it to 16, which is Chroma's default, up to 64, or remove it.",
        )
    return {"hnsw": {"space": metric, **index}}


def without_contradictions(
    metadata: Mapping[str, Any] | None, configuration: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Collection metadata to carry over: all of it, save `hnsw:*` keys that would claim another
    setting than the new index has (a stale `hnsw:space` misleads whoever reads it). None if empty,
    which Chroma cannot tell from `{}`."""
    kept = {
        key: value
        for key, value in (metadata or {}).items()
        if key not in LEGACY_KEYS or configuration.get(LEGACY_KEYS[key], value) == value
    }
    return kept or None
