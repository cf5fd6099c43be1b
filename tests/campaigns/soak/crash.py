"""The crash campaign: kill -9 anywhere, the same command again, and everything is as if nothing
had happened.

    python -m tests.campaigns.soak.crash --kills 500 --seed 1 [--filled | --http | --postgres]
        [--kind KIND] [--only SEED]
    python -m tests.campaigns.soak.crash --postgres --each-line
    python -m tests.campaigns.soak.crash --postgres-crashes --kills 100

The story of `scene.py` is told once without a kill, with a copy of everything before each command.
A trial takes a copy, kills the command (at a journal line, at an fsync, at a random moment) or
harms the run directory, gives the same command again, and compares: records, vectors, verdict,
collections, leftovers, and how often the embedding server was asked for each text. Every fifth
trial then goes on to the end of the story. Over HTTP a real `chroma run` serves each copy, and
survives; so does Postgres (`pg_stage.py`). With `--postgres-crashes` it is Postgres that crashes
before a statement of the command, loses what was committed and not on the disk yet, and is started
again at once; the command goes on if it can. What a trial does follows from its seed alone, but for
the moment of a kill by time. `--each-line` kills before each journal line of each command instead.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.campaigns.soak import processes
from tests.campaigns.soak.harm import HARMS
from tests.campaigns.soak.pg_stage import UNFLUSHED, PostgresStage
from tests.campaigns.soak.processes import SERVER, Kill
from tests.campaigns.soak.scene import STEPS, Step
from tests.campaigns.soak.stage import Outcome, Stage
from tests.support.servers.postgres_server import postgres_server

KINDS = {
    "path": ("transaction", "pointer"), "filled": ("transaction", "pointer"),
    "http": ("rename", "pointer"),
    "postgres": ("rename", "columns"), "postgres-crashes": ("rename", "columns"),
}  # fmt: skip
"""Where the store is, to kinds of swap; in Postgres to the ways that a table takes."""

# The campaign


@contextmanager
def embedding_server() -> Iterator[str]:
    """The embedding server as a process of its own; its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.servers.embedding_server"], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert process.stdout and process.stdin
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        os.environ[SERVER] = url
        os.environ.setdefault("OPENAI_API_KEY", "none")
        yield f"{url}/v1"
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()


def campaign(
    seeds: list[int], where: str, work: Path, minutes: float = math.inf, each_line: bool = False,
    kind: str | None = None,
) -> list[Outcome]:  # fmt: skip
    """All trials of these seeds, by turns with each kind of swap; none is begun after `minutes`.

    Args:
        where: path, filled, http, postgres or postgres-crashes.
        each_line: instead of seeds, kill before each journal line.
        kind: of swap, instead of all that are possible there.
    """
    kinds = KINDS[where] if kind is None else (kind,)
    processes.preload()
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + 60 * minutes
    with ExitStack() as stack:
        base_url = stack.enter_context(embedding_server())
        make = stage_maker(where, work, base_url, stack)
        stages: dict[str, Stage] = {}
        trials: list[tuple[int, str, tuple[Step, Kill] | None]]
        trials = [(seed, kinds[seed % len(kinds)], None) for seed in seeds]
        if each_line:
            stages = {name: make(name) for name in kinds}
            trials = [(1, name, one) for name in stages for one in stages[name].each_line()]
        for seed, name, given in trials:
            if time.monotonic() > deadline:
                break
            if name not in stages:
                stages[name] = make(name)
            outcome = stages[name].trial(seed, given)
            outcomes.append(outcome)
            for problem in outcome.problems:
                print(f"FAILED seed {seed}, {outcome.step}, {outcome.what}: {problem}", flush=True)
            if len(outcomes) % 10 == 0:
                print(f"{len(outcomes)} trials", file=sys.stderr, flush=True)
    return outcomes


def stage_maker(
    where: str, work: Path, base_url: str, stack: ExitStack
) -> Callable[[str], Stage]:  # fmt: skip
    """What makes a stage for a kind of swap, on which the story has been told without a kill."""
    server, crashing = None, where == "postgres-crashes"
    if where.startswith("postgres"):
        server = stack.enter_context(postgres_server(**UNFLUSHED if crashing else {}))

    def make(kind: str) -> Stage:
        if server is not None:
            stage: Stage = PostgresStage(work / kind, kind, server, base_url, crashing)
        else:
            bulk = "always" if where == "filled" else "never"
            stage = Stage(work / kind, kind, where == "http", base_url, bulk)
        stage.tell()
        return stage

    return make


def table(outcomes: list[Outcome]) -> str:
    """Trials by step: how many, how many failed, how many texts were billed twice."""
    lines = [
        "| command | trials | killed | failed | billed twice, at most |",
        "|---|---|---|---|---|",
    ]
    names = {step.name: [o for o in outcomes if o.step == step.name] for step in STEPS}
    harms = {harm: [o for o in outcomes if o.what == harm] for harm in HARMS}
    for name, mine in (names | harms).items():
        if mine:
            failed = sum(bool(o.problems) for o in mine)
            twice = max(o.twice for o in mine)
            kills = sum(o.kills for o in mine)
            lines.append(f"| {name} | {len(mine)} | {kills} | {failed} | {twice} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaign, print the table, and fail if any trial did."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="trials")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--filled", action="store_const", dest="where", const="filled",
                       help="target.bulk: always")  # fmt: skip
    where.add_argument("--http", action="store_const", dest="where", const="http",
                       help="through a real Chroma server")  # fmt: skip
    where.add_argument("--postgres", action="store_const", dest="where", const="postgres",
                       help="in a real Postgres")  # fmt: skip
    where.add_argument("--postgres-crashes", action="store_const", dest="where",
                       const="postgres-crashes", help="which itself crashes")  # fmt: skip
    parser.set_defaults(where="path")
    parser.add_argument("--kind", help="of swap, instead of all by turns")
    parser.add_argument("--each-line", action="store_true", help="before each journal line")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no trial after so long"
    )
    parser.add_argument("--only", type=int, help="this trial alone")
    given = parser.parse_args()
    if given.kind not in (None, *KINDS[given.where]):
        parser.error(f"--kind is one of {', '.join(KINDS[given.where])}")
    seeds = list(range(given.seed, given.seed + given.kills))
    seeds = seeds if given.only is None else [given.only]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reembed-crash-") as folder:
        outcomes = campaign(
            seeds, given.where, Path(folder), given.minutes, given.each_line, given.kind
        )  # fmt: skip
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    print(table(outcomes))
    print(f"{time.monotonic() - start:.0f} seconds")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
