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
from reembed.embedders.redact import redact
from reembed.errors import ManifestError, ProviderRefusedError
from reembed.manifest import Model

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names that `encode_document` looks for, in its order."""
DTYPES = ("auto", "float32", "float16", "bfloat16")
_WANTS_TRUST = "trust_remote_code"


class SentenceTransformersProvider:
    """See the module.

    `options`: `device` (cpu, cuda, cuda:1, mps; default: a GPU if there is one), `dtype` (of
    DTYPES; default: the library's), `prompts` (name to text, beside those saved with the model or
    instead of them), `prompt_name` and `query_prompt_name` (of them, for documents and queries),
    `revision` (branch, tag or commit of a hub id), `trust_remote_code` (run the code that comes
    with the model; default: false), `batch_items` (32).

    Where the manifest sets neither prefix nor name, the prompts saved with the model are used;
    where it sets a prefix, only that.
    """

    def __init__(self, model: Model, base_dir: Path) -> None:
        options = Options(model)
        device = options.take("device", str, "") or None
        dtype = options.take("dtype", str, "")
        prompts = _texts(options.take("prompts", dict, {}))
        self._names = {
            False: options.take("prompt_name", str, ""),
            True: options.take("query_prompt_name", str, ""),
        }
        revision = options.take("revision", str, "") or None
        trust = options.take(_WANTS_TRUST, bool, False)
        items = options.take_positive("batch_items", int, 32)
        options.finish()
        if dtype and dtype not in DTYPES:
            raise ManifestError(f"model.options.dtype: is {', '.join(DTYPES)}, not {dtype!r}")
        self._where = f"sentence-transformers {model.name}"
        self._own = {False: bool(model.document_prefix), True: bool(model.query_prefix)}
        for query, key in ((False, "prompt_name"), (True, "query_prompt_name")):
            if self._own[query] and self._names[query]:
                side = "query" if query else "document"
                raise ManifestError(
                    f"model.options.{key}: model.{side}_prefix says what goes before the text",
                    "Leave one of them out.",
                )
        self._folder = Path(model.name)
        self._model: Any = self._load(
            model, device=device, prompts=prompts or None, revision=revision,
            trust_remote_code=trust, model_kwargs={"torch_dtype": dtype} if dtype else None,
        )  # fmt: skip
        self._check_names()
        longest = self._model.max_seq_length
        self.limits = Limits(
            items,
            max_tokens=None if longest is None else max(1, int(longest) - self._prompt_tokens()),
            padded=True,
        )
        self.price: Price | None = None
        self.exact_tokens = True
        self.normalizes = False  # encode() does it where the model has a Normalize module
        self.queries_alike = self._sent(False) == self._sent(True)
        self.runs_on = self._placed()

    def _load(self, model: Model, **settings: Any) -> Any:
        try:
            return sentence_transformers.SentenceTransformer(
                model.name, truncate_dim=model.dimensions, **settings
            )
        except Exception as error:  # torch, transformers and the hub's client raise what they like
            words = redact(str(error))
        hint = "Give a folder that holds the model, or a hub id that this machine can reach."
        if _WANTS_TRUST in words and not settings[_WANTS_TRUST]:
            hint = (
                "It brings code of its own, which would run on this machine: read it, and if you "
                f"trust it, set model.options.{_WANTS_TRUST}: true, with a commit as revision."
            )
        elif settings["device"] is not None:
            hint = "Check model.options.device (cpu always works), and the model's name."
        raise ProviderRefusedError(f"{self._where} cannot be loaded: {words}", hint)

    def _check_names(self) -> None:
        """Raise ManifestError for a prompt's name that the model does not have."""
        known: dict[str, str] = getattr(self._model, "prompts", {}) or {}
        for query, name in self._names.items():
            if name and name not in known:
                key = "query_prompt_name" if query else "prompt_name"
                names = ", ".join(sorted(known)) or "none"
                raise ManifestError(
                    f"model.options.{key}: the model has no prompt {name!r}, it has {names}",
                    f"Write its text into model.options.prompts: {{{name}: ...}}",
                )

    def _prompt(self, query: bool) -> str:
        """The model's own prompt for this side."""
        prompts: dict[str, str] = getattr(self._model, "prompts", {}) or {}
        if self._names[query]:
            return prompts[self._names[query]]
        names = ("query",) if query else DOCUMENT_PROMPTS
        found = next((prompts[name] for name in names if prompts.get(name)), "")
        default = getattr(self._model, "default_prompt_name", None)
        return found or prompts.get(default or "", "")

    def _sent(self, query: bool) -> str:
        """What the library puts before a text; the manifest's own prefix is before it already."""
        return "" if self._own[query] else self._prompt(query)

    def _placed(self) -> str:
        """Device and number format, such as `cuda:0, float16`."""
        parts = [str(getattr(self._model, "device", ""))]
        parameters = getattr(self._model, "parameters", None)
        first = next(iter(parameters()), None) if callable(parameters) else None
        if first is not None:
            parts.append(str(first.dtype).removeprefix("torch."))
        return ", ".join(part for part in parts if part)

    def _prompt_tokens(self) -> int:
        texts = [prompt for query in (False, True) if (prompt := self._sent(query))]
        return int(self.count_tokens(texts).max()) if texts else 0

    def count_tokens(self, texts: Sequence[str]) -> Counts:
        encoded = self._model.tokenizer(
            list(texts), add_special_tokens=True, truncation=False, padding=False, verbose=False
        )
        return np.array([len(ids) for ids in encoded["input_ids"]], np.int32)

    def embed(self, texts: Sequence[str], *, query: bool = False) -> Answer:
        encode: Callable[..., Any] = self._model.encode
        try:
            result = encode(
                list(texts),
                prompt=self._sent(query),  # "" also switches the model's default prompt off
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
        if self.runs_on:
            details["runs on"] = self.runs_on
        return ModelVersion(sha256(*weights) if weights else "", details)

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None: ...


def _texts(prompts: dict[Any, Any]) -> dict[str, str]:
    for name, text in prompts.items():
        if not (isinstance(name, str) and isinstance(text, str)):
            raise ManifestError(
                f"model.options.prompts: is a mapping of names to texts, {name!r}: {text!r} is not"
            )
    return prompts


def open_provider(model: Model, base_dir: Path) -> SentenceTransformersProvider:
    """See `registry.open_provider`."""
    return SentenceTransformersProvider(model, base_dir)
