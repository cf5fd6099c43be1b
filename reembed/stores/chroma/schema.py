"""The indexes of a collection's keys: full text on or off, which metadata can be filtered by.

Chroma keeps them in the collection's schema (1.3 and newer), beside the vector index. A collection
that is made plainly has the standard ones: a filter that worked would fail with "indexing is
disabled", or one that was forbidden would work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reembed.errors import PreflightError

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from chromadb.api.types import Schema

_STANDARD: dict[str, dict[str, dict[str, bool]]] = {
    "defaults": {
        "string": {"fts_index": False, "string_inverted_index": True},
        "sparse_vector": {"sparse_vector_index": False},
        "int": {"int_inverted_index": True},
        "float": {"float_inverted_index": True},
        "bool": {"bool_inverted_index": True},
    },
    "keys.#document": {"string": {"fts_index": True, "string_inverted_index": False}},
}
"""What Chroma gives a collection that is made without a schema."""
_SPARSE = "sparse_vector_index"


def key_indexes(collection: Collection) -> dict[str, bool]:
    """Indexes that are not as Chroma makes them: `keys.secret.string.string_inverted_index: false`.

    `defaults` are of all keys that have none of their own.
    """
    schema = collection.get_model().serialized_schema or {}
    found = dict(_flat(schema))
    standard = {
        f"{key}.{kind}.{index}": on
        for key, kinds in _STANDARD.items()
        for kind, indexes in kinds.items()
        for index, on in indexes.items()
    }
    usual = {}
    for path in found:  # Chroma adds every key that it meets, as `defaults` say
        kind = ".".join(path.split(".")[-2:])
        usual[path] = standard.get(path, found.get(f"defaults.{kind}"))
    return {path: on for path, on in found.items() if usual[path] is not on}


def _flat(schema: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Every index of a key, but for the vector index, with whether it is on."""
    places = {"defaults": schema.get("defaults") or {}} | {
        f"keys.{key}": kinds for key, kinds in (schema.get("keys") or {}).items()
    }
    for place, kinds in places.items():
        for kind, indexes in (kinds or {}).items():
            for index, settings in (indexes or {}).items():
                if index != "vector_index" and settings is not None:
                    yield f"{place}.{kind}.{index}", bool(settings.get("enabled"))


def refuse_sparse(indexes: Mapping[str, bool]) -> None:
    """Raise PreflightError for what cannot be carried."""
    sparse = [path.split(".", 1)[1].rsplit(".", 2)[0] for path, on in indexes.items()
              if on and path.endswith(_SPARSE)]  # fmt: skip
    if sparse:
        raise PreflightError(
            f"the source has a sparse index on the key {', '.join(sparse)}, which reembed does "
            "not copy: what searches by it would find nothing in the new collection",
            "Copy its records by Chroma's own client into a collection without that index, and "
            "move that one (source.collection).",
        )


def told(indexes: Mapping[str, bool]) -> str:
    """What `plan` says of them."""
    listed = ", ".join(f"{path} {'on' if on else 'off'}" for path, on in sorted(indexes.items()))
    return f"indexes of keys are carried as the source has them: {listed}"


def with_indexes(
    configuration: Mapping[str, Any], indexes: Mapping[str, bool], function: Any
) -> Schema:
    """The schema that `create_collection` would give a collection, but with these indexes.

    Args:
        configuration: `{"hnsw": {"space": ..., ...}}`, or `spann`, of the vector index.
        function: the embedding function to keep, None for none.
    """
    from chromadb.api.types import Schema

    changed = Schema().serialize_to_json()
    for path, on in indexes.items():
        place, rest = path.split(".", 1)
        key, kind, index = ("", *rest.split(".")) if place == "defaults" else rest.rsplit(".", 2)
        at = changed["defaults"] if place == "defaults" else changed["keys"].setdefault(key, {})
        at.setdefault(kind, {}).setdefault(index, {"config": {}})["enabled"] = on
    for at in (changed["defaults"], changed["keys"]["#embedding"]):
        vector = at["float_list"]["vector_index"]["config"]
        vector["embedding_function"] = {"type": "legacy"}
        for kind, settings in configuration.items():
            vector["space"] = settings["space"]
            vector[kind] = {name: value for name, value in settings.items() if name != "space"}
    made = Schema.deserialize_from_json(changed)
    for values in (made.defaults, made.keys["#embedding"]):
        if values.float_list is not None and values.float_list.vector_index is not None:
            values.float_list.vector_index.config.embedding_function = function
    return made
