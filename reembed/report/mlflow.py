"""A run's parameters, figures and report as a run of an MLflow experiment, over MLflow's REST API.

A run directory is one run there, found again by its tag `reembed.run`: a second verification, a
swap and a way back bring the same one up to date. That the server is away, or refuses, is told in a
line and stops nothing. No text of a record leaves unless the manifest says so.
The API: https://mlflow.org/docs/latest/rest-api.html
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from reembed.embedders.spending import SPENDING_FILE, read_spent
from reembed.errors import ReembedError
from reembed.manifest.reporting import Mlflow
from reembed.redaction import read_variable, redacted_data, redacted_values, shown_url
from reembed.redaction.terminal import harmless
from reembed.report.gather import Report
from reembed.run.disk import read_errors

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
BATCH = 1000
"""Metrics that one request may hold."""
LONGEST_KEY, LONGEST_VALUE = 250, 500
"""Characters that every version of MLflow takes."""
DEEPEST = 4
"""How deep figures are looked for in a gate's."""


class _RefusedError(Exception):
    """The server answered with an error. `code` is MLflow's own, e.g. RESOURCE_DOES_NOT_EXIST."""

    def __init__(self, answer: httpx.Response) -> None:
        said: Any = None
        with contextlib.suppress(ValueError):
            said = answer.json()
        said = said if isinstance(said, dict) else {}
        self.code = str(said.get("error_code", ""))
        why = " ".join(str(said.get("message", "")).split())[:200]
        super().__init__(f"it answers {answer.status_code}" + (f": {why}" if why else ""))


def log_report(settings: Mlflow, report: Report, told: Callable[[str], None]) -> None:
    """Log what a report says, or say why it could not be.

    Args:
        told: where, or why not.
    """
    shown = shown_url(settings.tracking_uri)
    try:
        with _client(settings.tracking_uri) as client:
            said = _Server(client).log(settings, report)
    except FAILURES as error:
        why = str(error) or type(error).__name__
        told(harmless(redacted_values(f"not logged to MLflow at {shown}: {why}")))
        return
    told(harmless(redacted_values(f"{said} at {shown}")))


def _client(uri: str) -> httpx.Client:
    """A client with the credentials that MLflow's own variables hold."""
    token = read_variable("MLFLOW_TRACKING_TOKEN")
    user = read_variable("MLFLOW_TRACKING_USERNAME")
    password = read_variable("MLFLOW_TRACKING_PASSWORD")
    return httpx.Client(
        base_url=uri,
        auth=(user, password) if user and not token else None,
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
    )


FAILURES = (
    _RefusedError, ReembedError, httpx.HTTPError, httpx.InvalidURL, OSError, ImportError,
    ValueError, KeyError, TypeError, AttributeError, IndexError,
)  # fmt: skip
"""What a server that is away, refuses or says what MLflow does not can raise; and settings of the
environment for certificates and proxies that httpx cannot follow."""


class _Server:
    """The calls of MLflow's API that a run needs."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def log(self, settings: Mlflow, report: Report) -> str:
        """Log a report, and return where, in words."""
        experiment = self._experiment(settings.experiment)
        run = self._find(experiment, report) or self._create(experiment, report)
        run_id, now = run["info"]["run_id"], int(time.time() * 1000)
        params = [{"key": key, "value": value} for key, value in parameters(report).items()]
        self._post("runs/log-batch", run_id=run_id, params=params, tags=_pairs(tags(report)))
        figures = [
            {"key": key, "value": value, "timestamp": now} for key, value in metrics(report).items()
        ]
        for start in range(0, len(figures), BATCH):
            self._post("runs/log-batch", run_id=run_id, metrics=figures[start : start + BATCH])
        status = "FAILED" if report.outcome == "refused" else "FINISHED"
        self._post("runs/update", run_id=run_id, status=status, end_time=now)
        where = f"logged to MLflow, experiment {settings.experiment}, run {run_id}"
        folder = _folder(str(run["info"].get("artifact_uri", "")))
        if folder is None:
            return f"{where}, without files, which the server does not take (--serve-artifacts),"
        for name, data in files(report, settings.texts).items():
            path = f"{ARTIFACTS}{quote(f'{folder}/{name}')}"
            self._answer(self._client.put(path, content=data))
        return where

    def _experiment(self, name: str) -> str:
        try:
            return self._by_name(name)
        except _RefusedError as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            return str(self._post("experiments/create", name=name)["experiment_id"])
        except _RefusedError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._by_name(name)  # another process was faster

    def _by_name(self, name: str) -> str:
        answer = self._client.get(f"{API}experiments/get-by-name", params={"experiment_name": name})
        found = self._answer(answer)["experiment"]
        if found.get("lifecycle_stage") == "deleted":
            raise ValueError(f"its experiment {name} is deleted: restore it, or name another one")
        return str(found["experiment_id"])

    def _find(self, experiment: str, report: Report) -> dict[str, Any] | None:
        """The run of this run directory."""
        wanted = f"tags.\"reembed.run\" = '{report.run}'"
        answer = self._post("runs/search", experiment_ids=[experiment], filter=wanted)
        for run in answer.get("runs", ()):
            if {"key": "reembed.name", "value": report.name} in run["data"]["tags"]:
                return dict(run)
        return None

    def _create(self, experiment: str, report: Report) -> dict[str, Any]:
        begun = report.timeline[0].t if report.timeline else report.written
        named = {"reembed.run": report.run, "reembed.name": report.name}
        answer = self._post(
            "runs/create", experiment_id=experiment, run_name=f"{report.name} {report.run}",
            start_time=int(begun * 1000), tags=_pairs(named),
        )  # fmt: skip
        return dict(answer["run"])

    def _post(self, call: str, **body: Any) -> dict[str, Any]:
        return self._answer(self._client.post(f"{API}{call}", json=redacted_data(body)))

    def _answer(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            raise _RefusedError(answer)
        said = json.loads(answer.content or b"{}")
        if not isinstance(said, dict):
            raise ValueError("it is no MLflow server")
        return said


def _pairs(named: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:LONGEST_VALUE]} for key, value in named.items()]


def _folder(artifact_uri: str) -> str | None:
    """A run's folder among the files that the server passes on, None where it passes on none."""
    parts = urlsplit(artifact_uri)
    return parts.path.strip("/") if parts.scheme == "mlflow-artifacts" else None


# What is logged


def parameters(report: Report) -> dict[str, str]:
    """What decides the run's vectors, none of which can change while it lasts."""
    source, model = report.source, report.model
    found: dict[str, Any] = {
        "source.collection": source.get("name"),
        "source.dimensions": source.get("dimensions"),
        "source.metric": source.get("metric"),
        "target.collection": report.target,
        "dimensions": report.dimensions,
        "model": "keep" if report.kept else f"{model.get('provider')}:{model.get('name')}",
    }
    found |= {
        f"model.{key}": value for key, value in model.items()
        if key not in ("provider", "name", "dimensions", "options") and value not in (None, "", {})
    }  # fmt: skip
    return {
        key: str(value)[:LONGEST_VALUE] for key, value in found.items() if value not in (None, "")
    }


def tags(report: Report) -> dict[str, str]:
    """Where the run stands, and what each gate says."""
    found = {
        "reembed.version": report.reembed, "reembed.state": report.state,
        "reembed.verdict": report.outcome, "reembed.headline": report.headline,
        "reembed.live": str(report.swap.get("live", "")),
        "reembed.swap.kind": str(report.swap.get("kind", "")),
    }  # fmt: skip
    if report.verdict is not None:
        found |= {_key(f"gate.{gate.name}"): gate.status for gate in report.verdict.gates}
    return {key: value for key, value in found.items() if value}


def metrics(report: Report) -> dict[str, float]:
    """Counts, tokens, US dollars, seconds of each stage, and each gate's figures."""
    found: dict[str, float] = {
        "records.exported": report.exported, "records.loaded": report.loaded,
        "records.quarantined": report.quarantined,
    }  # fmt: skip
    run = Path(report.path)
    try:
        with read_errors(run):
            if (run / SPENDING_FILE).exists():
                spent = read_spent(run)
                found |= {"tokens": spent.tokens, "usd": spent.usd}
    except ReembedError:  # the report says so
        pass
    for stage in report.stages:
        found |= dict(_numbers(f"stage.{stage.name}", stage.to_dict()))
    for gate in report.verdict.gates if report.verdict else ():
        for key, value in _numbers(f"gate.{gate.name}", gate.figures):
            found.setdefault(key, value)
    return found


def _numbers(path: str, figure: Any, depth: int = 0) -> Iterator[tuple[str, float]]:
    """Every number in nested figures. Lists are left out: they hold histograms, and texts."""
    if isinstance(figure, dict) and depth < DEEPEST:
        for key, value in figure.items():
            yield from _numbers(f"{path}.{key}", value, depth + 1)
    elif isinstance(figure, int | float) and not isinstance(figure, bool) and math.isfinite(figure):
        yield _key(path), float(figure)


def _without_texts(figures: dict[str, Any]) -> dict[str, float]:
    return {key.lstrip("."): value for key, value in _numbers("", figures)}


def _key(path: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_\-. ]", "_", path)[:LONGEST_KEY]


def files(report: Report, texts: bool) -> dict[str, bytes]:
    """The files of a run, by name.

    Args:
        texts: those too that hold texts and ids of records.
    """
    found = {"summary.md": report.to_markdown().encode("utf-8", "replace")}
    verdict = report.verdict
    if texts:
        found["report.html"] = report.to_html().encode()
    elif verdict is not None:
        gates = tuple(
            replace(gate, samples={}, figures=_without_texts(gate.figures))
            for gate in verdict.gates
        )
        verdict = replace(verdict, gates=gates)
    if verdict is not None:
        told = redacted_data(verdict.to_dict(), words=False)
        found["verdict.json"] = json.dumps(told, ensure_ascii=False, indent=2).encode()
    return found
