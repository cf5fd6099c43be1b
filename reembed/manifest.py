"""The manifest: load, validate, refuse secrets, resolve paths, hash what decides the result.

`Manifest.load` is the only way in: safe YAML with a bound on what aliases may expand to, unknown
keys named with their nearest known neighbour, secrets refused, paths made absolute relative to the
manifest's own folder.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from reembed.errors import ManifestError
from reembed.records import Metric
from reembed.secret_scan import refuse_secrets
from reembed.store_url import absolute, check_url, resolve_url
from reembed.template import TemplateError, TextTemplate
from reembed.yaml_reader import read_yaml

Provider = Literal[
    "openai", "ollama", "onnx", "static", "sentence-transformers", "chroma", "python"
]
SwapKind = Literal["pointer", "transaction", "rename", "alias", "config"]
Layout = Literal["auto", "table", "mem0", "langchain", "llamaindex"]

OPERATIONAL_OPTIONS = frozenset(
    {
        "batch_items",
        "batch_tokens",
        "keep_alive",
        "retry_attempts",
        "retry_seconds",
        "retry_wait",
        "threads",
        "timeout",
    }
)
"""Options of providers that say how a model is called, not what its vectors are."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Model(_Section):
    """What makes a vector."""

    provider: Provider
    """openai, ollama, onnx, static, sentence-transformers, chroma or python"""
    name: str = Field(min_length=1)
    """model id, tag, folder, `package:MODULE`, or `module:callable`, by provider"""
    dimensions: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """dimensions asked for; the run stops if the model gives others"""
    document_prefix: str = ""
    """put before every document, e.g. "search_document: " for nomic-embed-text"""
    query_prefix: str = ""
    """put before every query"""
    normalize: bool | Literal["auto"] = "auto"
    """scale vectors to length one; auto: only where the provider's model card says so"""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """tokens an input may have; default: what the provider tells"""
    on_too_long: Literal["fail", "truncate", "mean"] = "fail"
    """longer inputs: quarantine them (fail), cut them, or average the vectors of their pieces"""
    base_url: str | None = None
    """the provider's address; default: the provider's own"""
    api_key_env: str | None = None
    """the environment variable that holds the key; default: the provider's own"""
    options: dict[str, Any] = Field(default_factory=dict)
    """the provider's own options"""

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variable_name(cls, value: str | None) -> str | None:
        if value is not None and (not ENV_NAME.fullmatch(value) or _is_key_like(value)):
            raise ValueError("is the name of an environment variable, not the key itself")
        return value

    def settings(self) -> dict[str, Any]:
        """What decides the vectors, for the fingerprint: all but where the key comes from and how
        patient or how fast requests are, which may change between two calls of a run."""
        settings = self.model_dump(exclude={"api_key_env", "on_too_long"})
        settings["options"] = {
            key: value for key, value in self.options.items() if key not in OPERATIONAL_OPTIONS
        }
        if self.on_too_long != "fail":
            settings["on_too_long"] = self.on_too_long
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The manifest keys that are not at their default: enough to open the model elsewhere."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def settings_sha256(self) -> str:
        """Hash of `settings`, hexadecimal."""
        return _sha256(self.settings())


class Source(_Section):
    """The live collection."""

    url: str
    """store URL, e.g. chroma:./chroma_db"""
    collection: str = Field(min_length=1)
    """the collection to move"""
    layout: Layout = "auto"
    """pgvector only: how the table is laid out"""
    data_dir: str | None = None
    """Chroma over HTTP: the server's own directory, if this machine can reach it"""
    where: dict[str, Any] | str | None = None
    """the store's own filter, for a partial migration"""
    model: Model | None = None
    """the model that made the source; default: what the store recorded"""


class Target(_Section):
    """The shadow collection."""

    url: str | None = None
    """default: the source's"""
    collection: str | None = None
    """default: <collection>__<model>-<dimensions>"""
    metric: Metric | None = None
    """default: the source's real one"""
    index: dict[str, Any] = Field(default_factory=dict)
    """store-specific index settings; default: the source's"""


class Embed(_Section):
    """How fast the model is called."""

    engine: Literal["local"] = "local"
    """where shards are worked on"""
    concurrency: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """requests in flight; auto: the provider's default"""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """upper bound on requests"""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """upper bound on tokens"""
    cache: bool = True
    """keep paid vectors across runs, by text and model fingerprint"""


class Verify(_Section):
    """What the gates ask for."""

    sample: Annotated[int, Field(ge=100)] = 1000
    """records sampled for fidelity and known-item queries"""
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    """cut-off of recall@k"""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """non-inferiority margin: how much recall the new model may lose"""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """level of the intervals"""
    index_recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """recall@k the shadow's index must reach against exact search"""
    queries: str | None = None
    """JSON lines {"_id", "text"}"""
    qrels: str | None = None
    """tab-separated query-id, corpus-id, score, with that header (BEIR)"""
    allow_quarantined: Annotated[int, Field(ge=0)] = 0
    """quarantined records that the integrity gate lets pass"""


class Swap(_Section):
    """How the live name moves."""

    live: str | None = None
    """the name the application reads; default: the source collection"""
    kind: Literal["auto"] | SwapKind = "auto"
    """auto: a pointer stays one, else transaction, else alias, else rename if accept_window"""
    accept_window: bool = False
    """accept a gap of a few milliseconds in which the live name does not exist"""
    before: str | None = None
    """command run before the swap; its failure stops the swap"""
    after: str | None = None
    """command run after the swap"""
    keep_old: str = "30d"
    """how long `clean` leaves the old collection alone: 12h, 30d, 4w"""

    @field_validator("keep_old")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,5}[hdw]", value):
            raise ValueError("is a number and h, d or w, e.g. 30d")
        return value

    @property
    def keep_old_seconds(self) -> int:
        """`keep_old` in seconds."""
        return int(self.keep_old[:-1]) * {"h": 3600, "d": 86400, "w": 604800}[self.keep_old[-1]]


class Manifest(_Section):
    """One migration, from one collection and model to another."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """the migration's name, also the name of its run directory"""
    source: Source
    target: Target = Target()
    model: Model
    text: str = "{document}"
    """what is embedded; {document}, {uri}, {id} and {metadata.KEY} may be used"""
    embed: Embed = Embed()
    verify: Verify = Verify()
    swap: Swap = Swap()
    state: str = "./.reembed"
    """where run directories live"""

    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)
    _path: Path | None = PrivateAttr(default=None)

    @field_validator("text")
    @classmethod
    def _is_a_template(cls, value: str) -> str:
        try:
            TextTemplate(value)
        except TemplateError as error:
            raise ValueError(str(error)) from None
        return value

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a manifest file; relative paths in it are relative to its folder.

        Raises:
            ManifestError: it cannot be read, is no valid manifest, or holds a secret.
        """
        path = Path(path)
        manifest = cls.parse(read_yaml(path), base_dir=path.resolve().parent, origin=str(path))
        manifest._path = path.resolve()
        return manifest

    @classmethod
    def parse(cls, data: Any, base_dir: Path, origin: str = "manifest") -> Self:
        """Validate `data` and make its paths absolute. Raises ManifestError."""
        if not isinstance(data, dict):
            raise ManifestError(
                f"{origin}: a manifest is a mapping of keys, this is {_yaml_type(data)}",
                "Start from one of manifests/, or write one with `reembed init URL`.",
            )
        refuse_secrets(data, origin)
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            raise ManifestError(*_explain(error, data, origin)) from None
        check_url(manifest.source.url, f"{origin}: source.url")
        if manifest.target.url is not None:
            check_url(manifest.target.url, f"{origin}: target.url")
        try:
            resolved = cls.model_validate(_resolve(manifest.model_dump(), base_dir))
        except ManifestError as error:
            raise ManifestError(f"{origin}: {error.message}", error.hint) from None
        resolved._base_dir = base_dir
        return resolved

    @property
    def base_dir(self) -> Path:
        """The folder that relative paths and `python` models are found from."""
        return self._base_dir

    @property
    def path(self) -> Path | None:
        """The file that it was read from, None for one that was made in Python."""
        return self._path

    @property
    def target_url(self) -> str:
        return self.target.url or self.source.url

    @property
    def live(self) -> str:
        """The name the application reads."""
        return self.swap.live or self.source.collection

    @property
    def state_dir(self) -> Path:
        """`<state>/<name>`, where this migration's runs live."""
        return Path(self.state) / self.name

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump()

    def to_yaml(self) -> str:
        """The resolved manifest, as written to the run directory."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def identity(self) -> dict[str, Any]:
        """What decides a run's records and vectors. A run directory belongs to one identity;
        `embed`, `verify` and `swap` may change between two calls of the same run."""
        dump = self.to_dict()
        return {key: dump[key] for key in ("name", "source", "target", "model", "text")} | {
            "model": self.model.settings() | {"on_too_long": self.model.on_too_long}
        }

    def executes(self) -> list[str]:
        """The code of the user's that this manifest makes reembed run."""
        found = [f"{hook}: {command}" for hook in ("before", "after")
                 if (command := getattr(self.swap, hook))]  # fmt: skip
        found += [f"python: {model.name}" for model in (self.model, self.source.model)
                  if model and model.provider == "python"]  # fmt: skip
        return found


def json_schema() -> dict[str, Any]:
    """The manifest's JSON Schema (draft 2020-12)."""
    schema = Manifest.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "reembed manifest"
    return schema


def _explain(error: ValidationError, data: Any, origin: str) -> tuple[str, str]:
    """The most telling validation error in the manifest's own words, and a hint.

    An unknown key comes first: misspelt, it is often why another one is missing. The alternatives
    of one value (`30` is neither `auto` nor a list) are one error.
    """
    problems: dict[str, list[Any]] = {}
    for problem in error.errors():
        path = _path(problem, data)
        problems.setdefault(".".join(path), []).append((path, problem))
    first = min(problems.values(), key=lambda group: group[0][1]["type"] != "extra_forbidden")
    path, problem = first[0]
    where = ".".join(path)
    tail = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = sorted(_section(Manifest, path[:-1]).model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known keys here: {', '.join(known)}."
        return f"{origin}: unknown key {where!r}{tail}", hint
    if problem["type"] == "missing":
        return f"{origin}: {where} is missing{tail}", _SEE_SCHEMA
    message = "; or: ".join(_message(problem) for _, problem in first)
    return f"{origin}: {where}: {message}{tail}", _closest_choice(first) or _SEE_SCHEMA


_SEE_SCHEMA = "See `reembed schema` for every key."


def _message(problem: Any) -> str:
    if problem["type"] in ("model_type", "dict_type"):
        return "should be a mapping of keys"
    if problem["type"] == "string_pattern_mismatch":
        return "should be letters, digits, dots, dashes and underscores, at most 100"
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "should")


def _path(problem: Any, data: Any) -> list[str]:
    """The keys that lead to a problem, without what pydantic adds for a type's alternatives."""
    path: list[str] = []
    for part in problem["loc"]:
        if problem["type"] == "missing" and part == problem["loc"][-1]:
            return [*path, str(part)]
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
        path.append(str(part))
    return path


def _closest_choice(group: list[Any]) -> str | None:
    """`Did you mean 'cosine'?` for a misspelt choice."""
    value = group[0][1].get("input")
    choices = [
        choice
        for _, problem in group
        if problem["type"] == "literal_error"
        for choice in re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    ]
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    return f"Did you mean {close[0]!r}?" if close else None


def _section(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    """The section class that a path of keys leads to."""
    for part in path:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return model
        model = nested[0]
    return model


def _resolve_model(model: dict[str, Any] | None, base_dir: Path) -> None:
    if model is None:
        return
    is_file = model["provider"] in ("onnx", "static", "sentence-transformers")
    if is_file and not model["name"].startswith("package:"):
        path = absolute(model["name"], base_dir)
        with contextlib.suppress(OSError):  # a name too long for a path
            if Path(path).exists():  # else a hub id, or a path that the provider will miss
                model["name"] = path
    tokenizer = model["options"].get("tokenizer")
    if isinstance(tokenizer, str) and not tokenizer.startswith("package:"):
        model["options"] = model["options"] | {"tokenizer": absolute(tokenizer, base_dir)}


def _resolve(data: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    for section in ("source", "target"):
        if data[section]["url"]:
            data[section]["url"] = resolve_url(data[section]["url"], base_dir)
    if data["source"]["data_dir"]:
        data["source"]["data_dir"] = absolute(data["source"]["data_dir"], base_dir)
    for key in ("queries", "qrels"):
        if data["verify"][key]:
            data["verify"][key] = absolute(data["verify"][key], base_dir)
    data["state"] = absolute(data["state"], base_dir)
    _resolve_model(data["model"], base_dir)
    _resolve_model(data["source"]["model"], base_dir)
    return data


def _is_key_like(name: str) -> bool:
    """Whether a legal variable name looks more like the key itself: long, small letters, digits."""
    return len(name) >= 20 and bool(re.search("[a-z]", name) and re.search("[0-9]", name))


def _yaml_type(data: Any) -> str:
    return {type(None): "empty", list: "a list", str: "a text"}.get(type(data), type(data).__name__)


def _sha256(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
