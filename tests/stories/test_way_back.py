"""The way back never closes: what a run was begun without may be added, and what may not change is
named with the way on, which is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reembed.errors import ManifestError, PreflightError
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.following import follows_hint
from tests.support.manifests import manifest_data, migration, run_dir, write_manifest
from tests.support.texts import vector_of

OLD = manifest_data("chroma:x")["source"]["model"]


def begun(folder: Path, **changes: Any) -> tuple[Path, str]:
    with chroma(folder / "db") as client:
        plain_collection(client)
    url = f"chroma:{folder}/db"
    return write_manifest(folder, url, **changes), url


def write(folder: Path) -> None:
    """As the application does after the swap, with the new model."""
    with chroma(folder / "db") as client:
        client.get_collection("docs", embedding_function=None).add(
            ids=["new"], documents=["new words"], embeddings=[vector_of("new", "new words")]
        )


def is_back(folder: Path) -> None:
    with chroma(folder / "db") as client:
        found = client.get_collection("docs", embedding_function=None).get(
            ids=["new"], include=["embeddings", "documents"]
        )
    assert found["documents"] == ["new words"] and found["embeddings"] is not None
    wanted = vector_of("old", "new words")
    np.testing.assert_allclose(found["embeddings"][0], wanted, rtol=1e-4, atol=1e-6)


@follows_hint("Give the old model as source.model, or accept losing them")
@follows_hint("Give it as source.model, which may be added at any time")
def test_an_old_model_may_be_given_after_the_swap(tmp_path: Path) -> None:
    path, url = begun(tmp_path, source__model=None)
    told = "the old model is unknown"
    assert [one for one in migration(path).plan().warnings if told in one.message]
    migration(path).run()
    assert told in str(migration(path).swap(dry_run=True).messages)
    assert told in str(migration(path).swap().messages)
    write(tmp_path)
    with pytest.raises(PreflightError) as refused:
        migration(path).rollback()
    assert "Give the old model as source.model" in refused.value.hint
    write_manifest(
        tmp_path, url, source__model=OLD, verify={"sample": 300, "margin": 0.5},
        embed={"concurrency": 2, "cache": True}, swap={"keep_old": "0d", "after": "true"},
    )  # fmt: skip
    result = migration(path).rollback()
    assert (result.done, result.lost) == (True, [])
    is_back(tmp_path)
    migration(path).run(swap=True)
    assert not [one for one in migration(path).swap().messages if told in one]


@follows_hint("Put those keys back as they are in ")
def test_what_may_not_change_is_named_and_the_kept_manifest_goes_on(
    tmp_path: Path, command: Command
) -> None:
    path, url = begun(tmp_path)
    migration(path).run(swap=True)
    write(tmp_path)
    changed = write_manifest(tmp_path, url, text="{document} and more", model__query_prefix="q: ")
    kept = run_dir(changed).path / "manifest.yaml"
    with pytest.raises(ManifestError) as refused:
        migration(changed).rollback()
    assert refused.value.message.endswith(
        "begun with another manifest: model.query_prefix, text differ"
    )
    assert str(kept) in refused.value.hint
    assert command("rollback", kept, "--yes").code == 0
    is_back(tmp_path)


def test_the_live_name_may_not_change_once_it_has_moved(tmp_path: Path) -> None:
    path, url = begun(tmp_path)
    migration(path).run()
    other = write_manifest(tmp_path, url, swap__live="other")
    with pytest.raises(PreflightError, match=r"swap\.live 'other' is not a collection"):
        migration(other).swap(dry_run=True)
    migration(write_manifest(tmp_path, url)).swap()
    other = write_manifest(tmp_path, url, swap__live="other")
    with pytest.raises(ManifestError, match=r"another manifest: swap\.live differ"):
        migration(other).rollback()
    assert migration(write_manifest(tmp_path, url)).rollback().done
    write_manifest(tmp_path, url, swap__live="other")
    with pytest.raises(PreflightError, match=r"swap\.live 'other' is not a collection"):
        migration(other).swap(dry_run=True)
