"""A run is logged to MLflow as one run of an experiment, without texts, and no answer of the
server's stops anything. (The server of the tests answers as MLflow 3's own does.)"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reembed import Manifest
from reembed.errors import ManifestError
from reembed.report.gather import read_report
from reembed.report.mlflow import files, log_report, metrics, parameters
from tests.support.chroma_data import chroma, plain_collection
from tests.support.commands import Command
from tests.support.manifests import migration, run_dir, write_group_manifest, write_manifest
from tests.support.report_cases import every_figure, hostile_report
from tests.support.servers.mlflow_server import MlflowServer
from tests.support.texts import sentence


@pytest.fixture
def server() -> Iterator[MlflowServer]:
    with MlflowServer() as server:
        yield server


def write(folder: Path, database: Path, **settings: Any) -> Path:
    return write_manifest(folder, f"chroma:{database}", report__mlflow=settings)


def test_a_run_is_logged_once_and_brought_up_to_date(
    tmp_path: Path, database: Path, command: Command, server: MlflowServer
) -> None:
    path = write(tmp_path, database, tracking_uri=server.url, experiment="moves")
    done = command("run", path)
    assert done.code == 0, done.err
    assert "logged to MLflow, experiment moves" in done.err
    assert server.experiments == {"moves": "1"}
    (run,) = server.runs.values()
    assert run["status"] == "FINISHED"
    assert run["params"]["model"] == "python:counting_model:new"
    assert (run["params"]["dimensions"], run["params"]["source.dimensions"]) == ("64", "48")
    assert run["params"]["source.metric"] in ("cosine", "l2", "ip")
    assert run["tags"]["reembed.state"] == "verified"
    assert run["tags"]["gate.integrity"] == "pass"
    assert run["metrics"]["records.exported"] == [40.0]
    assert run["metrics"]["tokens"][-1] > 0
    assert run["metrics"]["stage.embed.seconds"][-1] > 0
    assert run["metrics"]["gate.integrity.missing"] == [0.0]
    assert 0 <= run["metrics"]["gate.index.recall"][-1] <= 1
    assert {name.rpartition("/")[2] for name in server.files} == {"summary.md", "verdict.json"}
    for number in range(40):
        assert sentence(number).encode() not in server.raw, "no text leaves"
    assert command("verify", path).code == 0
    assert command("swap", path, "--yes").code == 0
    assert run["tags"]["reembed.state"] == "swapped"
    assert command("rollback", path, "--yes").code == 0
    assert run["tags"]["reembed.state"] == "rolled back"
    assert len(server.runs) == 1, "one run directory is one run"
    assert len(run["metrics"]["records.exported"]) == 4
    assert "mlflow" not in json.dumps(Manifest.load(path).identity()), "it may change at any time"


def test_with_texts_the_whole_report_is_logged(
    tmp_path: Path, database: Path, command: Command, server: MlflowServer
) -> None:
    path = write(tmp_path, database, tracking_uri=server.url, texts=True)
    assert command("run", path).code == 0
    logged = {name.rpartition("/")[2]: data for name, data in server.files.items()}
    folder = run_dir(path).path
    assert logged["report.html"] == (folder / "report.html").read_bytes()
    assert json.loads(logged["verdict.json"]) == json.loads((folder / "verdict.json").read_text())


def test_credentials_go_to_the_server_and_nowhere_else(
    tmp_path: Path, database: Path, command: Command, server: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-9f8e7d6c5b4a3210")
    path = write(tmp_path, database, tracking_uri=server.url)
    done = command("run", path)
    assert server.headers["authorization"] == "Bearer tok-9f8e7d6c5b4a3210"
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "tok-1a2b3c4d5e6f7890")
    server.answer = (401, b'{"message": "tok-1a2b3c4d5e6f7890 is not known"}')
    again = command("verify", path)
    assert again.code == 0
    assert server.headers["authorization"].startswith("Basic ")
    assert "not logged to MLflow" in again.err and "it answers 401" in again.err
    kept = b"".join(file.read_bytes() for file in (tmp_path / ".reembed").rglob("*.*")
                    if file.is_file())  # fmt: skip
    for place in (server.raw, kept, (done.err + done.out + again.err + again.out).encode()):
        assert b"tok-" not in place


@pytest.mark.parametrize(
    "answer",
    [(500, b"<html>"), (302, b""), (200, b"<html>"), (200, b"[]"), (200, b"{}"), (403, b"[1]"),
     (200, b'{"experiment": 5}'), (200, b'{"experiment": {"experiment_id": []}, "runs": [7]}'),
     (200, b'{"experiment": {"experiment_id": "1", "lifecycle_stage": "deleted"}}'),
     (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')],
)  # fmt: skip
def test_no_answer_stops_anything(
    answer: tuple[int, bytes], finished: Path, server: MlflowServer
) -> None:
    server.answer = answer
    settings = Manifest.load(finished).report.mlflow
    assert settings is not None
    told: list[str] = []
    at = settings.model_copy(update={"tracking_uri": server.url})
    log_report(at, read_report("move", run_dir(finished)), told.append)
    (line,) = told
    assert line.startswith(f"not logged to MLflow at {server.url}: ")
    assert server.runs == {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest whose run is verified while its MLflow server is away."""
    folder = tmp_path_factory.mktemp("mlflow")
    with chroma(folder / "db") as client:
        plain_collection(client, count=150)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        away = f"http://127.0.0.1:{unused.getsockname()[1]}"
        path = write(folder, folder / "db", tracking_uri=away)
        result = migration(path).run()
    assert result.verdict is not None and result.verdict.passed
    return path


def test_a_server_that_is_away_or_takes_no_files_is_told(
    finished: Path, server: MlflowServer, command: Command
) -> None:
    done = command("verify", finished)
    assert done.code == 0
    assert "not logged to MLflow" in done.err
    data = yaml.safe_load(finished.read_text())
    data["report"]["mlflow"]["tracking_uri"] = f"{server.url}/"
    finished.write_text(yaml.safe_dump(data))
    server.passes_files_on = False
    done = command("verify", finished)
    assert done.code == 0
    assert "without files, which the server does not take (--serve-artifacts)" in done.err
    assert server.files == {} and len(server.runs) == 1


def test_figures_of_every_shape_are_numbers_without_texts(finished: Path) -> None:
    report = hostile_report(read_report("move", run_dir(finished)))
    found = metrics(report)
    assert all(isinstance(value, float | int) for value in found.values())
    assert all(len(key) <= 250 for key in found)
    told = json.loads(files(report, texts=False)["verdict.json"])
    for gate in told["gates"]:
        del gate["message"], gate["name"]  # these are reembed's own words
    assert "script" not in json.dumps(told)
    assert all(len(value) <= 500 for value in parameters(report).values())
    assert every_figure()["new"] in found.values()


def test_several_collections_are_a_run_each(
    tmp_path: Path, command: Command, server: MlflowServer
) -> None:
    with chroma(tmp_path / "db") as client:
        for name in ("one", "two"):
            plain_collection(client, name, count=30)
    path = write_group_manifest(
        tmp_path, f"chroma:{tmp_path / 'db'}", report__mlflow={"tracking_uri": server.url}
    )
    assert command("run", path, "--swap").code == 0
    assert {run["params"]["source.collection"] for run in server.runs.values()} == {"one", "two"}
    assert {run["tags"]["reembed.state"] for run in server.runs.values()} == {"swapped"}
    assert command("rollback", path, "--yes").code == 0
    assert {run["tags"]["reembed.state"] for run in server.runs.values()} == {"rolled back"}
    assert len(server.runs) == 2


@pytest.mark.parametrize(
    ("address", "told"),
    [("./mlruns", "mlflow server"), ("sqlite:///m.db", "mlflow server"), ("http://", "http://"),
     ("https://ana:hunter2secret@host", "MLFLOW_TRACKING_USERNAME")],
)  # fmt: skip
def test_other_addresses_are_refused(
    address: str, told: str, tmp_path: Path, database: Path
) -> None:
    path = write(tmp_path, database, tracking_uri=address)
    with pytest.raises(ManifestError) as caught:
        Manifest.load(path)
    assert told in str(caught.value.message) + str(caught.value.hint)
    assert "hunter2secret" not in str(caught.value)
