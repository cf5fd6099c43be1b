"""The Prometheus rules and the Grafana dashboard, asked of metrics that real watches wrote.

promtool evaluates both; it comes with Debian's package prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from reembed.commands.watch import subject_of, watch
from reembed.commands.watch.metrics import HELP
from tests.support.chroma_data import chroma, plain_collection
from tests.support.texts import sentence, vector_of
from tests.support.watched import Looks

FOLDER = Path(__file__).resolve().parents[4] / "manifests" / "monitoring"
RULES = FOLDER / "rules.yml"
DASHBOARD = FOLDER / "grafana-dashboard.json"
HOUR = 12
"""Samples in an hour."""

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)

Series = dict[str, float]


def series(text: str, begin: float) -> Series:
    """Every sample of a file, its times as seconds since `begin`: promtool's time begins at 0."""
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            labels = ",".join(f"{k}={json.dumps(v)}" for k, v in sorted(one.labels.items()))
            since = begin if one.name.endswith("_timestamp_seconds") else 0.0
            found[f"{one.name}{{{labels}}}"] = one.value - since
    return found


def over_time(*parts: tuple[Series, int]) -> list[dict[str, str]]:
    """Promtool's input series: one look for so many hours, then the next one."""
    names = {name for part, _ in parts for name in part}
    return [
        {
            "series": name,
            "values": " ".join(
                f"{part[name]!r}x{hours * HOUR - 1}" if name in part else f"_x{hours * HOUR - 1}"
                for part, hours in parts
            ),
        }
        for name in sorted(names)
    ]


def promtool(folder: Path, *tests: dict[str, Any]) -> None:
    path = folder / "tests.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": list(tests)}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def firing(name: str, hour: int, expected: dict[str, int], *parts: tuple[Series, int]) -> Any:
    """A test of promtool's: exactly these alerts fire, so many of each."""
    return {
        "name": name, "interval": "5m", "input_series": over_time(*parts),
        "promql_expr_test": [{
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{hour}h",
            "exp_samples": [
                {"labels": f'{{alertname="{alert}"}}', "value": count}
                for alert, count in expected.items()
            ],
        }],
    }  # fmt: skip


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Looks]:
    """What real watches wrote: all well, a drop, a loss, a drifted model, no store."""
    with Looks(tmp_path_factory.mktemp("looks")) as found:
        yield found


def test_the_rules_are_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"reembed_(\w+)", RULES.read_text()))
    assert named <= HELP.keys()


def test_each_rule_fires_on_what_a_watch_wrote_and_on_nothing_else(
    looks: Looks, tmp_path: Path
) -> None:
    begin = looks.begin
    at = {name: series(text, begin) for name, text in looks.written.items()}
    promtool(
        tmp_path,
        firing("all is well", 3, {}, (at["well"], 4)),
        firing(
            "the collection is gone", 2,
            {"ReembedCollectionEmpty": 1, "ReembedCollectionDropped": 1},
            (at["well"], 1), (at["gone"], 2),
        ),
        firing("three of four records are gone", 2, {"ReembedCollectionDropped": 1},
               (at["well"], 1), (at["drop"], 2)),
        firing("a loss of last week is no drop of today", 30, {},
               (at["well"], 1), (_later(at["drop"]), 40)),
        firing("the model was pulled again", 2, {"ReembedModelDrifted": 1},
               (at["well"], 1), (at["drift"], 2)),
        firing("the store does not answer", 2, {"ReembedStoreUnreachable": 1},
               (at["well"], 1), (at["away"], 2)),
        firing("a run stopped", 2, {"ReembedJobFailed": 1}, (at["well"], 1), (at["stuck"], 2)),
        firing("nobody looks, and nothing is backed up", 30,
               {"ReembedBackupTooOld": 1, "ReembedWatchSilent": 1}, (at["well"], 40)),
    )  # fmt: skip


def test_what_an_own_rule_does_not_see_fires_all_the_same(tmp_path: Path) -> None:
    """A store without any collection, and records that were replaced by others: nothing is 0."""
    with chroma(tmp_path / "fresh"):
        pass
    with chroma(tmp_path / "db") as client:
        plain_collection(client)
    begin = time.time()
    fresh, well = look(tmp_path, "fresh", begin), look(tmp_path, "db", begin)
    with chroma(tmp_path / "db") as client:
        docs = client.get_collection("docs", embedding_function=None)
        docs.delete(ids=docs.get()["ids"])
        texts = [sentence(900 + number) for number in range(40)]
        docs.add(ids=texts, documents=texts, embeddings=[vector_of("old", one) for one in texts])
    replaced = look(tmp_path, "db", begin)
    assert [sum(value for name, value in one.items() if name.startswith("reembed_alert{"))
            for one in (fresh, well, replaced)] == [1, 0, 1]  # fmt: skip
    promtool(
        tmp_path,
        firing("no collection", 2, {"ReembedCheckAlerts": 1}, (fresh, 3)),
        firing("others", 2, {"ReembedCheckAlerts": 1}, (well, 1), (replaced, 2)),
    )


def look(folder: Path, name: str, begin: float) -> Series:
    """What a watch of a store by its URL writes now."""
    file = folder / "look.prom"
    watch(subject_of(f"chroma:{folder / name}", folder).with_options(metrics=str(file)))
    return series(file.read_text(), begin)


def _later(look: Series) -> Series:
    """As if it was written a day later."""
    return {
        name: value + 86_400 if "_timestamp_seconds{" in name else value
        for name, value in look.items()
    }


def test_the_dashboard_shows_what_a_watch_wrote(looks: Looks, tmp_path: Path) -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    taken = set[tuple[int, int]]()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    assert set(re.findall(r"reembed_(\w+)", DASHBOARD.read_text().replace("reembed-", ""))) <= (
        HELP.keys()
    )
    well = series(looks.written["well"], looks.begin)
    stuck = series(looks.written["stuck"], looks.begin)  # it has a run
    promtool(
        tmp_path,
        {
            "interval": "5m", "input_series": over_time((stuck | well, 2)),
            "promql_expr_test": [
                {
                    "expr": f"count({expr.replace('$watch', '.*')}) > bool 0", "eval_time": "1h",
                    "exp_samples": [{"labels": "{}", "value": 1}],
                }
                for expr in asked
            ],
        },
    )  # fmt: skip
