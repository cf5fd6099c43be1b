"""What embedding costs beside the model: with a static model, and through a fast server.

    python -m tests.campaigns.benchmarks.embed [--records 20000] [--dimensions 1536] [--keep]

The server is a process of its own that answers with ready vectors in base64 at once. The script
sends to it from four threads, keeps the vectors as numpy files and checks nothing. Both send 256
texts a request: by itself reembed sends an unknown server 64.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.campaigns.benchmarks import fast_server
from tests.campaigns.benchmarks.measuring import WITHOUT_CHROMADB, Benchmark, Claim, Work
from tests.campaigns.benchmarks.scene import build, embed, migration

URL = "REEMBED_BENCH_URL"
KEY = "REEMBED_BENCH_KEY"
BATCH = 256


def around(folder: Path) -> Iterator[Mapping[str, str]]:
    with fast_server.running() as address:
        yield {URL: f"{address}/v1", KEY: "none"}


def _through_server(work: Work, until: str) -> None:
    migration(
        work,
        name=f"server{work.round}",
        model={
            "provider": "openai", "name": "text-embedding-3-small", "base_url": os.environ[URL],
            "dimensions": work.dimensions, "api_key_env": KEY, "options": {"batch_items": BATCH},
        },
        embed={"concurrency": 4},
    ).run(until=until)  # fmt: skip


def _export(work: Work) -> None:
    migration(work).run(until="export")
    _through_server(work, "export")


def _texts(work: Work) -> list[str]:
    import pyarrow.parquet as pq

    files = sorted(work.folder.glob(f"state{work.round}/bench{work.round}/*/export/*.parquet"))
    return [
        text
        for path in files
        for text in pq.read_table(path, columns=["document"]).column(0).to_pylist()
    ]


def static_loop(work: Work) -> None:
    texts = _texts(work)
    for start in range(0, len(texts), 1000):
        rows = embed(texts[start : start + 1000], work.dimensions)
        np.save(work.folder / f"static-{start}.npy", rows)


def static(work: Work) -> None:
    migration(work).run(until="embed")


def again(work: Work) -> None:
    """What the call costs that finds all done: opening everything, and looking at every shard."""
    static(work)


def script(work: Work) -> None:
    """Four threads, base64, vectors into numpy files."""
    texts = _texts(work)

    def one(start: int) -> None:
        body = {"model": "text-embedding-3-small", "input": texts[start : start + BATCH],
                "dimensions": work.dimensions, "encoding_format": "base64"}  # fmt: skip
        request = urllib.request.Request(
            f"{os.environ[URL]}/embeddings", json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            data = json.load(answer)["data"]
        rows = [np.frombuffer(base64.b64decode(one["embedding"]), np.float32) for one in data]
        np.save(work.folder / f"script-{start}.npy", np.stack(rows))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(0, len(texts), BATCH)))


def through_server(work: Work) -> None:
    _through_server(work, "embed")


BENCHMARK = Benchmark(
    steps={
        "export": _export,
        "loop over the static model": static_loop,
        "embed, static model": static,
        "embed again": again,
        "four-thread script": script,
        "embed, fast server": through_server,
    },
    claims=[
        Claim("embed, fast server", "embed through a fast server / four-thread script",
              ["embed, fast server"], ["four-thread script"], bar=1.1),
        Claim("embed, fast server, processor",
              "embed through a fast server / four-thread script, CPU",
              ["embed, fast server"], ["four-thread script"], figure="cpu_seconds"),
        Claim("embed, own cost", "ms of CPU for each text beyond a static model's own",
              ["embed, static model"], figure="cpu_seconds", each=1000,
              less=["loop over the static model"], bar=0.05),
        Claim("embed, own cost of more texts", "the same, beyond a call that finds all done",
              ["embed, static model"], figure="cpu_seconds", each=1000,
              less=["loop over the static model", "embed again"], bar=0.05),
        Claim("embed, peak memory", "MB of embedding beyond a loop over the same static model",
              ["embed, static model"], figure="peak_mb", less=["loop over the static model"],
              bar=500),
    ],
    prepare=build,
    own_imports=WITHOUT_CHROMADB,
    around=around,
    dimensions=1536,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
