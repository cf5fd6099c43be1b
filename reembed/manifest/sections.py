"""The manifest's sections: what each key is, what it may hold, and its default."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from reembed.manifest.adapters import PROVIDERS
from reembed.records import Metric
from reembed.redaction import shown_url

if TYPE_CHECKING:
    Provider = str
else:  # the names are the table's
    Provider = Literal[tuple(entry.name for entry in PROVIDERS)]
SwapKind = Literal["pointer", "transaction", "rename", "alias", "config"]
FunctionChoice = Literal["auto", "none", "record"]
Layout = Literal["auto", "plain", "table", "mem0", "langchain", "llamaindex"]
LineBreaks = Literal["keep", "space"]
WithoutVector = Literal["keep", "embed", "refuse"]

OPERATIONAL_OPTIONS = frozenset({
    "batch_items", "batch_tokens", "keep_alive", "retry_attempts", "retry_seconds", "retry_wait",
    "threads", "timeout",
})  # fmt: skip
"""Options of providers that say how a model is called, not what its vectors are."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _are_headers(value: dict[str, str]) -> dict[str, str]:
    """Refuse what is no header, and values that are no names of variables."""
    for header, name in value.items():
        if not _HEADER.fullmatch(header):
            raise ValueError(f"{header!r} is not the name of a header")
        if not ENV_NAME.fullmatch(name) or _is_key_like(name):
            raise ValueError(
                f"{header}: is the name of an environment variable, not the header's value"
            )
    return value


class Section(BaseModel):
    """Keys of a manifest: unknown ones are errors, and values are never converted. The text below
    a key says what it is (`schema.py`)."""

    # Built where it is first used: most commands use few of them.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Model(Section):
    """What makes a vector."""

    provider: Provider
    """openai, ollama, onnx, static, sentence-transformers, fastembed, chroma or python"""
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
        settings["base_url"] = self.base_url and shown_url(self.base_url)
        settings["options"] = {
            key: value for key, value in self.options.items() if key not in OPERATIONAL_OPTIONS
        }
        if self.on_too_long != "fail":
            settings["on_too_long"] = self.on_too_long
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The manifest keys that are not at their default: enough to open the model elsewhere."""
        shown = self.model_dump(mode="json", exclude_defaults=True)
        return shown | ({"base_url": shown_url(self.base_url)} if self.base_url else {})

    def settings_sha256(self) -> str:
        """Hash of `settings`, hexadecimal."""
        return _sha256(self.settings())


HeadersEnv = Annotated[dict[str, str], AfterValidator(_are_headers)]
"""Names of HTTP headers, each with the environment variable that holds its value."""

Names = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
"""Names of collections, or patterns."""

Columns = dict[Literal["id", "text", "metadata", "embedding"], str]


class Mem0Files(Section):
    """What mem0 keeps beside its tables; both are only read."""

    config: str | None = None
    """the dictionary given to Memory.from_config, in a .json, .yaml or .py file"""
    history: str | None = None
    """its SQLite file; default: what config says"""


class Source(Section):
    """The live collection."""

    url: str
    """store URL, e.g. chroma:./chroma_db"""
    collections: Annotated[str, Field(min_length=1)] | Names | None = None
    """several: a name, a pattern such as "file-*", or a list of such; "*" for all"""
    except_: Annotated[str, Field(min_length=1)] | Names | None = Field(
        default=None, alias="except"
    )
    """names or patterns of collections that are left out of `collections`"""
    collection: str = ""
    """the collection to move; or `collections`, for several that move together"""
    layout: Layout = "auto"
    """whose records these are, so what is embedded of them: auto: as each tells; plain: `document`
    alone; table: pgvector only, a table of no framework's"""
    columns: Columns = Field(default_factory=dict)
    """pgvector, Parquet and JSON lines: the columns (or keys) that hold id, text, metadata and
    embedding; default: found"""
    mem0: Mem0Files | None = None
    """layout mem0 only: files of the application, to tell whether they fit the tables"""
    data_dir: str | None = None
    """Chroma over HTTP: the server's own directory, if this machine can reach it"""
    headers_env: HeadersEnv = Field(default_factory=dict)
    """Chroma over HTTP: headers of every request, each with the variable that holds its value"""
    where: dict[str, Any] | str | None = None
    """the store's own filter, for a partial migration"""
    text_query: str | None = Field(default=None, min_length=1)
    """pgvector only: SQL that gives key and text of each row, where the text lies in another table;
    it is run as it stands, with the rights of source.url's role"""
    without_vector: WithoutVector = "embed"
    """pgvector only: rows without a vector stay so (keep), get one (embed), or stop the plan
    (refuse)"""
    model: Model | None = None
    """the model that made the source; default: what the store recorded"""

    @field_validator("text_query")
    @classmethod
    def _is_the_only_text(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and "text" in info.data.get("columns", {}):
            raise ValueError("and source.columns.text both say where the text is: give one")
        if value is not None and info.data.get("layout") not in ("auto", "plain", "table"):
            raise ValueError("is for layout: table, since the others keep their text themselves")
        return value

    @field_validator("collection")
    @classmethod
    def _is_a_name(cls, value: str, info: ValidationInfo) -> str:
        if not value and info.data.get("collections") is None:
            raise ValueError("should have at least 1 character")
        return value

    @field_validator("except_")
    @classmethod
    def _leaves_something_out(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("collections") is None:
            raise ValueError("is for source.collections, which is not given")
        return value

    @model_validator(mode="after")
    def _is_one_or_several(self) -> Self:
        if bool(self.collection) == (self.collections is not None):
            told = "give one of collection and collections, " + (
                "not both" if self.collection else "neither is there"
            )
            raise ValueError(told)
        return self

    @property
    def patterns(self) -> list[str]:
        """`collections` as a list."""
        return _listed(self.collections or [])

    @property
    def exceptions(self) -> list[str]:
        """`except` as a list."""
        return _listed(self.except_ or [])

    @field_validator("mem0")
    @classmethod
    def _is_read(cls, value: Mem0Files | None, info: ValidationInfo) -> Mem0Files | None:
        """Refuse files that nothing would read."""
        if value is not None and info.data.get("layout") != "mem0":
            raise ValueError("is for layout: mem0, which source.layout has to say")
        if value is not None and value.config is None and value.history is None:
            raise ValueError("names no file: config, history or both")
        return value


def _listed(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names


class Target(Section):
    """The shadow collection."""

    url: str | None = None
    """default: the source's"""
    collection: str | None = None
    """default: <collection>__<model>-<dimensions>"""
    schema_: str | None = Field(default=None, alias="schema")
    """Postgres: where a run makes its tables, e.g. a schema that is not published; default: beside
    the source's. A table whose new one lies elsewhere keeps its place and exchanges its vectors"""
    headers_env: HeadersEnv = Field(default_factory=dict)
    """as source.headers_env, for target.url"""
    embedding_function: FunctionChoice = "auto"
    """Chroma: the one to keep with the collection; auto: Chroma's own, if the source kept such.
    Postgres: record keeps the model in the column's comment after `clean`"""
    metric: Metric | None = None
    """default: the source's real one"""
    index: dict[str, Any] = Field(default_factory=dict)
    """store-specific index settings; default: the source's, where the target has such an index"""
    bulk: Literal["auto", "always", "never"] = "auto"
    """a Chroma folder: fill the new collection past Chroma's `add`, several times faster; auto:
    where the extra `bulk` is installed, for 2,000 records or more"""


class Embed(Section):
    """How fast the model is called, and what a run may spend on it."""

    engine: Literal["local"] = "local"
    """where shards are worked on"""
    concurrency: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    """requests in flight; auto: the provider's default"""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """upper bound on requests"""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """upper bound on tokens"""
    max_cost: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """US dollars that a run may spend over all its calls, at the listed price; stops before more"""
    max_tokens_total: Annotated[int, Field(ge=1)] | None = None
    """tokens that a run may send over all its calls; stops before more"""
    cache: bool = True
    """keep paid vectors across runs, by text and model fingerprint"""


class Verify(Section):
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


class Swap(Section):
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
    hook_timeout: str = "10m"
    """how long a hook may take before it is ended: 30s, 10m, 2h"""
    keep_old: str = "30d"
    """how long `clean` leaves the old collection alone: 12h, 30d, 4w"""

    @field_validator("keep_old")
    @classmethod
    def _is_a_duration(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,5}[hdw]", value):
            raise ValueError("is a number and h, d or w, e.g. 30d")
        return value

    @field_validator("hook_timeout")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9][0-9]{0,4}[smh]", value):
            raise ValueError("is a number above zero and s, m or h, e.g. 10m")
        return value

    @property
    def hook_timeout_seconds(self) -> int:
        """`hook_timeout` in seconds."""
        return int(self.hook_timeout[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.hook_timeout[-1]]

    @property
    def keep_old_seconds(self) -> int:
        """`keep_old` in seconds."""
        return int(self.keep_old[:-1]) * {"h": 3600, "d": 86400, "w": 604800}[self.keep_old[-1]]


def _is_key_like(name: str) -> bool:
    """Whether a legal variable name looks more like the key itself: long, small letters, digits."""
    return len(name) >= 20 and bool(re.search("[a-z]", name) and re.search("[0-9]", name))


def _sha256(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
