"""The live name serves a third collection: every command says so, with steps that lead on."""

from __future__ import annotations

from tests.support.helpers import chroma, names_in, plain_collection, write_manifest


def test_an_application_that_makes_its_collection_anew_after_the_swap_is_seen(
    tmp_path, database, command
):
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url, swap__keep_old="0d")
    assert command("run", path, "--swap").code == 0
    assert command("status", path, "--json").json["state"] == "swapped"
    with chroma(database) as client:
        client.delete_collection("docs")
        plain_collection(client, count=5)
    before = names_in(url)
    status = command("status", path, "--json")
    assert status.json["state"] == "name lost"
    assert not status.json.get("next")
    parked = next(name for name in before if "__parked-" in name)
    for told in (
        status.json["messages"][-1],
        *(
            command(*words, "--json").json["error"]["message"]
            + command(*words, "--json").json["error"]["hint"]
            for words in (
                ("rollback", path, "--yes"), ("sweep", path), ("clean", path, "--yes"),
                ("verify", path),
            )
        ),
    ):  # fmt: skip
        assert "serves a third collection now" in told
        assert "the new one is gone" in told
        assert f"the old one is there as {parked!r} with 40 records" in told
    assert names_in(url) == before, "nothing was touched"
    # what is told: another `name` for the one that is there now
    again = write_manifest(tmp_path, url, "again.yaml", name="again")
    assert command("run", again).code == 0
    # or the old one back
    with chroma(database) as client:
        client.get_collection("docs").modify(name="docs-third")
        client.get_collection(parked).modify(name="docs")
        assert client.get_collection("docs").count() == 40
    assert names_in(url)["docs"] == before[parked]


def test_an_application_that_makes_its_collection_anew_before_the_swap_is_seen(
    tmp_path, database, command
):
    url = f"chroma:{database}"
    path = write_manifest(tmp_path, url)
    assert command("run", path).code == 0
    with chroma(database) as client:
        client.delete_collection("docs")
        plain_collection(client, count=5)
    refused = command("swap", path, "--yes", "--json")
    assert refused.code == 5
    assert "another collection" in refused.json["error"]["message"]
    assert "`reembed clean`" in refused.json["error"]["hint"]
    assert command("clean", path, "--yes").code == 5, "35 records are in the shadow alone now"
    assert "--accept-loss" in refused.json["error"]["hint"]
    assert command("clean", path, "--yes", "--accept-loss").code == 0
    anew = command("run", path, "--swap", "--json")
    assert anew.code == 0, anew.out
    with chroma(database) as client:
        assert client.get_collection("docs").count() == 5
