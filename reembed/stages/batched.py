"""Stage 2 by a provider's batch API, before the embedding proper: half the price, within a day.

Texts that are not in the cache of vectors go out in files of requests; what comes back is put into
the cache, where the embedding finds it. The intent is journalled before a batch is made, and the
batch carries its label, so that one that a killed call made is found again: nothing is paid twice,
and a run goes on after days. A batch that expired is made again of what it left; a text that it
failed for is embedded the ordinary way, which tells why.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from reembed.embedders.batches import BatchAnswer, Batches, BatchState
from reembed.embedders.embedder import Embedder
from reembed.embedders.provider import TransientError
from reembed.embedders.spending import Spending, cost
from reembed.errors import UnreachableError
from reembed.manifest.template import TEXT_COLUMNS, TextTemplate
from reembed.progress import Progress
from reembed.records import SHARD_ROWS, Vectors, bad_rows, text_hash, unicode_fault, unit
from reembed.run import events
from reembed.run.directory import RunDir
from reembed.run.disk import atomic_file, remove
from reembed.run.guards import Wait
from reembed.run.shards import Shard
from reembed.run.vector_cache import VectorCache

FOLDER = "batch"
FEWEST = 100
"""Texts; fewer are embedded the ordinary way, at once."""
ROUNDS = 3
"""Batches that expire are made again so many times in one call."""
TRIES = 6
"""For a call that fails in passing, with waits that double from one second."""

T = TypeVar("T")
_KEY = re.compile("[0-9a-f]{64}")


class Requests(NamedTuple):
    """A file of requests that is to be sent, with the texts in it and their tokens."""

    path: Path
    texts: int
    tokens: int


def _discard(files: Sequence[Requests]) -> None:
    for file in files:
        remove(file.path)


@dataclass
class Batched:
    """What embedding by batches needs, all of one run."""

    run: RunDir
    embedder: Embedder
    batches: Batches
    template: TextTemplate
    cache: VectorCache
    spending: Spending
    progress: Progress
    wait: Wait

    def embed(self, shards: Sequence[Shard]) -> None:
        """Fill the cache with the vectors of these export shards, as far as batches give them.

        Raises:
            BudgetError: the texts would pass a cap. Nothing of them was sent.
            UnreachableError: the provider is out of reach, or lets batches expire.
        """
        self._collect_all()
        failed = set[bytes]()
        for _ in range(ROUNDS):
            files = self._files(shards, failed)
            if not files:
                return
            for file in files:
                self._submit(file)
            if not self._collect_all(failed):
                return
        raise UnreachableError(
            f"batches expired {ROUNDS} times before they were done",
            "Run again later, or leave model.options.batch_api out to be answered at once.",
        )

    # Out

    def _files(self, shards: Sequence[Shard], failed: set[bytes]) -> list[Requests]:
        """Write the texts to be sent into files of requests; none where they are few.

        Raises:
            BudgetError: they would pass a cap. No file is left then.
        """
        files: list[Requests] = []
        try:
            for file in self._written(self._texts(shards, failed)):
                files.append(file)
            if sum(file.texts for file in files) >= FEWEST:
                tokens = sum(file.tokens for file in files)
                self.spending.account(self.batches.price).require(tokens)
                return files
        except BaseException:
            _discard(files)
            raise
        _discard(files)
        return []

    def _texts(
        self, shards: Sequence[Shard], failed: set[bytes]
    ) -> Iterator[tuple[bytes, str, int]]:
        """Each text that is to be sent, once: key, what is sent, and its tokens."""
        seen = {*failed}
        for shard in shards:
            texts = self.template.texts_of(self.run.read_shard(shard, TEXT_COLUMNS))
            wanted = {text_hash(text): text for text in texts if text.strip()}
            known = self.cache.get([*wanted])
            new = {
                key: text for key, text in wanted.items() if key not in known and key not in seen
            }
            for key, sent, tokens in self._whole(new):
                seen.add(key)
                yield key, sent, tokens

    def _whole(self, texts: Mapping[bytes, str]) -> Iterator[tuple[bytes, str, int]]:
        """Of these texts those that go out in one piece: key, what is sent, and its tokens."""
        limit, prefix = self.embedder.limits.max_tokens, self.embedder.model.document_prefix
        counts = self.embedder.count_tokens([*texts.values()]).tolist() if texts else []
        for (key, text), tokens in zip(texts.items(), counts, strict=True):
            if (limit is None or tokens <= limit) and not unicode_fault(text):
                yield key, prefix + text, tokens

    def _written(self, texts: Iterator[tuple[bytes, str, int]]) -> Iterator[Requests]:
        """Files of requests as large as the provider takes them, each named after its first text
        and written as the texts come."""
        ahead = next(texts, None)
        while ahead is not None:
            path = self.run.path / FOLDER / f"{ahead[0].hex()[:32]}.jsonl"
            count = size = tokens = 0
            with atomic_file(path) as file:
                while ahead is not None:
                    line = self.batches.request(ahead[0].hex(), ahead[1])
                    full = count >= self.batches.most_requests
                    if count and (full or size + len(line) > self.batches.most_bytes):
                        break
                    file.write(line)
                    count, size, tokens = count + 1, size + len(line), tokens + ahead[2]
                    ahead = next(texts, None)
            yield Requests(path, count, tokens)

    def _submit(self, file: Requests) -> None:
        number = len(self.run.history.all(events.BatchIntended))
        label = f"{self.run.run_id}-{number}-{file.path.stem}"
        account = self.spending.account(self.batches.price)
        bill = account.reserve(file.tokens, threading.Event(), capped=True)
        assert bill is not None, "nothing cancels it"
        intended = events.BatchIntended(label=label, texts=file.texts, tokens=file.tokens)
        self.run.history.record(intended)
        try:
            id = self._asked(lambda: self.batches.submit(file.path, label))
        except BaseException:
            bill.settle(0)  # or it was made, and is found by its label and counted then
            raise
        bill.settle()
        self.run.history.record(events.BatchSubmitted(label=label, id=id))
        self.progress.note(
            f"batch {id}: {file.texts:,} texts are with the provider, which answers within a day; "
            "this command may be interrupted and run again at any time"
        )

    # Back

    def _collect_all(self, failed: set[bytes] | None = None) -> bool:
        """Wait for every batch that is under way. Returns whether one left texts to be sent again.

        Args:
            failed: gets the texts that a batch failed for.
        """
        left = False
        for batch in self._open():
            state = self._ended(batch)
            missing = self._collect(batch, state, failed if failed is not None else set())
            left = left or missing
        return left

    def _open(self) -> list[events.BatchSubmitted]:
        """The batches under way, those too that a killed call made and did not journal."""
        submitted = {event.label: event for event in self.run.history.all(events.BatchSubmitted)}
        done = {event.label for event in self.run.history.all(events.BatchCollected)}
        for intent in self.run.history.all(events.BatchIntended):
            if intent.label in submitted or intent.label in done:
                continue
            label = intent.label
            id = self._asked(lambda label=label: self.batches.find(label))  # type: ignore[misc]
            if id is None:  # it was never made
                self._close(label, "never made", 0, 0)
                continue
            self.spending.add(cost(intent.tokens, self.batches.price))
            submitted[label] = events.BatchSubmitted(label=label, id=id)
            self.run.history.record(submitted[label])
        return [event for label, event in submitted.items() if label not in done]

    def _ended(self, batch: events.BatchSubmitted) -> BatchState:
        told = None
        while True:
            state = self._asked(lambda: self.batches.look(batch.id))
            if state.status != "working":
                return state
            now = (state.message, state.completed)
            if now != told:
                told = now
                self.progress.note(
                    f"batch {batch.id}: {state.message}, {state.completed:,} of {state.total:,}"
                )
            until = time.monotonic() + self.batches.poll_seconds
            while time.monotonic() < until:
                self.wait()
                time.sleep(min(1.0, max(0.0, until - time.monotonic())))

    def _collect(self, batch: events.BatchSubmitted, state: BatchState, failed: set[bytes]) -> bool:
        """Keep what a batch brought. Returns whether it left texts that it never looked at."""
        if state.status == "refused":
            self._close(batch.label, state.message, 0, 0)
            raise UnreachableError(
                f"batch {batch.id} was refused: {state.message}",
                "See what the provider says of it, then run again; or leave "
                "model.options.batch_api out to be answered at once.",
            )
        kept, lost, again = self._asked(lambda: self._read(state, failed))
        self._close(batch.label, state.message, kept, lost)
        told = f"batch {batch.id}: {kept:,} vectors came back"
        self.progress.note(
            told + (f", {lost:,} texts failed and are sent one by one" if lost else "")
        )
        return again

    def _read(self, state: BatchState, failed: set[bytes]) -> tuple[int, int, bool]:
        """Keep the vectors of a batch; may be called again. Returns how many there were, how many
        texts failed, and whether some were never looked at."""
        kept = lost = 0
        again = False
        page: list[BatchAnswer] = []
        for answer in self.batches.answers(state):
            if not _KEY.fullmatch(answer.key):  # none of ours
                continue
            if answer.vector is not None:
                page.append(answer)
            elif answer.again:
                again = True
            else:
                failed.add(bytes.fromhex(answer.key))
                lost += 1
            if len(page) == SHARD_ROWS:
                kept += self._keep(page, failed)
                page = []
        return kept + self._keep(page, failed), lost, again

    def _keep(self, page: Sequence[BatchAnswer], failed: set[bytes]) -> int:
        """Put vectors into the cache that can be those of texts."""
        dimensions = self.embedder.dimensions
        fit = [one for one in page if one.vector is not None and one.vector.shape[1] == dimensions]
        failed.update(bytes.fromhex(one.key) for one in page if one not in fit)
        if not fit:
            return 0
        vectors: Vectors = np.concatenate([one.vector for one in fit if one.vector is not None])
        sound = ~bad_rows(vectors)
        failed.update(bytes.fromhex(one.key) for one, ok in zip(fit, sound, strict=True) if not ok)
        kept = [one for one, ok in zip(fit, sound, strict=True) if ok]
        tokens = np.array([one.tokens or 0 for one in kept], np.int32)
        vectors = vectors[sound]
        vectors = unit(vectors) if self.embedder.normalizes else vectors
        self.cache.put([bytes.fromhex(one.key) for one in kept], vectors, tokens)
        return len(kept)

    def _close(self, label: str, said: str, kept: int, failed: int) -> None:
        self.run.history.record(
            events.BatchCollected(label=label, said=said, kept=kept, failed=failed)
        )
        remove(self.run.path / FOLDER / f"{label.rpartition('-')[2]}.jsonl")

    def _asked(self, call: Callable[[], T]) -> T:
        """What the provider answers, asked again where it failed in passing."""
        for attempt in range(TRIES):
            try:
                return call()
            except TransientError as error:
                last = error
                time.sleep(min(2.0**attempt, self.batches.poll_seconds))
        raise UnreachableError(
            f"the provider's batch API does not answer: {last}",
            "Run again to resume: what it holds is found again.",
        )
