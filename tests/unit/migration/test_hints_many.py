"""What is said of several collections, and of keys for one, is done and leads on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reembed.errors import (
    LossError,
    ManifestError,
    PreflightError,
    ReembedError,
    SourceChangedError,
    UsageError,
)
from reembed.manifest import Manifest
from reembed.migration.group.alike import hints_of, together
from reembed.migration.group.migrations import Migrations
from reembed.migration.migration import Migration
from tests.support.chroma_data import chroma, names_in, plain_collection
from tests.support.following import follows_hint, wrong_and_right
from tests.support.manifests import write_group_manifest, write_manifest

FOLLOW = {"mode": "follow"}
KEYS: list[tuple[str, dict[str, Any], pytest.MarkDecorator, dict[str, Any]]] = [
    ("mode: follow of several", {"source__collections": "*", **FOLLOW},
     follows_hint("Give each collection a manifest of its own (source.collection).",
                  where="manifest/misplaced.py"),
     {"source__collection": "docs", "target__collection": "docs-live", **FOLLOW}),
    ("a text where vectors are kept", {"model": "keep", "text": "{metadata.title}"},
     follows_hint("Leave it out: the vectors are moved as they are, and the gates search"),
     {"model": "keep"}),
    ("a password of MLflow",
     {"report__mlflow": {"tracking_uri": "http://me:hunter22@mlflow.test", "experiment": "m"}},
     follows_hint("Put it into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
     {"report__mlflow": {"tracking_uri": "http://mlflow.test", "experiment": "m"}}),
]  # fmt: skip


@wrong_and_right(KEYS)
def test_a_key_in_its_wrong_place_goes_where_the_hint_says(
    wrong: dict[str, Any], hint: str, right: dict[str, Any], tmp_path: Path
) -> None:
    def load(keys: dict[str, Any]) -> Manifest:
        write = write_group_manifest if "source__collections" in keys else write_manifest
        given = {key: value for key, value in keys.items() if key != "source__collections"}
        return Manifest.load(write(tmp_path, "chroma:./db", **given))

    with pytest.raises(ManifestError) as refused:
        load(wrong)
    assert hint in refused.value.hint
    assert load(right).name == "move"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with chroma(tmp_path / "db") as client:
        for name in ("one", "two", "three"):
            plain_collection(client, name, 3)
    return tmp_path / "db"


@follows_hint(" (likewise ")
@follows_hint(" more have other ways on")
def test_every_kind_of_error_and_every_way_on_is_told_once() -> None:
    def gone(name: str) -> ReembedError:
        return SourceChangedError(
            f"{name!r} is gone, with {len(name)} records", f"Rename '{name}__old' to {name!r}."
        )

    def full(name: str) -> ReembedError:
        return PreflightError("the disk is full", "Make room.")

    assert together({}, 3) is None
    (alone,) = [gone("a")]
    assert together({"a": alone}, 1) is alone
    found = together({"a": gone("a")}, 60)
    assert found is not None and found.hint == gone("a").hint
    errors = {f"file-{n}": gone(f"file-{n}") for n in range(8)} | {"x": full("x"), "y": full("y")}
    found = together(errors, 60)
    assert isinstance(found, SourceChangedError)
    assert found.message.startswith("10 of 60 collections: file-0: ")
    assert "x: the disk is full" in found.message and found.message.endswith("; and 5 more")
    assert found.hint.splitlines() == [
        "file-0 (likewise file-1, file-2, file-3, file-4, file-5 and 2 more): Rename "
        "'file-0__old' to 'file-0'.",
        "  x, y: Make room.",
    ]
    assert hints_of([("", "Raise the cap."), ("a", "Rename it."), ("b", "Rename it.")]) == (
        "Raise the cap.\n  a, b: Rename it."
    )
    ways = {f"c{n}": PreflightError("x", f"Do {'x' * (n + 1)}.") for n in range(9)}
    found = together(ways, 9)
    assert found is not None
    assert found.hint.splitlines()[4:] == ["  c4: Do xxxxx.", "  4 more have other ways on"]


@follows_hint("Use reembed.Migrations.")
@follows_hint("Use reembed.Migration, or give source.collections.")
def test_a_manifest_is_planned_by_the_class_that_is_named(folder: Path, tmp_path: Path) -> None:
    several = Manifest.load(write_group_manifest(tmp_path, f"chroma:{folder}"))
    with pytest.raises(UsageError):
        Migration(several)
    assert Migrations(several).plan().ok
    single = Manifest.load(write_manifest(tmp_path, f"chroma:{folder}", source__collection="one"))
    with pytest.raises(UsageError):
        Migrations(single)
    assert Migration(single).plan().ok


@follows_hint("Or leave them out with source.except.")
def test_blocked_collections_are_left_out(folder: Path, tmp_path: Path) -> None:
    taken = "two__counting_model-new-64"
    with chroma(folder) as client:
        client.create_collection(taken, embedding_function=None)
    wrong = Migrations(Manifest.load(write_group_manifest(tmp_path, f"chroma:{folder}"))).plan()
    assert not wrong.ok and "source.except" in wrong.refusal().hint
    path = write_group_manifest(tmp_path, f"chroma:{folder}", source__except=["two", taken])
    plan = Migrations(Manifest.load(path)).plan()
    assert plan.ok and [one.collection for one in plan.members] == ["one", "three"]


@pytest.mark.parametrize("way", ["accepted", "restored"])
@follows_hint("If the application deleted them, say so with --accept-loss; if not, restore them")
def test_most_collections_are_gone(folder: Path, tmp_path: Path, way: str) -> None:
    path = write_group_manifest(tmp_path, f"chroma:{folder}")
    migrations = Migrations(Manifest.load(path))
    assert migrations.run(until="export").state == "exported"
    with chroma(folder) as client:
        client.delete_collection("one")
        client.delete_collection("two")
    with pytest.raises(LossError):
        migrations.run()
    if way == "restored":
        with chroma(folder) as client:
            for name in ("one", "two"):
                plain_collection(client, name, 3)
    done = migrations.run(accept_loss=way == "accepted")
    left = 1 if way == "accepted" else 3
    assert len(done.members) == left
    if way == "accepted":
        assert done.error is None and done.passed
        assert "one" not in names_in(f"chroma:{folder}")
