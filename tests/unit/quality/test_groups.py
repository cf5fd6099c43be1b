from __future__ import annotations

from reembed.quality.groups import group_table, grouping_keys


def test_keys_of_few_values_that_most_records_have():
    metadatas = [
        {"lang": ("en", "de")[i % 2], "id": i, "kind": i % 5, "rare": "x" if i < 10 else "y",
         "constant": 1, "share": i / 7, "long": "z" * 100 + str(i % 2)}
        for i in range(100)
    ]  # fmt: skip
    for metadata in metadatas[60:]:
        del metadata["rare"]
    assert grouping_keys(metadatas) == ["lang", "kind"]
    for metadata in metadatas[:30]:
        del metadata["lang"]
    assert grouping_keys(metadatas) == ["kind", "lang"]
    assert grouping_keys([]) == []


def test_a_namespace_that_is_lost_stands_out():
    metadatas = [{"lang": "en"}] * 6 + [{"lang": "de"}] * 4 + [{}]
    new = [True] * 6 + [False] * 4 + [True]
    old = [True] * 11
    assert group_table(metadatas, new, old) == {
        "lang": [
            {"value": "de", "pairs": 4, "new": 0.0, "old": 1.0},
            {"value": "en", "pairs": 6, "new": 1.0, "old": 1.0},
        ]
    }
    assert group_table(metadatas, new, None)["lang"][0]["old"] is None
