"""What Prometheus reads: a file, or an address, with names and numbers and nothing else."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reembed.commands.watch.metrics import HELP
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.manifests import write_manifest
from tests.support.servers.embedding_server import OLLAMA, EmbeddingServer
from tests.support.texts import sentence
from tests.support.watched import recorded_collection

Samples = dict[str, dict[str, float]]


def samples(text: str) -> Samples:
    """Metric to the value of each combination of labels but for `watch`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(v for k, v in sorted(one.labels.items()) if k != "watch")
            found.setdefault(one.name, {})[labels] = one.value
    return found


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_for_the_textfile_collector(command: Command, database: Path) -> None:
    url = f"chroma:{database}"
    assert command("watch", url, "--metrics", "reembed.prom").code == 0
    text = Path("reembed.prom").read_text()
    found = samples(text)
    assert found["reembed_collection_records"] == {"docs": 40}
    assert found["reembed_store_up"] == {"": 1}
    assert set(found["reembed_alert"].values()) == {0}
    assert found["reembed_canaries_asked"] == {"docs": 0}
    assert oct(Path("reembed.prom").stat().st_mode)[-3:] == "644", "node_exporter is another user"
    assert sentence(1) not in text
    assert not [path for path in Path().iterdir() if path.name.endswith(".tmp")]
    with chroma(database) as client:
        client.delete_collection("docs")
    assert command("watch", url, "--metrics", "reembed.prom").code == 4
    found = samples(Path("reembed.prom").read_text())
    assert found["reembed_collection_records"] == {"docs": 0}
    assert found["reembed_alert"]["gone"] == 1
    database.rename(database.with_name("away"))
    assert command("watch", url, "--metrics", "reembed.prom").code == 5
    found = samples(Path("reembed.prom").read_text())
    assert "reembed_collection_records" not in found, "what was not seen is not 0"
    assert found["reembed_store_up"] == {"": 0}
    assert {name.removeprefix("reembed_") for name in found} <= HELP.keys()


def test_what_is_not_known_of_a_model_has_no_sample(
    command: Command, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that does not answer, whether it drifted; of one that is only on record, anything."""
    with chroma(database) as client:
        recorded_collection(client, "ollama", "wordllama")
    with EmbeddingServer(OLLAMA) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = command("watch", f"chroma:{database}", "--metrics", "reembed.prom", "--json")
        assert done.code == 0 and server.requests, done.out
        assert "has ollama wordllama on record, and it is not asked" in done.out
        assert not [name for name in samples(Path("reembed.prom").read_text()) if "model" in name]
        model = {"provider": "ollama", "name": "nomic-embed-text", "base_url": server.url}
        path = write_manifest(tmp_path, f"chroma:{database}", model=model)
        assert command("watch", path, "--metrics", "reembed.prom").code == 0
        found = samples(Path("reembed.prom").read_text())
        assert found["reembed_model_up"]["ollama nomic-embed-text,new"] == 1
        assert found["reembed_model_drifted"]["ollama nomic-embed-text,new"] == 0
    assert command("watch", path, "--metrics", "reembed.prom").code == 7
    found = samples(Path("reembed.prom").read_text())
    assert found["reembed_model_up"]["ollama nomic-embed-text,new"] == 0
    assert "ollama nomic-embed-text,new" not in found["reembed_model_drifted"]


def test_a_file_that_cannot_be_written_is_told(command: Command, database: Path) -> None:
    done = command("watch", f"chroma:{database}", "--metrics", "no/such/folder/x.prom", "--json")
    assert done.code == 5 and "metrics" in {one["check"] for one in done.json["findings"]}
    assert done.json["collections"], "it was looked at all the same"


def test_a_watch_that_goes_on_serves_its_metrics_and_sees_what_happens(database: Path) -> None:
    """In a process of its own, which a signal ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "reembed", "watch", f"chroma:{database}", "--every", "1s",
         "--listen", f"127.0.0.1:{port}", "--json"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["exit_code"] == 0 and first["collections"][0]["records"] == 40
        found = samples(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        assert found["reembed_collection_records"] == {"docs": 40}
        with chroma(database) as client:
            client.delete_collection("docs")
            plain_collection(client, count=3)
        deadline = time.monotonic() + 60
        while (line := json.loads(process.stdout.readline()))["exit_code"] == 0:
            assert time.monotonic() < deadline
        assert line["exit_code"] in (4, 7), line
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "options", [("--every", "soon"), ("--listen", ":9"), ("--every", "5m", "--accept", "x")]
)
def test_options_that_do_not_fit_are_usage_errors(
    command: Command, database: Path, options: tuple[str, ...]
) -> None:
    assert command("watch", f"chroma:{database}", *options).code == 2
