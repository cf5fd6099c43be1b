"""Known families are found in every spelling of a model's name, and what they lack is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reembed.embedders.families import FAMILIES, family_of, normal_name, prefix_warning
from reembed.errors import UsageError
from reembed.manifest import Manifest, Model, Provider
from tests.support.commands import Command
from tests.support.manifests import model_of

NAMES = {
    "nomic-embed-text": ["nomic-embed-text:latest", "nomic-ai/nomic-embed-text-v1.5",
                         "nomic-embed-text-v1.5.Q4_K_M.gguf", "nomic-embed-text:137m-v1.5-fp16"],
    "nomic-embed-text v2": ["nomic-ai/nomic-embed-text-v2-moe", "nomic-embed-text-v2-moe:latest"],
    "embeddinggemma": ["embeddinggemma", "google/embeddinggemma-300m",
                       "embeddinggemma:300m-qat-q8_0", "ggml-org/embeddinggemma-300M-GGUF"],
    "qwen3-embedding": ["qwen3-embedding:0.6b", "Qwen/Qwen3-Embedding-8B",
                        "hf.co/Qwen/Qwen3-Embedding-0.6B-GGUF:Q8_0"],
    "e5": ["intfloat/e5-base-v2", "intfloat/multilingual-e5-large", "e5-small",
           "multilingual-e5-small"],
    "e5-instruct": ["intfloat/multilingual-e5-large-instruct", "intfloat/e5-mistral-7b-instruct"],
    "bge (English)": ["BAAI/bge-base-en-v1.5", "bge-large:335m", "bge-small-en-v1.5-onnx-Q",
                      "hf.co/CompendiumLabs/bge-base-en-v1.5-gguf:Q8_0", "bge-large"],
    "bge (Chinese)": ["BAAI/bge-large-zh-v1.5"],
    "bge-m3": ["bge-m3", "BAAI/bge-m3", "bge-m3:567m-fp16"],
    "mxbai-embed": ["mxbai-embed-large", "mixedbread-ai/mxbai-embed-large-v1"],
    "mxbai (German)": ["mixedbread-ai/deepset-mxbai-embed-de-large-v1"],
    "snowflake-arctic-embed": ["snowflake-arctic-embed:335m", "snowflake-arctic-embed",
                               "Snowflake/snowflake-arctic-embed-m-v1.5"],
    "snowflake-arctic-embed 2": ["snowflake-arctic-embed2",
                                 "Snowflake/snowflake-arctic-embed-l-v2.0"],
    "gte-qwen2": ["Alibaba-NLP/gte-Qwen2-7B-instruct"],
    "gte": ["thenlper/gte-large", "Alibaba-NLP/gte-large-en-v1.5"],
    "jina-embeddings-v2": ["jinaai/jina-embeddings-v2-base-en"],
    "jina-embeddings-v3": ["jinaai/jina-embeddings-v3"],
    "stella-en v5": ["dunzhang/stella_en_400M_v5", "NovaSearch/stella_en_1.5B_v5"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, names in NAMES.items() for name in names]
)
def test_a_family_is_known_by_every_spelling(family: str, name: str) -> None:
    found = family_of(name)
    assert found is not None and found.name == family, normal_name(name)


@pytest.mark.parametrize(
    "name",
    ["text-embedding-3-small", "all-minilm", "embed-english-v3.0", "voyage-3", "wordllama", "",
     "my-nomic-embed-text", "bge-reranker-base", "model:latest", "///"],
)  # fmt: skip
def test_what_is_no_family_is_none(name: str) -> None:
    assert family_of(name) is None


def test_every_family_can_be_reached() -> None:
    """None is hidden by a wider pattern that stands before it."""
    reached = {
        found.name for names in NAMES.values() for name in names if (found := family_of(name))
    }
    assert reached >= {family.name for family in FAMILIES} - {"jina-embeddings-v4"}
    assert family_of("jinaai/jina-embeddings-v4") is not None


@pytest.mark.parametrize("provider", ["openai", "ollama", "onnx"])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.document or f.query])
def test_doing_what_the_warning_says_ends_it(family, provider: Provider) -> None:
    name = next(name for name in NAMES.get(family.name, ["jina-embeddings-v4"]))
    model = Model(provider=provider, name=name)
    told = prefix_warning(model)
    assert told is not None
    # What it prints is YAML as it stands.
    settings = {}
    for key in ("document_prefix", "query_prefix"):
        if f"model.{key} to " in told:
            text = told.partition(f"model.{key} to ")[2]
            settings[key] = yaml.safe_load(text[: text.index('"', 1) + 1])
    assert prefix_warning(model.model_copy(update=settings)) is None
    assert settings == {
        key: prefix
        for key, prefix in (("document_prefix", family.document), ("query_prefix", family.query))
        if prefix
    }


def test_providers_that_add_prefixes_themselves_are_not_told() -> None:
    name = "intfloat/e5-base-v2"
    assert prefix_warning(Model(provider="sentence-transformers", name=name)) is None
    assert prefix_warning(Model(provider="openai", name="text-embedding-3-small")) is None


def test_init_writes_them(command: Command, tmp_path: Path, database: Path) -> None:
    output = tmp_path / "m.yaml"
    chosen = "ollama:embeddinggemma:300m"
    done = command("init", f"chroma:{database}", "--model", chosen, "-o", output)
    assert done.code == 0 and f"next: reembed plan {output}" in done.out
    model = model_of(Manifest.load(output))
    assert (model.provider, model.name) == ("ollama", "embeddinggemma:300m")
    assert model.document_prefix == "title: none | text: "
    assert model.query_prefix == "task: search result | query: "
    assert model.max_tokens == 2_048
    assert prefix_warning(model) is None


@pytest.mark.parametrize("spec", ["nomic-embed-text", "olama:nomic-embed-text", "ollama:", ""])
def test_init_names_the_providers(command: Command, database: Path, spec: str) -> None:
    done = command("init", f"chroma:{database}", "--model", spec or "x")
    assert done.code == UsageError.exit_code
    assert "ollama" in done.err and "openai" in done.err
