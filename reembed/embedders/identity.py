"""Which file of paid vectors is the model's of now: the vectors of the probe texts decide, not a
name.

Another model may answer to the same name and address, and the same model to another one. So beside
every file lies the fingerprint of the model that its vectors are of, and a file is taken only where
the model gives the probe texts the same vectors and treats longer texts the same way.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reembed.embedders.fingerprint import Fingerprint
from reembed.manifest import Manifest
from reembed.records import cosine_rows
from reembed.run.cached import SUFFIX, Lender, caches_in
from reembed.run.disk import write_atomic

SAME_NAME, OTHER_NAME = 0.9999, 0.99999
"""Cosine of every probe from which two models are one, by whether they have one name and address.
The same call twice differs by 1e-8 in cosine, another version of a model by 0.01, and a coarser
quantisation of the same weights may differ by 0.0001."""
SHARED = "cache"
"""The folder of a state directory that holds the files that its runs share."""
LABELS = frozenset({"provider", "name", "base_url", "query_prefix", "dimensions"})
"""Settings that say who answers, not what becomes of a document. The probes show those that do."""
LABEL_OPTIONS = frozenset(
    {"encoding_format", "tokenizer", "auth", "headers", "headers_env", "query", "query_extra_body",
     "batch_api", "batch_poll_seconds", "device", "cache_dir", "offline"}
)  # fmt: skip


def same_model(old: Fingerprint, new: Fingerprint, apart: frozenset[str] = frozenset()) -> bool:
    """Whether both give every document the same vector, as far as the probes can tell.

    Args:
        apart: settings that may differ.
    """
    if old.vectors.shape != new.vectors.shape or _treatment(old, apart) != _treatment(new, apart):
        return False
    same_settings = old.settings_sha256 == new.settings_sha256 or (
        _without(old.settings, apart) == _without(new.settings, apart)
    )
    named = (same_settings, old.digest, old.details.get("address")) == (
        True, new.digest, new.details.get("address"),
    )  # fmt: skip
    documents = slice(0, len(old.vectors) - 1)  # the last probe is a query's
    lengths = [np.linalg.norm(one.vectors[documents], axis=1) for one in (old, new)]
    alike = cosine_rows(old.vectors[documents], new.vectors[documents])
    return bool(
        (alike >= (SAME_NAME if named else OTHER_NAME)).all()
        and np.allclose(lengths[0], lengths[1], rtol=0.01)
    )


def _treatment(fingerprint: Fingerprint, apart: frozenset[str]) -> dict[str, Any]:
    settings = _without(fingerprint.settings, LABELS | apart)
    options = settings.get("options")
    if isinstance(options, dict):
        kept = {key: value for key, value in options.items() if key not in LABEL_OPTIONS}
        settings["options"] = kept
    return settings


def _without(settings: dict[str, Any], apart: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in apart}


FOR_LONG_TEXTS = frozenset({"on_too_long", "max_tokens"})
"""Settings that change the vectors of long texts alone."""


def find_cache(folder: Path, model: Fingerprint, state: Path) -> Path | None:
    """The file of vectors of this model; None where there is none yet. Writes nothing.

    Args:
        state: the state directory, whose runs tell what earlier versions left in `folder`.
    """
    for path, signed in _signed(folder):
        if same_model(signed, model):
            return path
    return _of_an_earlier_version(folder, model, state)


def lenders(manifest: Manifest, model: Fingerprint, limit: int | None) -> list[Lender]:
    """Files of vectors of the same model, made under other settings for texts that are too long,
    among those that the runs of a state directory share. A file of `mean` is none: nothing in it
    tells a text that was sent whole from one that the server took only in pieces.

    Args:
        limit: tokens that a text may have now; None where that is unknown: then nobody can say
            which texts are short, and there is no lender.
    """
    found = list[Lender]()
    if limit is None or not manifest.embed.cache:
        return found
    for path, other in _signed(Path(manifest.state) / SHARED):
        if same_model(other, model) or not same_model(other, model, FOR_LONG_TEXTS):
            continue
        treated = other.settings.get("on_too_long", "fail")
        # `fail` refused what did not fit: whatever is in the file was embedded whole.
        if treated == "fail":
            found.append(Lender(path, limit))
        elif treated == "truncate" and _tokenizer(other) == _tokenizer(model):
            found.append(Lender(path, limit, cuts=True))
    return found


def _tokenizer(fingerprint: Fingerprint) -> Any:
    return (fingerprint.settings.get("options") or {}).get("tokenizer")


def shared_cache(state: str, model: Fingerprint) -> Path:
    """The file of this model's vectors that all runs of a state directory share, there or not."""
    folder = Path(state) / SHARED
    return find_cache(folder, model, Path(state)) or new_cache(folder, model)


def has_shared_caches(state: str) -> bool:
    """Whether any run of a state directory has kept vectors for the others."""
    return bool(caches_in(Path(state) / SHARED))


def new_cache(folder: Path, model: Fingerprint) -> Path:
    """The name of a new file for this model's vectors."""
    name = hashlib.sha256(model.key.encode() + model.vectors.astype("<f4").tobytes()).hexdigest()
    return folder / f"{name}{SUFFIX}"


def sign_cache(path: Path, model: Fingerprint) -> None:
    """Write beside a file whose vectors these are, before the first is in it."""
    side = path.with_suffix(".model.json")
    if not side.is_file():
        write_atomic(side, json.dumps(model.to_dict()).encode())


def _signed(folder: Path) -> Iterator[tuple[Path, Fingerprint]]:
    """The files of a folder, each with the model whose vectors it holds."""
    for side in sorted(folder.glob("*.model.json")):
        try:
            model = Fingerprint.from_dict(json.loads(side.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        yield side.with_name(side.name.removesuffix(".model.json") + SUFFIX), model


def _of_an_earlier_version(folder: Path, model: Fingerprint, state: Path) -> Path | None:
    """A file named after a model's settings alone, as version 0.1 made it: this model's if the
    runs that filled it were all of this model, which their journals tell."""
    path = folder / f"{model.key}{SUFFIX}"
    if path not in caches_in(folder) or path.with_suffix(".model.json").is_file():
        return None
    found = [old for old in _fingerprints(state) if old.key == model.key]
    return path if found and all(same_model(old, model) for old in found) else None


def _fingerprints(state: Path) -> list[Fingerprint]:
    """Those that the runs of a state directory began with."""
    found = []
    for journal in state.glob("*/*/journal.jsonl"):
        with contextlib.suppress(OSError):
            for line in journal.read_bytes().split(b"\n"):
                if b'"fingerprint"' in line:
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        found.append(Fingerprint.from_dict(json.loads(line)["fingerprint"]))
    return found
