"""What a refusal or a warning on the Chroma way says to do is done, and leads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.following import follows_hint
from tests.support.helpers import (
    Command,
    chroma,
    chroma_at,
    sentence,
    vector_of,
    write_manifest,
)

PART = {"swap__kind": "config"}
SPANN = {"spann": {"search_nprobe": 8}}
POINTER = {"swap__kind": "pointer"}
REFUSALS: list[tuple[str, dict[str, Any], pytest.MarkDecorator, dict[str, Any]]] = [
    ("where finds nothing", PART | {"source__where": {"n": {"$gt": 900}}},
     follows_hint("Check the filter against the records' metadata"),
     PART | {"source__where": {"n": {"$gt": 30}}}),
    ("where is SQL", PART | {"source__where": "n > 9"},
     follows_hint('For example {"kind": {"$eq": "function"}}'),
     PART | {"source__where": {"n": {"$eq": 9}}}),
    ("a part swapped", {"source__where": {"n": 9}},
     follows_hint("set swap.kind: config to only build"), PART | {"source__where": {"n": 9}}),
    ("cap", {"embed__max_tokens_total": 300},
     follows_hint("Raise the cap, or move less (source.where)"),
     {"embed__max_tokens_total": 300_000}),
    ("cap, moving less", {"embed__max_tokens_total": 300},
     follows_hint("Raise the cap, or move less (source.where)"),
     PART | {"embed__max_tokens_total": 300, "source__where": {"n": 3}}),
    ("index setting", {"target__index": {"ef": 100}},
     follows_hint("Known: ", where="stores/chroma/metric.py"),
     {"target__index": {"ef_search": 100}}),
    ("index of the cloud", {"target__index": SPANN},
     follows_hint("Set target.index to HNSW settings"), {"target__index": {"ef_search": 100}}),
    ("columns", {"source__columns": {"text": "body"}}, follows_hint("Leave them out: "), {}),
    ("text_query", {"source__text_query": "SELECT 1, 'x'"},
     follows_hint("keeps documents, and `text` makes the text"), {}),
    ("the source itself", {"target__collection": "docs"},
     follows_hint("leave target.collection out"), {}),
    ("live name", {"swap__live": "docs-live"}, follows_hint("Leave swap.live out"), {}),
    ("new live name", {"swap__live": "docs-live"},
     follows_hint("use swap.kind: pointer to make a new live name"),
     POINTER | {"swap__live": "docs-live"}),
    ("live name of one letter", POINTER | {"swap__live": "a"},
     follows_hint("Choose another live name"), POINTER | {"swap__live": "docs-live"}),
    ("query of the URL", {"source__url": "{url}?timeout=3"},
     follows_hint("After the ? may stand tenant and database"),
     {"source__url": "{url}?tenant=default_tenant&database=default_database"}),
    ("twice in the URL", {"source__url": "{url}?database=a&database=b"},
     follows_hint("=NAME once, or leave it out."),
     {"source__url": "{url}?database=default_database"}),
    ("a folder that is not there", {"source__url": "{url}-old"},
     follows_hint("Check the path; relative paths"), {}),
    ("collection", {"source__collection": "doc"},
     follows_hint("Did you mean ", where="stores/chroma/catalog.py"), {}),
    ("no text", {"text": "{uri}"},
     follows_hint('Name what holds it in the template, e.g. text: "{metadata.KEY}".'),
     {"text": "{metadata.title}"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that no test changes."""
    folder = tmp_path_factory.mktemp("hints")
    with chroma(folder / "db") as client:
        made = client.create_collection("docs", embedding_function=None)
        texts = [sentence(n) for n in range(40)]
        made.add(
            ids=[f"r{n}" for n in range(40)], documents=texts,
            metadatas=[{"title": f"title {n}", "n": n} for n in range(40)],
            embeddings=[vector_of("old", text) for text in texts],
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("wrong", "hint", "right"),
    [
        pytest.param(wrong, hint.args[0], right, id=name, marks=hint)
        for name, wrong, hint, right in REFUSALS
    ],
)
def test_a_refusal_says_what_to_write_and_that_is_planned(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], shop: Path, command: Command
) -> None:
    url = f"chroma:{shop}/db"

    def plan(changes: dict[str, Any]) -> Any:
        filled = {
            key: value.replace("{url}", url) if key == "source__url" else value
            for key, value in changes.items()
        }
        return command("plan", write_manifest(shop, url, **filled), "--json")

    refused = plan(wrong)
    assert refused.code in (2, 5), refused.out
    assert hint in refused.json["error"]["hint"]
    led = plan(right)
    assert led.code == 0, led.out


def test_a_collection_with_records_without_text_moves_by_both_ways_that_are_told(
    tmp_path: Path, command: Command
) -> None:
    url = f"chroma:{tmp_path}/db"
    with chroma_at(url) as client:
        made = client.create_collection("docs", embedding_function=None)
        for n in range(12):
            told: dict[str, Any] = {"documents": [sentence(n)]} if n % 4 else {}
            made.add(ids=[f"r{n}"], embeddings=[vector_of("old", sentence(n))],
                     metadatas=[{"title": sentence(n)}], **told)  # fmt: skip
    planned = command("plan", write_manifest(tmp_path, url), "--json").json
    (hint,) = [one["hint"] for one in planned["warnings"] if "give no text" in one["message"]]
    assert hint == "Add fields to the template (text), or allow them with verify.allow_quarantined."
    wider = write_manifest(tmp_path, url, "w.yaml", name="wider", text="{metadata.title}")
    assert command("run", wider, "--json").json["quarantined"] == 0
    assert command("clean", wider, "--yes").code == 0
    allowed = write_manifest(
        tmp_path, url, "a.yaml", name="allowed", verify={"allow_quarantined": 3}
    )
    moved = command("run", allowed, "--swap", "--json")
    assert (moved.json["state"], moved.json["quarantined"]) == ("swapped", 3)


def test_each_command_that_comes_too_early_names_the_one_that_comes_first(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")

    def hint(*words: object) -> str:
        refused = command(*words, "--json")
        assert refused.code in (2, 4, 5), refused.out
        return str(refused.json["error"]["hint"])

    for words in (("swap", path, "--yes"), ("verify", path), ("rollback", path, "--yes"),
                  ("report", path), ("clean", path, "--yes"), ("sweep", path)):  # fmt: skip
        assert hint(*words) == "Begin one with `reembed run`."
    assert command("run", path, "--until", "embed").code == 0
    for words in (("swap", path, "--yes"), ("verify", path)):
        assert hint(*words) in ("Use `reembed run`.", "Use `reembed run` first.")
    assert command("run", path).code == 0
    for words in (("rollback", path, "--yes"), ("sweep", path)):
        assert "reembed swap" in hint(*words)
    assert command("swap", path, "--yes").code == 0
    warned = command("plan", path, "--json").json["warnings"][0]
    assert warned["message"] == "this migration is already swapped"
    assert "give the manifest another name" in warned["hint"]
    onward = write_manifest(
        tmp_path, f"chroma:{database}", "n.yaml", name="onward",
        source__model={"provider": "python", "name": "counting_model:new"},
        model={"provider": "python", "name": "counting_model:other"},
    )  # fmt: skip
    assert command("plan", onward).code == 0


def test_clean_says_what_comes_before_it(tmp_path: Path, database: Path, command: Command) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    with chroma_at(url) as client:
        held = client.get_collection("docs", embedding_function=None)
        assert command("run", path, "--swap").code == 0
        text = "written late, by a handle of before"
        held.add(ids=["late"], documents=[text], embeddings=[vector_of("old", text)])
    kept = command("clean", path, "--yes", "--json").json["error"]
    assert "set swap.keep_old lower; 0d gives up the way back now" in kept["hint"]
    path = write_manifest(tmp_path, url, swap__keep_old="0d")
    late = command("clean", path, "--yes", "--json").json["error"]
    assert late["hint"] == "Copy them with `reembed sweep` first."
    assert command("sweep", path, "--json").json["swept"] == 1
    assert command("clean", path, "--yes").code == 0
