"""How texts are sent: as what, at whose cost, how patiently, and how closely looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Manner:
    """How the texts of a call are sent, or those of one request.

    Attributes:
        query: as queries; else as documents.
        capped: a budget may stop them; else they are only counted.
        guarded: the control sentence goes with them, see `Sender.ask`.
        attempts: fewer tries than the policy allows, where something may be wrong with what is
            sent; one that is only told to come slower, or that nobody hears, is no less patient.
        strict: `attempts` holds for that one, too.
        fitted: False to send texts as they are, whatever is known of the model's limit.
        checked: False to take an answer that cuts texts or gives some the same vector.
    """

    query: bool = False
    capped: bool = False
    guarded: bool = False
    attempts: int | None = None
    strict: bool = False
    fitted: bool = True
    checked: bool = True


AS_DOCUMENTS = Manner()
