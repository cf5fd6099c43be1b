"""The manifest: load, validate, refuse secrets, resolve paths, hash what decides the result.

`Manifest.load` is the only way in: safe YAML with a bound on what aliases may expand to, unknown
keys named with their nearest known neighbour, secrets refused, paths made absolute relative to the
manifest's own folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from reembed.errors import ManifestError
from reembed.manifest.following import Follow
from reembed.manifest.messages import Places, explain
from reembed.manifest.misplaced import (
    refuse_for_followed,
    refuse_for_kept,
    refuse_for_several,
)
from reembed.manifest.reader import places, read_yaml
from reembed.manifest.reporting import Reporting
from reembed.manifest.secrets import refuse_secrets
from reembed.manifest.sections import (
    Embed,
    FunctionChoice,
    Layout,
    LineBreaks,
    Model,
    Provider,
    Section,
    Source,
    Swap,
    SwapKind,
    Target,
    Verify,
)
from reembed.manifest.template import TemplateError, TextTemplate
from reembed.manifest.urls import absolute, check_url, resolve_url
from reembed.manifest.variables import fill
from reembed.manifest.watching import Watch
from reembed.redaction import allow

__all__ = [
    "Embed", "Follow", "FunctionChoice", "Layout", "LineBreaks", "Manifest", "Model", "Provider",
    "Source", "Swap", "SwapKind", "Target", "Verify", "Watch",
]  # fmt: skip


class Manifest(Section):
    """One migration, from one collection and model to another."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """the migration's name, also the name of its run directory"""
    source: Source
    target: Target = Field(default_factory=Target)
    model: Model | Literal["keep"]
    """what makes the new vectors; keep: nothing does, they are moved as they are"""
    text: str = "{document}"
    """what is embedded; {document}, {uri}, {id} and {metadata.KEY} may be used"""
    line_breaks: LineBreaks = "keep"
    """space: send line breaks as spaces, as many applications' embedders do"""
    embed: Embed = Field(default_factory=Embed)
    verify: Verify = Field(default_factory=Verify)
    swap: Swap = Field(default_factory=Swap)
    backup: Literal["before"] | None = None
    """before: a snapshot of the source before a run begins, and before the name moves"""
    mode: Literal["once", "follow"] = "once"
    """once: a migration; follow: a job that runs again and carries what changed in the source"""
    follow: Follow = Field(default_factory=Follow)
    watch: Watch = Field(default_factory=Watch)
    report: Reporting = Field(default_factory=Reporting)
    state: str = "./.reembed"
    """where run directories live"""

    _base_dir: Path = PrivateAttr(default_factory=lambda: Path(os.curdir))
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _passes_over_empty_sections(cls, data: Any) -> Any:
        """A section whose keys are all comments is as one that is not there."""
        if not isinstance(data, dict):
            return data
        return {
            key: value for key, value in data.items()
            if value is not None or key not in may_be_empty(cls)
        }  # fmt: skip

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
        data = fill(read_yaml(path), str(path), os.environ)
        manifest = cls._parse(data, path.resolve().parent, str(path), lambda: places(path))
        manifest._path = path.resolve()
        return manifest

    @classmethod
    def parse(cls, data: Any, base_dir: Path, origin: str = "manifest") -> Self:
        """Validate `data` and make its paths absolute. Raises ManifestError."""
        return cls._parse(data, base_dir, origin, dict)

    @classmethod
    def _parse(cls, data: Any, base_dir: Path, origin: str, places: Callable[[], Places]) -> Self:
        if not isinstance(data, dict):
            raise ManifestError(
                f"{origin}: a manifest is a mapping of keys, this is {_yaml_type(data)}",
                "Start from one of manifests/, or write one with `reembed init URL`.",
            )
        refuse_secrets(data, origin)
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            raise ManifestError(*explain(error, data, origin, cls, places())) from None
        check_url(manifest.source.url, f"{origin}: source.url")
        if manifest.target.url is not None:
            check_url(manifest.target.url, f"{origin}: target.url")
        elif manifest.target.headers_env:
            raise ManifestError(
                f"{origin}: target.headers_env is for target.url, which is not given",
                "The source's store is asked with source.headers_env.",
            )
        try:
            resolved = cls.model_validate(_resolve(manifest.model_dump(by_alias=True), base_dir))
        except ManifestError as error:
            raise ManifestError(f"{origin}: {error.message}", error.hint) from None
        resolved._base_dir = base_dir
        refuse_for_several(resolved, origin)
        refuse_for_kept(resolved, origin)
        refuse_for_followed(resolved, origin)
        allow(*filter(None, resolved._names()))
        return resolved

    def _names(self) -> list[str]:
        """What the manifest uses in the open, so that no weak password hides it in the output."""
        urls = [self.source.url, self.target_url]
        models = [model for model in (self.new_model, self.source.model) if model]
        return [
            self.name, self.live, self.source.collection, self.target.collection or "",
            *(model.name for model in models),
            *(word for url in urls for word in re.split(r"[^\w.-]+", url)),
        ]  # fmt: skip

    @property
    def keeps(self) -> bool:
        """Whether vectors are moved as they are, so that no model is asked for any."""
        return self.model == "keep"

    @property
    def new_model(self) -> Model | None:
        """What makes the new vectors; None where they are moved as they are."""
        return None if isinstance(self.model, str) else self.model

    @property
    def is_group(self) -> bool:
        """Whether several collections move together."""
        return self.source.collections is not None

    def member(self, collection: str, name: str, state: Path) -> Self:
        """The manifest of one collection of several, as one that moves alone has it.

        Args:
            name: of the migration.
            state: where its runs live.
        """
        alone = {"collection": collection, "collections": None, "except_": None}
        source = self.source.model_copy(update=alone)
        hookless = self.swap.model_copy(update={"before": None, "after": None})
        found = self.model_copy(
            update={"name": name, "source": source, "swap": hookless, "state": str(state)}
        )
        found._base_dir, found._path = self._base_dir, self._path
        return found

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
    def live_url(self) -> str:
        """The store of the live name: of a job the target's, else the one that is moved from."""
        return self.target_url if self.mode == "follow" else self.source.url

    @property
    def live(self) -> str:
        """The name the application reads."""
        made = self.target.collection if self.mode == "follow" else None
        return self.swap.live or made or self.source.collection

    @property
    def state_dir(self) -> Path:
        """`<state>/<name>`, where this migration's runs live."""
        return Path(self.state) / self.name

    def template(self, layout: Layout | None = None) -> TextTemplate:
        """What is embedded of a record.

        Args:
            layout: as a run was begun with; default: the manifest's.
        """
        return TextTemplate(self.text, layout or self.source.layout, self.line_breaks)

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True)

    def to_yaml(self) -> str:
        """The resolved manifest, as written to the run directory."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def identity(self) -> dict[str, Any]:
        """What decides a run's records and vectors. A run directory belongs to one identity;
        `source.model`, `embed`, `verify` and `swap` may change between two calls of a run."""
        dump = self.to_dict()
        del dump["source"]["model"]  # the way back must never close for want of it
        if not self.is_group:  # runs began before there was a choice
            del dump["source"]["collections"], dump["source"]["except"]
        del dump["source"]["mem0"]  # says how the application is set up, not what is moved
        for section in ("source", "target"):
            del dump[section]["headers_env"]  # how a server is asked, not which
        del dump["target"]["bulk"]  # how a collection is filled, not with what
        if self.target.embedding_function == "auto":  # runs that began before there was a choice
            del dump["target"]["embedding_function"]
        for section, key, default in (
            ("target", "schema", None), ("source", "text_query", None),
            ("source", "without_vector", "embed"),
        ):  # fmt: skip
            if dump[section][key] == default:  # runs began before there was a choice
                del dump[section][key]
        model = self.new_model
        lines = {} if self.line_breaks == "keep" else {"line_breaks": self.line_breaks}
        return (
            {key: dump[key] for key in ("name", "source", "target", "model", "text")}
            | ({"model": model.settings() | {"on_too_long": model.on_too_long}} if model else {})
            | lines
        )

    def executes(self) -> list[str]:
        """The code of the user's that this manifest makes reembed run."""
        found = [f"{hook}: {command}" for hook in ("before", "after")
                 if (command := getattr(self.swap, hook))]  # fmt: skip
        found += [f"python: {model.name}" for model in (self.new_model, self.source.model)
                  if model and model.provider == "python"]  # fmt: skip
        found += [f"the code that comes with {model.name}"
                  for model in (self.new_model, self.source.model)
                  if model and model.options.get("trust_remote_code")]  # fmt: skip
        return found


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a key always holds; None of a key with a value, or one that may be null."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def may_be_empty(manifest: type[Manifest]) -> frozenset[str]:
    """Keys of the sections that need not be there."""
    return frozenset(
        key for key, field in manifest.model_fields.items()
        if section_of(field) is not None and not field.is_required()
    )  # fmt: skip


def _resolve_model(model: dict[str, Any] | str | None, base_dir: Path) -> None:
    if not isinstance(model, dict):  # there is none, or it is kept
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
    files = data["source"]["mem0"] or {}
    for key, path in files.items():
        files[key] = path and absolute(path, base_dir)
    for key in ("queries", "qrels"):
        if data["verify"][key]:
            data["verify"][key] = absolute(data["verify"][key], base_dir)
    for key in ("backups", "metrics"):
        if data["watch"][key]:
            data["watch"][key] = absolute(data["watch"][key], base_dir)
    data["state"] = absolute(data["state"], base_dir)
    _resolve_model(data["model"], base_dir)
    _resolve_model(data["source"]["model"], base_dir)
    return data


def _yaml_type(data: Any) -> str:
    return {type(None): "empty", list: "a list", str: "a text"}.get(type(data), type(data).__name__)
