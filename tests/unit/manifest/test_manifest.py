"""The manifest loader: what it takes, what it resolves, and each refusal in its own words."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reembed.errors import ManifestError
from reembed.manifest import Manifest, Model, json_schema
from reembed.manifest.reader import MAX_BYTES
from tests.support.manifests import model_of

SMALLEST: dict[str, Any] = {
    "name": "docs-to-small",
    "source": {"url": "chroma:./db", "collection": "docs"},
    "model": {"provider": "openai", "name": "text-embedding-3-small"},
}
KEY = "sk-" + "abcdefghijklmnopqrstuvwx"

Load = Callable[..., Manifest]


def changed(**changes: Any) -> dict[str, Any]:
    """SMALLEST with `section__key=value` set; `...` takes a key out."""
    data = copy.deepcopy(SMALLEST)
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        if value is ...:
            del place[key]
        else:
            place[key] = value
    return data


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write text, or SMALLEST with changes, to a file and load it."""

    def load(text: str | bytes | None = None, /, **changes: Any) -> Manifest:
        path = tmp_path / "m.yaml"
        if text is None:
            text = yaml.safe_dump(changed(**changes))
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Manifest.load(path)

    return load


def refusal(load: Load, *arguments: Any, **changes: Any) -> str:
    """The message and the hint of the ManifestError that loading raises."""
    with pytest.raises(ManifestError) as caught:
        load(*arguments, **changes)
    assert caught.value.exit_code == 5
    return f"{caught.value.message} | {caught.value.hint}"


class TestTakes:
    def test_the_smallest(self, load: Load) -> None:
        manifest = load()
        assert manifest.live == "docs"
        assert manifest.target_url == manifest.source.url
        assert manifest.swap.keep_old_seconds == 30 * 86400
        assert manifest.verify.k == 10
        assert manifest.executes() == []

    def test_its_own_resolved_form(self, load: Load, tmp_path: Path) -> None:
        manifest = load(
            swap__after="true", model__options={"tokenizer": "./t.json"}, source__where={"a": 1}
        )
        again = Manifest.parse(yaml.safe_load(manifest.to_yaml()), Path("/elsewhere"))
        assert again.to_dict() == manifest.to_dict()

    def test_json_and_a_byte_order_mark(self, load: Load) -> None:
        assert load(b"\xef\xbb\xbf" + json.dumps(SMALLEST).encode()).name == "docs-to-small"

    def test_aliases_and_merges_within_bounds(self, load: Load) -> None:
        text = """
            name: n
            source: &source {url: "chroma:./db", collection: docs}
            target: {<<: [{metric: cosine}], url: "chroma:./db", collection: new}
            model: &model {provider: static, name: wordllama}
        """
        assert load(text).target.metric == "cosine"

    def test_unicode_names(self, load: Load) -> None:
        assert load(source__collection="文档").source.collection == "文档"

    def test_environment_variables_by_name(self, load: Load) -> None:
        assert model_of(load(model__api_key_env="MY_TEAMS_TOKEN")).api_key_env == "MY_TEAMS_TOKEN"


class TestUnknownAndMissingKeys:
    @pytest.mark.parametrize(
        ("key", "shown", "nearest"),
        [
            ("verfiy", "'verfiy'", "'verify'"),
            ("source__urll", "'source.urll'", "'url'"),
            ("model__dimension", "'model.dimension'", "'dimensions'"),
            ("swap__acept_window", "'swap.acept_window'", "'accept_window'"),
        ],
    )
    def test_names_the_nearest_known_key(
        self, load: Load, key: str, shown: str, nearest: str
    ) -> None:
        message = refusal(load, **{key: 1})
        assert f"unknown key {shown}" in message
        assert f"did you mean {nearest}?" in message

    def test_lists_the_known_where_none_is_near(self, load: Load) -> None:
        assert "known here: bulk, collection, " in refusal(load, target__zzz=1)

    def test_in_a_section_that_may_be_null(self, load: Load) -> None:
        model = {"provider": "openai", "name": "m", "dimensons": 1}
        message = refusal(load, source__model=model)
        assert "unknown key 'source.model.dimensons'" in message
        assert "'dimensions'" in message

    def test_all_are_told_at_once_a_line_each_where_they_stand(self, load: Load) -> None:
        changes = {"model__nmae": "m", "model__name": ..., "verify__sample": "many", "swop": {}}
        second, fourth, third = refusal(load, **changes).split("\n")  # the name is not missing, too
        assert re.search(r":2:3: unknown key 'model\.nmae'; did you mean 'name'\?", second)
        assert re.search(r":\d+:3: verify\.sample: should be a valid integer", third)
        assert re.search(r":\d+:1: unknown key 'swop'; did you mean 'swap'\?", fourth)

    def test_no_more_than_a_screen_of_them(self, load: Load) -> None:
        message = refusal(load, **{f"nonsense{number}": 1 for number in range(30)})
        assert "and 10 more" in message and len(message.split("\n")) == 21

    @pytest.mark.parametrize("key", ["name", "source", "model", "source__url", "model__provider"])
    def test_missing(self, load: Load, key: str) -> None:
        assert f"{key.replace('__', '.')} is missing" in refusal(load, **{key: ...})


class TestUnreadable:
    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="there is no such file") as caught:
            Manifest.load(tmp_path / "none.yaml")
        assert "reembed init" in caught.value.hint

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
            Manifest.load(tmp_path)

    def test_endless_file(self) -> None:
        with pytest.raises(ManifestError, match="larger than"):
            Manifest.load("/dev/zero")

    def test_large_file(self, load: Load) -> None:
        assert "larger than 1,048,576 bytes" in refusal(load, "#" * (MAX_BYTES + 1))

    @pytest.mark.parametrize("text", ["", "- a", "text", "7", "# nothing"])
    def test_no_mapping(self, load: Load, text: str) -> None:
        assert "a manifest is a mapping of keys" in refusal(load, text)

    @pytest.mark.parametrize(
        "text",
        [
            "name: [",
            "name:\n\t- a",
            "name: a: b",
            "name: 'a",
            "name: *nobody",
            "name: a\n---\nname: b",
            "? [a]\n: b",
            "? {a: b}\n: b",
            "name: !!python/object/apply:os.system [true]",
            "name: 2026-13-45",
            b"name: \x00",
        ],
    )
    def test_no_yaml(self, load: Load, text: str | bytes) -> None:
        assert "is not valid YAML" in refusal(load, text)

    def test_no_utf8(self, load: Load) -> None:
        assert "is not UTF-8: byte 6" in refusal(load, b"name: \xff")

    def test_names_the_line(self, load: Load) -> None:
        assert "line 3, column 1: the key 'name' is given twice" in refusal(
            load, "name: a\ntext: b\nname: c\n"
        )

    def test_key_given_twice_in_a_section(self, load: Load) -> None:
        assert "the key 'url' is given twice" in refusal(load, "source: {url: a, url: b}")

    def test_alias_bomb(self, load: Load) -> None:
        levels = "bcdefghij"
        text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{level}: &{level} [{', '.join(['*' + before] * 9)}]\n"
            for before, level in zip("a" + levels, levels, strict=False)
        )
        assert "expand to more than 50,000 values" in refusal(load, text)

    @pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a [[{b: *a}]]"])
    def test_alias_that_contains_itself(self, load: Load, text: str) -> None:
        assert "an alias contains itself" in refusal(load, text)

    def test_deep_nesting(self, load: Load) -> None:
        assert "nested too deeply" in refusal(load, "a: " + "[" * 3000 + "]" * 3000)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("2020-01-01", "model.options.x is a date"),
            ("!!set {a, b}", "model.options.x is a set"),
            ("!!binary aGVsbG8=", "model.options.x is a bytes"),
            (".nan", "model.options.x is not a finite number"),
            ("-.inf", "model.options.x is not a finite number"),
            ("{1: 2}", "model.options.x: the key 1 is not a text"),
            ('"\\0"', "model.options.x holds a character"),
            ('"\\ud800"', "model.options.x holds a character"),
        ],
    )
    def test_value_that_json_does_not_have(self, load: Load, value: str, shown: str) -> None:
        assert shown in refusal(load, f"model: {{options: {{x: {value}}}}}")

    @given(st.binary(max_size=60))
    def test_any_bytes_load_or_are_refused(self, data: bytes) -> None:
        import tempfile

        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            with pytest.raises(ManifestError):
                Manifest.load(file.name)


class TestSecrets:
    SECRETS = (
        KEY,
        "ck-abcdefghijklmnopqrstuvwxyz",
        "AKIAABCDEFGHIJKLMNOP",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x",
        "Bearer abcdefghijklmnopqrst",
    )

    @pytest.mark.parametrize("secret", SECRETS)
    @pytest.mark.parametrize(
        "place",
        [
            "name",
            "source__collection",
            "source__where",
            "model__name",
            "model__api_key_env",
            "model__document_prefix",
            "swap__after",
            "text",
            "unknown",
        ],
    )
    def test_known_form_anywhere(self, load: Load, place: str, secret: str) -> None:
        message = refusal(load, **{place: f"x {secret}"})
        assert f"{place.replace('__', '.')} looks like a secret" in message
        assert "environment variable" in message
        assert secret not in message

    @pytest.mark.parametrize(
        "options",
        [
            {"api_key": "short"},
            {"apiKey": "short"},
            {"openai_api_key": "short"},
            {"X-Api-Key": "short"},
            {"password": "short"},
            {"client_secret": "short"},
            {"secret_access_key": "short"},
            {"token": "short"},
            {"auth_token": "short"},
            {"headers": {"Authorization": "Basic short"}},
            {"headers": [{"authorization": "short"}]},
            {"nested": [{"more": {"token": "short"}}]},
        ],
    )
    def test_under_a_telling_key(self, load: Load, options: dict[str, Any]) -> None:
        for changes in (
            {"model__options": options},
            {"source__model": {"provider": "openai", "name": "m", "options": options}},
        ):
            message = refusal(load, **changes)
            assert "looks like a secret" in message
            assert "short" not in message

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://user:hunter2@host/db",
            "postgresql://:hunter2@host/db",
            "postgresql://user:hunter2@2@host/db",
            "postgresql://host/db?password=hunter2",
            "postgresql://host/db?user=u&sslpassword=hunter2",
            "qdrant+http://host:6333?api-key=hunter2",
            "chroma+http://user:hunter2@host:8000",
            "https://host/v1?key=hunter2",
        ],
    )
    @pytest.mark.parametrize("place", ["source__url", "target__url", "model__base_url"])
    def test_in_a_url(self, load: Load, place: str, url: str) -> None:
        message = refusal(load, **{place: url})
        assert f"{place.replace('__', '.')} looks like a secret" in message
        assert "hunter2" not in message

    @pytest.mark.parametrize("hook", ["PGPASSWORD=hunter2 psql", "x --token=hunter2"])
    def test_in_a_hook(self, load: Load, hook: str) -> None:
        assert "swap.before looks like a secret" in refusal(load, swap__before=hook)

    def test_as_a_key(self, load: Load) -> None:
        message = refusal(load, model__options={KEY: 1})
        assert "looks like a secret" in message
        assert KEY not in message

    def test_in_yaml_that_cannot_be_read(self, load: Load) -> None:
        for text in (f"a: {KEY}\n\tb", f"{KEY}: 1\n{KEY}: 2", f"a: !{KEY} x", f"a: *{KEY}"):
            assert KEY not in refusal(load, text)

    @pytest.mark.parametrize(
        "value", [KEY, "my key", "d41d8cd98f00b204e9800998ecf8427e", "a-b", "1A", ""]
    )
    def test_key_in_place_of_its_variables_name(self, load: Load, value: str) -> None:
        message = refusal(load, model__api_key_env=value)
        assert "environment variable" in message
        assert not value or value not in message

    @pytest.mark.parametrize(
        "changes",
        [
            {"model__options": {"api_key": None}},
            {"model__options": {"api_key_env_var": "OPENAI_API_KEY"}},
            {"model__options": {"pad_token": "[PAD]", "max_tokens": 5}},
            {"swap__after": 'curl -H "Authorization: Bearer $TOKEN" http://x'},
            {"swap__after": "TOKEN=$(cat /run/token) deploy --password-file=x"},
            {"source__collection": "tokens"},
            {"source__url": "chroma+http://host:8000"},
            {"source__url": "postgresql://user@host:5432/db?sslmode=require"},
            {"text": "{metadata.token}: {document}"},
            {"text": "token={metadata.token} {document}"},
            {"source__where": {"author": {"$eq": "risk-assessment-of-all-things"}}},
        ],
    )
    def test_what_is_none(self, load: Load, changes: dict[str, Any]) -> None:
        load(**changes)


class TestValues:
    @pytest.mark.parametrize(
        ("value", "seconds"), [("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200), ("0d", 0)]
    )
    def test_duration(self, load: Load, value: str, seconds: int) -> None:
        assert load(swap__keep_old=value).swap.keep_old_seconds == seconds

    @pytest.mark.parametrize(
        "value", ["30", "1.5d", "-1d", "d", "30 d", "30m", "", "٣d", "9" * 20 + "d", "1d\n"]
    )
    def test_bad_duration(self, load: Load, value: str) -> None:
        assert "swap.keep_old: is a number and h, d or w, e.g. 30d" in refusal(
            load, swap__keep_old=value
        )

    @pytest.mark.parametrize(
        ("changes", "nearest"),
        [
            ({"model__provider": "opnai"}, "openai"),
            ({"target__metric": "cosin"}, "cosine"),
            ({"swap__kind": "pointr"}, "pointer"),
        ],
    )
    def test_choice_names_the_nearest(
        self, load: Load, changes: dict[str, Any], nearest: str
    ) -> None:
        message = refusal(load, **changes)
        assert f"{next(iter(changes)).replace('__', '.')}: should be '" in message
        assert f"did you mean {nearest!r}?" in message

    @pytest.mark.parametrize(
        "changes",
        [
            {"model__dimensions": "384"},
            {"model__dimensions": 0},
            {"model__dimensions": 384.5},
            {"model__normalize": "yes"},
            {"model__normalize": 1},
            {"embed__cache": "no"},
            {"embed__concurrency": True},
            {"verify__sample": 5},
            {"verify__sample": True},
            {"verify__margin": 1},
            {"verify__confidence": 0.5},
            {"source": None},
            {"verify": [1]},
            {"source__where": 3},
            {"source__collection": ""},
            {"name": "../escape"},
            {"name": "a/b"},
            {"name": ".hidden"},
            {"name": "a\n"},
            {"name": ""},
            {"name": "a" * 101},
            {"name": 7},
            {"text": "{title}"},
            {"text": "no field"},
        ],
    )
    def test_bad_value_is_named_by_its_key(self, load: Load, changes: dict[str, Any]) -> None:
        key = next(iter(changes)).replace("__", ".")
        assert re.search(rf"m\.yaml:\d+:\d+: {re.escape(key)}: ", refusal(load, **changes))

    def test_files_of_mem0_want_its_layout(self, load: Load) -> None:
        files = {"config": "mem0.json"}
        for changes in ({}, {"source__layout": "table"}):
            said = refusal(load, source__mem0=files, **changes)
            assert ": source.mem0: is for layout: mem0" in said
        assert "names no file" in refusal(load, source__mem0={}, source__layout="mem0")
        assert "did you mean 'config'?" in refusal(load, source__mem0={"confg": "x"})

    def test_integers_pass_for_numbers(self, load: Load) -> None:
        assert load(verify__margin=0).verify.margin == 0


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "chroma:./db",
            "chroma:/abs/db",
            "chroma+http://localhost:8000",
            "chroma+https://host",
            "chroma+cloud://tenant/database",
            "postgresql://user@host/db",
            "postgresql:///db",
            "qdrant+http://host:6333",
            "lancedb:./db",
            "milvus:./file.db",
        ],
    )
    def test_known(self, load: Load, url: str) -> None:
        load(source__url=url)

    @pytest.mark.parametrize(
        ("url", "suggestion"),
        [
            ("chrma:./x", "'chroma'"),
            ("postgres+ql://host/db", "'postgresql'"),
            ("./chroma_db", "'chroma:./chroma_db'"),
            ("chroma_db", "'chroma:chroma_db'"),
            ("http://localhost:8000", "'chroma+http://localhost:8000'"),
            ("chroma+http:localhost:8000", "'chroma+http://localhost:8000'"),
        ],
    )
    def test_unknown_scheme_with_a_suggestion(self, load: Load, url: str, suggestion: str) -> None:
        for place in ("source__url", "target__url"):
            message = refusal(load, **{place: url})
            assert f"{place.replace('__', '.')}: {url!r} is not a store URL" in message
            assert f"Did you mean {suggestion}" in message

    @pytest.mark.parametrize("url", [":memory:", "chroma::memory:", "ephemeral"])
    def test_ephemeral_client(self, load: Load, url: str) -> None:
        message = refusal(load, source__url=url)
        assert "ephemeral" in message
        assert "persistent path" in message

    @pytest.mark.parametrize("url", ["", "chroma:", "chroma: ", "chroma+http://", "chroma://"])
    def test_nowhere(self, load: Load, url: str) -> None:
        refusal(load, source__url=url)
        refusal(load, target__url=url)


class TestPaths:
    def test_are_relative_to_the_manifest(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "manifests"
        (folder / "model").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        data = changed(
            source__url="chroma:../db",
            source__data_dir="srv",
            target__url="chroma:other",
            verify__queries="q.jsonl",
            verify__qrels="../qrels.tsv",
            model={"provider": "onnx", "name": "model", "options": {"tokenizer": "t.json"}},
            state="runs",
        )
        (folder / "m.yaml").write_text(yaml.safe_dump(data))
        manifest = Manifest.load("manifests/m.yaml")
        assert manifest.source.url == f"chroma:{tmp_path}/db"
        assert manifest.source.data_dir == f"{folder}/srv"
        assert manifest.target.url == f"chroma:{folder}/other"
        assert manifest.verify.queries == f"{folder}/q.jsonl"
        assert manifest.verify.qrels == f"{tmp_path}/qrels.tsv"
        assert model_of(manifest).name == f"{folder}/model"
        assert model_of(manifest).options["tokenizer"] == f"{folder}/t.json"
        assert manifest.state_dir == folder / "runs" / "docs-to-small"
        assert manifest.base_dir == folder

    def test_home_and_absolute(self, load: Load) -> None:
        assert load(source__url="chroma:~/db").source.url == f"chroma:{Path.home()}/db"
        assert load(source__url="chroma:/srv/db").source.url == "chroma:/srv/db"

    @pytest.mark.parametrize("name", ["BAAI/bge-small-en-v1.5", "package:some_model", "x" * 5000])
    def test_what_is_no_path_stays(self, load: Load, name: str) -> None:
        provider = "sentence-transformers"
        assert model_of(load(model={"provider": provider, "name": name})).name == name

    def test_files_of_mem0_are_found_from_the_manifest(self, load: Load, tmp_path: Path) -> None:
        files = {"config": "app/mem0.yaml"}
        mem0 = load(source__layout="mem0", source__mem0=files).source.mem0
        assert mem0 is not None
        assert (mem0.config, mem0.history) == (str(tmp_path / "app/mem0.yaml"), None)

    def test_no_path_at_all(self, load: Load) -> None:
        assert "is not a usable path" in refusal(load, source__url="chroma:~nobody-here/db")

    def test_the_same_run_from_any_working_directory(
        self, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = load().identity()
        monkeypatch.chdir("/")
        assert Manifest.load(tmp_path / "m.yaml").identity() == first


class TestIdentity:
    @pytest.mark.parametrize(
        "changes",
        [
            {"source__collection": "other"},
            {"model__name": "other"},
            {"model__document_prefix": "x: "},
            {"model__on_too_long": "mean"},
            {"text": "{id} {document}"},
            {"source__where": {"a": 1}},
        ],
    )
    def test_changes_with_what_decides_the_result(
        self, load: Load, changes: dict[str, Any]
    ) -> None:
        assert load(**changes).identity() != load().identity()

    @pytest.mark.parametrize(
        "changes",
        [
            {"embed__concurrency": 3},
            {"verify__sample": 200},
            {"swap__accept_window": True},
            {"model__api_key_env": "OTHER"},
            {"source__mem0": None},
        ],
    )
    def test_stays_with_what_does_not(self, load: Load, changes: dict[str, Any]) -> None:
        assert load(**changes).identity() == load().identity()

    def test_files_of_the_application_may_change_under_a_run(self, load: Load) -> None:
        plain = load(source__layout="mem0").identity()
        assert "mem0" not in plain["source"], "run directories of older versions know no such key"
        files = {"config": "mem0.json", "history": "history.db"}
        assert load(source__layout="mem0", source__mem0=files).identity() == plain

    def test_model_hash_does_not_change_between_versions(self) -> None:
        """Paid-for vectors are kept under this hash."""
        model = Model(provider="openai", name="m", dimensions=8, query_prefix="q: ")
        assert model.settings_sha256() == (
            "b37d57560aaada182bbc5ed899accdda9891b94262fa604f138dc12d50d46ee8"
        )

    def test_where_the_key_comes_from_is_no_setting(self) -> None:
        one = Model(provider="openai", name="m", api_key_env="A")
        other = Model(provider="openai", name="m", api_key_env="B")
        assert one.settings_sha256() == other.settings_sha256()


def test_says_which_code_it_makes_run(load: Load) -> None:
    manifest = load(
        swap__before="stop",
        swap__after="start",
        model={"provider": "python", "name": "mine:embed"},
    )
    assert manifest.executes() == ["before: stop", "after: start", "python: mine:embed"]


def test_is_frozen(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().name = "other"


def test_schema_has_a_description_for_every_section() -> None:
    assert all("description" in section for section in json_schema()["$defs"].values())


def test_how_a_model_is_called_is_no_part_of_what_it_is() -> None:
    patient = Model(provider="openai", name="m", options={"timeout": 60, "tokenizer": "t"})
    hurried = Model(provider="openai", name="m", options={"timeout": 1, "tokenizer": "t"})
    other = Model(provider="openai", name="m", options={"timeout": 1, "tokenizer": "u"})
    assert patient.settings_sha256() == hurried.settings_sha256() != other.settings_sha256()
    assert Model.model_validate(patient.to_dict()) == patient
