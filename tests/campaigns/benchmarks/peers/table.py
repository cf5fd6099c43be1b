"""Write docs/peers.md from docs/peers.json.

python -m tests.campaigns.benchmarks.peers.table
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.campaigns.benchmarks.measuring import KEPT

FOUND, PAGE = KEPT.with_name("peers.json"), KEPT.with_name("peers.md")
BEGIN, END = "<!-- from peers.json -->", "<!-- end -->"
TAKES = (
    "| tool | exit | s | CPU s | peak MB | requests | texts | price | "
    "a kill -9 on the way, and the command again |"
)
LOSES = "| tool | what it does | exit | lost or changed, of {few:,} records with 15 hard ones |"


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """For each store a table of what the tools take, and one of what they lose."""
    parts = []
    for store, title in ("chroma", "On Chroma"), ("postgres", "In Postgres, with pgvector"):
        ours = [one for one in found if one["store"] == store]
        done = [one for one in ours if "all" in one]
        if not ours:
            continue
        parts.append(f"## {title}\n")
        if done:
            head = LOSES.format(few=done[0]["few"]["records"])
            parts += [head, _rule(head), *(_loses(one) for one in done), ""]
            parts += [TAKES, _rule(TAKES), *(_takes(one) for one in done), ""]
        parts += [f"{_name(one)} is missing here: {one['missing']}.\n"
                  for one in ours if "missing" in one]  # fmt: skip
    peers = [one for one in found if one.get("version")]
    parts += ["## The tools\n", *(_notes(one) for one in peers)]
    return "\n".join(parts)


def _rule(head: str) -> str:
    return "|---" * (head.count("|") - 1) + "|"


def _name(one: Mapping[str, Any]) -> str:
    return f"{one['tool']} {one.get('version', '')}".strip()


def _loses(one: Mapping[str, Any]) -> str:
    few = one["few"]
    parts = [told(few["lost"])]
    if "plain" in one:
        parts.append(f"{_how(one['plain'])} without the hard ones: {told(one['plain']['lost'])}")
    if one["all"]["lost"] and one["all"]["lost"] != (one.get("plain") or few)["lost"]:
        parts.append(f"of {one['all']['records']:,}: {told(one['all']['lost'])}")
    return f"| {_name(one)} | {one['does']} | {few['code']} | {'<br>'.join(parts)} |"


def _how(took: Mapping[str, Any]) -> str:
    return "exit 0" if took["code"] == 0 else f"exit {took['code']}"


def told(lost: Mapping[str, Any] | None) -> str:
    """Kinds of loss in words, with their numbers and the hard records that have them."""
    if lost is None:
        return "it moves nothing"
    return "; ".join(_kinds(lost)) or "nothing"


def _kinds(lost: Mapping[str, Any]) -> Iterator[str]:
    for kind, value in lost.items():
        if isinstance(value, str):
            yield f"{kind}: {value}"
            continue
        named = [id for id in value["such as"] if id.startswith("hard")]
        few = value["records"] == len(named)
        yield f"{kind}: {value['records']:,}" + (f" ({', '.join(named)})" if few else "")


def _takes(one: Mapping[str, Any]) -> str:
    took, killed = one["all"], one["killed"]
    plain = "" if took["hard"] else ", without the hard ones"
    before = one.get("plain") or one["few"]
    if (killed["code"], killed["lost"]) == (before["code"], before["lost"]):
        after = f"ends as without it, {max(killed['again'], 0):,.0f} texts sent twice"
    else:
        after = f"exit {killed['code']}, {told(killed['lost'])}"
    return (
        f"| {_name(one)}, {took['records']:,}{plain} | {took['code']} | {took['seconds']:,.0f} | "
        f"{took['cpu_seconds']:,.0f} | {took['peak_mb']:,} | {took['requests']:,.0f} | "
        f"{took['texts']:,.0f} | ${took['usd']:.4f} | {after} |"
    )


def _notes(one: Mapping[str, Any]) -> str:
    fixes = f" Before it worked: {one['fixes']}." if one["fixes"] else " It works as installed."
    released = f"released {one['released']}, " if one["released"] else ""
    return f"- **{_name(one)}** ({released}tried {one['day']}). {one['well']}{fixes}"


def page(text: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The page with what is made from the figures brought up to date."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{after}"


def keep(one: Mapping[str, Any]) -> None:
    """Put a tool's figures in place of its older ones, and write the page."""
    found = json.loads(FOUND.read_text()) if FOUND.exists() else []
    same = [(each["store"], each["tool"]) == (one["store"], one["tool"]) for each in found]
    if any(same):
        found[same.index(True)] = one
    else:
        found.append(one)
    for each in found:
        for took in each.values():
            if isinstance(took, dict):
                took.pop("output", None)  # it names folders of this machine
    FOUND.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(PAGE.read_text(), found))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), json.loads(FOUND.read_text())))
