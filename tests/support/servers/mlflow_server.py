"""An MLflow tracking server, as far as reembed asks one, by the rules of the real one."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.servers.serving import Serving, send_json

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
Answer = tuple[int, dict[str, Any]]


def refused(status: int, code: str, message: str) -> Answer:
    return status, {"error_code": code, "message": message}


class MlflowServer(Serving):
    """Takes experiments, runs and their files.

    Attributes:
        experiments: name to id.
        runs: id to what was logged to it.
        files: path to bytes.
        headers: of the newest request.
        raw: all that was ever sent.
        answer: what every request is answered with instead, if it is set.
        passes_files_on: else runs keep their files where no client of HTTP reaches them.
    """

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.answer: tuple[int, bytes] | None = None
        self.passes_files_on = True
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._handle()

            def do_POST(self) -> None:
                self._handle()

            def do_PUT(self) -> None:
                self._handle()

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                owner.raw += self.path.encode() + b"\n" + body + b"\n"
                owner.headers = {key.lower(): value for key, value in self.headers.items()}
                if owner.answer is not None:
                    status, data = owner.answer
                else:
                    status, said = owner.handled(self.command, self.path, body)
                    data = json.dumps(said).encode()
                send_json(self, status, data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def handled(self, method: str, path: str, body: bytes) -> Answer:
        parts = urlsplit(path)
        if method == "PUT" and parts.path.startswith(ARTIFACTS):
            self.files[unquote(parts.path[len(ARTIFACTS) :])] = body
            return 200, {}
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        call = parts.path.removeprefix(API)
        return self.called(call, json.loads(body) if body else query)

    def called(self, call: str, asked: dict[str, Any]) -> Answer:
        match call:
            case "experiments/get-by-name":
                name = asked["experiment_name"]
                if name not in self.experiments:
                    return refused(404, "RESOURCE_DOES_NOT_EXIST", f"no experiment {name}")
                found = {"experiment_id": self.experiments[name], "lifecycle_stage": "active"}
                return 200, {"experiment": found}
            case "experiments/create":
                self.experiments[asked["name"]] = str(len(self.experiments) + 1)
                return 200, {"experiment_id": self.experiments[asked["name"]]}
            case "runs/search":
                (experiment,) = asked["experiment_ids"]
                _, _, wanted = asked["filter"].partition(" = ")
                return 200, {"runs": [
                    self.shown(run) for run in self.runs.values()
                    if run["experiment"] == experiment
                    and run["tags"].get("reembed.run") == wanted.strip("'")
                ]}  # fmt: skip
            case "runs/create":
                run: dict[str, Any] = {
                    "id": f"{len(self.runs):032x}", "experiment": asked["experiment_id"],
                    "name": asked["run_name"], "status": "RUNNING", "params": {}, "metrics": {},
                    "tags": {tag["key"]: tag["value"] for tag in asked["tags"]},
                }  # fmt: skip
                self.runs[run["id"]] = run
                return 200, {"run": self.shown(run)}
            case "runs/log-batch":
                return self.logged(self.runs[asked["run_id"]], asked)
            case "runs/update":
                self.runs[asked["run_id"]]["status"] = asked["status"]
                return 200, {}
        return refused(404, "ENDPOINT_NOT_FOUND", call)

    def logged(self, run: dict[str, Any], asked: dict[str, Any]) -> Answer:
        for one in asked.get("params", ()):
            if run["params"].setdefault(one["key"], one["value"]) != one["value"]:
                return refused(400, "INVALID_PARAMETER_VALUE", f"{one['key']} cannot change")
        run["tags"] |= {one["key"]: one["value"] for one in asked.get("tags", ())}
        for one in asked.get("metrics", ()):
            run["metrics"].setdefault(one["key"], []).append(one["value"])
        return 200, {}

    def shown(self, run: dict[str, Any]) -> dict[str, Any]:
        root = "mlflow-artifacts:" if self.passes_files_on else "s3://bucket"
        return {
            "info": {"run_id": run["id"], "artifact_uri": f"{root}/1/{run['id']}/artifacts"},
            "data": {"tags": [{"key": k, "value": v} for k, v in run["tags"].items()]},
        }
