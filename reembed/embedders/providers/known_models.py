"""How many tokens a text may have, of models that are known by name, whoever serves them.

As their model cards and the providers' documentation say (looked up 2026-11-21). A server may take
less; what it tells, or shows when it is asked, goes before this.
"""

from __future__ import annotations

import re

_KNOWN: tuple[tuple[str, int], ...] = (
    # Sentence transformers
    (r"all-minilm-l6|all-minilm(:|$)", 256), (r"all-minilm-l12", 128), (r"all-mpnet-base", 384),
    (r"multi-qa-", 512), (r"paraphrase-multilingual", 128), (r"labse", 256),
    # Families of open weights
    (r"bge-m3", 8_192), (r"bge-(multilingual-gemma2|icl|code)", 8_192), (r"bge-", 512),
    (r"e5-mistral", 4_096), (r"e5-", 512), (r"mxbai-embed|deepset-mxbai", 512),
    (r"arctic-embed-?(l-|m-)?(v?2)|arctic-embed2", 8_192), (r"arctic-embed-m-long", 2_048),
    (r"arctic-embed", 512), (r"nomic-embed-text-v2|nomic-embed-text:v2", 512),
    (r"gte-(base|large)-en-v1\.5|gte-multilingual", 8_192), (r"gte-modernbert", 8_192),
    (r"gte-qwen", 32_768), (r"gte-", 512), (r"jina-embeddings-v4", 32_768),
    (r"jina-embeddings-v[23]|jina-embeddings-v2", 8_192), (r"jina-embedding", 512),
    (r"qwen3-embedding", 32_768), (r"embeddinggemma", 2_048), (r"granite-embedding-r2", 8_192),
    (r"granite-embedding", 512), (r"stella_en_(400m|1\.5b)", 8_192), (r"stella-", 512),
    # Hosted
    (r"text-embedding-3-|text-embedding-ada-002", 8_192), (r"text-embedding-00[45]", 2_048),
    (r"text-multilingual-embedding", 2_048), (r"gemini-embedding", 2_048),
    (r"mistral-embed|codestral-embed", 8_192), (r"titan-embed", 8_192),
    (r"embed-(english|multilingual)-(light-)?v[23]", 512), (r"embed-v-?4", 128_000),
    (r"voyage-(2|02)$", 4_000), (r"voyage-(code|law|large)-2", 16_000), (r"voyage-", 32_000),
)  # fmt: skip


def known_max_tokens(name: str) -> int | None:
    """The limit of the model of this name, with or without slashes and tags; None if unknown."""
    base = name.lower().rpartition("/")[2]
    return next((limit for pattern, limit in _KNOWN if re.search(pattern, base)), None)
