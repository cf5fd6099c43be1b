"""How much of a provider's quota is used: a server of 100 ms with a minute's requests and tokens.

    python -m tests.campaigns.benchmarks.quota [--records 20000] [--keep]

The server refuses with 429 what is above its quota, as OpenAI does. What is compared is the tokens
that come through with all that the quota allows from the first request to the last, what it had
saved up before included.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.campaigns.benchmarks import fast_server
from tests.campaigns.benchmarks.measuring import Benchmark, Claim, Figures, Work
from tests.campaigns.benchmarks.scene import build, migration

URL = "REEMBED_BENCH_URL"
KEY = "REEMBED_BENCH_KEY"
TOKENS_A_MINUTE = 4_000_000.0
REQUESTS_A_MINUTE = 3_000.0


def around(folder: Path) -> Iterator[Mapping[str, str]]:
    quota = ["--requests", str(REQUESTS_A_MINUTE), "--tokens", str(TOKENS_A_MINUTE)]
    with fast_server.running("--latency", "0.1", *quota) as address:
        yield {URL: address, KEY: "none"}


def _stats() -> Figures:
    with urllib.request.urlopen(f"{os.environ[URL]}/stats") as answer:
        stats: Figures = json.load(answer)
    return stats


def embed(work: Work) -> Figures:
    job = migration(
        work,
        model={
            "provider": "openai", "name": "text-embedding-3-small",
            "base_url": f"{os.environ[URL]}/v1", "api_key_env": KEY, "dimensions": work.dimensions,
        },
    )  # fmt: skip
    job.run(until="export")
    before, start = _stats(), time.time()
    job.run(until="embed")
    after = _stats()
    seconds = after["last_served"] - after["first_served"]
    served = after["tokens"] - before["tokens"]
    return {
        "used": served / (seconds + fast_server.BUCKET) / (TOKENS_A_MINUTE / 60),
        "refused": after["refused"] - before["refused"],
        "refused_late": max(0.0, after["last_refused"] - start - seconds / 2),
    }


BENCHMARK = Benchmark(
    steps={"embed": embed},
    claims=[
        Claim("quota", "share of a quota of tokens that is used", ["embed"], figure="used",
              more=True, bar=0.95),
        Claim("quota, refusals", "requests refused with 429", ["embed"], figure="refused"),
        Claim("quota, late refusals", "seconds from the middle of the run to its last 429",
              ["embed"], figure="refused_late", bar=0),
    ],
    prepare=build,
    around=around,
    dimensions=1536,
)  # fmt: skip

if __name__ == "__main__":
    BENCHMARK.main(__spec__.name, __doc__)
