"""The plan of a group: one of each collection, and what they take together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from reembed.errors import RefusedError
from reembed.migration.group.members import Member
from reembed.migration.group.moving import is_of_one
from reembed.migration.group.results import GroupPlan, Planned
from reembed.migration.group.session import GroupSession
from reembed.stages.plan import Plan, disk_blockers
from reembed.stages.refusals import taken_by
from reembed.stages.shadow_spec import shadow_spec, target_name
from reembed.stages.weigh import Problem, budget_blockers
from reembed.stores.values import kept_dimensions

AT_ONCE = "all names move in one transaction"
ONE_BY_ONE = "the names move one after another; if one cannot, those that moved go back"
BACK_AT_ONCE = "all names move back in one transaction"
BACK = "the names move back one after another"


def make_plan(group: GroupSession, members: list[Member], gone: Collection[str] = ()) -> GroupPlan:
    """Look at everything that a run of these members depends on. Writes nothing.

    Args:
        gone: collections of members that the application has deleted.
    """
    planned = [
        Planned(member.collection, note="deleted since the run began: left out", aside=True)
        if member.collection in gone
        else _of_member(group, member)
        for member in members
    ]
    plan = GroupPlan(group.manifest.name, planned, group.spending.budget(), how(group, "swap"))
    estimates = [one.estimate for one in plan.plans]
    blockers: list[Problem] = []
    if estimates:
        total = replace(
            estimates[0],
            new_tokens=sum(one.new_tokens for one in estimates),
            verify_tokens=sum(one.verify_tokens for one in estimates),
            state_bytes=sum(one.state_bytes for one in estimates),
            store_bytes=sum(one.store_bytes for one in estimates),
        )
        if not group.manifest.keeps:
            blockers += budget_blockers(group.spending, total, group.embedder)
        blockers += disk_blockers(Path(group.manifest.state), total, group.store)
    elif all(one.aside for one in planned):
        blockers.append(Problem("all of the collections are empty, so there is nothing to move"))
    known = {problem.message for problem in blockers}
    planned = [
        replace(one, blockers=[p for p in one.blockers if p.message not in known])
        for one in planned
    ]
    return replace(plan, members=planned, warnings=_alike(plan.plans), blockers=blockers)


def _of_member(group: GroupSession, member: Member) -> Planned:
    try:
        run = member.run_dir
        info = group.source_store.resolve(member.collection)
        if info.count or run is not None:
            plan = member.plan()
            return Planned(member.collection, plan, plan.blockers)
        if info.dimensions is None:
            told = "empty, and its dimension is not known: left as it is"
            return Planned(member.collection, note=told, aside=True)
        keeps = group.manifest.keeps
        dimensions = kept_dimensions(info) if keeps else group.embedder.dimensions
        writer = group.store.to_write()
        name = target_name(member.manifest, writer, dimensions)
        writer.check(shadow_spec(member.manifest, info, name, dimensions)).refuse()
        there = group.store.catalog.find(name)
        if there is not None:
            raise taken_by(there, member.manifest, dimensions)
        told = f"empty: created again with {dimensions} dimensions instead of {info.dimensions}"
        return Planned(member.collection, note=told)
    except RefusedError as error:
        if not is_of_one(error):
            raise
        return Planned(member.collection, blockers=[Problem(error.message, error.hint)])


def _alike(plans: list[Plan]) -> list[Problem]:
    """The warnings of all plans, each once, with the number of collections that have it."""
    found = Counter(problem for plan in plans for problem in plan.warnings)
    return [
        replace(problem, message=f"{problem.message} ({count} of {len(plans)} collections)")
        if count < len(plans)
        else problem
        for problem, count in found.items()
    ]


def how(group: GroupSession, action: str) -> str:
    """How the names move in a swap or back, in words."""
    if action not in ("swap", "rollback"):
        return ""
    store = group.open_source
    kind = group.manifest.swap.kind
    transaction = store.cutover is not None and "transaction" in store.cutover.kinds
    one_store = group.manifest.target_url == group.manifest.source.url
    if store.together and transaction and one_store and kind in ("auto", "transaction"):
        return AT_ONCE if action == "swap" else BACK_AT_ONCE
    return ONE_BY_ONE if action == "swap" else BACK
