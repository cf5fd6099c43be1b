"""sentence-transformers: a folder or a hub id, run by PyTorch.

https://sbert.net/docs/package_reference/sentence_transformer/SentenceTransformer.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers

from reembed.embedders.options import Options
from reembed.embedders.provider import Answer, Counts, Limits, ModelVersion, Price
from reembed.embedders.providers.foreign import meaning
from reembed.embedders.providers.model_files import sha256
from reembed.errors import ProviderRefusedError
from reembed.manifest import Model

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names that `encode_document` looks for, in its order."""


class SentenceTransformersProvider:
    """See the module. `options`: `device` (cpu, cuda, mps; default: the library's choice),
    `batch_items` (32).

    Where the manifest sets no prefix, the prompts saved with the model are used; where it sets one,
    only that.
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        device = options.take("device", str, "") or None
        items = options.take_positive("batch_items", int, 32)
        options.finish()
        self._where = f"sentence-transformers {model.name}"
        self._own = {False: bool(model.document_prefix), True: bool(model.query_prefix)}
        self._folder = Path(model.name)
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(
                model.name, device=device, truncate_dim=model.dimensions
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ProviderRefusedError(
                f"{self._where} cannot be loaded: {error}",
                "Give a folder that holds the model, or a hub id that this machine can reach.",
            ) from None
        longest = self._model.max_seq_length
        self.limits = Limits(
            items,
            max_tokens=None if longest is None else max(1, int(longest) - self._prompt_tokens()),
            padded=True,
        )
        self.price: Price | None = None
        self.exact_tokens = True
        self.normalizes = False  # encode() does it where the model has a Normalize module

    def _prompt(self, query: bool) -> str:
        """The model's own prompt for this side."""
        prompts: dict[str, str] = getattr(self._model, "prompts", {}) or {}
        names = ("query",) if query else DOCUMENT_PROMPTS
        found = next((prompts[name] for name in names if prompts.get(name)), "")
        default = getattr(self._model, "default_prompt_name", None)
        return found or prompts.get(default or "", "")

    def _prompt_tokens(self) -> int:
        prompts = [self._prompt(query) for query in (False, True) if not self._own[query]]
        texts = [prompt for prompt in prompts if prompt]
        return int(self.count_tokens(texts).max()) if texts else 0

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        encoded = self._model.tokenizer(
            list(texts), add_special_tokens=True, truncation=False, padding=False, verbose=False
        )
        return np.array([len(ids) for ids in encoded["input_ids"]], np.int32)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        encode: Callable[..., Any] = self._model.encode
        prompt = "" if self._own[query] else self._prompt(query)
        try:
            result = encode(
                list(texts),
                prompt=prompt,  # "" also switches the model's default prompt off
                batch_size=len(texts),
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        except Exception as error:  # torch, transformers and the model's own code
            raise meaning(error, self._where) from None
        return Answer(np.asarray(result, np.float32))

    def version(self) -> ModelVersion:
        """The digest is over the weights of a folder; a hub id has none."""
        weights = [
            path
            for kind in ("*.safetensors", "*.bin")
            for path in sorted(self._folder.rglob(kind))
        ] if self._folder.is_dir() else []  # fmt: skip
        details = {"sentence-transformers": sentence_transformers.__version__}
        return ModelVersion(sha256(*weights) if weights else "", details)

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def open_provider(model: Model, base_dir: Path) -> SentenceTransformersProvider:
    """See `registry.open_provider`."""
    return SentenceTransformersProvider(model, base_dir)
