"""Exact search on a GPU: products with every row in half precision, finalists scored again here.

FAISS for GPUs (faiss-gpu 1.15 and later) holds the rows as float16 on the first card. What a
filter keeps, and rows added since, are searched on the processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.cards import MOST, given_up
from mmsearch.vectors.faiss import FaissStore, faiss
from mmsearch.vectors.planning import EXACT, Engine, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors
    from mmsearch.vectors.matrix import Matrix

_BLOCK = 65_536  # rows copied to the card at a time
_SPARE = 32  # finalists beyond k: half precision orders near ones by chance


def open_on_card(matrix: Matrix) -> GpuStore | None:
    """The store of a matrix on the first card, None (and a warning) where it has no room."""
    try:
        return GpuStore(matrix)
    except RuntimeError as error:
        given_up(error)
        return None


class GpuStore(FaissStore):
    """A matrix whose rows lie on a GPU, and rows added since in memory."""

    def __init__(self, matrix: Matrix) -> None:
        self._base = matrix.rows.vectors
        count, dim = self._base.shape
        super().__init__(dim, matrix)
        self.plan = Plan(Engine.GPU, "", EXACT, 2.0 * dim)
        self._resources: Any = faiss.StandardGpuResources()
        options = faiss.GpuIndexFlatConfig()
        options.useFloat16 = True
        self._card: Any = faiss.GpuIndexFlatIP(self._resources, dim, options)
        for start in range(0, count, _BLOCK):
            self._card.add(self._base[start : start + _BLOCK].astype(np.float32))
        matrix.release()

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        finalists = min(k + _SPARE, len(rows))
        if self._card is None or rows is not self._base or keep is not None or finalists > MOST:
            return super()._nearest(queries, rows, k, keep)
        near = np.ascontiguousarray(queries)
        try:
            _, found = self._card.search(near, finalists)
        except RuntimeError as error:  # others have taken its memory since
            given_up(error)
            self._card = None
            return super()._nearest(queries, rows, k, keep)
        pairs = zip(found, near, strict=True)
        exact = np.stack([self._base[line].astype(np.float32) @ query for line, query in pairs])
        order = np.lexsort((found, -exact), axis=1)[:, :k]
        scores = np.take_along_axis(exact, order, 1)
        # of rows that are all alike, the card chose some: which, is not for it to say
        tied = scores[:, -1] <= exact.min(axis=1) if finalists < len(rows) else np.zeros(1, bool)
        if tied.any():
            return super()._nearest(queries, rows, k, keep)
        return scores, np.take_along_axis(found, order, 1)
