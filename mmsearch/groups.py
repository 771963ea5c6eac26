"""The vectors of one kind in a space: those of the cache, and newer ones beside it.

Pictures, sounds, texts and captions lie in different corners of the space that they share, and
what is sought among them differs too: each kind is searched by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from mmsearch.places import Places
from mmsearch.records import Rows
from mmsearch.vectors import Engine, VectorStore, open_store
from mmsearch.vectors.exact import highest, multiplied

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Ids, Scores, Vectors
    from mmsearch.vectors.codes import IndexFile
    from mmsearch.vectors.matrix import Matrix

BACKGROUND = 4096  # vectors that a query's hits are compared with

Numbers = TypeVar("Numbers", "Ids", "Scores")

_SCORES = 1 << 24  # in memory at a time: 64 MB


class Scored(NamedTuple):
    """Vectors of one kind with their scores: (n,) ids, (t, n) inner products with t unit rows,
    and (n,) hubness.
    """

    ids: Ids
    scores: Scores
    hubness: Scores


class Group:
    """Vectors of one kind, searched. `base` are those of the cache, `fresh` those since."""

    def __init__(
        self,
        dim: int,
        base: Matrix | None,
        fresh: Sequence[Rows],
        index: IndexFile | None = None,
    ) -> None:
        self.index = index
        self.store: VectorStore = open_store("auto", dim, base, index)
        blocks = [base.rows, *fresh] if base is not None else list(fresh)
        for rows in fresh:
            self.store.add(rows.ids, rows.vectors)
        self.ids: Ids = _joined([rows.ids for rows in blocks])
        self._places = Places(self.ids)
        self._hubness: Scores = _joined([rows.hubness for rows in blocks])
        self._base = base.rows.vectors if base is not None else np.empty((0, dim), np.float32)
        self._fresh: Vectors = np.concatenate([self._base[:0], *(rows.vectors for rows in fresh)])

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def least_hubness(self) -> float:
        """No vector has less taken off its scores with words."""
        return float(self._hubness.min(initial=0.0))

    def nearest(self, queries: Vectors, k: int, among: Ids | None = None) -> tuple[Scores, Ids]:
        """The k nearest of each of (t, dim) unit rows: scores (t, m) falling, and ids (t, m)."""
        if self.store.plan.engine is not Engine.PLAIN:
            return self.store.search(queries, k, among)
        # with every score at hand, to find the highest takes less than to keep a heap of them
        scores, ids = [], []
        for start in range(0, len(queries), step := max(1, _SCORES // max(len(self), 1))):
            scored = self.all(queries[start : start + step], among)
            for row in scored.scores:
                near = highest(row, k)
                scores.append(row[near])
                ids.append(scored.ids[near])
        return np.stack(scores), np.stack(ids)

    def all(self, queries: Vectors, among: Ids | None = None) -> Scored:
        """The scores with every vector that may be found, ids rising."""
        ids, scores = self.store.scores(queries, among)
        whole = len(ids) == len(self.ids)
        hubness = self._hubness if whole else self._hubness[np.searchsorted(self.ids, ids)]
        return Scored(ids, scores, hubness)

    def holds(self, ids: Ids) -> NDArray[np.bool_]:
        """(n,) which of these there are."""
        if not len(self.ids):
            return np.zeros(len(ids), bool)
        held: NDArray[np.bool_] = self.ids[self._at(ids)] == ids
        return held

    def hubness_of(self, ids: Ids) -> Scores:
        """(n,) what is taken off the scores of these, which are there."""
        return self._hubness[self._at(ids)]

    def _at(self, ids: Ids) -> Ids:
        return self._places.spans(ids)[0].clip(max=max(len(self.ids) - 1, 0))

    def some(self, queries: Vectors, ids: Ids) -> Scored:
        """The scores with these vectors, which are there, in the order given."""
        at = self._at(ids)
        return Scored(self.ids[at], multiplied(queries, self._rows(at)), self._hubness[at])

    def background(self, queries: Vectors) -> Scored:
        """The scores with some of the vectors, evenly chosen."""
        ids, rows, hubness = self._sample
        return Scored(ids, multiplied(queries, rows), hubness)

    @cached_property
    def _sample(self) -> tuple[Ids, Vectors, Scores]:
        at = evenly(np.arange(len(self.ids)))
        return self.ids[at], self._rows(at), self._hubness[at]

    def _rows(self, at: Ids) -> Vectors:
        """(m, dim) the rows at these places, in single precision."""
        old = at < len(self._base)
        if old.all():
            return self._base[at].astype(np.float32, copy=False)
        rows = np.empty((len(at), self._base.shape[1]), np.float32)
        rows[old] = self._base[at[old]]
        rows[~old] = self._fresh[at[~old] - len(self._base)]
        return rows


def evenly(numbers: Numbers) -> Numbers:
    """As many of these as are a background, from end to end."""
    return numbers[:: -(-len(numbers) // BACKGROUND) or 1]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, parts[0].dtype), *parts])
