"""The directions by which rows are sorted into lists, and those that codes hold.

What a code loses of a row, e, moves its product with a query q by q . e: squared, over all queries,
by e . W e, where W is the mean of their q q'. So rows are stretched by the root of W before they
are coded, and queries are shrunk by it: products stay what they are, and codes are finest where
queries look (after Guo et al., "Quantization based Fast Inner Product Search", 2016, which weighs
errors by the queries' second moment). W is half of the queries and half of the rows, which stand
for what pictures ask.

Then every part of a code is to hold as much: directions in which rows vary most are paired with
those in which they vary least, after a principal component analysis (the parametric solution of
optimized product quantization; Ge et al., "Optimized Product Quantization for Approximate Nearest
Neighbor Search", 2013). The directions in which they hardly vary are in no code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Vectors

_RIDGE = 0.1  # of W's mean is added in every direction, so that none counts for nothing
_VARIANCE = 0.99  # that codes hold, of all
_TOGETHER = 4  # parts that the scan looks at together


def principal(rows: Vectors) -> tuple[Vectors, Vectors]:
    """(dim,) variance of (n, dim) rows, falling, and (dim, dim) its directions, in columns."""
    spread = rows - rows.mean(axis=0)
    variance, directions = np.linalg.eigh(spread.T @ spread)
    return variance[::-1], directions[:, ::-1]


def coded(
    left: Vectors, rows: Vectors, queries: Vectors, parts: int, each: int, least: int
) -> tuple[Vectors, Vectors]:
    """What rows and queries are turned by for codes, (dim, m) both; m is at least `least` and a
    multiple of `each`, which a part holds, at most `parts` times.

    `left` are (n, dim) rows as they are coded, and `rows` as they are; `queries` (q, dim) count
    where they are as many as there are directions.
    """
    dim = rows.shape[1]
    weight = _moment(rows)
    if len(queries) >= dim:
        weight += _moment(queries)
        weight /= 2
    values, vectors = np.linalg.eigh(weight + np.eye(dim, dtype=np.float32) * (_RIDGE / dim))
    stretch, shrink = vectors * np.sqrt(values), vectors / np.sqrt(values)
    variance, turn = principal(left @ stretch)
    most = np.cumsum(variance) / max(variance.sum(), 1e-30)
    enough = max(least, int(np.searchsorted(most, _VARIANCE)) + 1)
    parts = min(parts, -(-enough // (_TOGETHER * each)) * _TOGETHER)
    turn = turn[:, _balanced(parts * each, parts)]
    return stretch @ turn, shrink @ turn


def _moment(vectors: Vectors) -> Vectors:
    """(dim, dim) the mean of v v' over (n, dim) vectors, scaled to a trace of 1."""
    moment: Vectors = vectors.T @ vectors
    moment /= max(moment.trace(), np.float32(1e-30))
    return moment


def _balanced(dim: int, parts: int) -> NDArray[np.int64]:
    """(dim,) directions, of falling variance, as they are dealt out to the parts: to and fro, so
    that each gets some of the first and some of the last.
    """
    deals = np.arange(dim).reshape(-1, parts)
    deals[1::2] = deals[1::2, ::-1]
    dealt: NDArray[np.int64] = deals.T.ravel()
    return dealt
