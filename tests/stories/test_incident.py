"""The loss that this project answers, replayed: mem0's 1,968 memories move from OpenAI to Ollama.

mem0 itself writes and reads all the while, unmodified, in a process of its own. And the same with
what went wrong then: a fresh database, other credentials, the new embedder on the old table.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from reembed import Manifest, Migration
from reembed.commands.watch import subject_of, watch
from reembed.errors import ManifestError, PreflightError, SourceChangedError
from tests.clients.driver import Application, ApplicationError, application, needs_clients
from tests.clients.incident import COLLECTION, NAMESPACES, USER, Incident, mem0_config
from tests.support.servers.embedding_server import EmbeddingServer
from tests.support.servers.postgres_server import PostgresServer

pytestmark = needs_clients

Rows = dict[str, str]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")


class Scene:
    """A copy of the incident's database, with a manifest that moves it."""

    def __init__(
        self, incident: Incident, server: PostgresServer, embedder: EmbeddingServer, folder: Path
    ) -> None:
        self.incident, self.server, self.embedder, self.folder = incident, server, embedder, folder
        self.url = incident.url(server)
        self.config = folder / "mem0.json"
        self.write_config(mem0_config(self.url, embedder.url, incident.history))
        self.path = folder / "m.yaml"
        self.write_manifest()

    def write_config(self, config: dict[str, Any]) -> None:
        self.config.write_text(json.dumps(config))

    def write_manifest(self, url: str | None = None, **changes: Any) -> None:
        manifest = {
            "name": "incident",
            "source": {
                "url": url or self.url, "collection": COLLECTION, "layout": "mem0",
                "mem0": {"config": "mem0.json"},
            },
            "model": {
                "provider": "ollama", "name": "nomic-embed-text", "dimensions": 768,
                "base_url": self.embedder.url,
            },
            "verify": {"sample": 300},
            "swap": {"keep_old": "0d"},
        } | changes  # fmt: skip
        self.path.write_text(yaml.safe_dump(manifest))

    def migration(self) -> Migration:
        return Migration(Manifest.load(self.path))

    def rows(self, table: str = COLLECTION) -> Rows:
        """Id to the payload's text, as Postgres writes it."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute(f"SELECT id::text, payload::text FROM {table}")
            return dict(found.fetchall())

    def dimensions(self) -> set[int]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                f"SELECT vector_dims(vector) FROM {COLLECTION} UNION "
                f"SELECT vector_dims(vector) FROM {COLLECTION}_entities"
            )
            return {row[0] for row in found}

    def changed_config(self) -> dict[str, Any]:
        """The configuration that reembed wrote, to deploy with the swap."""
        (path,) = (self.folder / ".reembed" / "incident").glob("*/mem0-config.json")
        config = json.loads(path.read_text())
        assert isinstance(config, dict)
        return config


@pytest.fixture
def scene(
    incident: Incident, postgres: PostgresServer, embedder: EmbeddingServer, tmp_path: Path
) -> Scene:
    return Scene(incident, postgres, embedder, tmp_path)


class Live:
    """mem0 in use: it writes and reads in turn, and notes what it knows to be there.

    Attributes:
        texts: id to text of every memory of its own that must be there, None where it deleted it.
        failures: operations that went wrong though its embedder fits the tables.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.texts: dict[str, str | None] = {}
        self.failures: list[str] = []
        self.rounds = 0
        self.config = mem0_config(scene.url, scene.embedder.url, scene.incident.history)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        with application("mem0_app", self._scene.folder) as mem0:
            mem0("open", config=self.config)
            while not self._stop.is_set():
                if not self._round(mem0):
                    # Its embedder does not fit the tables any more: its configuration is moved.
                    mem0("close")
                    mem0("open", config=self._fitting())
                self.rounds += 1

    def _fitting(self) -> dict[str, Any]:
        wide = self._scene.dimensions() == {768}
        return self._scene.changed_config() if wide else self.config

    def _round(self, mem0: Application) -> bool:
        """One of everything. False if mem0's embedder and the tables differ in width."""
        number, scope = self.rounds, {"user_id": USER, "agent_id": "live"}
        try:
            text = f"live memory {number} about the harbour in Bergen"
            id = mem0("add", text=text, **scope)
            self.texts[id] = text
            if number % 3 == 0:
                other = list(self.texts)[number // 2]
                if self.texts[other] is not None:
                    mem0("update", id=other, text=f"corrected {number}: the harbour in Turku")
                    self.texts[other] = f"corrected {number}: the harbour in Turku"
            if number % 5 == 4:
                mem0("delete", id=id)
                self.texts[id] = None
            self._read(mem0, number)
        except ApplicationError as error:
            if "different vector dimensions" in error.message or "expected" in error.message:
                return False
            self.failures.append(f"round {number}: {error}")
        return True

    def _read(self, mem0: Application, number: int) -> None:
        namespace, ids = list(self._scene.incident.ids.items())[number % len(NAMESPACES)]
        scope = {"user_id": USER, "agent_id": namespace}
        count = len(mem0("get_all", filters=scope, top_k=2_000))
        if count != len(ids):
            self.failures.append(f"round {number}: {count} of {len(ids)} in {namespace}")
        wanted = ids[number % len(ids)]
        if mem0("get", id=wanted) is None:
            self.failures.append(f"round {number}: {wanted} is gone")
        if not mem0("search", query="flight to Oslo", filters=scope, top_k=5):
            self.failures.append(f"round {number}: the search found nothing")


def check_whole(scene: Scene, before: Rows, live: Live) -> None:
    """Every memory is there as it was, and every live one as mem0 wrote it last."""
    after = scene.rows()
    assert {id: after.get(id) for id in before} == before
    written = {id: json.loads(after[id])["data"] for id in after.keys() - before.keys()}
    assert written == {id: text for id, text in live.texts.items() if text is not None}
    assert live.failures == []


def use(mem0: Application, incident: Incident) -> None:
    """search, add, update, delete, get_all and history work."""
    scope = {"user_id": USER, "agent_id": "research"}
    known = mem0("get", id=incident.ids["research"][0])
    found = mem0("search", query=known["memory"], filters=scope, top_k=3)
    assert known["memory"] in {one["memory"] for one in found}
    id = mem0("add", text="an umbrella stands by the door", **scope)
    mem0("update", id=id, text="an umbrella stands by the window")
    (first, *_) = mem0("search", query="umbrella by the window", filters=scope, top_k=1)
    assert first["id"] == id
    assert [event["event"] for event in mem0("history", id=id)] == ["ADD", "UPDATE"]
    mem0("delete", id=id)
    assert mem0("get", id=id) is None
    assert len(mem0("get_all", filters=scope, top_k=2_000)) == NAMESPACES["research"]


def test_the_memories_move_while_mem0_writes_and_reads(scene: Scene, tmp_path: Path) -> None:
    before, entities = scene.rows(), scene.rows(f"{COLLECTION}_entities")
    assert len(before) == 1968
    live = Live(scene)
    with live.running():
        result = scene.migration().run()
        assert result.verdict is not None
        assert result.verdict.passed, result.to_dict()
        swapped = scene.migration().swap()
        assert swapped.kind == "transaction"
        assert any("mem0-config.json" in message for message in swapped.messages)
        rounds = live.rounds
        while live.rounds < rounds + 5 and not live.failures:
            live_wait()
    assert live.rounds > 10
    check_whole(scene, before, live)
    assert scene.rows(f"{COLLECTION}_entities").items() >= entities.items()
    assert scene.dimensions() == {768}
    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=scene.changed_config(), entities=True)
        use(mem0, scene.incident)

    back = Live(scene)
    back.config, back.texts = scene.changed_config(), dict(live.texts)
    back.rounds = live.rounds
    with back.running():
        while back.rounds < live.rounds + 5 and not back.failures:
            live_wait()
        rolled_back = scene.migration().rollback()
        assert (rolled_back.lost, rolled_back.conflicts) == ([], [])
        back.config = live.config
        rounds = back.rounds
        while back.rounds < rounds + 5 and not back.failures:
            live_wait()
    check_whole(scene, before, back)
    assert scene.dimensions() == {1536}
    with application("mem0_app", tmp_path) as mem0:
        mem0("open", config=live.config)
        use(mem0, scene.incident)

    again = scene.migration().run(swap=True)
    assert again.swap is not None, again.to_dict()
    check_whole(scene, before, back)
    scene.migration().clean()
    check_whole(scene, before, back)
    assert left_behind(scene) == []


def live_wait() -> None:
    threading.Event().wait(0.05)


def left_behind(scene: Scene) -> list[str]:
    """Everything of reembed's that a database still holds."""
    with psycopg.connect(scene.url) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE '%reembed%' OR relname LIKE "
            "'%parked%' UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE '%reembed%' UNION "
            "ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE '%reembed%'"
        )
        return [row[0] for row in found]


# What went wrong then


def refusal(scene: Scene, step: str = "plan", **options: Any) -> str:
    """What a step says against going on; nothing may have changed by it."""
    before = scene.rows() if scene.url else {}
    try:
        result = getattr(scene.migration(), step)(**options)
    except (PreflightError, SourceChangedError) as error:
        said = f"{error.message} {error.hint}"
    else:
        assert step == "plan" and not result.ok, result
        said = "; ".join(f"{problem.message} {problem.hint}" for problem in result.blockers)
    assert scene.rows() == before
    return said


def make_anew(scene: Scene) -> None:
    """The incident: under the same URL there is a fresh database, and mem0 has made its tables."""
    scene.server.rename_database(scene.incident.database, f"{scene.incident.database}_lost")
    scene.server.new_database(name=scene.incident.database)
    config = mem0_config(scene.url, scene.embedder.url, scene.incident.history, "ollama")
    with application("mem0_app", scene.folder) as mem0:
        mem0("open", config=config)
        assert mem0("search", query="tea", filters={"user_id": USER}) == []


def test_a_fresh_database_is_told_by_the_history(scene: Scene) -> None:
    make_anew(scene)
    said = refusal(scene)
    assert "1,968 living memories, and 1,968 of them are not in the table memories" in said
    assert "which holds 0" in said
    assert "fresh database" in said


@pytest.mark.parametrize("until", ["export", "verify"])
def test_a_database_made_anew_is_refused_on_resume_and_before_the_swap(
    scene: Scene, until: Any
) -> None:
    scene.migration().run(until=until)
    held = len(scene.rows()) + len(scene.rows(f"{COLLECTION}_entities"))
    make_anew(scene)
    for step in ("run", "swap") if until == "verify" else ("run",):
        said = refusal(scene, step)
        assert "another database" in said
        assert f"{held:,} records" in said and "with 0 records" in said
        assert "credentials" in said


def test_a_restored_and_an_emptied_table_are_refused(scene: Scene) -> None:
    scene.migration().run()
    with psycopg.connect(scene.url, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE other (LIKE {COLLECTION} INCLUDING ALL);"
            f"INSERT INTO other SELECT * FROM {COLLECTION} LIMIT 1900;"
            f"ALTER TABLE {COLLECTION} RENAME TO own; ALTER TABLE other RENAME TO {COLLECTION}"
        )
        for step in ("run", "swap"):
            said = refusal(scene, step)
            assert "another collection" in said and "look at the store" in said
        connection.execute(
            f"DROP TABLE {COLLECTION}; ALTER TABLE own RENAME TO {COLLECTION};"
            f"TRUNCATE {COLLECTION}, {COLLECTION}_entities"
        )
        assert "is empty, and it had" in refusal(scene, "run")
        assert "1,968 of them are not in the table" in refusal(scene, "swap")


def test_other_credentials_that_see_another_schema(scene: Scene) -> None:
    with psycopg.connect(scene.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE newcomer LOGIN")
        connection.execute("CREATE SCHEMA newcomer AUTHORIZATION newcomer")
    role = scene.server.url(scene.incident.database, role="newcomer")
    config = mem0_config(role, scene.embedder.url, scene.incident.history, "ollama")
    try:
        with application("mem0_app", scene.folder) as mem0:
            mem0("open", config=config)  # makes empty tables in its own schema
            assert mem0("get_all", filters={"user_id": USER}) == []
        scene.write_manifest(url=role)
        said = refusal(scene)
        assert "fresh database" in said and "holds 0" in said
        scene.write_manifest()
        scene.migration().run(until="export")
        scene.write_manifest(url=role)
        with pytest.raises(ManifestError, match=r"begun with another manifest: source\.url"):
            scene.migration().run()
    finally:
        with psycopg.connect(scene.url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY newcomer CASCADE")
            connection.execute("DROP ROLE newcomer")


def test_a_role_that_may_not_read(scene: Scene) -> None:
    with psycopg.connect(scene.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN")
    scene.write_manifest(url=scene.server.url(scene.incident.database, role="stranger"))
    try:
        said = refusal(scene)
        assert "permission denied" in said and "role" in said
    finally:
        with psycopg.connect(scene.url, autocommit=True) as connection:
            connection.execute("DROP ROLE stranger")


def test_a_database_that_is_not_there(scene: Scene) -> None:
    scene.write_manifest(url=scene.server.url("nowhere"))
    said = refusal(scene)
    assert 'database "nowhere" does not exist' in said
    assert "PGPASSWORD" in said


def test_the_new_embedder_on_the_old_table(scene: Scene) -> None:
    config = mem0_config(scene.url, scene.embedder.url, scene.incident.history, "ollama")
    scene.write_config(config)
    scene.write_manifest(model={
        "provider": "openai", "name": "text-embedding-3-small",
        "base_url": f"{scene.embedder.url}/v1",
    })  # fmt: skip
    said = refusal(scene)
    assert "768 dimensions" in said and "vector(1536)" in said
    assert "get_all, history and delete answer as if nothing were wrong" in said


def test_a_configuration_of_another_database_or_collection(scene: Scene) -> None:
    config = mem0_config(scene.url, scene.embedder.url, scene.incident.history)
    settings = config["vector_store"]["config"]
    settings["collection_name"] = "notes"
    scene.write_config(config)
    assert "'notes'" in refusal(scene)
    settings["collection_name"] = COLLECTION
    settings["connection_string"] = scene.server.url("postgres")
    scene.write_config(config)
    said = refusal(scene)
    assert "'postgres'" in said and repr(scene.incident.database) in said


def test_a_watch_tells_of_it_in_the_first_night(scene: Scene) -> None:
    """An application that was set back to its old embedder, and the fresh database."""

    def alerts() -> dict[str, str]:
        found = watch(subject_of(str(scene.path)))
        return {finding.check: finding.message for finding in found.alerts}

    assert alerts() == {}
    scene.migration().run(swap=True)
    deployed = scene.changed_config()
    before = json.loads(scene.config.read_text())
    told = alerts()
    assert set(told) == {"application"}, "the old configuration is still in use"
    scene.write_config(deployed)
    assert alerts() == {}
    scene.write_config(before)
    told = alerts()
    assert set(told) == {"application"}
    scene.write_config(deployed)
    with psycopg.connect(scene.url) as connection:  # three memories go, and not by mem0
        few = f"SELECT id FROM {COLLECTION} LIMIT 3"
        connection.execute(f"DELETE FROM {COLLECTION} WHERE id IN ({few})")
    found = watch(subject_of(str(scene.path)))
    (told_of,) = [one for one in found.findings if one.check == "application"]
    assert told_of.status == "warning" and "knows 3 living memories" in told_of.message
    (scene.folder / ".reembed" / "incident" / "watch.json").unlink()  # nobody has watched so far
    make_anew(scene)
    told = alerts()
    assert {"empty", "identity", "application"} <= set(told), told
    assert "is empty; it had" in told["empty"]
    assert "1,968 living memories" in told["application"]
