"""Secrets in every place they come from, in every encoding they come back in: none is in any output
or file. A short form here, 100 secrets in `make soak`.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import traceback
import urllib.parse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.table import Table

from reembed.cli.output import say, say_json, show
from reembed.cutover.hooks import run_hook
from reembed.display import markup
from reembed.embedders.redact import redact
from reembed.errors import PreflightError
from reembed.redaction import known, remember
from reembed.redaction.terminal import clean_streams
from reembed.report.markdown import plain
from reembed.run.journal import Journal
from reembed.stores.chroma.client import make_database
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import EmbeddingServer, Fault

ENCODINGS: dict[str, Callable[[str], str]] = {
    "url": lambda s: urllib.parse.quote(s, safe=""),
    "base64": lambda s: base64.b64encode(f"user:{s}".encode()).decode(),
    "json": lambda s: json.dumps(json.dumps(s)),
    "upper": str.upper,
    "html": html.escape,
    "half": lambda s: f"{s[:5]}****{s[-4:]}",
}
LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789" + "/+=&<>\"'%$?#@: ü_-.~"


def made_up(seed: int) -> str:
    chance = random.Random(seed)
    inner = "".join(chance.choice(LETTERS) for _ in range(chance.randrange(10, 60)))
    return f"Q{inner}7z"


def shown_in(told: str, secret: str) -> list[str]:
    """The encodings in which an output still holds a secret."""
    low = told.lower()
    forms = {"raw": secret} | {name: encode(secret) for name, encode in ENCODINGS.items()}
    return [name for name, form in forms.items() if form.strip('"').lower() in low]


def everywhere(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What ten places make of a text that others have written."""
    places: dict[str, str] = {}
    error = PreflightError(f"the store said {text}", f"look at {text}")
    places["an error"] = json.dumps(error.to_dict(), ensure_ascii=False) + repr(error)
    places["a provider's words"] = redact(f"401: {text}")
    (folder / "text").write_text(text)
    places["a hook"] = str(run_hook("cat text; exit 1", {}, seconds=60, folder=folder))
    journal = Journal(folder / "journal.jsonl")
    journal.append("budget-reached", needed=1, why=text)
    places["the journal"] = journal.path.read_text()
    journal.path.unlink()
    capsys.readouterr()
    with clean_streams():
        say_json({"message": text, text: [text]})
        places["JSON"] = capsys.readouterr().out
        table = Table()
        table.add_column("a", overflow="fold", width=15)
        table.add_row(text)
        show(table)
        say(text)
        places["tables"] = capsys.readouterr().out
        try:
            raise ValueError(text)
        except ValueError:
            traceback.print_exc()
        places["a traceback"] = capsys.readouterr().err
        sys.stderr.write(warnings.formatwarning(text, UserWarning, "lib.py", 1))
        places["a warning"] = capsys.readouterr().err
        handler = logging.StreamHandler(sys.stderr)
        handler.emit(logging.LogRecord("lib", logging.ERROR, "", 0, text, None, None))
        places["a library's log"] = capsys.readouterr().err
    page = f"<p title='{markup.escape(text)}'>{markup.escape(text)}</p> {plain(text)}"
    places["the report"] = known_free(page)
    return places


def known_free(page: str) -> str:
    from reembed.redaction import redacted_values

    return redacted_values(page, words=False)


def tell(seeds: range, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in seeds:
        secret = made_up(seed)
        known.forget()
        remember(secret, made_up(seed + 10_000))
        for name, encode in ENCODINGS.items():
            told = everywhere(f"no such key {encode(secret)} here", folder, capsys)
            assert len(told) == 10
            for place, words in told.items():
                found = shown_in(words.replace("\n", ""), secret)
                assert found == [], f"seed {seed}: {secret!r} as {name} in {place}: {words}"


def test_secrets_in_ten_places_and_six_encodings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(range(8), tmp_path, capsys)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_a_hundred_secrets_in_ten_places_and_six_encodings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(range(100, 200), tmp_path, capsys)


TOKEN = "Zq8/4+f&Q<canary>0never'SEEN9x"
PASSWORD = 'Wv3/canary+too&<odd>"5k'
SIGNATURE = "Rt6canary0Sig2natureX8"


def test_a_migration_among_those_who_tell_its_secrets(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider echoes them in answers, for single records and for all; the hook prints them;
    the address in the environment holds two of its own."""
    forms = [encode(secret) for secret in (TOKEN, PASSWORD, SIGNATURE) for encode in
             ENCODINGS.values()]  # fmt: skip
    chance = random.Random(1)

    def echo(number: int, texts: list[str]) -> Fault | None:
        poison = ("record 3 ", "record 7 ", "record 11 ")
        if any(text.startswith(poison) for text in texts):
            return Fault("status", 400, message=" ".join(chance.sample(forms, 8)))
        return Fault("status", 500, message=" ".join(forms)) if number % 9 == 8 else None

    monkeypatch.setenv("SOME_VARIABLE", TOKEN)
    with EmbeddingServer(faults=echo) as server:
        address = server.openai_url.replace(
            "://", f"://me:{urllib.parse.quote(PASSWORD, safe='')}@"
        )
        monkeypatch.setenv("OPENAI_BASE_URL", f"{address}?sig={SIGNATURE}&api-version=2024")
        hook = tmp_path / "hook.txt"
        hook.write_text("\n".join(forms))
        manifest = write_manifest(
            tmp_path, f"chroma:{database}",
            model={"provider": "openai", "name": "wordllama", "dimensions": 256,
                   "api_key_env": "SOME_VARIABLE",
                   "options": {"retry_attempts": 4, "retry_wait": 0.01, "batch_items": 8}},
            verify__allow_quarantined=3, swap__after="cat hook.txt; exit 1",
        )  # fmt: skip
        done = [command("plan", manifest), command("run", manifest, "--json")]
        assert done[-1].code in (3, 7), done[-1].err
        for _ in range(5):
            if done[-1].code == 7:
                done.append(command("run", manifest))
        done += [command("swap", manifest, "--yes", "--json"), command("status", manifest),
                 command("report", manifest, "--markdown"), command("report", manifest, "--json"),
                 command("report", manifest, "-o", tmp_path / "page.html")]  # fmt: skip
        assert done[-5].code == 0, done[-5].err
    hook.unlink()
    assert "swap.after failed: exit code 1: [hidden]" in done[-5].out
    (quarantine,) = tmp_path.glob(".reembed/*/*/quarantine.parquet")
    told = {"output": "".join(outcome.out + outcome.err for outcome in done)}
    told["quarantine"] = json.dumps(pq.read_table(quarantine).to_pylist(), default=str)
    told |= {
        str(path.relative_to(tmp_path)): path.read_bytes().decode("utf-8", "replace")
        for path in tmp_path.rglob("*") if path.is_file()
    }  # fmt: skip
    assert "[hidden]" in told["quarantine"]
    for place, words in told.items():
        for secret in (TOKEN, PASSWORD, SIGNATURE):
            assert shown_in(words, secret) == [], f"{secret} in {place}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc alone")
def test_what_was_in_memory_is_not_in_the_files_of_a_new_index(tmp_path: Path) -> None:
    """Chroma writes them from memory that it has not filled. One heap for all threads, as chance
    may have it, and free blocks of just the sizes that it asks for."""
    program = """
        import sys, numpy as np
        from reembed.stores.chroma import client

        secret = sys.argv[2].encode()
        database = client.connect(client.parse(sys.argv[1]), sys.argv[1])
        collection = database.create_collection("docs")
        blocks = [(secret * 2000)[:39600 + number % 7] for number in range(400)]
        del blocks[::2]
        collection.add(ids=["1"], embeddings=np.ones((1, 64), np.float32))
    """
    url = f"chroma:{tmp_path / 'db'}"
    make_database(url)
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), url, TOKEN], check=True,
                   env=os.environ | {"MALLOC_ARENA_MAX": "1"}, timeout=100)  # fmt: skip
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "data_level0.bin" in [path.name for path in files]
    assert [path for path in files if TOKEN.encode()[5:20] in path.read_bytes()] == []


@pytest.mark.parametrize("secret", ["hun/ter2", "p%61ss", "$x-9-long", "a@b:c?d=e#f"])
def test_a_password_of_init_is_told_nowhere(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.chdir(tmp_path)
    urls = [
        f"postgresql://me:{secret}@127.0.0.1:9/db", f"postgres:/me:{secret}@127.0.0.1:9/db",
        f"postgresq://me:{secret}@127.0.0.1:9/db", f"qdrant+http://me:{secret}@127.0.0.1:9",
        f"chroma+http://me:{secret}@127.0.0.1:9",
    ]  # fmt: skip
    with contextlib.suppress(IndexError):
        urls.append(f"postgresql://127.0.0.1:9/db?%70assword={secret.split('#')[0]}")
    for url in urls:
        for arguments in ((), ("-o", "m.yaml"), ("--json",)):
            outcome: Any = command("init", url, *arguments)
            assert outcome.code in (5, 7), outcome.err
            assert secret not in outcome.out + outcome.err, url
            assert secret.partition("?")[0] not in outcome.out + outcome.err, url
    assert not (tmp_path / "m.yaml").exists()
