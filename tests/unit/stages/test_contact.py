"""A plan tells everything that is in the way at once: what is out of reach hides nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed.errors import (
    CollectionNotFoundError,
    PreflightError,
    ProviderRefusedError,
    ReembedError,
    UnreachableError,
)
from reembed.stages.contact import told_together
from tests.support.chroma_data import chroma
from tests.support.commands import Command
from tests.support.manifests import migration, write_manifest

NOBODY = {"provider": "openai", "name": "m", "base_url": "http://127.0.0.1:9/v1",
          "options": {"retry_wait": 0.01}}  # fmt: skip


def test_a_model_out_of_reach_hides_nothing(
    tmp_path: Path, database: Path, command: Command
) -> None:
    with chroma(database) as client:
        client.create_collection("taken", embedding_function=None)
    path = write_manifest(
        tmp_path, f"chroma:{database}", model=NOBODY, text="{metadata.titel}",
        target__collection="taken",
    )  # fmt: skip
    outcome = command("plan", path)
    assert outcome.code == 5, "to ask again later is not all there is to do"
    for told in ("3 problems", "'taken' exists", "{metadata.title}", "127.0.0.1:9"):
        assert told in outcome.err
    assert "(3)" in outcome.err
    path = write_manifest(tmp_path, f"chroma:{database}", model=NOBODY)
    alone = command("plan", path, "--json")
    assert (alone.code, alone.json["error"]["kind"]) == (7, "unreachable")
    assert "problems" not in alone.err


def test_a_source_that_is_missing_hides_no_model(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}", source__collection="doc", model=NOBODY)
    with pytest.raises(CollectionNotFoundError) as error:
        migration(path).plan()
    assert "2 problems" in error.value.message
    assert "127.0.0.1:9" in error.value.message
    with pytest.raises(CollectionNotFoundError, match="problems"):
        migration(path).run()


def test_one_store_that_is_gone_is_told_once(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, "chroma+http://127.0.0.1:9")
    with pytest.raises(UnreachableError) as error:
        migration(path).plan()
    assert "problems" not in error.value.message


def test_a_permanent_error_decides_what_several_are() -> None:
    gone, key = UnreachableError("gone", "Start it."), ProviderRefusedError("no key", "Set one.")
    both = told_together([gone, key])
    assert isinstance(both, ProviderRefusedError)
    assert both.message == "2 problems: (1) no key; (2) gone"
    assert both.hint == "(1) Set one. (2) Start it."
    assert (key.message, str(both)) == ("no key", both.message)
    assert both.__cause__ is key, "where it arose is not lost"
    alone: list[ReembedError] = [PreflightError("one")]
    assert told_together(alone) is alone[0]
