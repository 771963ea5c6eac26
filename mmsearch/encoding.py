"""Encoder calls in a thread of their own: files are read and committed while it computes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.encoders.batches import FIRST, Batches
from mmsearch.records import Modality, Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors

COMMIT_SECONDS = 5.0  # the longest that finished work waits for its commit

# Parcels under way: the encoder has the next one when it is done with one.
DEPTH = 2

Tag = TypeVar("Tag")
Call = tuple[Encoder, Modality, Sequence[Any]]


class Encoding(Generic[Tag]):
    """Parcels of inputs, encoded one after the other, taken back in the order they were sent.

    `waited` are the seconds that nothing else could be done than wait for the encoder.
    """

    def __init__(self, batch: int) -> None:
        """`batch`: inputs of a transaction. Of a large one `kept` may be under way meanwhile."""
        self.kept = batch // 2 if batch >= 2 * FIRST else 0
        self._most = max(batch - self.kept, 1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._parcels: deque[tuple[Tag, list[Future[Vectors]]]] = deque()
        self._batches: dict[str, Batches] = {}
        self._encoded: Counter[Modality] = Counter()
        self.waited = 0.0

    def __len__(self) -> int:
        """How many parcels are under way."""
        return len(self._parcels)

    @property
    def tags(self) -> list[Tag]:
        """Those of the parcels that are under way, oldest first."""
        return [tag for tag, _ in self._parcels]

    def size(self, encoder: Encoder, modality: Modality) -> int:
        """How many inputs of this kind make a parcel."""
        return min(self._of(encoder).size(modality), self._most)

    def send(self, tag: Tag, calls: Sequence[Call]) -> None:
        """Have a parcel encoded: some inputs of each of these kinds."""
        futures = [
            self._thread.submit(self._encode, encoder, modality, inputs)
            for encoder, modality, inputs in calls
        ]
        self._parcels.append((tag, futures))

    def take(self) -> tuple[Tag, list[Vectors]]:
        """The oldest parcel: (n, dim) rows a call. Waits for it; raises what the encoder raised."""
        tag, futures = self._parcels.popleft()
        return tag, [self._result(future) for future in futures]

    def encode(self, encoder: Encoder, modality: Modality, inputs: Sequence[Any]) -> Vectors:
        """The (n, dim) rows of these inputs at once, after what is under way."""
        return self._result(self._thread.submit(self._encode, encoder, modality, inputs))

    def close(self) -> None:
        """Give up what is under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def tell(self, report: Report, seconds: float, loading: float) -> None:
        """Note what was encoded in `seconds`, and that `loading` of them went by with waiting for
        files.
        """
        report.notes += [line for batches in self._batches.values() for line in batches.notes]
        for kind, count in self._encoded.items():
            report.vectors[kind] = report.vectors.get(kind, 0) + count
        report.seconds += seconds
        report.waited += self.waited - loading

    def _of(self, encoder: Encoder) -> Batches:
        return self._batches.setdefault(encoder.fingerprint, Batches(encoder))

    def _encode(self, encoder: Encoder, modality: Modality, inputs: Sequence[Any]) -> Vectors:
        found = self._of(encoder).encode(modality, inputs)
        self._encoded[modality] += len(inputs)
        return found

    def _result(self, future: Future[Vectors]) -> Vectors:
        began = time.monotonic()
        try:
            return future.result()
        finally:
            self.waited += time.monotonic() - began


class Commits:
    """When finished work is due to be committed: a batch of it, or any that has waited long."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._last = time.monotonic()

    def are_due(self, waiting: int) -> bool:
        """Whether so many finished vectors are to be written now."""
        return waiting >= self._batch or (waiting > 0 and self.are_late())

    def are_late(self) -> bool:
        """Whether the last commit is too long ago to wait for more."""
        return time.monotonic() - self._last > COMMIT_SECONDS

    def begin(self) -> None:
        """One begins now."""
        self._last = time.monotonic()


def usable(rows: Vectors) -> NDArray[np.bool_]:
    """Which of (n, dim) rows are unit rows: NaN, Inf and zero have no length that compares."""
    good: NDArray[np.bool_] = np.abs(np.linalg.norm(rows, axis=1) - 1) < 0.01
    return good
