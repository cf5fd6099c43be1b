"""`${VAR}` in a manifest: filled in, defaulted, refused; never in hooks, texts or for secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from reembed.errors import ManifestError
from reembed.manifest import Manifest
from tests.support.manifests import model_of

BASE = {
    "name": "move",
    "source": {"url": "chroma:${STORE:-./db}", "collection": "${COLLECTION}"},
    "model": {"provider": "ollama", "name": "nomic-embed-text", "dimensions": "${DIM:-768}"},
}


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump(BASE | changes))
    return path


def test_variables_and_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTION", "docs")
    monkeypatch.delenv("DIM", raising=False)
    manifest = Manifest.load(written(tmp_path, embed={"cache": "${CACHE:-false}"}))
    assert manifest.source.url == f"chroma:{tmp_path / 'db'}"
    assert manifest.source.collection == "docs"
    assert model_of(manifest).dimensions == 768, "a number is one"
    assert manifest.embed.cache is False
    monkeypatch.setenv("STORE", "./other")
    monkeypatch.setenv("DIM", "")
    manifest = Manifest.load(written(tmp_path))
    assert manifest.source.url.endswith("/other")
    assert model_of(manifest).dimensions == 768, "empty is not set, as in a shell's :-"


def test_a_number_stays_a_text_where_more_is_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLECTION", "7")
    source = {"url": "chroma:./db", "collection": "docs-${COLLECTION}"}
    assert Manifest.load(written(tmp_path, source=source)).source.collection == "docs-7"


def test_one_that_is_not_set_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLECTION", raising=False)
    with pytest.raises(
        ManifestError, match=r"source\.collection.*COLLECTION is not set"
    ) as refused:
        Manifest.load(written(tmp_path))
    default = re.search(r"\$\{[^}]*\}", refused.value.hint or "")
    assert default is not None
    source = {"url": "chroma:./db", "collection": default[0]}
    assert Manifest.load(written(tmp_path, source=source)).source.collection == "value"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "PGPASSWORD", "session_token", "DB_PWD"])
def test_no_secret_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hunter2hunter2")
    source = {"url": f"postgresql://app:${{{name}}}@127.0.0.1/db", "collection": "docs"}
    with pytest.raises(ManifestError, match="named like a secret") as refused:
        Manifest.load(written(tmp_path, source=source))
    assert "hunter2" not in str(refused.value)


def test_a_password_in_an_innocent_variable_is_refused_as_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2hunter2@127.0.0.1/db")
    source = {"url": "${DATABASE_URL}", "collection": "docs"}
    with pytest.raises(ManifestError) as refused:
        Manifest.load(written(tmp_path, source=source))
    assert "source.url" in str(refused.value) and "hunter2" not in str(refused.value)


def test_hooks_and_texts_keep_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTION", "docs")
    hook = "echo ${HOME:-nowhere} ${SERVICE_TOKEN_FILE}"
    changes = {"swap": {"before": hook}, "text": "costs ${document}"}
    manifest = Manifest.load(written(tmp_path, **changes, target={"collection": "a$${b}"}))
    assert manifest.swap.before == hook
    assert manifest.text == "costs ${document}"
    assert manifest.target.collection == "a${b}"
