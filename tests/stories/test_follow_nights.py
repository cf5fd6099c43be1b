"""Nights of a following job on a corpus of which a hundredth changes every day: what each costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from reembed.stores.lease.guarded import LeasedWriter
from tests.stories.test_follow import Scene
from tests.support.commands import Calls, Command


class Costs:
    """What calls have cost: texts and requests of the model, rows written to the store."""

    def __init__(self, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls, self.rows = calls, 0
        write, delete = LeasedWriter.write, LeasedWriter.delete

        def counted(writer: LeasedWriter, id: str, records: object, *rest: object) -> None:
            self.rows += records.num_rows  # type: ignore[attr-defined]
            write(writer, id, records, *rest)  # type: ignore[arg-type]

        def deleted(writer: LeasedWriter, id: str, ids: list[str]) -> None:
            self.rows += len(ids)
            delete(writer, id, ids)

        monkeypatch.setattr(LeasedWriter, "write", counted)
        monkeypatch.setattr(LeasedWriter, "delete", deleted)

    def clear(self) -> None:
        self.rows = 0
        self._calls.clear()

    @property
    def texts(self) -> int:
        return len(self._calls.texts("new"))

    @property
    def requests(self) -> int:
        return len(self._calls.path.read_text().splitlines())


@pytest.mark.parametrize(
    ("nights", "records"), [(5, 1_000), pytest.param(30, 4_000, marks=pytest.mark.long)]
)
def test_a_night_costs_what_changed(
    nights: int, records: int, tmp_path: Path, command: Command, calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    scene = Scene(tmp_path, command, calls, records)
    scene.manifest(model__options={"batch_items": 8})
    costs = Costs(calls, monkeypatch)
    scene.done()
    full = (costs.texts, costs.requests, costs.rows)
    assert full[0] >= records and full[2] == records
    scene.check()
    costs.clear()
    scene.done()
    probes = (costs.texts, costs.requests)
    assert costs.rows == 0, "a night without a change writes nothing"
    size, shadow = scene.bytes(), scene.latest().history.shadow_id
    for night in range(nights):
        scene.change(records // 300, records // 300, records // 300, seed=night)
        costs.clear()
        done = scene.done()
        assert done["differs"]["changed"] == records // 300
        assert costs.texts - probes[0] <= 0.02 * full[0]
        assert costs.requests - probes[1] <= 0.02 * full[1]
        assert costs.rows <= 0.02 * full[2]
        scene.check()
        assert scene.names() == ["docs"] and scene.latest().history.shadow_id == shadow
        assert scene.bytes() < 2 * size
    if nights >= 30:  # what a night costs with the probes of the model, which are a fixed few
        assert costs.texts <= 0.02 * full[0] and costs.rows <= 0.02 * full[2]
