"""A migration through a reverse proxy that asks for all at once: a path, TLS with its own
certificate, a user with a password, and a token of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stores.chroma.test_chroma_addresses import BASIC, Proxy, certificate, proxy
from tests.support.chroma_data import chroma_at, plain_collection, records_of
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import write_manifest
from tests.support.servers.chroma_server import ChromaServer, chroma_server

pytestmark = pytest.mark.filterwarnings("ignore:.*verify=<str>")  # of Chroma's client itself
PREFIX = "/tools/chroma"
USER, TOKEN = "ann:a-word-of-hers", "of-the-gateway"
ASKED = {"Authorization": ("Basic YW5uOmEtd29yZC1vZi1oZXJz", 401), "X-Gateway": (TOKEN, 403)}
RIGHT = {
    "CHROMA_CLIENT_AUTH_PROVIDER": BASIC,
    "CHROMA_CLIENT_AUTH_CREDENTIALS": USER,
    "GATEWAY": TOKEN,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChromaServer]:
    with chroma_server(tmp_path / "served") as found:
        with chroma_at(found.url) as client:
            plain_collection(client)
        yield found


@pytest.fixture
def strict(
    server: ChromaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    with proxy(
        server.port, prefix=PREFIX, headers=ASKED, certificate=certificate(tmp_path)
    ) as between:
        monkeypatch.setenv("CHROMA_SERVER_SSL_VERIFY", str(tmp_path / "c"))
        for name, value in RIGHT.items():
            monkeypatch.setenv(name, value)
        yield between


def manifest(folder: Path, between: Proxy, prefix: str = PREFIX, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "swap__accept_window": True,
        "source__headers_env": {"X-Gateway": "GATEWAY"},
    }
    url = f"chroma+https://127.0.0.1:{between.port}{prefix}"
    return write_manifest(folder, url, **settings | changes)


@follows_hint("A token: CHROMA_CLIENT_AUTH_PROVIDER=", where="stores/chroma/failures.py")
@follows_hint("Check host, port and path: behind", where="stores/chroma/client.py")
def test_a_proxy_that_asks_for_all_lets_a_migration_through_there_and_back(
    strict: Proxy, server: ChromaServer, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refused(status: int, hint: str, path: Path) -> None:
        for words in (("plan", path), ("run", path)):
            done = command(*words, "--json")
            error = done.json["error"]
            assert done.code == 5 and error["kind"] == "preflight", done.out
            assert str(status) in error["message"] and hint in error["hint"], done.out
            assert TOKEN not in done.out + done.err and USER not in done.out + done.err

    with monkeypatch.context() as patch:
        patch.setenv("CHROMA_CLIENT_AUTH_CREDENTIALS", "ann:not-her-word")
        refused(401, "BasicAuthClientProvider and user:password", manifest(tmp_path, strict))
    refused(403, "source.headers_env names it", manifest(tmp_path, strict, source__headers_env={}))
    refused(404, "behind a proxy the path goes into the URL", manifest(tmp_path, strict, ""))

    path = manifest(tmp_path, strict)
    with chroma_at(server.url) as client:
        before = records_of(client.get_collection("docs", embedding_function=None))
    for words, width in (
        (("plan", path), 48), (("run", path), 48), (("swap", path, "--yes"), 64),
        (("rollback", path, "--yes"), 48), (("swap", path, "--yes"), 64),
    ):  # fmt: skip
        done = command(*words)
        assert done.code == 0, (words, done.out, done.err)
        assert TOKEN not in done.out + done.err and USER not in done.out + done.err
        with chroma_at(server.url) as client:
            docs = client.get_collection("docs", embedding_function=None)
            assert records_of(docs) == before and docs.get_model().dimension == width
    assert {one.startswith(f"{PREFIX}/api/v2/") for one in strict.seen[-100:]} == {True}
    for file in (tmp_path / ".reembed").rglob("*"):
        if file.is_file():
            kept = file.read_bytes()
            assert TOKEN.encode() not in kept and USER.encode() not in kept, file


@pytest.mark.long
def test_a_key_that_is_taken_back_in_the_middle_is_a_refusal_and_the_run_goes_on_with_a_new_one(
    strict: Proxy, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest(tmp_path, strict)
    assert command("run", path, "--until", "embed").code == 0
    monkeypatch.setenv("GATEWAY", "of-yesterday")
    for words in (("run", path), ("swap", path, "--yes"), ("rollback", path, "--yes")):
        done = command(*words, "--json")
        assert done.code in (2, 5), done.out
        assert done.json["error"]["hint"], done.out
    monkeypatch.setenv("GATEWAY", TOKEN)
    assert command("run", path, "--swap").code == 0
