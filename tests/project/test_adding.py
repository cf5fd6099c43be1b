"""docs/adding-a-store.md and docs/adding-a-provider.md, done word for word in a copy of this.

What the pages do not tell is not there: the copy differs by their files and lines alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from reembed.stores.store import Store

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/adding-a-store.md", "docs/adding-a-provider.md")
BLOCK = re.compile(r"^`([\w/.]+)`(?:, in `(\w+)`)?:\n\n```python\n(.*?)^```$", re.M | re.S)
SENTENCES = [
    f"{animal} number {number} {verb} the {place}"
    for number, (animal, verb, place) in enumerate(
        (animal, verb, place)
        for animal in ("fox", "heron", "otter", "badger", "lynx")
        for verb in ("guards", "leaves", "sees", "loves", "avoids")
        for place in ("river", "wood", "hill", "barn", "mill", "road")
    )
]
RUN = "from reembed.cli.entry import main; main()"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after both pages."""
    folder = tmp_path_factory.mktemp("adding")
    for name in (
        "reembed",
        "tests/clients",
        "tests/stores/contract",
        "tests/support",
        "tests/project",
    ):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(ROOT / name, folder / name)
    for page in PAGES:
        for path, table, code in BLOCK.findall((ROOT / page).read_text("utf-8")):
            if table:
                text = (folder / path).read_text("utf-8")
                head = f"\n{table} = (\n"
                assert text.count(head) == 1, f"{page}: {path} has no {table}"
                (folder / path).write_text(text.replace(head, head + code), "utf-8")
            else:
                assert not (folder / path).exists(), f"{page}: {path} is there already"
                (folder / path).write_text(code, "utf-8")
    return folder


def python(
    copy: Path, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd or copy, capture_output=True, text=True, timeout=280,
        env=os.environ | {"PYTHONPATH": str(copy)},
    )  # fmt: skip


def test_the_pages_have_what_they_name() -> None:
    found = [BLOCK.findall((ROOT / page).read_text("utf-8")) for page in PAGES]
    assert [[bool(table) for _, table, _ in blocks] for blocks in found] == [
        [False, True, False], [False, True],
    ]  # fmt: skip


def test_the_page_names_every_part_of_a_store() -> None:
    page = (ROOT / PAGES[0]).read_text("utf-8")
    for part in {field.name for field in fields(Store)} - {"url", "close"}:
        assert re.search(rf"^\| .*`{part}`", page, re.M), f"the page does not name {part}"


def test_the_new_store_passes_the_contract_suite_and_the_import_levels(copy: Path) -> None:
    suite = ("tests/stores/contract", "tests/project/test_imports.py", "-k", "lines or hashing")
    done = python(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *suite)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.search(r"^(\d+) passed", done.stdout, re.M)
    assert passed and int(passed[1]) >= 18, done.stdout[-500:]
    assert "skipped" not in done.stdout


def test_a_collection_of_the_new_store_moves_to_the_new_provider(
    copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    records = [
        {"id": f"r{n}", "document": text, "metadata": {"n": n}, "embedding": [1.0, n % 7, n % 11]}
        for n, text in enumerate(SENTENCES)
    ]
    lines = "\n".join(map(json.dumps, records))
    (tmp_path / "data" / "animals.jsonl").write_text(lines, "utf-8")
    (tmp_path / "new").mkdir()
    manifest = {
        "name": "animals", "source": {"url": "lines:./data", "collection": "animals"},
        "target": {"url": "chroma:./new", "collection": "animals"},
        "model": {"provider": "hashing", "name": "words"}, "verify": {"margin": 0.9},
    }  # fmt: skip
    (tmp_path / "m.yaml").write_text(json.dumps(manifest), "utf-8")
    code = f"import chromadb; chromadb.PersistentClient({str(tmp_path / 'new')!r})"
    assert python(copy, "-c", code).returncode == 0
    found = python(copy, "-c", RUN, "init", "lines:./data", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["collections"][0]["name"] == "animals", found.stderr
    done = python(copy, "-c", RUN, "run", "m.yaml", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert (done.returncode, result.get("state")) in ((0, "verified"), (4, "refused")), done.stdout
    integrity = next(
        gate for gate in json.loads(_verdict(tmp_path))["gates"] if gate["name"] == "integrity"
    )
    assert (integrity["status"], integrity["figures"]["checked"]) == ("pass", len(SENTENCES))
    assert "keeps no claims" in done.stderr, "and says what that means"


def _verdict(folder: Path) -> str:
    (path,) = (folder / ".reembed" / "animals").glob("*/verdict.json")
    return path.read_text("utf-8")


def test_a_store_that_can_only_be_read_is_refused_as_a_target(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    record = {"id": "r", "document": "text", "embedding": [1.0]}
    (tmp_path / "data" / "docs.jsonl").write_text(json.dumps(record), "utf-8")
    manifest = {
        "name": "docs", "source": {"url": "lines:./data", "collection": "docs"},
        "model": {"provider": "hashing", "name": "words"},
    }  # fmt: skip
    (tmp_path / "m.yaml").write_text(json.dumps(manifest), "utf-8")
    done = python(copy, "-c", RUN, "plan", "m.yaml", "--json", cwd=tmp_path)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["exit_code"]) == (5, 5)
    assert "(1) lines:" in error["message"] and "it can only be read" in error["message"]
    assert "Give another store as target.url." in error["hint"]
