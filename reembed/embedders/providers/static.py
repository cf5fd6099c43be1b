"""Static models: the mean of token vectors, numpy alone.

`wordllama`, or a folder with one matrix of token vectors (safetensors) and a tokenizer.json, as
model2vec saves them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reembed.embedders.options import Options
from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
    RejectedInputError,
)
from reembed.embedders.providers.counted import CountedTexts
from reembed.embedders.providers.model_files import find, package_folder, read_json, sha256
from reembed.embedders.providers.tokens import TextTokenizer
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model
from reembed.records import Vectors

WORDLLAMA_DIMENSIONS = (64, 128, 256)
"""Trained so that a prefix of the vector is a vector (Matryoshka); the wheel ships 256."""
BATCH_TOKENS = 32_768
"""32,768 gathered vectors of 256 float32 are 32 MB."""
DTYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


class StaticProvider:
    """See the module. `options`: `tensor` (the name of the matrix, where a file holds several)."""

    queries_alike = True
    runs_on = "cpu"

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        tensor = options.take("tensor", str, "")
        options.finish()
        if model.name == "wordllama":
            folder = package_folder("wordllama", "model.name")
            # The library's own loader looks in tokenizer/ and finds nothing there.
            tokenizer = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
            weights = folder / "weights" / "l2_supercat_256.safetensors"
        else:
            folder = find(model.name, base_dir, "model.name")
            tokenizer = folder / "tokenizer.json"
            weights = _weights_file(folder)
        for path in (tokenizer, weights):
            if not path.is_file():
                raise ManifestError(f"model.name: there is no {path}")
        self._files = (weights, tokenizer)
        self._tokens = CountedTexts(TextTokenizer(tokenizer), special=False)
        vectors = _matrix(weights, tensor)
        if model.name == "wordllama" and model.dimensions is not None:
            if model.dimensions not in WORDLLAMA_DIMENSIONS:
                raise ProviderRefusedError(
                    f"wordllama has no {model.dimensions} dimensions",
                    f"It has {', '.join(map(str, WORDLLAMA_DIMENSIONS))}; the next to it: "
                    f"`model.dimensions: {_nearest(model.dimensions)}`.",
                )
            vectors = vectors[:, : model.dimensions]
        self._vectors: Vectors = np.ascontiguousarray(vectors, np.float32)
        self.limits = Limits(batch_items=256, batch_tokens=BATCH_TOKENS)
        self.price: Price | None = None
        self.exact_tokens = True
        self.normalizes = bool(read_json(folder / "config.json").get("normalize"))

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return self._tokens.count(texts)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        tokens = self._tokens.ids(texts)
        lengths = [len(ids) for ids in tokens]
        if not all(lengths):
            raise RejectedInputError("no token of the text is known to the model")
        vectors = np.empty((len(texts), self._vectors.shape[1]), np.float32)
        for row, ids in enumerate(tokens):
            # Ids beyond the matrix count as its last row, as in the wordllama library.
            vectors[row] = self._vectors[np.minimum(ids, len(self._vectors) - 1)].mean(axis=0)
        return Answer(vectors, sum(lengths))

    def version(self) -> ModelVersion:
        return ModelVersion(sha256(*self._files))

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def _weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ManifestError(
            f"model.name: {folder} must hold one .safetensors file, it holds {names}"
        )
    return found[0]


def _matrix(path: Path, name: str) -> Vectors:
    """The one matrix of a safetensors file, or the one called `name`, `(tokens, d)`.

    The format: 8 bytes of header length, a JSON header, the tensors' bytes
    (https://huggingface.co/docs/safetensors).
    """
    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        if name not in header and (name or len(header) != 1):
            raise ManifestError(
                f"{path}: holds the tensors {', '.join(sorted(header))}; the mean of token vectors "
                "takes one matrix",
                "Name it with model.options.tensor, if the others are not needed for the mean.",
            )
        entry = header[name or next(iter(header))]
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        flat = np.frombuffer(raw, np.dtype(DTYPES[entry["dtype"]])).astype(np.float32)
        rows, columns = entry["shape"]
        matrix: Vectors = flat.reshape(rows, columns)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ManifestError(
            f"{path}: is not a safetensors file of a float matrix: {error}"
        ) from None
    if not rows or not columns:
        raise ManifestError(f"{path}: its matrix is empty")
    return matrix


def open_provider(model: Model, base_dir: Path) -> StaticProvider:
    """See `registry.open_provider`."""
    return StaticProvider(model, base_dir)


def _nearest(dimensions: int) -> int:
    return min(WORDLLAMA_DIMENSIONS, key=lambda known: abs(known - dimensions))
