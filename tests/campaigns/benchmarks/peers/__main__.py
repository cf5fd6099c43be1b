"""The same job by each tool: what it takes, and what it loses.

    make bench-peers
    python -m tests.campaigns.benchmarks.peers [--records 20000] [--tool NAME] [--keep]

A collection of 384 dimensions moves to a model of 1,536, on Chroma or in Postgres. Each tool does
it three times: few records with hard ones among them, which shows what it loses; few records and a
SIGKILL in between, with the command given again; and all records, which shows what it takes. A tool
that fails on the hard records does the other two without them. The model is a server on this
machine that answers at once, and refuses an empty text as OpenAI does.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from tests.campaigns.benchmarks import fast_server
from tests.campaigns.benchmarks.peers import corpus, processes, table
from tests.campaigns.benchmarks.peers.tools import TOOLS, Tool
from tests.support.servers.chroma_server import free_port
from tests.support.servers.postgres_server import PostgresServer, postgres_server

HERE = Path(__file__).resolve().parent
OURS = Path(sys.executable).parent
PRICE = 0.02
"""US dollars for a million tokens of text-embedding-3-small, in November 2026."""
FEW = 1000
PART = 0.4
"""The share of the texts after which the kill comes."""

Found = dict[str, Any]


class Place:
    """Sources ready to be copied, and the servers that all tools use."""

    def __init__(self, folder: Path, model: str, postgres: PostgresServer) -> None:
        self.folder, self.model, self.postgres = folder, model, postgres
        self._databases: dict[str, str] = {}

    def source(self, store: str, records: int, hard: bool) -> str:
        """Where the records lie that nobody changes: a folder, or a database."""
        key = f"{store}-{records}-{'hard' if hard else 'plain'}"
        if store == "chroma":
            path = self.folder / key
            if not path.exists():
                corpus.build_chroma(path, records, hard)
            return str(path)
        if key not in self._databases:
            name = self.postgres.new_database()
            corpus.build_postgres(self.postgres.url(name), records, hard)
            self._databases[key] = name
        return self._databases[key]

    def stats(self) -> dict[str, float]:
        """What the model has served so far."""
        with urllib.request.urlopen(f"{self.model}/stats") as answer:
            found: dict[str, float] = json.load(answer)
        return found


def attempt(
    place: Place, tool: Tool, records: int, hard: bool, kill: Callable[[float], bool] | None = None
) -> Found:
    """Do the job once in a new folder, and compare.

    Args:
        kill: says when to kill; the command is then given again.
    """
    source, folder = place.source(tool.store, records, hard), place.folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = ""
    variables = {
        "BIN": str(_environment(tool)), "HERE": str(HERE), "STORE": str(folder / "store"),
        "OPENAI_BASE_URL": f"{place.model}/v1", "OPENAI_API_BASE": f"{place.model}/v1",
        "OPENAI_API_KEY": "none", "URL": f"{place.model}/v1", "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "ANONYMIZED_TELEMETRY": "False",
    }  # fmt: skip
    if tool.store == "chroma":
        shutil.copytree(source, folder / "store")
        theirs = ["chroma", source, "docs", str(folder / tool.where), tool.made]
    else:
        name = place.postgres.new_database(template=source)
        variables["VECSHIFT_DSN"] = place.postgres.url(name)
        theirs = [
            "postgres",
            place.postgres.url(source),
            "docs",
            place.postgres.url(name),
            tool.made,
        ]
    for file, text in tool.files.items():
        (folder / file).write_text(Template(text).substitute(variables))
    before = place.stats()
    with _server(tool, place, folder, variables) as beside:
        took = processes.run(tool.command, folder, variables, beside, kill or (lambda _: False))
        if kill and took.code < 0:
            took = processes.run(tool.again or tool.command, folder, variables, beside)
    served = {key: value - before[key] for key, value in place.stats().items()}
    lost: Any = None
    if tool.made:
        done = subprocess.run(
            [sys.executable, "-m", "tests.campaigns.benchmarks.peers.losses", *theirs],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        lost = json.loads(done.stdout)
    if name:
        place.postgres.drop_database(name)
    return {
        "records": records, "hard": hard, "code": took.code, "seconds": round(took.seconds, 1),
        "cpu_seconds": round(took.cpu_seconds, 1), "peak_mb": round(took.peak_mb),
        "requests": served["requests"], "texts": served["texts"], "tokens": served["tokens"],
        "usd": round(served["tokens"] / 1e6 * PRICE, 4), "lost": lost, "output": took.output,
    }  # fmt: skip


@contextmanager
def _server(
    tool: Tool, place: Place, folder: Path, variables: dict[str, str]
) -> Iterator[list[processes.Beside]]:
    """The server that works for the tool, if it needs one: Chroma's own, or Postgres."""
    if tool.store == "postgres":
        yield [processes.Beside(place.postgres.pid, memory=False)]
    elif not tool.serve:
        yield []
    else:
        port = free_port()
        variables["CHROMA_PORT"] = str(port)
        command = [str(OURS / "chroma"), "run", "--path", "store", "--port", str(port)]
        with (folder / "server.txt").open("w") as log, subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log
        ) as server:  # fmt: skip
            try:
                _wait(f"http://127.0.0.1:{port}/api/v2/heartbeat")
                yield [processes.Beside(server.pid, memory=True)]
            finally:
                server.terminate()


def _wait(address: str) -> None:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{address} does not answer")


def _environment(tool: Tool) -> Path:
    return OURS.parent / "peers" / tool.package / "bin" if tool.package else OURS


def measure(place: Place, tool: Tool, records: int) -> Found:
    """All that the table says of one tool."""
    found: Found = {"tool": tool.name, "store": tool.store, "does": tool.does, "well": tool.well,
                    "fixes": tool.fixes, "released": tool.released}  # fmt: skip
    found["day"] = datetime.datetime.now(datetime.UTC).date().isoformat()
    found["cores"] = os.cpu_count()
    if not (_environment(tool) / "python").exists():
        return found | {"missing": "it could not be installed"}
    if tool.package:
        ask = f"from importlib.metadata import version; print(version({tool.package!r}))"
        python = str(_environment(tool) / "python")
        found["version"] = subprocess.check_output([python, "-c", ask], text=True).strip()
    found["few"] = attempt(place, tool, FEW, hard=True)
    hard = found["few"]["code"] in tool.ends
    if not hard:
        found["plain"] = attempt(place, tool, FEW, hard=False)
    whole, start = found["few" if hard else "plain"], place.stats()["texts"]

    def half(seconds: float) -> bool:
        if tool.embeds:
            return place.stats()["texts"] - start > PART * float(whole["texts"])
        return seconds > float(whole["seconds"]) / 2

    found["killed"] = attempt(place, tool, FEW, hard, half)
    found["killed"]["again"] = found["killed"]["texts"] - whole["texts"]
    found["all"] = attempt(place, tool, records, hard)
    return found


def main() -> None:
    """Measure the tools, print a line each, and keep what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--tool", action="append", help="only this one; may be repeated")
    parser.add_argument("--store", choices=["chroma", "postgres"], action="append")
    parser.add_argument("--keep", action="store_true", help="write docs/peers.json and its page")
    options = parser.parse_args()
    chosen = [
        tool for tool in TOOLS
        if tool.name in (options.tool or [tool.name])
        and tool.store in (options.store or [tool.store])
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        fast_server.running("--refuse-empty", "--distinct") as model,
        postgres_server(fsync="on", full_page_writes="on") as postgres,
    ):
        place = Place(Path(folder), model, postgres)
        for tool in chosen:
            found = measure(place, tool, options.records)
            print(_line(found), flush=True)
            if found.get("few", {}).get("code"):
                print(found["few"]["output"])
            if options.keep:
                table.keep(found)


def _line(found: Mapping[str, Any]) -> str:
    if "all" not in found:
        return f"{found['store']}, {found['tool']}: {found['missing']}"
    took = found["all"]
    return (
        f"{found['store']}, {found['tool']}: exit {took['code']}, {took['seconds']} s, "
        f"{took['cpu_seconds']} s of CPU, {took['peak_mb']} MB, "
        f"${took['usd']}; lost {json.dumps(found['few']['lost'])}"
    )


if __name__ == "__main__":
    main()
