"""What a plan says of a model: what it costs to embed the source with it, and what of it will not
go."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from reembed.embedders.embedder import Embedder
from reembed.embedders.spending import Spending, cost
from reembed.manifest import Manifest
from reembed.stages.estimate import Estimate, make_estimate, timed
from reembed.stages.refusals import refusals_without_text
from reembed.stages.session import Session
from reembed.stages.swap_kind import SwapPlan
from reembed.stores.values import CollectionInfo


@dataclass(frozen=True)
class Problem:
    """A blocker or a warning, in words, with the way out.

    Attributes:
        note: it is only worth knowing: nothing needs to be done.
    """

    message: str
    hint: str = ""
    note: bool = False


@dataclass
class Weighed:
    """What embedding takes, or moving without it.

    Attributes:
        example: the beginning of one text that would be embedded.
        runs_on: the device of a model that runs in this process; "" for a server's.
    """

    estimate: Estimate
    blockers: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    example: str = ""
    runs_on: str = ""


def weigh(s: Session, source: CollectionInfo, records: int) -> Weighed:
    """Estimate what the model takes for so many records, and look at a sample of their texts."""
    manifest, embedder = s.manifest, s.embedder
    estimate, sampled = make_estimate(s, source, records)
    over = budget_blockers(s.spending, estimate, embedder)
    # A batch takes as long as the provider likes, and a cap leaves nothing for texts to be timed.
    if not over and embedder.batches is None:
        if s.writes:  # a run keeps these vectors, so it must know whose they are
            _ = s.taken
        estimate = replace(estimate, seconds=timed(embedder, sampled, estimate.new_tokens))
    blockers = [*over, *(Problem(*told) for told in sampled.found.blockers)]
    warnings = _content_warnings(embedder, estimate)
    left_out = quarantine_problem(embedder, manifest, estimate, records)
    if left_out is not None:
        (blockers if estimate.left_out > manifest.verify.allow_quarantined else warnings).append(
            left_out
        )
    warnings += [Problem(*told) for told in sampled.found.warnings]
    if estimate.without_text == 1:
        blockers += [
            Problem(error.message, error.hint)
            for error in refusals_without_text(manifest, s.source_store, source)
        ]
    warnings += [Problem(text) for text in embedder.warnings()]
    return Weighed(estimate, blockers, warnings, sampled.found.example, embedder.runs_on)


def _content_warnings(embedder: Embedder, estimate: Estimate) -> list[Problem]:
    warnings, limit = list[Problem](), embedder.limits.max_tokens
    if estimate.without_text:
        warnings.append(
            Problem(
                f"{estimate.without_text:.1%} of the sampled records give no text and will be "
                "quarantined",
                "Add fields to the template (text), or allow them with verify.allow_quarantined.",
            )
        )
    if estimate.too_long:
        action = {
            "fail": "will be quarantined",
            "truncate": "will be cut",
            "mean": "will be embedded in pieces and averaged",
        }[embedder.model.on_too_long]
        warnings.append(
            Problem(
                f"{estimate.too_long:.1%} of the sampled texts are longer than {limit:,} tokens "
                f"and {action}",
                "model.on_too_long says what becomes of them: fail, truncate or mean.",
            )
        )
    return warnings


def quarantine_problem(
    embedder: Embedder, manifest: Manifest, estimate: Estimate, records: int
) -> Problem | None:
    """What a verdict would say of the records that a run leaves out, where these are too many."""
    allowed, bad = manifest.verify.allow_quarantined, estimate.left_out
    expected = math.ceil(bad / max(1, estimate.sampled) * records)
    if expected <= allowed or estimate.without_text == 1:  # that none has a text is told by itself
        return None
    about = "" if estimate.sampled >= records else "about "
    found = f"{bad:,} of {estimate.sampled:,} sampled records"
    ways = []
    if estimate.too_long and embedder.model.on_too_long == "fail":
        ways.append("`model.on_too_long: mean` (or `truncate`) takes in texts that are too long")
    if estimate.without_text:
        ways.append("a template (text) with more fields gives records a text")
    ways.append(f"`verify.allow_quarantined: {expected}` lets {about}so many be left out")
    return Problem(
        f"{found} will be quarantined, {about}{expected:,} of all {records:,}, and "
        f"verify.allow_quarantined is {allowed:,}: the verdict would refuse the swap",
        "; ".join(ways) + ".",
    )


def budget_blockers(spending: Spending, estimate: Estimate, embedder: Embedder) -> list[Problem]:
    """What of the caps would be passed by what is estimated."""
    unpriced = spending.unpriced(embedder.model, embedder.price)
    if unpriced:
        return [Problem(unpriced.message, unpriced.hint)]
    needed = cost(estimate.new_tokens + estimate.verify_tokens, embedder.price)
    if not spending.exceeded(needed):
        return []
    refusal = spending.refusal(needed, "embedding and verifying")
    counted = "" if estimate.exact_tokens else (
        " Tokens are estimated on the high side here: a tokenizer (model.options.tokenizer, where "
        "the provider takes one) counts them exactly."
    )  # fmt: skip
    return [Problem(refusal.message, f"Raise the cap, or move less (source.where).{counted}")]


def application_warning(
    source: CollectionInfo, dimensions: int, swap: SwapPlan | None, can_point: bool
) -> Problem:
    """A swapped name does not switch the embedder of an application that embeds its own queries."""
    if swap is not None and swap.kind == "pointer":
        return Problem("applications must open the live name through reembed.live to follow it")
    if source.dimensions == dimensions:
        effect = (
            f"both models have {dimensions} dimensions, so its searches would return wrong answers "
            "without an error"
        )
    else:
        effect = f"it would get errors ({source.dimensions} against {dimensions} dimensions)"
    return Problem(
        "does the application embed its own queries? After the swap it must use the new model; "
        f"with the old one {effect}",
        "Move its configuration with swap.before and swap.after"
        + (", or open the name through reembed.live." if can_point else "."),
    )
