"""Centres of lists, and how near they are to rows and queries: by whole numbers of 8 bits.

Sorting rows into lists is most of what building an index costs, and needs no exactness: a row on
the border of two lists may go to the other. MatMulInteger and a maximum over its products take an
eighth of the time that single precision does.
"""

from __future__ import annotations

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
_ROUNDS = (8, 4, 2, 1)  # of these, each round sees one in so many
_ZERO = 128
_PRODUCTS = 2**20  # at a time: 4 MB stay in the processor's own memory


class Centres:
    """(lists, dim) rows, held as what they differ by from their mean."""

    def __init__(self, vectors: Vectors) -> None:
        away = vectors - vectors.mean(axis=0)
        self._step = max(float(np.abs(away).max()), 1e-30) / 127  # one for all: they compare
        self._whole = np.rint(away / self._step).astype(np.int8).T.copy()  # (dim, lists)
        self._lacks = -_ZERO * self._whole.sum(axis=0, dtype=np.int32)

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
        share = max(1, _PRODUCTS // len(self._lacks))

        def some(start: int) -> Positions:
            found: Positions = self._products(rows[start : start + share]).argmax(axis=1)
            return found

        return np.concatenate([*hands().map(some, range(0, len(rows), share))])

    def _products(self, rows: Bytes) -> NDArray[np.int32]:
        products = multiplied(rows, self._whole)
        products += self._lacks
        return products


def gather(rows: Vectors, lists: int) -> Vectors:
    """(lists, dim) unit rows, about which (n, dim) rows gather, at least as many; by spherical
    k-means (Dhillon and Modha, "Concept Decompositions for Large Sparse Text Data using
    Clustering", 2001).
    """
    rows = rows[np.random.default_rng(1).permutation(len(rows))[: _ROWS_PER_LIST * lists]]
    vectors, held = _unit(rows[:lists]), _bytes(rows)[0]
    for part in _ROUNDS:
        near = Centres(vectors)._nearest(held[::part])
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
