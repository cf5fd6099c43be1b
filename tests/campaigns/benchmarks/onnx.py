"""MiniLM on the CPU by `provider: onnx`, against Chroma's own ONNXMiniLM_L6_V2.

    python -m tests.campaigns.benchmarks.onnx [--records 1000] [--keep]

Texts of mixed lengths, 4 to 250 words. Both use the model file that Chroma uses: downloaded once
into Chroma's cache, or named by REEMBED_BENCH_ONNX (a folder with model.onnx and tokenizer.json).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Work
from tests.campaigns.benchmarks.scene import texts

FOLDER = Path(
    os.environ.get("REEMBED_BENCH_ONNX")
    or Path.home() / ".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx"
)


def _texts(work: Work) -> list[str]:
    lengths = np.random.default_rng(0).integers(4, 250, work.records)
    return [
        " ".join(text.split()[:length])
        for text, length in zip(texts(work.records, 250), lengths, strict=True)
    ]


def chromas(work: Work) -> None:
    from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2

    function = ONNXMiniLM_L6_V2(preferred_providers=["CPUExecutionProvider"])
    if os.environ.get("REEMBED_BENCH_ONNX"):
        function.DOWNLOAD_PATH, function.EXTRACTED_FOLDER_NAME = FOLDER.parent, FOLDER.name
    function(_texts(work))


def ours(work: Work) -> None:
    from reembed.embedders.registry import open_embedder
    from reembed.manifest import Model

    with open_embedder(Model(provider="onnx", name=str(FOLDER))) as model:
        model.embed_documents(_texts(work))


BENCHMARK = Benchmark(
    steps={"Chroma's own": chromas, "provider: onnx": ours},
    claims=[
        Claim("onnx", "texts/s of MiniLM by onnx over Chroma's own way", ["provider: onnx"],
              ["Chroma's own"], more=True, bar=3.5),
    ],
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
