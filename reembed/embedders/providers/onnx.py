"""Transformers in ONNX, run by onnxruntime: a folder, an .onnx file, or one in a package.

Pools and normalises as the model's sentence-transformers files say (`1_Pooling/config.json`,
`modules.json`, `sentence_bert_config.json`), looked for
beside the model, then beside the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from reembed.embedders.options import Options
from reembed.embedders.provider import (
    Answer,
    Counts,
    Limits,
    ModelVersion,
    Price,
    RejectedInputError,
    TransientError,
)
from reembed.embedders.providers.counted import CountedTexts
from reembed.embedders.providers.model_files import find, read_json, sha256
from reembed.embedders.providers.tokens import TextTokenizer
from reembed.errors import ManifestError
from reembed.manifest import Model
from reembed.records import Vectors

BATCH_ITEMS = 32
"""Sorted by length, batches of 8 to 32 ran three to four times as fast as unsorted ones."""
BATCH_TOKENS = 1_024
"""Padding counts. What a batch makes between two layers stays in a processor's cache then: MiniLM
took half the time that it took with 16,384, and a third less memory."""
UNLIMITED = 1_000_000
"""`model_max_length` from which a tokenizer config means "no limit"."""
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")


class OnnxProvider:
    """See the module. `options`: `tokenizer` (path or package:MODULE/FILE), `pooling` (mean or
    cls), `threads` (of one request; default: onnxruntime's), `batch_items`."""

    queries_alike = True
    runs_on = "cpu"

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        self._path = _model_file(find(model.name, base_dir, "model.name"))
        tokenizer_path = options.take("tokenizer", str, "")
        tokenizer = (
            find(tokenizer_path, base_dir, "model.options.tokenizer")
            if tokenizer_path
            else _tokenizer_file(self._path)
        )
        self._folders = [self._path.parent, self._path.parent.parent, tokenizer.parent]
        self._tokenizer_path = tokenizer
        self._tokens = CountedTexts(TextTokenizer(tokenizer))
        self._pooling = options.take("pooling", str, "") or self._told_pooling()
        if self._pooling not in ("mean", "cls"):
            raise ManifestError(f"model.options.pooling: is mean or cls, not {self._pooling!r}")
        self._threads = options.take("threads", int, 0)
        items = options.take_positive("batch_items", int, BATCH_ITEMS)
        options.finish()
        config = self._read("config.json")
        positions = config.get("max_position_embeddings")
        if model.max_tokens and positions and model.max_tokens > positions:
            raise ManifestError(
                f"model.max_tokens: the model has {positions} positions, not {model.max_tokens}"
            )
        self.limits = Limits(
            items, BATCH_TOKENS, self._told_max_tokens(positions), concurrency=1, padded=True
        )
        self.price: Price | None = None
        self.exact_tokens = True
        modules = self._read("modules.json").get("modules", [])
        self.normalizes = any(str(part.get("type", "")).endswith("Normalize") for part in modules)
        self._session  # noqa: B018  (a broken file is told now, not in the middle of a run)

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(*(folder / name for folder in self._folders))

    def _told_pooling(self) -> str:
        config = self._read("1_Pooling/config.json")
        if not config or config.get("pooling_mode_mean_tokens"):
            return "mean"
        if config.get("pooling_mode_cls_token"):
            return "cls"
        raise ManifestError(
            f"{self._path.parent}: its 1_Pooling/config.json asks for a pooling that is neither "
            "mean nor cls",
            "Set model.options.pooling if one of them is right.",
        )

    def _told_max_tokens(self, positions: object) -> int | None:
        """The model's own limit. A `truncation` in tokenizer.json is not it: see TextTokenizer."""
        limits = (
            self._read("sentence_bert_config.json").get("max_seq_length"),
            self._read("tokenizer_config.json").get("model_max_length"),
            positions,
        )
        for limit in limits:
            if isinstance(limit, int) and 0 < limit < UNLIMITED:
                return limit
        return None

    @cached_property
    def _session(self) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = self._threads
        try:
            session = onnxruntime.InferenceSession(
                str(self._path), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions have no public common base
            raise ManifestError(f"{self._path}: onnxruntime cannot load it: {error}") from None
        names = {given.name for given in session.get_inputs()}
        if "input_ids" not in names or names - INPUTS:
            raise ManifestError(
                f"{self._path}: takes {', '.join(sorted(names))}; a text model takes input_ids, "
                "attention_mask and perhaps token_type_ids"
            )
        return session

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        return self._tokens.count(texts)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        tokens = self._tokens.ids(texts)
        lengths = [len(one) for one in tokens]
        ids = np.zeros((len(texts), max(lengths)), np.int64)  # masked, so any id pads
        mask = np.zeros_like(ids)
        for row, one in enumerate(tokens):
            ids[row, : lengths[row]] = one
            mask[row, : lengths[row]] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        wanted = {put.name: given[put.name] for put in self._session.get_inputs()}
        names = [put.name for put in self._session.get_outputs()]
        output = next((name for name in TOKEN_OUTPUTS if name in names), names[0])
        try:
            hidden = self._session.run([output], wanted)[0]
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
            raise RejectedInputError(f"onnxruntime: {error}") from None
        except Exception as error:  # out of memory and the like; no public common base
            raise TransientError(f"onnxruntime: {error}") from None
        return Answer(self._pool(hidden, mask), sum(lengths))

    def _pool(self, hidden: npt.NDArray[np.float32], mask: npt.NDArray[np.int64]) -> Vectors:
        """`(n, t, d)` token vectors to `(n, d)`; `(n, d)` is pooled already."""
        if hidden.ndim == 2:
            return hidden.astype(np.float32)
        if self._pooling == "cls":
            return np.ascontiguousarray(hidden[:, 0], np.float32)
        summed = np.einsum("ntd,nt->nd", hidden, mask.astype(np.float32))
        vectors: Vectors = (summed / mask.sum(axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def version(self) -> ModelVersion:
        return ModelVersion(
            sha256(self._path, self._tokenizer_path),
            {"onnxruntime": onnxruntime.__version__, "runs on": self.runs_on},
        )

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def _model_file(path: Path) -> Path:
    if path.is_file():
        return path
    usual = [path / "model.onnx", path / "onnx" / "model.onnx"]
    found = [file for file in usual if file.is_file()] or sorted(path.rglob("*.onnx"))
    if len(found) != 1 and found[:1] != usual[:1]:
        names = ", ".join(str(file.relative_to(path)) for file in found) or "none"
        raise ManifestError(
            f"model.name: {path} must hold one .onnx file, it holds {names}",
            "Name the .onnx file itself.",
        )
    return found[0]


def _tokenizer_file(model: Path) -> Path:
    for folder in (model.parent, model.parent.parent):
        if (folder / "tokenizer.json").is_file():
            return folder / "tokenizer.json"
    raise ManifestError(
        f"{model}: there is no tokenizer.json beside it",
        "Set model.options.tokenizer to a path or package:MODULE/FILE.",
    )


def open_provider(model: Model, base_dir: Path) -> OnnxProvider:
    """See `registry.open_provider`."""
    return OnnxProvider(model, base_dir)
