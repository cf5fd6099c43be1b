"""Servers that want more than the API has: what a manifest adds arrives, for documents and queries,
and docs/providers.md holds manifests that do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import yaml

from reembed.embedders.embedder import Embedder
from reembed.embedders.registry import open_embedder
from reembed.embedders.sending.retry import RetryPolicy
from reembed.errors import ManifestError, ProviderRefusedError, ReembedError
from reembed.manifest import Manifest, Model
from reembed.redaction import redacted
from tests.support.manifests import model_of
from tests.support.servers.serving import send_json

QUICK = RetryPolicy(attempts=2, wait=0.005, longest_wait=0.02, total=5.0)
ROOT = Path(__file__).resolve().parents[3]
KEY = "k-" + "0123456789abcdef" * 2
DIMENSIONS = 8


@dataclass
class Seen:
    """One request."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Server:
    """Answers as OpenAI's API does; a text's vector depends on everything in the body but `input`.

    Attributes:
        wants: of a request, by where it must stand; refused as the provider would, if it does not.
    """

    wants: dict[str, str] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def refusal(self, one: Seen) -> tuple[int, dict[str, Any]] | None:
        if "header" in self.wants and one.headers.get(self.wants["header"]) not in (
            KEY, f"Bearer {KEY}",
        ):  # fmt: skip
            return 401, {"error": {"code": "401", "message": "Access denied due to invalid key."}}
        if "query" in self.wants and self.wants["query"] not in one.query:
            return 404, {"error": {"code": "404", "message": "Resource not found"}}
        if "body" in self.wants and self.wants["body"] not in one.body:
            return 400, {"error": f"'{self.wants['body']}' parameter is required"}
        return None

    def answer(self, one: Seen) -> tuple[int, dict[str, Any]]:
        if refused := self.refusal(one):
            return refused
        rest = {key: one.body[key] for key in sorted(one.body) if key not in ("input",)}
        data = []
        for index, text in enumerate(one.body["input"]):
            seed = hashlib.sha256(json.dumps([rest, text]).encode()).digest()[:DIMENSIONS]
            vector = np.frombuffer(seed, np.uint8).astype(np.float32) + 1
            coded = base64.b64encode(vector.tobytes()).decode()
            wanted: Any = coded if one.body.get("encoding_format") == "base64" else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": wanted})
        return 200, {"object": "list", "data": data, "usage": {"prompt_tokens": 1}}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            one = Seen(parts.path, dict(parse_qsl(parts.query)), headers, body)
            made.seen.append(one)
            status, answer = made.answer(one)
            data = json.dumps(answer).encode()
            send_json(self, status, data)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    made.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield made
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SERVICE_KEY", KEY)


def opened(model: dict[str, Any]) -> Embedder:
    return open_embedder(Model.model_validate({"provider": "openai"} | model), retry=QUICK)


def test_azure_by_deployment_and_version(server: Server) -> None:
    """The key in `api-key` alone, the version in the query, the deployment in the path."""
    server.wants = {"header": "api-key", "query": "api-version"}
    model = {
        "name": "text-embedding-3-small", "base_url": f"{server.url}/openai/deployments/mine",
        "api_key_env": "SERVICE_KEY",
        "options": {"auth": "api-key", "query": {"api-version": "2024-10-21"}},
    }  # fmt: skip
    with opened(model) as embedder:
        assert embedder.embed_documents(["a", "b"]).vectors.shape == (2, DIMENSIONS)
    one = server.seen[-1]
    assert one.path == "/openai/deployments/mine/embeddings"
    assert one.query == {"api-version": "2024-10-21"}
    assert one.headers["api-key"] == KEY and "authorization" not in one.headers


def test_passages_and_queries_are_told_apart(server: Server) -> None:
    server.wants = {"body": "input_type"}
    options = {"extra_body": {"input_type": "passage", "truncate": "NONE"},
               "query_extra_body": {"input_type": "query"}}  # fmt: skip
    model = {"name": "nv-embed", "base_url": f"{server.url}/v1", "options": options}
    with opened(model) as embedder:
        document = embedder.embed_documents(["the same text"]).vectors[0]
        assert server.seen[-1].body["input_type"] == "passage"
        query = embedder.embed_queries(["the same text"])[0]
    assert server.seen[-1].body["input_type"] == "query"
    assert server.seen[-1].body["truncate"] == "NONE"
    assert not np.allclose(document, query)


def test_without_it_the_servers_own_words_are_told(server: Server) -> None:
    server.wants = {"body": "input_type"}
    with (
        opened({"name": "nv-embed", "base_url": f"{server.url}/v1"}) as embedder,
        pytest.raises(ReembedError, match="'input_type' parameter is required"),
    ):
        embedder.check_reachable()


def test_headers_from_the_manifest_and_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "t-0123456789abcdef")
    options = {"headers": {"X-Team": "search"}, "headers_env": {"X-Token": "TEAM_TOKEN"},
               "auth": "none"}  # fmt: skip
    with opened({"name": "m", "base_url": server.url, "options": options}) as embedder:
        embedder.check_reachable()
    sent = server.seen[-1].headers
    assert (sent["x-team"], sent["x-token"]) == ("search", "t-0123456789abcdef")
    assert "authorization" not in sent and "api-key" not in sent


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra_body": {"model": "other"}}, "is set by model.name"),
        ({"query_extra_body": {"dimensions": 3}}, "is set by model.dimensions"),
        ({"auth": "basic"}, "is bearer, api-key, none"),
        ({"headers": {"X Team": "a"}}, "not the name of a header"),
        ({"headers": {"X-Team": "a\nb"}}, "no header may have"),
        ({"headers": ["X-Team"]}, "is a dict"),
        ({"query": {"version": [1]}}, "is a text"),
    ],
)
def test_what_cannot_be_added_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=re.escape(said)):
        opened({"name": "m", "base_url": "http://127.0.0.1:1", "options": options})


def test_a_variable_that_is_not_set_is_named() -> None:
    options = {"headers_env": {"X-Token": "NOT_SET_ANYWHERE"}}
    with pytest.raises(ProviderRefusedError, match="NOT_SET_ANYWHERE, for the header X-Token"):
        opened({"name": "m", "base_url": "http://127.0.0.1:1", "options": options})


def test_no_key_leaves_for_a_server_that_is_not_its_own(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_API_KEY goes to OpenAI alone; the manifest or OPENAI_BASE_URL may say otherwise."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    foreign = {"name": "m", "base_url": f"{server.url}/v1"}
    with opened(foreign) as embedder:
        embedder.check_reachable()
    assert all(KEY not in str(one.headers) for one in server.seen)
    server.wants = {"header": "authorization"}
    with opened(foreign) as embedder, pytest.raises(ProviderRefusedError) as refused:
        embedder.check_reachable()
    assert "model.api_key_env" in refused.value.hint
    with opened(foreign | {"api_key_env": "OPENAI_API_KEY"}) as embedder:
        embedder.check_reachable()
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    with opened({"name": "m"}) as embedder:
        embedder.check_reachable()


def test_headers_that_openais_own_client_reads(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go where OPENAI_API_KEY goes, and what the manifest says stands above them."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Team: search: ours\r\n\nno header\nX-Token:t-5f0e\nX-Other: a"
    )
    with opened({"name": "m", "base_url": f"{server.url}/v1"}) as embedder:
        embedder.check_reachable()
    assert "x-team" not in server.seen[-1].headers
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    with opened({"name": "m", "options": {"headers": {"X-Other": "b"}}}) as embedder:
        embedder.check_reachable()
    sent = server.seen[-1].headers
    assert (sent["x-team"], sent["x-token"], sent["x-other"]) == ("search: ours", "t-5f0e", "b")
    assert sent["authorization"] == f"Bearer {KEY}"
    assert "t-5f0e" not in redacted("refused: token t-5f0e of team search: ours")


@pytest.mark.parametrize("key", ["“k-0123456789abcdef”", "k-0123\n456789abcdef", "k-\u00e9"])
def test_a_key_that_was_copied_badly_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("SERVICE_KEY", key)
    with pytest.raises(ProviderRefusedError, match="SERVICE_KEY holds a character") as refused:
        opened({"name": "m", "base_url": "http://127.0.0.1:1", "api_key_env": "SERVICE_KEY"})
    assert "0123" not in str(refused.value.__dict__)


def documented() -> dict[str, dict[str, Any]]:
    """The manifests of docs/providers.md by the heading that each stands under."""
    text = (ROOT / "docs" / "providers.md").read_text("utf-8")
    found = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for block in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL):
            found[section.splitlines()[0]] = yaml.safe_load(block)
    return found


DOCUMENTED = documented()


def test_the_documented_providers_are_all_there() -> None:
    assert DOCUMENTED.keys() >= {
        "OpenAI", "Azure OpenAI", "NVIDIA NIM", "Cohere", "Voyage AI", "Jina AI", "Google Gemini",
        "Mistral", "Amazon Bedrock", "Text Embeddings Inference", "vLLM", "LM Studio", "LiteLLM",
        "OpenRouter", "Ollama",
    }  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_manifest_loads(name: str, tmp_path: Path) -> None:
    source = {"url": "chroma:./db", "collection": "docs"}
    manifest = Manifest.parse({"name": "m", "source": source} | DOCUMENTED[name], tmp_path)
    own = ("sentence-transformers", "fastembed")
    assert model_of(manifest).provider in ("openai", "ollama", "chroma", *own)


@pytest.mark.parametrize(
    "name", [name for name, made in DOCUMENTED.items() if made["model"]["provider"] == "openai"]
)
def test_a_documented_manifest_sends_what_it_says(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a server at another address, which sees the path, the query, the key and the body."""
    model = DOCUMENTED[name]["model"] | {"dimensions": None}
    monkeypatch.setenv(model.get("api_key_env") or "OPENAI_API_KEY", KEY)
    parts = urlsplit(model.get("base_url") or "https://api.openai.com/v1")
    keyed = bool(model.get("api_key_env")) or name == "OpenAI"
    options = model.get("options", {})
    if keyed:
        server.wants["header"] = "api-key" if options.get("auth") == "api-key" else "authorization"
    variable = model.get("api_key_env") or ("OPENAI_API_KEY" if keyed else None)
    with opened(model | {"base_url": server.url + parts.path, "api_key_env": variable}) as embedder:
        embedder.embed_documents(["a passage"])
        document = server.seen[-1]
        embedder.embed_queries(["a question"])
        query = server.seen[-1]
    assert document.path == parts.path.rstrip("/") + "/embeddings"
    assert document.query == {k: str(v) for k, v in options.get("query", {}).items()}
    assert document.body["model"] == model["name"]
    for key, value in options.get("extra_body", {}).items():
        assert document.body[key] == value
    for key, value in options.get("query_extra_body", {}).items():
        assert query.body[key] == value


@pytest.mark.parametrize(
    ("name", "usd"), [("Voyage AI", 0.06), ("Google Gemini", 0.15), ("Mistral", 0.10),
                      ("Cohere", None), ("Jina AI", None), ("LiteLLM", None)]
)  # fmt: skip
def test_a_price_is_known_where_the_page_lists_one_with_its_day(
    name: str, usd: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DOCUMENTED[name]["model"]
    monkeypatch.setenv(model["api_key_env"], KEY)
    with open_embedder(Model.model_validate(model)) as embedder:
        price = embedder.price
    assert (price.usd_per_million_tokens if price else None) == usd
    text = (ROOT / "docs" / "providers.md").read_text("utf-8")
    (row,) = [line for line in text.splitlines() if f"| {model['name']}" in line] or [""]
    if price is not None:
        assert f"{usd:.2f}" in row and price.as_of in row
    else:
        assert not row or "not confirmed" in row
