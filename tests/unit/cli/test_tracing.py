"""OpenTelemetry spans of a run go where the environment says, and hold no text."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.manifests import write_manifest
from tests.support.texts import sentence


class Taker:
    """A collector that takes OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                owner.raw += body
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        owner.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def reembed(path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reembed", *arguments, path],
        capture_output=True, text=True, env=os.environ | env,
    )  # fmt: skip


def test_a_run_is_one_trace_with_a_span_for_each_stage(tmp_path: Path, database: Path) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    taker = Taker()
    try:
        done = reembed(path, "run", "--swap", OTEL_EXPORTER_OTLP_ENDPOINT=taker.url)
    finally:
        taker.close()
    assert done.returncode == 0, done.stderr
    spans = {span.name: span for span in taker.spans}
    stages = ("export", "embed", "load", "verify", "swap")
    assert {"reembed run", *(f"reembed {stage}" for stage in stages)} <= spans.keys()
    whole = spans["reembed run"]
    for stage in stages:
        one = spans[f"reembed {stage}"]
        assert one.trace_id == whole.trace_id and one.parent_span_id == whole.span_id
        names = {item.key for item in one.attributes}
        assert {"reembed.name", "reembed.run"} <= names
    embedded = {item.key: item.value for item in spans["reembed embed"].attributes}
    assert embedded["reembed.texts"].int_value or embedded["reembed.texts"].double_value == 40
    assert sentence(3).encode() not in taker.raw


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", ""])
def test_that_nobody_takes_them_stops_nothing(
    tmp_path: Path, database: Path, endpoint: str
) -> None:
    """And an error's words, which may hold a text, are not sent."""
    path = write_manifest(tmp_path, f"chroma:{database}")
    done = reembed(path, "plan", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert done.returncode == 0, done.stderr


def test_a_failed_command_tells_the_kind_of_its_error_alone(tmp_path: Path, database: Path) -> None:
    path = write_manifest(
        tmp_path, f"chroma:{database}", model__options={"retry_attempts": 1}
    )  # fmt: skip
    taker = Taker()
    try:
        done = reembed(
            path, "run", OTEL_EXPORTER_OTLP_ENDPOINT=taker.url, REEMBED_TEST_BREAK="record 3 ",
        )  # fmt: skip
    finally:
        taker.close()
    assert done.returncode != 0
    (span,) = [one for one in taker.spans if one.name == "reembed run"]
    assert {item.key for item in span.attributes} >= {"reembed.exit_code"}
    assert b"record 3 " not in taker.raw and b"the model is away" not in taker.raw
