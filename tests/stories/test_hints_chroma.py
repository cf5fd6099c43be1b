"""What is said of a Chroma server, its address and its folder is done, and the plan of the same
manifest passes; and what is said in the middle of a migration leads on to its end."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reembed.stores.collection import Collection
from tests.stores.chroma.test_chroma_addresses import answering
from tests.support.chroma_data import chroma, chroma_at, names_in, plain_collection, records_of
from tests.support.commands import Command
from tests.support.following import filled, follows_hint, wrong_and_right
from tests.support.manifests import run_dir, write_manifest
from tests.support.servers.chroma_server import chroma_server
from tests.unit.embedders.test_connection import front

WINDOW = {"swap__accept_window": True}


@dataclass(frozen=True)
class Now:
    """How things are when a command is given.

    Attributes:
        url: of the store.
        set: environment variables.
    """

    url: str = "{server}"
    set: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=lambda: dict(WINDOW))


FINE = Now()
V = "/api/v2/version"
AT = "chroma+http://127.0.0.1:{}"
BASIC = "chromadb.auth.basic_authn.BasicAuthClientProvider"
ROWS: list[tuple[str, Now, pytest.MarkDecorator, Now]] = [
    ("http alone", Now("{http}"), follows_hint("Did you mean 'chroma+"), FINE),
    ("no //", Now("chroma+http:127.0.0.1:{port}"),
     follows_hint("Did you mean ", where="manifest/urls.py"), FINE),
    ("a part after #", Now("{server}#docs"),
     follows_hint("For example chroma+http://host:8000, or"), FINE),
    ("a header that is not set", Now(more=WINDOW | {"source__headers_env": {"X-K": "GATEWAY"}}),
     follows_hint("Set it to the header's value, or leave the header out."),
     Now(set={"GATEWAY": "x"}, more=WINDOW | {"source__headers_env": {"X-K": "GATEWAY"}})),
    ("nobody there", Now("chroma+http://127.0.0.1:9"),
     follows_hint("Check that the server runs and the address is right; run again"), FINE),
    ("a file of another program", Now("chroma:{foreign}"),
     follows_hint("Another program made this file. Name the folder that"), FINE),
    ("a redirect", Now("{redirecting}"),
     follows_hint("It redirects; write the address that it leads to."), FINE),
    ("another server", Now("{other}"),
     follows_hint("Check host, port and path", where="stores/chroma/client.py"), FINE),
    ("an older server", Now("{older}"),
     follows_hint("Copy its folder while it is stopped, and serve the copy with a newer Chroma"),
     FINE),
    ("a path that is not Chroma's", Now("{pathless}"),
     follows_hint("Check host, port and path: behind a proxy", where="stores/chroma/failures.py"),
     FINE),
    ("a server that fails", Now("{failing}"),
     follows_hint("Check that the server runs. ", "Run again to resume.",
                  where="stores/chroma/failures.py"), FINE),
    ("a full disk of its", Now("{full}"),
     follows_hint("Free some space where Chroma's database is, and run the same command"), FINE),
    ("a database that it may not write", Now("{readonly}"),
     follows_hint("Give the user that Chroma runs as the right to write to its database."), FINE),
    ("a disk of its that fails", Now("{failed}"),
     follows_hint("The disk of Chroma's database may be full: see that it has room. "), FINE),
    ("a proxy that takes little", Now("{small}"),
     follows_hint("A request of at most 20 MB is more than the server or its proxy takes"), FINE),
    ("no way to move the name", Now(more={}),
     follows_hint("source.data_dir: the server's own directory (one transaction"),
     Now(more={"source__data_dir": "{folder}"})),
    ("another folder than the server's", Now(more=WINDOW | {"source__data_dir": "{db}"}),
     follows_hint("Set it to what the server was started with (--path), or leave it out."),
     Now(more=WINDOW | {"source__data_dir": "{folder}"})),
    ("another folder, left out", Now(more=WINDOW | {"source__data_dir": "{db}"}),
     follows_hint("Set it to what the server was started with (--path), or leave it out."), FINE),
    ("a name that is there", Now(more=WINDOW | {"target__collection": "notes"}),
     follows_hint("or delete that collection yourself",
                  where="stages/refusals.py"),
     Now(more=WINDOW | {"target__collection": "notes-2"})),
    ("nothing in it", Now(more=WINDOW | {"source__collection": "void"}),
     follows_hint("If it should hold records, the application may be writing elsewhere"), FINE),
    ("a cloud without a key", Now("chroma+cloud://acme/prod"),
     follows_hint("Set CHROMA_API_KEY to a key of that tenant."),
     Now("chroma+cloud://default_tenant/default_database", CLOUD := {
         "CHROMA_API_KEY": "ck-0123", "CHROMA_CLOUD_HOST": "{http}"})),
    ("a collection in a cloud's address", Now("chroma+cloud://acme/prod/docs"),
     follows_hint("Write chroma+cloud://tenant/database; CHROMA_CLOUD_HOST names another"),
     Now("chroma+cloud://default_tenant/default_database", CLOUD)),
]  # fmt: skip


def saying(words: str) -> AbstractContextManager[int]:
    """A server of Chroma that fails with these words of its own."""
    told = json.dumps({"error": "InternalError", "message": words}).encode()
    return answering({"": (500, told), V: (200, b'"1.5.0"')})


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of Chroma, a folder of its own beside it, and what else may answer."""
    folder = tmp_path_factory.mktemp("chroma-hints")
    with chroma(folder / "db") as client:
        plain_collection(client, "elsewhere", 3)
    (folder / "foreign").mkdir()
    with closing(sqlite3.connect(folder / "foreign/chroma.sqlite3")) as connection:
        connection.execute("CREATE TABLE notes (text)")
    with (
        chroma_server(folder / "served") as server,
        front(302, Location="/elsewhere") as redirecting,
        front(404) as other,
        answering({V: (200, b'"0.6.3"')}) as older,
        answering({"": (404, b"<html>"), V: (200, b'"1.5.0"')}) as pathless,
        answering({"": (503, b"<html>"), V: (200, b'"1.5.0"')}) as failing,
        answering({"": (413, b"<html>"), V: (200, b'"1.5.0"')}) as small,
        saying("error returned from database: (code: 13) database or disk is full") as full,
        saying("attempt to write a readonly database (code: 8)") as readonly,
        saying("Error in compaction: failed to compact") as failed,
    ):
        with chroma_at(server.url) as client:
            plain_collection(client, count=12)
            plain_collection(client, "notes", 3)
            plain_collection(client, "void", 0)
        yield {
            "server": server.url, "http": server.url.removeprefix("chroma+"),
            "port": str(server.port), "folder": str(server.folder), "db": str(folder / "db"),
            "older": AT.format(older), "pathless": AT.format(pathless),
            "failing": AT.format(failing), "small": AT.format(small), "full": AT.format(full),
            "readonly": AT.format(readonly), "failed": AT.format(failed),
            "foreign": str(folder / "foreign"),
            "redirecting": f"chroma+{redirecting.url}", "other": f"chroma+{other.url}",
        }  # fmt: skip


@wrong_and_right(ROWS)
def test_what_is_said_of_a_server_is_done_and_planned(
    wrong: Now, hint: str, right: Now, places: dict[str, str], tmp_path: Path, command: Command
) -> None:
    def plan(now: Now) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in filled(now.set, places).items():
                patch.setenv(name, value)
            path = write_manifest(tmp_path, filled(now.url, places), **filled(now.more, places))
            return command("plan", path, "--json")

    refused = plan(wrong)
    assert refused.code in (5, 7), refused.out
    assert hint in refused.json["error"]["hint"], refused.out
    led = plan(right)
    assert led.code == 0, led.out


@follows_hint("Chroma's client reads CHROMA_CLIENT_AUTH_PROVIDER")
def test_a_user_in_an_address_goes_into_the_environment(
    places: dict[str, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = places["server"].replace("//", "//ann:a1b2c3@")
    refused = command("init", url, "--json")
    assert refused.code == 5 and "a1b2c3" not in refused.out + refused.err
    monkeypatch.setenv("CHROMA_CLIENT_AUTH_PROVIDER", BASIC)
    monkeypatch.setenv("CHROMA_CLIENT_AUTH_CREDENTIALS", "ann:a1b2c3")
    assert command("init", places["server"], "--collection", "docs").code == 0


def drop(url: str, part: str) -> None:
    with chroma_at(url) as client:
        client.delete_collection(next(name for name in names_in(url) if part in name))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("run",), marks=follows_hint(
            "away and run again; texts paid for are kept", where="stages/load.py")),
        pytest.param(("swap", "--yes"), marks=follows_hint(
            "away and run again; texts paid for are kept", where="verify/shadow.py")),
    ],
    ids=["run", "swap"],
)  # fmt: skip
def test_a_shadow_that_is_gone_is_built_by_a_new_run(
    words: tuple[str, ...], tmp_path: Path, database: Path, command: Command
) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    assert command("run", path, "--until", "load" if words == ("run",) else "verify").code == 0
    drop(url, "__counting_model")
    refused = command(words[0], path, *words[1:], "--json")
    assert refused.code == 5, refused.out
    there = run_dir(path).path
    assert f"Move the run directory {there} away" in refused.json["error"]["hint"]
    there.rename(tmp_path / "away")
    assert command("run", path, "--swap").code == 0
    with chroma(database) as client:
        assert len(records_of(client.get_collection("docs", embedding_function=None))) == 40


@follows_hint("Rename that collection: reembed keeps there who is at work on the live name.")
def test_a_collection_of_the_name_of_a_lease_gets_another_name(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    with chroma(database) as client:
        theirs = client.create_collection("docs__lease", embedding_function=None)
    refused = command("run", path, "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (5, "preflight"), refused.out
    with chroma(database) as client:
        client.get_collection("docs__lease", embedding_function=None).modify(name="theirs")
    assert command("run", path).code == 0
    with chroma(database) as client:
        assert client.get_collection("theirs", embedding_function=None).id == theirs.id


@follows_hint("It is done: to migrate again, give the manifest another `name`.")
def test_a_cleaned_migration_is_begun_again_by_another_name(
    tmp_path: Path, database: Path, command: Command
) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__keep_old="0d")
    assert command("run", path, "--swap").code == 0
    assert command("clean", path, "--yes").code == 0
    assert "another `name`" in command("run", path, "--restart", "--json").json["error"]["hint"]
    again = write_manifest(
        tmp_path, url, name="again", source__model=None,
        model={"provider": "python", "name": "counting_model:other"},
    )  # fmt: skip
    assert command("run", again, "--swap").code == 0


@follows_hint("Free some space, or point `state` at another disk.")
@follows_hint("Move its configuration with swap.before and swap.after, or open the name")
def test_a_full_disk_and_an_applications_configuration(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(
        shutil, "disk_usage",
        lambda path: real(path)._replace(free=20_000 if "roomy" not in str(path) else 10**12),
    )  # fmt: skip
    url = f"chroma:{database}"
    (tmp_path / "roomy").mkdir()
    shutil.copytree(database, tmp_path / "roomy" / "db")
    refused = command("plan", write_manifest(tmp_path, url), "--json")
    assert refused.code == 5
    url = f"chroma:{tmp_path / 'roomy' / 'db'}"
    told = {"swap__after": "echo new > configuration"}
    path = write_manifest(tmp_path, url, state="./roomy/state", **told)
    assert command("plan", path).code == 0
    assert command("run", path, "--swap").code == 0
    assert (tmp_path / "configuration").read_text() == "new\n"


@follows_hint("Change to another one (`cd`) and run the same command again.")
def test_a_working_directory_that_is_gone(
    tmp_path: Path, database: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        refused = command("init", "chroma:db")
    finally:
        os.chdir(tmp_path)
    assert refused.code == 2 and "cd" in refused.err
    assert command("init", "chroma:db").code == 0


@follows_hint("If that was meant, give this run up with `reembed clean --accept-loss`; if not")
def test_a_source_that_was_emptied_is_given_up_or_filled_again(
    tmp_path: Path, database: Path, command: Command
) -> None:
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    assert command("run", path).code == 0
    with chroma(database) as client:
        docs = client.get_collection("docs", embedding_function=None)
        whole = docs.get(include=["documents", "metadatas", "embeddings"])
        docs.delete(ids=whole["ids"])
    refused = command("run", path, "--json")
    assert refused.code == 5 and "put the records back" in refused.json["error"]["hint"]
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).add(
            **{key: whole[key] for key in ("ids", "documents", "metadatas", "embeddings")}  # type: ignore[arg-type]
        )
    assert command("run", path).code == 0
    with chroma(database) as client:
        client.get_collection("docs", embedding_function=None).delete(ids=whole["ids"])
    assert command("clean", path, "--yes", "--accept-loss").code == 0


@follows_hint("Put it back from a backup. Without one, stop the application")
def test_a_damaged_database_file_is_put_back(
    tmp_path: Path, database: Path, command: Command
) -> None:
    path = write_manifest(tmp_path, f"chroma:{database}")
    file = database / "chroma.sqlite3"
    whole = file.read_bytes()
    for broken in (b"not a database" * 500, whole[: len(whole) // 3]):
        file.write_bytes(broken)
        refused = command("plan", path, "--json")
        assert refused.code == 5 and refused.json["error"]["kind"] == "damaged-store", refused.out
    file.write_bytes(whole)
    assert command("plan", path).code == 0


@follows_hint("looks at what the name leads to now")
@pytest.mark.parametrize("words", ["backup {store} --collection docs -o b", "audit {store}"])
def test_a_collection_that_is_made_anew_while_it_is_read(
    command: Command, database: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the application, between the first look and the records."""
    monkeypatch.chdir(database.parent)
    given = words.format(store=f"chroma:{database}").split()
    with monkeypatch.context() as patch:
        listed = Collection.list_ids

        def replaced(self: Collection) -> Iterator[Any]:
            patch.undo()
            with chroma(database) as client:
                client.delete_collection("docs")
                plain_collection(client)
            return listed(self)

        patch.setattr(Collection, "list_ids", replaced)
        first = command(*given)
        assert first.code == 5, first.out + first.err
    again = command(*given)
    assert again.code == 0, again.out + again.err
