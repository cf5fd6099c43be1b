"""Every bad input gets a clear error with its own exit code, and nothing is changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chroma_data import chroma, everything_in, names_in, plain_collection
from tests.support.commands import Command, Outcome
from tests.support.manifests import manifest_data, migration, write_manifest
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.texts import CASES

Check = Callable[..., dict[str, Any]]


@pytest.fixture
def refused(command: Command, tmp_path: Path, database: Path) -> Iterator[Check]:
    """Runs a manifest, checks the refusal's form and that nothing was changed; gives the error."""
    before = everything_in(database)

    def check(path: Path, exit_code: int, kind: str, *names: str) -> dict[str, Any]:
        outcome = command("run", path, "--swap", "--json")
        error = error_of(outcome)
        assert (error["exit_code"], error["kind"]) == (exit_code, kind), error
        for name in names:
            assert name in error["message"] + error["hint"], error
        return error

    yield check
    assert everything_in(database) == before
    assert not list(tmp_path.glob(".reembed/*/*/journal.jsonl")), "no run was begun"


def error_of(outcome: Outcome) -> dict[str, Any]:
    document = outcome.json
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    assert list(error) == ["exit_code", "kind", "message", "hint"]
    assert error["exit_code"] == outcome.code
    assert error["message"]
    assert "Traceback" not in outcome.err
    return error


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# The manifest


def test_no_such_manifest(refused: Check, tmp_path: Path) -> None:
    refused(tmp_path / "absent.yaml", 5, "manifest", "absent.yaml", "no such file")


def test_a_folder_as_manifest(refused: Check, tmp_path: Path) -> None:
    refused(tmp_path, 5, "manifest", "cannot be read")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "not valid YAML"),
        ("name: a\n\tsource: b", "not valid YAML"),
        ("\x00\x01", "not valid YAML"),
        ("", "is empty"),
        ("- a\n- b", "a list"),
        ("name: a\nname: b", "twice"),
        ("? [a, b]\n: c", "a key must be a text"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: &a [*a]", "alias contains itself"),
        ("name: a\n1: b", "1"),
        ("[" * 5_000, "nested too deeply"),
    ],
)
def test_unreadable_yaml(refused: Check, tmp_path: Path, text: str, says: str) -> None:
    refused(write(tmp_path / "bad.yaml", text), 5, "manifest", "bad.yaml", says)


def test_bytes_that_are_no_text(refused: Check, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff\xfe")
    refused(tmp_path / "bad.yaml", 5, "manifest", "bad.yaml")


def test_an_alias_bomb(refused: Check, tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = write(tmp_path / "bomb.yaml", "\n".join(lines))
    refused(path, 5, "manifest", "bomb.yaml", "aliases expand")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"modle": {}}, ["modle", "model"]),
        ({"source__colection": "x"}, ["source.colection", "collection"]),
        ({"model__dimension": 3}, ["model.dimension", "dimensions"]),
        ({"swap__kind": "atomic"}, ["swap.kind"]),
        ({"target__metric": "manhattan"}, ["target.metric", "cosine"]),
        ({"model__provider": "openia"}, ["model.provider"]),
        ({"model__dimensions": 0}, ["model.dimensions"]),
        ({"verify__sample": 1}, ["verify.sample"]),
        ({"swap__keep_old": "soon"}, ["swap.keep_old", "30d"]),
        ({"text": "{documnet}"}, ["documnet", "{document}"]),
        ({"text": "no field"}, ["text", "no field"]),
        ({"name": "../up"}, ["name"]),
        ({"source__url": "chrome:./db"}, ["chrome", "chroma"]),
        ({"source__url": "chroma:"}, ["source.url"]),
        ({"source__url": "chroma::memory:"}, ["ephemeral"]),
        ({"target__url": "chroma::memory:"}, ["target.url", "ephemeral"]),
    ],
)
def test_a_value_that_cannot_be(
    refused: Check, tmp_path: Path, database: Path, changes: dict[str, Any], names: list[str]
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", **changes)
    refused(path, 5, "manifest", "m.yaml", *names)


@pytest.mark.parametrize(
    "text",
    [
        "source: {where: {day: 2024-01-01}}",
        "model: {options: {x: .nan}}",
        "model: {options: {x: !!binary aGk=}}",
        "model: {options: {x: !!set {a}}}",
        'model: {document_prefix: "\\ud800"}',
    ],
)
def test_values_that_json_does_not_have(
    refused: Check, tmp_path: Path, database: Path, text: str
) -> None:
    data = manifest_data(f"chroma:{database}")
    path = tmp_path / "m.yaml"
    key = text.partition(":")[0]
    section = data.pop(key)
    inner = yaml.safe_dump(section, default_flow_style=True, width=10_000).strip()[1:-1]
    path.write_text(yaml.safe_dump(data) + text.replace("{", "{" + inner + ", ", 1) + "\n")
    error = refused(path, 5, "manifest")
    assert key in error["message"]


SECRETS = [
    "sk-" + "abcdefghijklmnop1234567890",
    "Bearer " + "abcdefghijklmnop",
    "AKIA" + "ABCDEFGHIJKLMNOP",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_refused_and_not_repeated(
    refused: Check, command: Command, tmp_path: Path, database: Path, secret: str
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", model__options={"header": secret})
    error = refused(path, 5, "manifest", "model.options.header", "environment variable")
    assert secret not in str(error)
    outcome = command("plan", path)
    assert secret not in outcome.out + outcome.err


def test_a_password_in_a_url_is_refused(refused: Check, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "chroma+http://me:hunter2@localhost:8000")
    assert "hunter2" not in str(refused(path, 5, "manifest", "source.url"))


# The source


def test_a_missing_collection_is_refused_with_those_that_exist(
    refused: Check, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", source__collection="dosc")
    refused(path, 5, "collection-not-found", "'dosc'", "it has: docs", "Did you mean 'docs'?")


def test_a_folder_without_a_database(refused: Check, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "chroma:./nothing-here")
    refused(path, 5, "collection-not-found", str(tmp_path / "nothing-here"))
    assert not (tmp_path / "nothing-here").exists()


def test_an_empty_source(refused: Check, tmp_path: Path) -> None:
    with chroma(tmp_path / "empty") as client:
        plain_collection(client, count=0)
    path = write_manifest(tmp_path, f"chroma:{tmp_path / 'empty'}")
    refused(path, 5, "preflight", "'docs' is empty", "never migrated")
    assert names_in(f"chroma:{tmp_path / 'empty'}").keys() == {"docs"}


def test_a_where_that_matches_nothing(refused: Check, tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", source__where={"n": {"$gt": 999}}, swap__kind="config"
    )
    refused(path, 5, "preflight", "source.where", "none of the 40", "$gt")


@pytest.mark.parametrize("where", [{"n": {"$near": 1}}, "n > 1", {"$and": []}, {}])
def test_a_where_that_is_no_filter(
    refused: Check, tmp_path: Path, database: Path, where: Any
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", source__where=where, swap__kind="config")
    refused(path, 5, "preflight", "source.where")


def test_a_server_that_does_not_answer(refused: Check, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "chroma+http://127.0.0.1:9")
    refused(path, 7, "unreachable", "127.0.0.1:9")


# The target


def test_a_target_that_exists(refused: Check, tmp_path: Path, database: Path) -> None:
    with chroma(tmp_path / "two") as client:
        plain_collection(client)
        plain_collection(client, "taken", 3)
    path = write_manifest(tmp_path, f"chroma:{tmp_path / 'two'}", target__collection="taken")
    refused(path, 5, "preflight", "'taken' exists and was not made by this run")
    assert names_in(f"chroma:{tmp_path / 'two'}").keys() == {"docs", "taken"}


def test_the_source_as_target(refused: Check, tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__collection="docs")
    refused(path, 5, "preflight", "'docs' is the source itself")


@pytest.mark.parametrize("name", ["a/b", "ab", "-x-", "a..b", "10.0.0.1", "x" * 513, "ümlaut"])
def test_a_name_that_chroma_refuses(
    refused: Check, tmp_path: Path, database: Path, name: str
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__collection=name)
    refused(path, 5, "preflight", "Chroma refuses the collection name")


def test_a_live_name_that_chroma_refuses(refused: Check, tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__live="a/b", swap__kind="pointer")
    refused(path, 5, "preflight", "a/b")


def test_an_index_setting_that_chroma_does_not_have(
    refused: Check, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__index={"ef_serach": 100})
    refused(path, 5, "preflight", "ef_serach")


def test_another_store_that_is_not_there(refused: Check, tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", target__url="chroma:./elsewhere")
    refused(path, 5, "collection-not-found", "elsewhere")


def test_a_swap_kind_that_the_store_cannot_do(
    refused: Check, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", swap__kind="alias")
    refused(path, 5, "preflight", "alias", "transaction")


# The model


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("counting_model", "module:callable"),
        ("no_such_module:embed", "no_such_module"),
        ("counting_model:nwe", "nwe"),
        ("counting_model:WORD", "is not a function"),
    ],
)
def test_a_function_that_is_not_there(
    refused: Check, tmp_path: Path, database: Path, name: str, says: str
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", model__name=name)
    refused(path, 5, "manifest", "model.name", says)


def test_dimensions_that_the_model_does_not_give(
    refused: Check, tmp_path: Path, database: Path
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", model__dimensions=65)
    refused(path, 5, "provider-refused", "asked for 65 dimensions, got 64")


def openai(server: EmbeddingServer, **changes: Any) -> dict[str, Any]:
    model = {"provider": "openai", "name": "wordllama", "base_url": server.openai_url,
             "api_key_env": "TEST_KEY"}  # fmt: skip
    return {"model": model | changes}


def test_an_unknown_model(
    refused: Check, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "k" * 20)
    with EmbeddingServer() as server:
        path = write_manifest(tmp_path, f"chroma:{database}", **openai(server, name="no-such"))
        refused(path, 5, "provider-refused", "no-such")


def test_a_wrong_key(
    refused: Check, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "wrong-key-of-some-length")
    with EmbeddingServer(api_key="right") as server:
        path = write_manifest(tmp_path, f"chroma:{database}", **openai(server))
        error = refused(path, 5, "provider-refused", "key")
        assert "wrong-key-of-some-length" not in str(error)


def test_a_missing_key(
    refused: Check, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    with EmbeddingServer(api_key="right") as server:
        path = write_manifest(tmp_path, f"chroma:{database}", **openai(server))
        refused(path, 5, "provider-refused", "TEST_KEY")


def test_a_provider_that_does_not_answer(
    refused: Check, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "k" * 20)
    model = {"provider": "openai", "name": "m", "base_url": "http://127.0.0.1:9/v1",
             "api_key_env": "TEST_KEY", "options": {"retry_wait": 0.01}}  # fmt: skip
    path = write_manifest(tmp_path, f"chroma:{database}", model=model)
    refused(path, 7, "unreachable", "127.0.0.1:9")


def test_a_store_that_is_not_supported_yet(refused: Check, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "qdrant:./db")
    refused(path, 5, "preflight", "qdrant", "Supported: chroma")


# The machine and the run directory


def test_a_disk_that_is_nearly_full(
    refused: Check,
    command: Command,
    tmp_path: Path,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=20_000))
    path = write_manifest(tmp_path, f"chroma:{database}")
    plan = command("plan", path, "--json")
    assert plan.code == 5
    assert "20.0 kB free" in plan.json["blockers"][0]["message"]
    assert plan.json["error"]["kind"] == "preflight"
    refused(path, 5, "preflight", "20.0 kB free", "Free some space")


def test_a_state_that_is_a_file(refused: Check, tmp_path: Path, database: Path) -> None:
    (tmp_path / "state").write_text("")
    path = write_manifest(tmp_path, f"chroma:{database}", state="state")
    refused(path, 5, "preflight", "state")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model__name": "counting_model:other", "model__dimensions": 48}, "model.name"),
        ({"text": "{id} {document}"}, "another manifest: text differ"),
        ({"target__metric": "l2"}, "target.metric"),
        ({"source__where": {"n": 1}}, "source.where"),
    ],
)
def test_a_run_of_another_manifest(
    command: Command, tmp_path: Path, database: Path, changes: dict[str, Any], key: str
) -> None:
    migration(write_manifest(tmp_path, f"chroma:{database}")).run(until="export")
    before = everything_in(database)
    path = write_manifest(tmp_path, f"chroma:{database}", **changes)
    for name in ("run", "plan", "verify", "swap", "rollback", "clean", "sweep"):
        error = error_of(command(name, path, "--json"))
        assert (error["exit_code"], error["kind"]) == (5, "manifest"), name
        assert key in error["message"]
        assert "new `name`" in error["hint"]
    assert everything_in(database) == before


def test_a_manifest_moved_with_its_store_may_go_on(tmp_path: Path, database: Path) -> None:
    """What does not decide records or vectors may change."""
    migration(write_manifest(tmp_path, f"chroma:{database}")).run(until="export")
    path = write_manifest(
        tmp_path, f"chroma:{database}", file="renamed.yaml", embed__concurrency=2, verify__k=5,
        swap__keep_old="1d",
    )  # fmt: skip
    assert migration(path).run().state == "verified"


def test_usage_errors_are_documents_too(command: Command, tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    for arguments in (
        ["run", path, "--until", "lunch", "--json"],
        ["run", path, "--no-such-option", "--json"],
        ["run", "--json"],
        ["swap", path, "--json"],
        ["no-such-command", "--json"],
        ["verify", path, "--json"],
        ["init", f"chroma:{database}", "-o", str(CASES / "counting_model.py"), "--json"],
        ["init", f"chroma:{database}", "-o", str(tmp_path / "no" / "m.yaml"), "--json"],
    ):
        error = error_of(command(*arguments))
        assert (error["exit_code"], error["kind"]) == (2, "usage"), arguments
