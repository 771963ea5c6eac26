"""Rows in lists about centres, found by 4-bit codes of what is left of them.

Rows are turned first, so that every part of a code holds as much: the directions in which they
vary most are paired with those in which they vary least, after a principal component analysis
(the parametric solution of optimized product quantization; Ge et al., "Optimized Product
Quantization for Approximate Nearest Neighbor Search", 2013). Centres differ in the leading
directions alone, half of all: what the rest adds to a distance is nearly the same for every
centre, and to train, to sort rows into lists and to choose a query's lists costs half.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss, threads
from mmsearch.vectors.rounded import hands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

    Positions = NDArray[np.int64]

ROUNDS = 6  # of k-means: lists are hardly better after ten
PER_LIST = 32  # rows that it sees
_MOST_TRAINED_ON = 131_072
_ANALYSED = 16_384  # rows whose variance is looked at, and from which codes are learnt
_SHARE = 64  # queries whose lists a thread chooses at a time
_LEADING = 64  # directions in which centres differ, at least


class Lists:
    """An index of these lists, searched with `nprobe` of them."""

    def __init__(self, index: Any) -> None:
        self._index = index  # owns what is looked at below
        self._turn = _itself(faiss.downcast_VectorTransform(index.chain.at(0)))
        self.inner = _itself(faiss.downcast_index(index.index))
        quantizer = _itself(faiss.downcast_index(self.inner.quantizer))
        centres = quantizer.reconstruct_n(0, self.inner.nlist)
        self._leading = np.flatnonzero(centres.any(axis=0))
        # products by FAISS's BLAS, which shares its threads: those of numpy's would spin beside
        self._centres = _transform(centres[:, self._leading])

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Positions]:
        """(q, k) scores by codes, short of a constant of each query, and positions; -1 where there
        are fewer.
        """
        turned = self._turn.apply(queries)
        near = self._centres.apply(turned[:, self._leading])  # (q, lists)
        probes = min(self.inner.nprobe, near.shape[1])
        some = [near[start : start + _SHARE] for start in range(0, len(near), _SHARE)]
        highest = (hands().map if len(some) > 1 else map)(
            lambda part: np.argpartition(part, -probes, axis=1)[:, -probes:], some
        )
        lists = np.concatenate(list(highest))
        with threads(len(queries)):
            found: tuple[Scores, Positions] = self.inner.search_preassigned(
                turned, k, lists, np.take_along_axis(near, lists, 1)
            )
        return found


def build_lists(sample: Vectors, blocks: Iterator[Vectors], lists: int, parts: int) -> Any:
    """FAISS's index of blocks of (n, dim) rows, with codes of so many parts; `sample` are some of
    the rows, evenly chosen.
    """
    dim = sample.shape[1]
    some = sample[:: -(-len(sample) // _ANALYSED)]
    spread = some - some.mean(axis=0)
    directions = np.linalg.eigh(spread.T @ spread)[1][:, ::-1]  # variance falling
    leading = min(dim, max(_LEADING, dim // 2))
    first = np.ascontiguousarray(directions[:, :leading], np.float32)  # (dim, leading)
    order = _balanced(dim, parts)
    turn = np.ascontiguousarray(directions[:, order].T, np.float32)  # (dim, dim)
    lists = min(lists, len(sample))
    step = -(-len(sample) // min(_MOST_TRAINED_ON, PER_LIST * lists))
    means: Any = faiss.Kmeans(
        leading, lists, niter=ROUNDS, seed=1, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )  # fmt: skip
    means.train(np.ascontiguousarray(sample[::step] @ first))
    centres = np.zeros((lists, dim), np.float32)
    centres[:, np.argsort(order)[:leading]] = means.centroids

    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centres)
    codes = faiss.IndexIVFPQ(quantizer, dim, lists, parts, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.min_points_per_centroid = 1
    codes.train(np.ascontiguousarray(some @ turn.T))
    for block in blocks:
        _, near = faiss.knn(block @ first, means.centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)
        turned, near = np.ascontiguousarray(block @ turn.T), near.ravel()
        # into lists of plain codes: the packed ones, given their lists, hold nonsense (1.15.1)
        codes.add_core(len(block), faiss.swig_ptr(turned), None, faiss.swig_ptr(near))
    rotation = _transform(turn)
    rotation.is_orthonormal = True
    packed = faiss.IndexIVFPQFastScan(codes)
    found: Any = faiss.IndexPreTransform(rotation, packed)
    found.referenced_objects = [rotation, packed, codes, quantizer]
    return found


def _transform(rows: Vectors) -> Any:
    """What gives the (n, m) products of (n, dim) vectors with (m, dim) rows."""
    found: Any = faiss.LinearTransform(rows.shape[1], len(rows), False)
    faiss.copy_array_to_vector(np.ascontiguousarray(rows).ravel(), found.A)
    found.is_trained = True
    return found


def _itself(found: Any) -> Any:
    """What FAISS's stubs know too little of."""
    return found


def _balanced(dim: int, parts: int) -> Positions:
    """(dim,) directions, of falling variance, as they are dealt out to the parts: to and fro, so
    that each gets some of the first and some of the last.
    """
    deals = np.arange(dim).reshape(-1, parts)
    deals[1::2] = deals[1::2, ::-1]
    dealt: Positions = deals.T.ravel()
    return dealt
