"""FAISS as the search engine, over the same mapped matrix.

FAISS is handed the mapped rows as they are: nothing is copied, no index file of its own
is written, and so no damaged one can be read (faiss.read_index accepted a quarter of
damaged files and answered wrongly).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import MissingExtra
from mmsearch.vectors.exact import ExactStore, few
from mmsearch.vectors.rounded import hands

try:
    import faiss
except ImportError as error:
    raise MissingExtra("the FAISS store", "cpu") from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors.matrix import Matrix

__all__ = [
    "FaissStore",
    "faiss",
    "multiply_matrices",
    "read_from",
    "shared_out",
    "threads",
    "written_by",
]

# Queries that are multiplied one by one: a single one by FAISS takes two fifths of numpy's time,
# which a product of matrices has made up for from here on.
_ONE_BY_ONE = 4
# Queries from which on products of matrices cost less. FAISS 1.15 begins with 128,000 numbers in
# the queries: at 256 dimensions that is ten times slower between 20 queries and 500.
_MATRICES = 20
_SHARED = 2**17  # products that are worth a second thread
_LEAST = 2  # rows that are
read_from, written_by = faiss.ZeroCopyIOReader, faiss.PyCallbackIOWriter  # type: ignore[attr-defined]
_PRODUCTS = faiss.fvec_inner_products_ny  # type: ignore[attr-defined]  # its stubs lack this one


class FaissStore(ExactStore):
    """Exact search by FAISS's kernels, quicker than numpy on a single query."""

    def __init__(self, dim: int, base: Matrix | None = None) -> None:
        super().__init__(dim, base)
        multiply_matrices(dim)

    def _products(self, queries: Vectors, rows: Vectors) -> Scores:
        if len(queries) > _ONE_BY_ONE or not len(rows) or rows.dtype != np.float32:
            return super()._products(queries, rows)
        near, rows = np.ascontiguousarray(queries), np.ascontiguousarray(rows)
        products = np.empty((len(near), len(rows)), np.float32)
        for query, row in zip(near, products, strict=True):
            _PRODUCTS(
                faiss.swig_ptr(row), faiss.swig_ptr(query), faiss.swig_ptr(rows), self.dim,
                len(rows),
            )  # fmt: skip
        return products

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if rows.dtype != np.float32:
            return super()._nearest(queries, rows, k, keep)
        near = np.ascontiguousarray(queries)
        if few(keep, len(rows)):
            scores, positions = self._nearest(queries, rows[keep], k, None)
            return scores, keep[positions]
        # one more than asked: when the last two tie, a third of the same score may be missing
        size = len(rows) if keep is None else len(keep)
        more = min(k + 1, size)
        scores = np.empty((len(near), more), np.float32)
        positions = np.empty((len(near), more), np.int64)
        mask = None
        if keep is not None:
            mask = np.zeros(len(rows), bool)
            mask[keep] = True
            mask = np.packbits(mask, bitorder="little")
        with threads(len(near), len(near) * len(rows)):
            faiss.knn_inner_product(
                faiss.swig_ptr(near), faiss.swig_ptr(rows), self.dim, len(near), len(rows), more,
                faiss.swig_ptr(scores), faiss.swig_ptr(positions),
                None if mask is None else faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(mask)),
            )  # fmt: skip
        order = np.lexsort((positions, -scores), axis=1)[:, :k]
        best, places = np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)
        if more > k and np.any(tied := scores[:, k] == scores[:, k - 1]):
            best[tied], places[tied] = super()._nearest(near[tied], rows, k, keep)
        return best, places


def multiply_matrices(dim: int) -> None:
    """Let FAISS multiply matrices where there are queries enough."""
    most = faiss.cvar.distance_compute_blas_threshold  # 20 before 1.15, which counts queries
    faiss.cvar.distance_compute_blas_threshold = min(most, _MATRICES * dim)


@contextmanager
def threads(queries: int, products: int = _SHARED) -> Iterator[None]:
    """FAISS shares queries out, not rows: threads beyond their number only spin and wait, and so
    does one that waits for the other with a few products.
    """
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(max(1, min(queries if products >= _SHARED else 1, usual)))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(usual)


def shared_out(look: Callable[..., tuple[Any, ...]], *rows: Any) -> tuple[Any, ...]:
    """What `look` finds of rows, and of what goes with each of them; every thread looks at some of
    them, and FAISS and its BLAS wake no others for these.
    """

    def alone(*some: Any) -> tuple[Any, ...]:
        with threads(1):
            return look(*some)

    shares = min(os.cpu_count() or 1, len(rows[0]) // _LEAST)
    if shares < 2:
        return alone(*rows)
    split = (np.array_split(each, shares) for each in rows)
    return tuple(map(np.concatenate, zip(*hands().map(alone, *split), strict=True)))
