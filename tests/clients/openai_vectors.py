"""Vectors from a server that speaks OpenAI's embeddings API, for applications that take any."""

from __future__ import annotations

from dataclasses import dataclass

from openai import OpenAI


@dataclass(frozen=True)
class Vectors:
    """The model at `url`, e.g. `http://127.0.0.1:8080/v1`."""

    url: str
    model: str

    def of(self, texts: list[str]) -> list[list[float]]:
        with OpenAI(base_url=self.url, max_retries=0) as client:
            answer = client.embeddings.create(input=texts, model=self.model)
        return [item.embedding for item in answer.data]
