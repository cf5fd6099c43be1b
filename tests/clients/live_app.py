"""An application that reads and writes a live name in every way that reembed offers, behind
`lines.serve`: reembed.live itself, LangChain and LlamaIndex, from threads and from asyncio.

Every question is the text of a record, so the right answer is that record at no distance; with
another model's vectors it would be any record, or an error.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import traceback
from collections.abc import Callable
from typing import Any

from tests.clients.lines import serve, with_chromadb

with_chromadb()

from llama_index.core import VectorStoreIndex  # noqa: E402
from llama_index.core.schema import TextNode  # noqa: E402

from reembed import live  # noqa: E402
from reembed.integrations import langchain, llamaindex  # noqa: E402
from reembed.manifest import Model  # noqa: E402

Found = tuple[str | None, float]
"""The id of the nearest record, and how near it is: 1 for the same."""


class Work:
    """What the application does until it is told to stop, and what came of it."""

    def __init__(self, url: str, name: str, models: list[dict[str, Any]], texts: dict[str, str]):
        live.trust(*models)
        self.docs = live.open(url, name, model=Model.model_validate(models[0]))
        self.store = langchain.LiveVectorStore(self.docs)
        self.nodes = llamaindex.LiveVectorStore(self.docs)
        self.index = VectorStoreIndex.from_vector_store(
            self.nodes, embed_model=llamaindex.LiveEmbedding(self.docs)
        )
        self.texts = texts
        self.done: collections.Counter[str] = collections.Counter()
        self.models: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.written: dict[str, str] = {}
        self.stop = threading.Event()
        self.threads: list[threading.Thread] = []

    # --- one question, one way ---------------------------------------------------------------

    def by_live(self, text: str) -> Found:
        found = self.docs.query(query_texts=[text], n_results=1)
        return _first(found["ids"][0], [1 - one for one in found["distances"][0]])

    async def by_live_async(self, text: str) -> Found:
        found = await self.docs.aquery(query_texts=[text], n_results=1)
        return _first(found["ids"][0], [1 - one for one in found["distances"][0]])

    def by_langchain(self, text: str) -> Found:
        found = self.store.similarity_search_with_relevance_scores(text, k=1)
        return _first([one.id for one, _ in found], [score for _, score in found])

    async def by_langchain_async(self, text: str) -> Found:
        found = await self.store.as_retriever(search_kwargs={"k": 1}).ainvoke(text)
        return _first([one.id for one in found], [1.0] * len(found))

    def by_langchain_diverse(self, text: str) -> Found:
        found = self.store.max_marginal_relevance_search(text, k=1, fetch_k=3)
        return _first([one.id for one in found], [1.0] * len(found))

    def by_llamaindex(self, text: str) -> Found:
        found = self.index.as_retriever(similarity_top_k=1).retrieve(text)
        return _first([one.node_id for one in found], [one.score or 0 for one in found])

    async def by_llamaindex_async(self, text: str) -> Found:
        found = await self.index.as_retriever(similarity_top_k=1).aretrieve(text)
        return _first([one.node_id for one in found], [one.score or 0 for one in found])

    # --- all the time ------------------------------------------------------------------------

    def ask(self, way: str, place: int) -> None:
        id, text = list(self.texts.items())[place % len(self.texts)]
        asked = getattr(self, way)(text)
        found, near = asyncio.run(asked) if asyncio.iscoroutine(asked) else asked
        if found != id or abs(near - 1) > 1e-3:
            self.wrong.append(f"{way}: {text!r} is {id}, found {found} at {near}")

    def write(self, way: str, place: int) -> None:
        if place >= 12:
            self.stop.wait(0.05)
            return
        id, text = f"{way}-{place}", f"the {place}. text written by {way}"
        if way == "live":
            self.docs.upsert([id], documents=[text], metadatas=[{"by": way}])
        elif way == "langchain":
            self.store.add_texts([text], [{"by": way}], ids=[id])
        else:
            node = TextNode(id_=id, text=text, metadata={"by": way})
            node.excluded_embed_metadata_keys = ["by"]
            self.nodes.add([node])
        self.written[id] = text

    def loop(self, name: str, work: Callable[[str, int], None], way: str) -> None:
        place = 0
        while not self.stop.is_set():
            try:
                work(way, place)
                self.models[str((self.docs.leads().said or {}).get("name"))] += 1
            except Exception:
                self.wrong.append(f"{way}: {traceback.format_exc()[-600:]}")
            place += 1
            self.done[name] += 1

    def start(self, writes: bool) -> None:
        ways = [name for name in dir(self) if name.startswith("by_")]
        tasks = [(way, self.ask, way) for way in ways]
        if writes:
            tasks += [(f"write {way}", self.write, way)
                      for way in ("live", "langchain", "llamaindex")]  # fmt: skip
        self.threads = [threading.Thread(target=self.loop, args=one) for one in tasks]
        for thread in self.threads:
            thread.start()

    def told(self) -> dict[str, Any]:
        return {"done": dict(self.done), "wrong": self.wrong[:5], "errors": len(self.wrong),
                "models": dict(self.models), "written": self.written}  # fmt: skip

    def end(self) -> dict[str, Any]:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)
        return self.told()


def _first(ids: list[Any], scores: list[float]) -> Found:
    return (str(ids[0]), float(scores[0])) if ids else (None, 0.0)


_works: list[Work] = []


def start(
    url: str, name: str, models: list[dict[str, Any]], texts: dict[str, str], writes: bool
) -> None:
    _works.append(Work(url, name, models, texts))
    _works[-1].start(writes)


if __name__ == "__main__":
    serve(
        {
            "start": start,
            "told": lambda: _works[-1].told(),
            "end": lambda: _works[-1].end(),
        },
        knows_reembed=True,
    )
