"""The manifest's section `follow`: how a job with `mode: follow` carries what changed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from reembed.manifest.sections import Section


class Follow(Section):
    """mode: follow: how a job carries what changed, and what it refuses."""

    rebuild_above: Annotated[float, Field(gt=0, le=1)] = 0.2
    """share of the records that changed above which a new collection is built and swapped in"""
    max_drop: Annotated[float, Field(gt=0, le=1)] = 0.5
    """share of the records that may be gone since the last call; more is refused (exit 4)"""
    delete_foreign: bool = False
    """delete records of the live collection that the corpus never had; else they are kept and
    counted"""
