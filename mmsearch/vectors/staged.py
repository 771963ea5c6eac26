"""Search in stages: codes choose what bytes are looked at, and bytes what rows are.

Product quantisation with 4-bit codes, compared in registers (FAISS's fast scan; André et al.,
"Quicker ADC", 2018), passes over every row, or over the nearest lists; the best of what it finds
is scored from the rounded rows, and the best of those from the rows themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import FaissStore, faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors
    from mmsearch.vectors.codes import IndexFile
    from mmsearch.vectors.matrix import Matrix

    Positions = NDArray[np.int64]

_COARSE = 1000  # that codes choose, at least
_FINALISTS = 40  # that are scored exactly, at least
_TOGETHER = 16  # queries from which on products with every rounded row cost less than codes


class StagedStore(FaissStore):
    """A matrix with its index, and rows added since in memory."""

    def __init__(self, matrix: Matrix, index: IndexFile) -> None:
        super().__init__(matrix.rows.vectors.shape[1], matrix)
        self.plan = index.plan
        self._base = matrix.rows.vectors
        self._rounded = index.rounded
        self._codes: Any = faiss.deserialize_index(index.faiss) if len(index.faiss) else None

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: Positions | None
    ) -> tuple[NDArray[np.float32], Positions]:
        if rows is not self._base:
            return super()._nearest(queries, rows, k, keep)
        finalists = max(_FINALISTS, 2 * k)
        if len(queries) < _TOGETHER and keep is None:
            found = self._by_codes(queries, max(_COARSE, 10 * k), finalists)
        else:
            found = self._rounded.best(queries, finalists, keep)
        return self._exactly(queries, found, k)

    def _by_codes(self, queries: Vectors, coarse: int, finalists: int) -> Positions:
        near = np.ascontiguousarray(queries)
        _, places = self._codes.search(near, min(coarse, len(self._base)))
        found = np.full((len(queries), finalists), -1, np.int64)
        for query, line, best in zip(near, places, found, strict=True):
            there = line[line >= 0]
            if len(there) > finalists:
                scores = self._rounded.scores(query, there)
                there = there[np.argpartition(-scores, finalists)[:finalists]]
            best[: len(there)] = there
        return found

    def _exactly(
        self, queries: Vectors, found: Positions, k: int
    ) -> tuple[NDArray[np.float32], Positions]:
        """The k best of (q, m) positions by the rows themselves; ties by position."""
        rows = self._base[found].astype(np.float32)  # (q, m, dim)
        scores = np.einsum("qmd,qd->qm", rows, queries)
        scores[found < 0] = -np.inf
        order = np.lexsort((found, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
