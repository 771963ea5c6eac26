"""Centres of lists, and how near they are to rows and queries: by whole numbers of 8 bits.

Sorting rows into lists is most of what building an index costs, and needs no exactness: a row on
the border of two lists may go to the other. MatMulInteger and a maximum over its products take an
eighth of the time that single precision does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.vectors.kernels import multiplied
from mmsearch.vectors.rounded import hands, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors

    Bytes = NDArray[np.uint8]
    Positions = NDArray[np.int64]

_ROWS_PER_LIST = 32  # rows that k-means sees
_ROUNDS = (8, 4, 4, 2)  # of these, each round sees one in so many
_ZERO = 128
_PRODUCTS = 2**20  # at a time: 4 MB stay in the processor's own memory


class Centres:
    """(lists, dim) rows, held as what they differ by from their mean.

    Rows are bytes about 128, which adds 128 times the sum of its whole numbers to a product with a
    centre. Some more of these make every sum nought, against bytes of 128, that is, of nothing:
    to correct the products would take half as long as to multiply.
    """

    def __init__(self, vectors: Vectors) -> None:
        away = vectors - vectors.mean(axis=0)
        self._step = max(float(np.abs(away).max()), 1e-30) / 127  # one for all: they compare
        whole = np.rint(away / self._step).astype(np.int64)
        sums = whole.sum(axis=1, keepdims=True)
        more = -(-int(np.abs(sums).max()) // 127)
        shares = np.diff(-sums * np.arange(more + 1) // max(more, 1), axis=1)
        self._whole = np.hstack([whole, shares]).astype(np.int8).T.copy()  # (dim + more, lists)

    def products(self, rows: Vectors) -> tuple[NDArray[np.int32], Vectors]:
        """(n, lists) products with (n, dim) rows, short of a constant of each row, in units that
        are (n, 1).
        """
        rounded, scales = _bytes(rows)
        return self._products(rounded), (scales * np.float32(self._step))[:, None]

    def nearest(self, rows: Vectors) -> Positions:
        """(n,) the centre with the highest product with each of (n, dim) rows, or one as near as
        whole numbers tell.
        """
        return self._nearest(_bytes(rows)[0])

    def _nearest(self, rows: Bytes) -> Positions:
        share = max(1, _PRODUCTS // self._whole.shape[1])
        starts = range(0, len(rows), share)
        return np.concatenate([self._products(rows[s : s + share]).argmax(axis=1) for s in starts])

    def _products(self, rows: Bytes) -> NDArray[np.int32]:
        more = len(self._whole) - rows.shape[1]
        return multiplied(np.pad(rows, ((0, 0), (0, more)), constant_values=_ZERO), self._whole)


def gather(rows: Vectors, lists: int) -> Vectors:
    """(lists, dim) unit rows, about which (n, dim) rows gather, at least as many; by spherical
    k-means (Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data using
    Clustering", 2001).
    """
    rows = rows[np.random.default_rng(1).permutation(len(rows))[: _ROWS_PER_LIST * lists]]
    vectors, held = _unit(rows[:lists]), _bytes(rows)[0]
    for part in _ROUNDS:
        shares = np.array_split(held[::part], os.cpu_count() or 1)
        near = np.concatenate([*hands().map(Centres(vectors)._nearest, shares)])
        order = np.argsort(near, kind="stable")
        lists_of = near[order]
        starts = np.flatnonzero(np.diff(lists_of, prepend=-1))
        # one without rows stays where it is
        vectors[lists_of[starts]] = _unit(np.add.reduceat(rows[::part][order], starts))
    return vectors


def _bytes(rows: Vectors) -> tuple[Bytes, Vectors]:
    """(n, dim) rows in whole numbers about 128, and (n,) what one of these stands for."""
    whole, scales = whole_numbers(rows)
    return whole.view(np.uint8) ^ np.uint8(_ZERO), scales


def _unit(rows: Vectors) -> Vectors:
    found: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return found
