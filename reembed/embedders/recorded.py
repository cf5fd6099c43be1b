"""What a store says of a model is data: `believe` alone decides what of it is used.

Whoever may write to a store decides what it says. So nothing in it makes reembed call code, read a
file, look up a variable or ask a host that the user's own side does not name: the manifest, or for
`reembed.live` the application (`trust`). What decides vectors and reaches nowhere is taken as it
is: dimensions, prefixes, lengths, the name of a model at a provider's own address. What is not
believed is never put into a default's place: then there is no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from reembed.errors import PreflightError
from reembed.manifest import Model
from reembed.manifest.secrets import is_secret
from reembed.manifest.sections import OPERATIONAL_OPTIONS

LONGEST = 8_192
"""Characters of a model's settings as JSON; nobody's are longer in good faith."""
_SHOWN = 300
DEFAULT_ADDRESS = {
    "openai": ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "ollama": ("OLLAMA_HOST", "http://127.0.0.1:11434"),
}
"""Where a provider is without `base_url`: a variable of the user's own, else its own address."""
_HARMLESS_OPTIONS = {"openai": {"encoding_format"}, "ollama": {"runtime"}}
_KEYS = {"openai": ("OPENAI_API_KEY", "CHROMA_OPENAI_API_KEY"), "ollama": ()}
"""Variables that hold a provider's own key by convention, and that go to its own address."""

_CHROMA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "onnx_mini_lm_l6_v2": ((), ()),
    "cohere": (("COHERE_API_KEY", "CHROMA_COHERE_API_KEY"), ("model_name",)),
    "voyageai": (
        ("VOYAGE_API_KEY", "CHROMA_VOYAGE_API_KEY"), ("model_name", "input_type", "truncation"),
    ),
    "jina": (
        ("JINA_API_KEY", "CHROMA_JINA_API_KEY"),
        ("model_name", "task", "late_chunking", "truncate", "dimensions", "embedding_type",
         "normalized", "query_config"),
    ),
    "mistral": (("MISTRAL_API_KEY",), ("model",)),
    "nomic": (("NOMIC_API_KEY",), ("model", "task_type", "query_config")),
    "together_ai": (("TOGETHER_API_KEY", "CHROMA_TOGETHER_AI_API_KEY"), ("model_name",)),
    "perplexity": (("PERPLEXITY_API_KEY",), ("model_name", "dimensions")),
    "google_generative_ai": (
        ("GEMINI_API_KEY", "GOOGLE_API_KEY", "CHROMA_GOOGLE_GENAI_API_KEY"),
        ("model_name", "task_type", "dimension"),
    ),
    "chroma-cloud-qwen": (("CHROMA_API_KEY",), ("model", "task", "instructions")),
    "chroma-cloud-splade": (("CHROMA_API_KEY",), ("model", "include_tokens")),
    "chroma_bm25": (
        (), ("k", "b", "avg_doc_length", "token_max_length", "include_tokens", "stopwords"),
    ),
}  # fmt: skip
"""Chroma's own functions that ask a fixed host or none, by name: variables that hold their key by
convention, and settings that reach nowhere. The others load files or downloads, or take an address.
"""


@dataclass(frozen=True)
class Recorded:
    """A model as a store has it on record.

    Attributes:
        said: manifest keys of `model`, as found.
        model: to be used; None if that takes the word of somebody else than the store.
        doubts: what is not believed, and why it matters; empty with a model.
    """

    said: dict[str, Any]
    model: Model | None
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Provider and name, on one line."""
        return f"{_shown(self.said.get('provider'))} {_shown(self.said.get('name'))}"

    def keys(self) -> str:
        """The keys as one line of JSON, which YAML reads too; what looks like a secret is left
        out."""
        shown = {
            key: value for key, value in self.said.items()
            if not (isinstance(value, str) and is_secret(key, value))
        }  # fmt: skip
        return json.dumps(shown, default=str)

    @property
    def problem(self) -> str:
        """What is not believed, in one sentence."""
        return (
            f"the store says that {self.name} made its vectors, and its word is not enough for "
            f"{'; '.join(self.doubts)}"
        )

    @property
    def hint(self) -> str:
        """What to write in the manifest to believe it."""
        return (
            "If you know that it is right, say so in the manifest, under source, and leave out "
            f"what is not: model: {self.keys()}"
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "said": json.loads(self.keys()),
            "believed": self.model is not None,
            "not_believed": list(self.doubts),
        }

    def refusal(self, where: str) -> PreflightError:
        """For an application that wants to embed with it: its traceback shows the message alone."""
        return PreflightError(
            f"{where}: {self.problem}. If you know that it is right, call reembed.live.trust("
            f"{json.loads(self.keys())!r}) first, or give it the path of the manifest that made "
            "the collection"
        )


_TRUSTED: dict[str, Model] = {}
"""Models that this process's own code has named, by their settings."""


def trust(model: Model) -> None:
    """Take the word of this process's own code for a model."""
    _TRUSTED.setdefault(model.model_dump_json(), model)


def believe(said: Mapping[str, Any] | None, words: Iterable[Model | None] = ()) -> Recorded | None:
    """What of a recorded model may be used; None where nothing is recorded.

    Args:
        said: what the store says, as manifest keys of `model`.
        words: models that the user's own side names, besides those given to `trust`.
    """
    if said is None:
        return None
    said = {str(key): value for key, value in said.items()}
    try:
        text = json.dumps(said)
        model = Model.model_validate(json.loads(text))
    except (ValidationError, ValueError, TypeError, RecursionError):
        return Recorded(
            {"provider": said.get("provider"), "name": said.get("name")}, None,
            ("settings that are not a model's",),
        )  # fmt: skip
    if len(text) > LONGEST:
        return Recorded(
            {"provider": model.provider, "name": model.name[:_SHOWN]}, None,
            (f"settings of {len(text):,} characters",),
        )  # fmt: skip
    model = model.model_copy(update={"options": _lasting(model)})
    for word in (*words, *_TRUSTED.values()):
        if word is not None and _vouches(word, model):
            return Recorded(said, _by_word(word, model))
    doubts = _doubts(model)
    return Recorded(said, None if doubts else _by_convention(model), tuple(doubts))


def _lasting(model: Model) -> dict[str, Any]:
    """Options without those that only say how patient or fast calls are: not a store's business."""
    return {key: value for key, value in model.options.items() if key not in OPERATIONAL_OPTIONS}


def _vouches(word: Model, model: Model) -> bool:
    """Whether the user's own side names what a recorded model would reach."""
    if word.provider != model.provider:
        return False
    if model.provider in DEFAULT_ADDRESS:
        return (
            _address(word) == _address(model)
            and model.api_key_env in (None, word.api_key_env, *_default_keys(word))
            and (_lasting(word) == model.options or not _strange_options(model))
        )
    return (word.name, _lasting(word)) == (model.name, model.options)


def _by_word(word: Model, model: Model) -> Model:
    """The recorded model, with all that reaches anywhere as the user's own side has it."""
    reaching: dict[str, Any] = {"base_url": word.base_url, "api_key_env": word.api_key_env}
    if model.provider not in DEFAULT_ADDRESS:
        reaching |= {"name": word.name, "options": word.options}
    elif _lasting(word) == model.options:
        reaching["options"] = word.options
    return model.model_copy(update=reaching)


def _by_convention(model: Model) -> Model:
    """A recorded model that asks its provider's own address, with the key that is there."""
    if model.provider not in DEFAULT_ADDRESS:
        return model
    key = model.api_key_env
    return model.model_copy(
        update={"base_url": None, "api_key_env": key if key and os.environ.get(key) else None}
    )


def _doubts(model: Model) -> list[str]:
    """What of a model reaches farther than a store's word does."""
    if model.provider == "python":
        return [f"python {_shown(model.name)}: it is code"]
    if model.provider == "static" and model.name == "wordllama" and not model.options:
        return []
    if model.provider == "chroma":
        return _chroma_doubts(model)
    if model.provider not in DEFAULT_ADDRESS:
        return [f"{model.provider} {_shown(model.name)}: it is a file, a package or a download"]
    found = []
    if model.base_url is not None and _address(model) != _normal(_default(model.provider)):
        found.append(f"base_url {_shown(model.base_url)}: texts and keys would go there")
    if model.api_key_env is not None and model.api_key_env not in _KEYS[model.provider]:
        found.append(f"api_key_env {_shown(model.api_key_env)}: its value would be sent")
    found += [f"options.{_shown(key)}" for key in _strange_options(model)]
    return found


def _strange_options(model: Model) -> list[str]:
    return sorted(set(model.options) - _HARMLESS_OPTIONS[model.provider])


def _chroma_doubts(model: Model) -> list[str]:
    what = f"the Chroma embedding function {_shown(model.name)}"
    options = {key: value for key, value in model.options.items() if value not in (None, {}, [])}
    if model.name not in _CHROMA:
        if not options and not _chromas_own(model.name):
            return []  # the class is the application's, and there is nothing for it to take
        return [f"{what} with {_shown(options)}: it may load files or downloads, or send keys"]
    variables, harmless = _CHROMA[model.name]
    found = []
    for key, value in options.items():
        if key == "api_key_env_var" and value in variables:
            continue
        if key not in harmless:
            found.append(f"{key} {_shown(value)} of {what}")
    return found


def _chromas_own(name: str) -> bool:
    from chromadb.utils import embedding_functions as chroma

    kind: Any = chroma.known_embedding_functions.get(
        name, chroma.sparse_known_embedding_functions.get(name)
    )
    return kind is not None and str(kind.__module__).startswith("chromadb.")


def _default(provider: str) -> str:
    variable, own = DEFAULT_ADDRESS[provider]
    return os.environ.get(variable) or own


def _default_keys(word: Model) -> tuple[str, ...]:
    """Variables whose names need no word: those of a provider at its own address."""
    at_home = _address(word) == _normal(_default(word.provider))
    return _KEYS[word.provider] if at_home and word.api_key_env is None else ()


def _address(model: Model) -> tuple[str, str, int, str]:
    return _normal(model.base_url or _default(model.provider))


def _normal(url: str) -> tuple[str, str, int, str]:
    """An address as it is reached, however it is written. What hides in it (a user, a query) stays,
    so that it equals no other."""
    bare = "://" not in url
    try:
        parts = urlsplit(f"http://{url}" if bare else url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return (url, "", 0, "")
    if host in ("localhost", "::1", "0.0.0.0"):  # noqa: S104  (read, not bound)
        host = "127.0.0.1"
    port = port or (11434 if bare else 443 if parts.scheme == "https" else 80)
    rest = parts.path.rstrip("/")
    for mark, more in (("@", parts.username), ("@", parts.password), ("?", parts.query),
                       ("#", parts.fragment)):  # fmt: skip
        rest += f"{mark}{more}" if more else ""
    return (parts.scheme, host, port, rest)


def _shown(value: Any) -> str:
    """A value from a store, printable and not too long."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if is_secret("", text):
        return "[secret]"
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
