"""A search service on a live name: it goes on over every swap, with the right query model.

    pip install fastapi uvicorn 'reembed-pipeline[pgvector]'
    DOCS_URL=postgresql://app@db.example.org/app DOCS_NAME=docs uvicorn app:app

GET /search?q=...&k=3, POST /documents, DELETE /documents/{id}, GET /healthz
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from reembed import ReembedError, live


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opened once for all requests, in each worker process."""
    if manifest := os.environ.get("DOCS_MANIFEST"):  # the word for models at addresses of our own
        live.trust(manifest)
    with live.open(os.environ["DOCS_URL"], os.environ.get("DOCS_NAME", "docs")) as docs:
        app.state.docs = docs
        yield


app = FastAPI(lifespan=lifespan)


class Document(BaseModel):
    """A document to keep."""

    id: str
    text: str
    metadata: dict[str, Any] | None = None


@app.exception_handler(ReembedError)
async def out_of_reach(request: Request, error: ReembedError) -> JSONResponse:
    """What went wrong in words, as 503 where trying again helps."""
    return JSONResponse(error.to_dict(), 503 if error.exit_code in (6, 7) else 500)


@app.get("/search")
async def search(q: str, k: Annotated[int, Query(ge=1, le=50)] = 5) -> list[dict[str, Any]]:
    """The documents nearest to a text."""
    found = await app.state.docs.aquery(query_texts=[q], n_results=k)
    rows = zip(found["ids"][0], found["documents"][0], found["distances"][0], strict=True)
    return [{"id": id, "text": text, "distance": distance} for id, text, distance in rows]


@app.post("/documents", status_code=201)
async def keep(document: Document) -> dict[str, str]:
    """Write a document, also over one that is there."""
    await app.state.docs.aupsert(
        [document.id], documents=[document.text], metadatas=[document.metadata]
    )
    return {"id": document.id}


@app.delete("/documents/{id}", status_code=204)
async def remove(id: str) -> None:
    """Delete a document."""
    if not (await app.state.docs.aget(ids=[id]))["ids"]:
        raise HTTPException(404, f"there is no document {id!r}")
    await app.state.docs.adelete(ids=[id])


@app.get("/healthz")
async def healthz() -> dict[str, Any]:
    """How many documents there are, and which model embeds queries now."""
    said = app.state.docs.leads().said or {}
    return {"count": await app.state.docs.acount(), "model": said.get("name")}
