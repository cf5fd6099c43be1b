"""What embedding costs beside the model: with a static model, and through a fast server.

    python -m tests.campaigns.benchmarks.embed [--records 20000] [--dimensions 1536] [--keep]

Each server is a process of its own that answers in base64: one with ready vectors at once, one with
vectors that it makes of each text's words, as a fast local model does. The script sends to it from
four threads, keeps the vectors as numpy files and checks nothing. Both send 256 texts a request: by
itself reembed sends an unknown server 64.

What one text more costs is a slope: embedding three times as many texts, less embedding them once,
less the same of a loop over the model alone.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.campaigns.benchmarks import fast_server
from tests.campaigns.benchmarks.measuring import (
    WITHOUT_CHROMADB,
    Benchmark,
    Claim,
    Figures,
    Work,
)
from tests.campaigns.benchmarks.scene import build, client, embed, migration
from tests.campaigns.benchmarks.scene import texts as made_texts

URL = "REEMBED_BENCH_URL"
COMPUTING = "REEMBED_BENCH_COMPUTING_URL"
KEY = "REEMBED_BENCH_KEY"
BATCH = 256
TIMES = (1, 3)
"""How many times the records the two corpora of the slope have."""


def around(folder: Path) -> Iterator[Mapping[str, str]]:
    with fast_server.running() as ready, fast_server.running("--computing") as computing:
        yield {URL: f"{ready}/v1", COMPUTING: f"{computing}/v1", KEY: "none"}


def prepare(work: Work) -> None:
    """The Chroma folder, and the same texts and twice as many more as JSON lines."""
    build(work)
    for times in TIMES:
        lines = (
            json.dumps({"id": f"id{row}", "text": text}) + "\n"
            for row, text in enumerate(made_texts(times * work.records))
        )
        _corpus(work, times).write_text("".join(lines))


def _corpus(work: Work, times: int) -> Path:
    return work.folder / f"corpus{times}.jsonl"


def _of_corpus(work: Work, times: int, until: str) -> None:
    """The corpus of so many times the records, in a folder of Chroma that stays empty."""
    folder = work.folder / "empty"
    if not folder.exists():
        client(folder)
    migration(
        work,
        name=f"corpus{times}-{work.round}",
        source={"url": f"jsonl:{_corpus(work, times)}", "collection": f"corpus{times}"},
        target={"url": f"chroma:{folder / 'chroma'}"},
    ).run(until=until)


def _through_server(work: Work, until: str, url: str = URL) -> None:
    migration(
        work,
        name=f"{'ready' if url == URL else 'computing'}{work.round}",
        model={
            "provider": "openai", "name": "text-embedding-3-small", "base_url": os.environ[url],
            "dimensions": work.dimensions, "api_key_env": KEY, "options": {"batch_items": BATCH},
        },
        embed={"concurrency": 4},
    ).run(until=until)  # fmt: skip


def _export(work: Work) -> None:
    migration(work).run(until="export")
    for url in (URL, COMPUTING):
        _through_server(work, "export", url)
    for times in TIMES:
        _of_corpus(work, times, "export")


def _texts(work: Work) -> list[str]:
    import pyarrow.parquet as pq

    files = sorted(work.folder.glob(f"state{work.round}/bench{work.round}/*/export/*.parquet"))
    return [
        text
        for path in files
        for text in pq.read_table(path, columns=["document"]).column(0).to_pylist()
    ]


def static_loop(work: Work) -> None:
    _loop(work, _texts(work))


def _loop(work: Work, texts: list[str]) -> None:
    for start in range(0, len(texts), 1000):
        rows = embed(texts[start : start + 1000], work.dimensions)
        np.save(work.folder / f"static-{start}.npy", rows)


def _loop_over_corpus(work: Work, times: int) -> None:
    with _corpus(work, times).open() as lines:
        _loop(work, [json.loads(line)["text"] for line in lines])


def static(work: Work) -> None:
    migration(work).run(until="embed")


def again(work: Work) -> None:
    """What the call costs that finds all done: opening everything, and looking at every shard."""
    static(work)


def script(work: Work) -> None:
    _script(work, URL)


def script_computing(work: Work) -> Figures:
    start = time.perf_counter()
    _script(work, COMPUTING)
    return {"texts_a_second": work.records / (time.perf_counter() - start)}


def _script(work: Work, url: str) -> None:
    """Four threads, base64, vectors into numpy files."""
    texts = _texts(work)

    def one(start: int) -> None:
        body = {"model": "text-embedding-3-small", "input": texts[start : start + BATCH],
                "dimensions": work.dimensions, "encoding_format": "base64"}  # fmt: skip
        request = urllib.request.Request(
            f"{os.environ[url]}/embeddings", json.dumps(body).encode(),
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


def through_computing(work: Work) -> None:
    _through_server(work, "embed", COMPUTING)


BENCHMARK = Benchmark(
    steps={
        "export": _export,
        "loop over the static model": static_loop,
        "embed, static model": static,
        "embed again": again,
        "four-thread script": script,
        "embed, fast server": through_server,
        "four-thread script, computing": script_computing,
        "embed, computing server": through_computing,
        "loop, once": functools.partial(_loop_over_corpus, times=1),
        "loop, three times": functools.partial(_loop_over_corpus, times=3),
        "embed, once": functools.partial(_of_corpus, times=1, until="embed"),
        "embed, three times": functools.partial(_of_corpus, times=3, until="embed"),
    },
    claims=[
        Claim("embed, fast server", "embed through a fast server / four-thread script",
              ["embed, fast server"], ["four-thread script"], bar=1.1),
        Claim("embed, fast server, processor",
              "embed through a fast server / four-thread script, CPU",
              ["embed, fast server"], ["four-thread script"], figure="cpu_seconds"),
        Claim("embed, computing server",
              "embed through a server that computes its vectors / four-thread script",
              ["embed, computing server"], ["four-thread script, computing"], bar=1.1),
        Claim("embed, computing server, processor",
              "embed through a server that computes its vectors / four-thread script, CPU",
              ["embed, computing server"], ["four-thread script, computing"],
              figure="cpu_seconds"),
        Claim("embed, computing server, texts", "texts/s that this server gave the script",
              ["four-thread script, computing"], figure="texts_a_second"),
        Claim("embed, own cost of one more",
              "ms of CPU for one text more, of three times as many, beyond a static model's own",
              ["embed, three times", "loop, once"], figure="cpu_seconds", each=500,
              less=["embed, once", "loop, three times"], bar=0.05),
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
    prepare=prepare,
    own_imports=WITHOUT_CHROMADB,
    around=around,
    dimensions=1536,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
