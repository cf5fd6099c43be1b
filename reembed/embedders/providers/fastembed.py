"""fastembed: ONNX models by name, fetched once and then read from its cache, without PyTorch.

https://qdrant.github.io/fastembed/examples/Supported_Models/
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastembed
import numpy as np
import onnxruntime
from loguru import logger
from tokenizers import Tokenizer

from reembed.embedders.options import Options
from reembed.embedders.provider import Answer, Counts, Limits, ModelVersion, Price
from reembed.embedders.providers.foreign import meaning
from reembed.embedders.providers.model_files import find, sha256
from reembed.embedders.providers.tokens import estimate_tokens
from reembed.embedders.redact import redact
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model

DEVICES = ("auto", "cpu", "cuda")
BATCH_ITEMS = 32
WEIGHTS, TOKENIZER = (".onnx", ".onnx_data", ".safetensors"), "tokenizer.json"

logger.disable("fastembed")  # it would write past our output, which keeps secrets out


class FastembedProvider:
    """See the module.

    `options`: `path` (a folder with the model's files, instead of a download), `cache_dir`
    (default: FASTEMBED_CACHE_PATH, else a temporary folder), `offline` (true: never download),
    `device` (of DEVICES; auto: a GPU if onnxruntime has one), `threads`, `batch_items` (32).
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        path = options.take("path", str, "")
        cache = options.take("cache_dir", str, "")
        offline = options.take("offline", bool, False)
        device = options.take("device", str, "auto")
        threads = options.take("threads", int, 0) or None
        items = options.take_positive("batch_items", int, BATCH_ITEMS)
        options.finish()
        if device not in DEVICES:
            raise ManifestError(f"model.options.device: is {', '.join(DEVICES)}, not {device!r}")
        self._where = f"fastembed {model.name}"
        told = _description(model.name)
        if model.dimensions not in (None, told["dim"]):
            raise ManifestError(
                f"model.dimensions: {model.name} has {told['dim']}, not {model.dimensions}",
                f"Set it to {told['dim']} or leave it out.",
            )
        # Not left to the library: up to 0.7.4 at least it takes the CPU where nothing is said.
        has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        cuda = device == "cuda" or (device == "auto" and has_gpu)
        if cuda and not has_gpu:
            raise self._without_gpu("onnxruntime has none here")
        settings: dict[str, Any] = {"local_files_only": offline, "cuda": cuda}
        if path:
            settings["specific_model_path"] = str(find(path, base_dir, "model.options.path"))
        folder = str(base_dir / Path(cache).expanduser()) if cache else None
        try:
            self._model: Any = fastembed.TextEmbedding(
                told["model"], cache_dir=folder, threads=threads, **settings
            )
        except Exception as error:  # onnxruntime, the hub's client and the library itself
            raise ProviderRefusedError(
                f"{self._where} cannot be loaded: {redact(str(error))}",
                "It is fetched once, into model.options.cache_dir. Where this machine may not "
                "fetch it, name a folder that holds it in model.options.path.",
            ) from None
        self.runs_on = self._placed()
        if device == "cuda" and not self.runs_on.startswith("cuda"):
            raise self._without_gpu(f"it would run on {self.runs_on}")
        self._tokenizer, limit = _tokenizer(self._model)
        self.limits = Limits(items, max_tokens=limit, concurrency=1, padded=True)
        self.price: Price | None = None
        self.exact_tokens = self._tokenizer is not None
        self.normalizes = False  # the library does, where the model is meant to be

    def _without_gpu(self, why: str) -> ProviderRefusedError:
        return ProviderRefusedError(
            f"{self._where}: model.options.device is cuda, and {why}",
            "Install onnxruntime-gpu and its CUDA libraries, or set device: cpu.",
        )

    def _placed(self) -> str:
        """What onnxruntime runs it on, such as `cuda`."""
        session: Any = getattr(getattr(self._model, "model", None), "model", None)
        chosen = session.get_providers() if hasattr(session, "get_providers") else ["CPU"]
        return str(chosen[0]).removesuffix("ExecutionProvider").lower()

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        if self._tokenizer is None:
            return estimate_tokens(texts)
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return np.array([len(encoding.ids) for encoding in encodings], np.int32)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        embed = self._model.query_embed if query else self._model.passage_embed
        try:
            rows = list(embed(list(texts), batch_size=len(texts)))
        except Exception as error:  # onnxruntime's exceptions have no public common base
            raise meaning(error, self._where) from None
        return Answer(np.asarray(rows, np.float32))

    def version(self) -> ModelVersion:
        """The digest is over the model's files."""
        folder = getattr(getattr(self._model, "model", None), "_model_dir", None)
        found = Path(folder).rglob("*") if folder else ()
        files = sorted(path for path in found if path.suffix in WEIGHTS or path.name == TOKENIZER)
        details = {"fastembed": fastembed.__version__, "runs on": self.runs_on}
        return ModelVersion(sha256(*files) if files else "", details)

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def _description(name: str) -> dict[str, Any]:
    """What the library says of a model. Raises ManifestError for a name that it does not know."""
    known: list[dict[str, Any]] = fastembed.TextEmbedding.list_supported_models()
    for one in known:
        if one["model"].lower() == name.lower():
            return one
    names = [one["model"] for one in known]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    raise ManifestError(
        f"model.name: fastembed knows no model {name!r}",
        f"Did you mean {close[0]!r}?"
        if close
        else "`fastembed.TextEmbedding.list_supported_models()` lists the models it knows.",
    )


def _tokenizer(model: Any) -> tuple[Tokenizer | None, int | None]:
    """The model's tokenizer, made to count whole texts, and where the library cuts them."""
    theirs = getattr(getattr(model, "model", None), "tokenizer", None)
    if not isinstance(theirs, Tokenizer):
        return None, None
    cut = theirs.truncation
    ours = Tokenizer.from_str(theirs.to_str())
    ours.no_truncation()
    ours.no_padding()
    return ours, int(cut["max_length"]) if cut else None


def open_provider(model: Model, base_dir: Path) -> FastembedProvider:
    """See `registry.open_provider`."""
    return FastembedProvider(model, base_dir)
