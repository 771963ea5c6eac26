"""Codes of 4 bits for the parts of a row: learnt by FAISS, looked up here.

Product quantisation (Jégou et al., "Product Quantization for Nearest Neighbor Search", 2011) keeps
of each part which of 16 centres is nearest. FAISS measures all 16 distances; a part of two
dimensions has its answer in a table of 64 x 64 cells instead, which takes a fifth of the time. By
its cell a row on the border of two centres may be given the other, which is hardly farther.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss, threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors

CENTRES = 16
_CELLS = 64  # of a dimension
_ROUNDS = 8  # of k-means: with 25, codes rank as well
_SEEN = 4096  # rows that it sees
_SHARE = 16  # parts whose tables are made at a time


class Codebook:
    """The centres of every part, and what codes rows have by them."""

    def __init__(self, rows: Vectors, parts: int) -> None:
        """Learn from (n, dim) rows, dim a multiple of the parts."""
        dim = rows.shape[1]
        rows = np.ascontiguousarray(rows[:: -(-len(rows) // _SEEN)])
        self.quantizer: Any = faiss.ProductQuantizer(dim, parts, 4)
        self.quantizer.cp.niter = _ROUNDS
        self.quantizer.cp.min_points_per_centroid = 1
        with threads(1):  # two would wait for each other longer than they work
            self.quantizer.train(rows)
        self._least = rows.min(axis=0)
        width = np.maximum(rows.max(axis=0) - self._least, np.float32(1e-12))
        self._per_cell = np.float32(_CELLS) / width
        self._tables = None if dim != 2 * parts else self._nearest_by_cell(parts)

    def codes(self, rows: Vectors) -> NDArray[np.uint8]:
        """(n, bytes) codes of (n, dim) rows, two parts a byte, the first in its lower half."""
        if self._tables is None:
            found: NDArray[np.uint8] = self.quantizer.compute_codes(np.ascontiguousarray(rows))
            return found
        parts = len(self._tables)
        place = rows - self._least
        place *= self._per_cell
        cells = place.clip(0, _CELLS - 1, out=place).astype(np.uint8).view("<u2")  # (n, parts)
        near = np.zeros((len(rows), parts + parts % 2), np.uint8)
        at = cells + np.arange(parts) * self._tables.shape[1]
        near[:, :parts] = self._tables.ravel().take(at)
        pairs = near.view("<u2")
        packed: NDArray[np.uint8] = (pairs | pairs >> 4).astype(np.uint8)
        return packed

    def _nearest_by_cell(self, parts: int) -> NDArray[np.uint8]:
        """(parts, 64 * 256) the centre nearest to each cell's middle; a cell stands where its
        second number in the upper byte and its first in the lower point to.
        """
        centres = faiss.vector_to_array(self.quantizer.centroids).reshape(parts, CENTRES, 2)
        middles = (np.arange(_CELLS, dtype=np.float32) + np.float32(0.5))[None] / (
            self._per_cell[:, None]
        ) + self._least[:, None]  # (dim, 64)
        tables = np.zeros((parts, _CELLS, 256), np.uint8)
        for start in range(0, parts, _SHARE):
            some = slice(start, start + _SHARE)
            first, second = middles[0::2][some], middles[1::2][some]
            away = (  # (share, second, first, 16)
                (second[:, :, None, None] - centres[some, None, None, :, 1]) ** 2
                + (first[:, None, :, None] - centres[some, None, None, :, 0]) ** 2
            )
            tables[some, :, :_CELLS] = away.argmin(axis=3)
        return tables.reshape(parts, -1)
