"""Known families of models, and the prefixes that they were trained with.

The prefix is part of the model: without it a search loses much of its quality, and nothing fails. A
family is known by the name of the model in any of its spellings: `BAAI/bge-base-en-v1.5`,
`bge-base-en-v1.5:latest`, `hf.co/CompendiumLabs/bge-base-en-v1.5-gguf:Q8_0`. The prefixes are those
of the model cards (read 2026-11), for search in general; a card may have others for other tasks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from reembed.manifest import Model

_SEARCH = "Represent this sentence for searching relevant passages: "
_INSTRUCT = "Instruct: Given a web search query, retrieve relevant passages that answer the query"


OWN_PREFIXES = ("sentence-transformers", "chroma", "python")
"""Providers that may put prefixes before the texts themselves."""


@dataclass(frozen=True)
class Family:
    """Models that take the same prefixes.

    Attributes:
        pattern: of a name in the form of `normal_name`, searched from its beginning.
        document, query: prefixes; empty where the family takes none.
        max_tokens: of the whole family, None where its members differ.
    """

    name: str
    pattern: str
    document: str
    query: str
    max_tokens: int | None = None


FAMILIES: tuple[Family, ...] = (
    Family("nomic-embed-text v2", r"nomic-embed-text-v2", "search_document: ", "search_query: ",
           512),
    Family("nomic-embed-text", r"nomic-embed-text", "search_document: ", "search_query: "),
    Family("embeddinggemma", r"embedding-?gemma", "title: none | text: ",
           "task: search result | query: ", 2_048),
    Family("qwen3-embedding", r"qwen3-embedding", "", f"{_INSTRUCT}\nQuery:", 32_768),
    Family("e5-instruct", r"(multilingual-)?e5-(mistral|.*instruct)", "", f"{_INSTRUCT}\nQuery: "),
    Family("e5", r"(multilingual-)?e5-(small|base|large)", "passage: ", "query: ", 512),
    Family("bge (Chinese)", r"bge-(small|base|large)-zh", "", "为这个句子生成表示以用于检索相关文章：", 512),  # noqa: E501, RUF001
    Family("bge (English)", r"bge-(small|base|large)(-en|$)", "", _SEARCH, 512),
    Family("mxbai (German)", r"(deepset-)?mxbai-embed-de", "passage: ", "query: ", 512),
    Family("mxbai-embed", r"mxbai-embed-(large|2d|xsmall)", "", _SEARCH),
    Family("snowflake-arctic-embed 2", r"snowflake-arctic-embed(2|-[ml]-v2)", "", "query: ", 8_192),
    Family("snowflake-arctic-embed", r"snowflake-arctic-embed", "", _SEARCH),
    Family("gte-qwen2", r"gte-qwen2", "", f"{_INSTRUCT}\nQuery: "),
    Family("jina-embeddings-v3", r"jina-embeddings-v3", "Represent the document for retrieval: ",
           "Represent the query for retrieving evidence documents: ", 8_192),
    Family("jina-embeddings-v4", r"jina-embeddings-v4", "Passage: ", "Query: ", 32_768),
    Family("stella-en v5", r"stella-en-.*-v5", "", f"{_INSTRUCT}.\nQuery: "),
    Family("bge-m3", r"bge-m3", "", "", 8_192),
    Family("gte", r"gte-", "", ""),
    Family("jina-embeddings-v2", r"jina-embeddings-v2", "", "", 8_192),
)  # fmt: skip
"""The first that matches counts, so the narrower ones come first."""

_QUANTISED = re.compile(
    r"[-.](gguf|onnx|mlx|awq|gptq|f16|fp16|f32|bf16|int8|int4|[48]-?bit|i?q[2-8](-[0-9a-z]+)*)$"
)


def normal_name(name: str) -> str:
    """A model's name without owner, tag and quantisation, in lower case with dashes."""
    plain = name.strip().lower().replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = plain.partition(":")[0].partition("@")[0].replace("_", "-").removesuffix(".gguf")
    while (shorter := _QUANTISED.sub("", plain)) != plain:
        plain = shorter
    return plain


def family_of(name: str) -> Family | None:
    """The known family of a model's name, None if there is none."""
    plain = normal_name(name)
    return next((family for family in FAMILIES if re.match(family.pattern, plain)), None)


def prefix_warning(model: Model) -> str | None:
    """What to tell where a model's prefixes are not those of its family; None where they are, or
    where its provider adds them itself."""
    family = family_of(model.name)
    if family is None or model.provider in OWN_PREFIXES:
        return None
    wanted = {"document_prefix": family.document, "query_prefix": family.query}
    missing = {key: prefix for key, prefix in wanted.items() if prefix and not getattr(model, key)}
    if not missing:
        return None
    settings = " and ".join(f"model.{key} to {_quoted(text)}" for key, text in missing.items())
    return (
        f"{family.name} was trained with prefixes and loses much without them: set {settings}, "
        "unless the application itself sends none (as mem0 does), or the provider adds them."
    )


def _quoted(text: str) -> str:
    """A text as YAML takes it."""
    return '"' + text.replace("\n", "\\n") + '"'
