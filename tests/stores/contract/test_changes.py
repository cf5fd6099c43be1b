"""What a store promises that tells what was written (`Changes` and `Capture`)."""

from __future__ import annotations

from reembed.stores.store import Store
from tests.stores.contract.records import simple, vectors
from tests.stores.contract.stores import make
from tests.support.stores import mark_of

PARTS = ("writer", "changes")


def test_what_changed_since_a_mark_is_told_or_not_known(store: Store):
    info = make(store, "marked", 3)
    other = make(store, "other")
    if store.changes is None:
        return
    for _ in range(2):
        if store.capture is not None:
            store.capture.start(info.id)
    mark = mark_of(store, info.id)
    assert store.changes.since(info.id, "some mark").ids is None
    store.to_write().write(other.id, simple(2), vectors(2), "add")
    assert store.changes.since(info.id, mark).ids == []
    changes = [
        (lambda: store.to_write().write(info.id, simple(1, "new"), vectors(1), "add"), "new00000"),
        (
            lambda: store.to_write().write(
                info.id, simple(1, "new", changed=True), vectors(1), "replace"
            ),
            "new00000",
        ),
        (lambda: store.to_write().delete(info.id, ["r00001"]), "r00001"),
    ]
    for change, id in changes:
        change()
        told = store.changes.since(info.id, mark)
        assert told.ids is None or told.ids == [id]
        if store.capture:
            store.capture.acknowledge(told.token)
        mark = mark_of(store, info.id)
        assert mark is not None
        assert store.changes.since(info.id, mark).ids == []
    for _ in range(2):
        if store.capture is not None:
            store.capture.stop(info.id)
    assert store.reader.count(info.id) == 3
