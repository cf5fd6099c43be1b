"""mem0's `Memory`, unmodified, behind `lines.serve`.

mem0 finds the entities of a text with a spaCy model that no package index carries, and does
without entities where it is missing. `open` with `entities` replaces that one function, which
finds them, by a simple one; what makes, links, searches and removes entity rows is mem0's own.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from mem0 import AsyncMemory, Memory
from mem0.memory import main as mem0_main

from tests.clients.lines import serve, toured, with_chromadb

_opened: list[Memory] = []


def proper_names(text: str) -> list[tuple[str, str]]:
    """Words with a capital that do not begin the text, as mem0 gives entities: type and text."""
    return [("PROPER", found) for found in re.findall(r"(?<=\s)[A-Z][a-z]+", text)]


def memory() -> Memory:
    return _opened[-1]


def open_memory(config: dict[str, Any], entities: bool = False) -> None:
    if config["vector_store"]["provider"] == "chroma":
        with_chromadb()
    if entities:
        mem0_main.extract_entities = proper_names
    _opened.append(Memory.from_config(config))


def add(text: str, infer: bool = False, **arguments: Any) -> str:
    """The new memory's id. `arguments`: user_id, agent_id, run_id, metadata, ..."""
    (made,) = memory().add(text, infer=infer, **arguments)["results"]
    return str(made["id"])


def add_many(memories: list[dict[str, Any]]) -> list[str]:
    """The ids. mem0 adds one at a time, so this is `add` without the talking."""
    return [add(**arguments) for arguments in memories]


def link(ids: list[str], filters: dict[str, Any]) -> None:
    """Make and link the entities of these memories, as mem0 does after it changed one."""
    for id in ids:
        text = memory().get(id)["memory"]
        memory()._link_entities_for_memory(id, text, filters)


def entities(filters: dict[str, Any]) -> list[dict[str, Any]]:
    rows = mem0_main._vector_store_list_rows(
        memory().entity_store.list(filters=filters, top_k=10_000)
    )
    return [{"id": row.id, **row.payload} for row in rows]


def tour(text: str, id: str, config: dict[str, Any], **who: Any) -> dict[str, Any]:
    """Every method, asked for a text of this user's that is stored under this id; see `toured`."""
    store = memory()

    def ids(found: dict[str, Any]) -> list[str]:
        return [one["id"] for one in found["results"]]

    def added() -> Any:
        made = add("a memory of the application's own", **who)
        found = ids(store.search("a memory of the application's own", filters=who, top_k=1))
        store.update(made, data="another memory")
        told = [store.get(made)["memory"], found == [made], len(store.history(made))]
        store.delete(made)
        return [*told, store.get(made)]

    def gone() -> Any:
        for number in range(3):
            add(f"memory {number} of a user who leaves", user_id="leaves")
        store.delete_all(user_id="leaves")
        return ids(store.get_all(filters={"user_id": "leaves"}))

    async def later() -> Any:
        opened = AsyncMemory.from_config(config)
        opened = await opened if asyncio.iscoroutine(opened) else opened
        (made,) = (await opened.add("an async memory", infer=False, **who))["results"]
        found = ids(await opened.search(text, filters=who, top_k=1))
        alike = ids(await opened.search("an async memory", filters=who, top_k=1)) == [made["id"]]
        whole = len(ids(await opened.get_all(filters=who)))
        await opened.update(made["id"], data="an async memory that was changed")
        changed = (await opened.get(made["id"]))["memory"]
        await opened.delete(made["id"])
        return [found, alike, whole, changed]

    return toured(
        {
            "search": lambda: ids(store.search(text, filters=who, top_k=1)),
            "search with a threshold": lambda: ids(
                store.search(text, filters=who, top_k=1, threshold=0.1)
            ),
            "search with a filter": lambda: ids(store.search(text, filters={**who, "n": 0})),
            "get": lambda: [store.get(id)[key] for key in ("memory", "metadata", "user_id")],
            "get_all": lambda: sorted(ids(store.get_all(filters=who))),
            "history": lambda: [one["event"] for one in store.history(id)],
            "add, update, delete": added,
            "delete_all": gone,
            "async": lambda: asyncio.run(later()),
        }
    )


def close() -> None:
    closing = _opened.pop()
    stores = [closing.vector_store, closing._entity_store]
    closing.close()
    for store in stores:
        if store is not None:
            store.connection_pool.close()


if __name__ == "__main__":
    serve(
        {
            "open": open_memory,
            "add": add,
            "add_many": add_many,
            "search": lambda **arguments: memory().search(**arguments)["results"],
            "get": lambda id: memory().get(id),
            "get_all": lambda **arguments: memory().get_all(**arguments)["results"],
            "update": lambda id, **arguments: memory().update(id, **arguments),
            "delete": lambda id: memory().delete(id),
            "history": lambda id: memory().history(id),
            "tour": tour,
            "link": link,
            "entities": entities,
            "close": close,
        }
    )
