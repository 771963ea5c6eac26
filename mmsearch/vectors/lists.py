"""Rows in lists about centres, found by 4-bit codes of what is left of them.

Rows are turned first, so that every part of a code holds as much: the directions in which they
vary most are paired with those in which they vary least, after a principal component analysis
(the parametric solution of optimized product quantization; Ge et al., "Optimized Product
Quantization for Approximate Nearest Neighbor Search", 2013). Centres differ in the leading
directions alone, a quarter of all: what the rest adds to a distance is nearly the same for every
centre, and to train, to sort rows into lists and to choose a query's lists costs a quarter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.codebook import Codebook
from mmsearch.vectors.faiss import faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

    Positions = NDArray[np.int64]

ROUNDS = 6  # of k-means: lists are hardly better after ten
PER_LIST = 32  # rows that it sees
_MOST_TRAINED_ON = 131_072
_ANALYSED = 16_384  # rows whose variance is looked at, at most
# FAISS's way through the lists that keeps the best of a query in a reservoir, one query after the
# other: four fifths of the time of heaps, or of all queries of a list at once
_RESERVOIRS = 11
_HEAPED = 40  # nearest lists that FAISS finds sooner than numpy
_LEADING = 64  # directions in which centres differ, at least


class Lists:
    """An index of these lists, searched with `nprobe` of them."""

    def __init__(self, index: Any) -> None:
        self._index = index  # owns what is looked at below
        self._turn = _itself(faiss.downcast_VectorTransform(index.chain.at(0)))
        self.inner = _itself(faiss.downcast_index(index.index))
        self.inner.implem = _RESERVOIRS
        quantizer = _itself(faiss.downcast_index(self.inner.quantizer))
        centres = quantizer.reconstruct_n(0, self.inner.nlist)
        self._leading = np.flatnonzero(centres.any(axis=0))
        self._centres = _transform(centres[:, self._leading])
        self._flat = _itself(faiss.IndexFlatIP(len(self._leading)))
        self._flat.add(np.ascontiguousarray(centres[:, self._leading]))

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Positions]:
        """(q, k) scores by codes, short of a constant of each query, and positions; -1 where there
        are fewer.
        """
        turned = self._turn.apply(queries)
        near, lists = self._nearest(np.ascontiguousarray(turned[:, self._leading]))
        found: tuple[Scores, Positions] = self.inner.search_preassigned(turned, k, lists, near)
        return found

    def _nearest(self, queries: Vectors) -> tuple[Scores, Positions]:
        """(q, nprobe) products with the nearest centres, in no order, and their lists."""
        probes = min(self.inner.nprobe, self.inner.nlist)
        if probes <= _HEAPED:
            heaped: tuple[Scores, Positions] = self._flat.search(queries, probes)
            return heaped
        near = self._centres.apply(queries)  # (q, lists)
        lists = np.argpartition(near, -probes, axis=1)[:, -probes:]
        return np.take_along_axis(near, lists, 1), lists


def build_lists(sample: Vectors, blocks: Iterator[Vectors], lists: int, parts: int) -> Any:
    """FAISS's index of blocks of (n, dim) rows, with codes of so many parts; `sample` are some of
    the rows, evenly chosen.
    """
    dim = sample.shape[1]
    some = sample[:: -(-len(sample) // _ANALYSED)]
    spread = some - some.mean(axis=0)
    directions = np.linalg.eigh(spread.T @ spread)[1][:, ::-1]  # variance falling
    leading = min(dim, max(_LEADING, dim // 4))
    order = _balanced(dim, parts)
    turn = np.ascontiguousarray(directions[:, order], np.float32)  # (dim, dim)
    first = np.argsort(order)[:leading]  # where the leading directions are after it
    lists = min(lists, len(sample))
    step = -(-len(sample) // min(_MOST_TRAINED_ON, PER_LIST * lists))
    means: Any = faiss.Kmeans(
        leading, lists, niter=ROUNDS, seed=1, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )  # fmt: skip
    # products by FAISS's BLAS, which shares its threads: those of numpy's would spin beside
    rotation, leading_ones = _transform(turn.T), _transform(turn[:, first].T)
    rotation.is_orthonormal = True
    means.train(leading_ones.apply(np.ascontiguousarray(sample[::step])))
    centres = np.zeros((lists, dim), np.float32)
    centres[:, first] = means.centroids

    def placed(rows: Vectors) -> tuple[Positions, Vectors]:
        """(n,) lists of (n, dim) rows, and what is left of the turned rows there."""
        turned = rotation.apply(np.ascontiguousarray(rows))
        own = np.ascontiguousarray(turned[:, first])
        near = faiss.knn(own, means.centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)[1].ravel()
        turned[:, first] -= means.centroids[near]
        return near, turned

    book = Codebook(placed(some)[1], parts)
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centres)
    # into lists of plain codes: the packed ones, given their lists, hold nonsense (1.15.1)
    codes: Any = faiss.IndexIVFPQ(quantizer, dim, lists, parts, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq, codes.is_trained = book.quantizer, True
    bytes_of_list, start = codes.coarse_code_size(), 0
    for block in blocks:
        near, left = placed(block)
        named = near.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :bytes_of_list]
        ids = np.arange(start, start + len(block))
        codes.add_sa_codes(np.concatenate([named, book.codes(left)], axis=1), ids)
        start += len(block)
    packed = faiss.IndexIVFPQFastScan(codes)
    packed.orig_invlists = None  # of which nothing is looked at any more
    codes.replace_invlists(faiss.ArrayInvertedLists(lists, codes.code_size))
    found: Any = faiss.IndexPreTransform(rotation, packed)
    found.referenced_objects = [rotation, packed, quantizer]
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
