"""Rows in whole numbers of 8 bits: a quarter of the memory, and products by the quickest units.

A row x is kept as round((x - mean) / step) + 128 in a byte; one step for all. An inner product
with a query is step * (byte - 128) . query + mean . query, and what does not depend on the row
changes no order. Many queries are rounded as well and multiplied by ONNX Runtime's
MatMulInteger, which uses VNNI or AMX where the processor has it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.kernels import multiplied

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

    Bytes = NDArray[np.uint8]
    Positions = NDArray[np.int64]

_ZERO = 128
BLOCK = 2048  # rows multiplied at a time: with 256 queries, 2 MB of products
_SAMPLE = 16_384  # rows that say beforehand what is worth a second look
_PENDING = 200  # finalists a query that wait before the best of them are sorted out


class Rounded:
    """(n, dim) bytes, the mean that was taken off, and the step."""

    def __init__(self, rows: Bytes, mean: Vectors, step: float) -> None:
        self.rows, self.mean, self.step = rows, mean, step

    def scores(self, queries: Vectors, positions: Positions) -> Scores:
        """(q, m) products of (q, dim) queries with the rows at (q, m), both sides rounded."""
        near = self.rows.take(positions.ravel(), axis=0).reshape(*positions.shape, -1)
        rounded, scales = whole_numbers(queries)
        products = multiplied(near, rounded[:, :, None])[:, :, 0]  # one product each, in a batch
        return self._scaled(products, queries, rounded, scales)

    def beside(self, queries: Vectors, sums: Vectors) -> Vectors:
        """(q, 1) what products of (q, dim) queries with the bytes lack, once they are scaled; (q,)
        `sums` are of the queries as they were multiplied.
        """
        lacks: Vectors = queries @ self.mean - self.step * _ZERO * sums
        return lacks[:, None]

    def best(
        self, queries: Vectors, k: int, keep: Positions | None = None
    ) -> tuple[Scores, Positions]:
        """(q, k) highest products, both sides rounded, and their positions, in no order.

        `keep` are the positions to look at, more than k.
        """
        size = len(self.rows) if keep is None else len(keep)
        whole = _Whole(self.rows, queries, k, keep, size)
        blocks = range(0, size, BLOCK)
        threads = max(1, min(os.cpu_count() or 1, len(blocks)))
        shares = [blocks[start::threads] for start in range(threads)]
        found = list(hands().map(whole.run, shares) if threads > 1 else map(whole.run, shares))
        line, places, products = (np.concatenate(parts) for parts in zip(*found, strict=True))
        at = _highest(line, products, len(queries), k)
        return self._scaled(products[at], queries, whole.queries.T, whole.scales), places[at]

    def _scaled(
        self, products: NDArray[np.int32], queries: Vectors, rounded: NDArray[np.int8],
        scales: Vectors,
    ) -> Scores:  # fmt: skip
        """(q, m) scores, of (q, m) products of bytes with rounded queries."""
        sums = rounded.sum(axis=1, dtype=np.int64) * scales
        scores: Scores = products * (self.step * scales)[:, None] + self.beside(queries, sums)
        return scores.astype(np.float32)


def round_rows(blocks: Iterable[Vectors], mean: Vectors, step: float) -> Iterable[Bytes]:
    """The bytes of float32 rows, block by block; no row lies further than 127 steps away."""
    for block in blocks:
        away = block - mean
        away *= np.float32(1 / step)
        np.rint(away, out=away)
        away += _ZERO
        yield away.astype(np.uint8)


def step_of(blocks: Iterable[Vectors], mean: Vectors) -> float:
    """The step with which the farthest of all rows is 127 steps away from their mean."""
    farthest = 0.0
    for block in blocks:
        away = np.maximum(block.max(axis=0) - mean, mean - block.min(axis=0))
        farthest = max(farthest, float(away.max()))
    return farthest / 127 or 1.0


@functools.cache
def hands() -> ThreadPoolExecutor:
    """Threads that stay: on a busy machine, new ones wait for longer than their work takes. They
    are not to multiply by BLAS, whose own threads would spin beside them.
    """
    return ThreadPoolExecutor(os.cpu_count() or 1, "mmsearch")


class _Whole:
    """Rounded queries on their way over all rows; what a thread does with its blocks."""

    def __init__(
        self, rows: Bytes, queries: Vectors, k: int, keep: Positions | None, size: int
    ) -> None:
        self._rows, self._k, self._keep, self._size = rows, k, keep, size
        rounded, self.scales = whole_numbers(queries)
        self.queries = np.ascontiguousarray(rounded.T)  # (dim, q)
        self._floor = np.full(len(queries), np.iinfo(np.int32).min, np.int32)
        groups, count = 2 * k, min(_SAMPLE, size // 24)
        each = min(BLOCK, count) // groups
        if each:
            # the k-th of a sample lies at or below the k-th of all, and the k-th of the highest
            # of its groups at or below that; `groups` of them come from every block of the sample
            sample = np.linspace(0, size - 1, count).astype(np.int64)
            tops = [
                self._products(sample[start : start + groups * each])
                .reshape(groups, each, -1)
                .max(axis=1)
                for start in range(0, count - groups * each + 1, groups * each)
            ]
            self._floor = np.partition(np.concatenate(tops), -k, axis=0)[-k]

    def run(self, starts: Iterable[int]) -> tuple[Positions, Positions, NDArray[np.int32]]:
        """(queries, positions, products) of what may be among the k best of these blocks."""
        count = len(self._floor)
        floor = self._floor.copy()
        empty = np.empty(0, np.int64)
        found: list[tuple[Any, ...]] = [(empty, empty, np.empty(0, np.int32))]
        pending, limit = 0, (_PENDING + 4 * self._k) * count
        for start in starts:
            products = self._products(slice(start, min(start + BLOCK, self._size)))
            hits = np.flatnonzero(products >= floor)
            row, query = np.divmod(hits, count)
            found.append((query, row + start, products.ravel()[hits]))
            pending += len(hits)
            if pending > limit:
                found = [self._sorted_out(found, floor)]
                pending = len(found[0][0])
        queries, places, products = (np.concatenate(part) for part in zip(*found, strict=True))
        return queries, places if self._keep is None else self._keep[places], products

    def _sorted_out(self, found: list[tuple[Any, ...]], floor: NDArray[np.int32]) -> Any:
        """The k best of each query; the floor rises to the least of them."""
        queries, places, products = (np.concatenate(part) for part in zip(*found, strict=True))
        enough = np.bincount(queries, minlength=len(floor)) >= self._k
        at = _highest(queries, products, len(floor), self._k)
        least = products[at].min(axis=1)
        floor[enough] = np.maximum(floor[enough], least[enough])
        # of a query with too few, all: those it has stand in its line over and over
        at = np.unique(at)
        return queries[at], places[at], products[at]

    def _products(self, places: Any) -> NDArray[np.int32]:
        """(m, q) products of the rows at these places."""
        near = self._rows[places if self._keep is None else self._keep[places]]
        return multiplied(near, self.queries)


def whole_numbers(rows: Vectors) -> tuple[NDArray[np.int8], Vectors]:
    """(n, dim) rows in whole numbers up to 127, and (n,) what one of these stands for."""
    scales = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-30)) / 127
    return np.rint(rows / scales[:, None]).astype(np.int8), scales


def _highest(queries: Positions, products: NDArray[np.int32], count: int, k: int) -> Positions:
    """(count, k) where the highest products of each query stand, the last of fewer repeated."""
    order = np.argsort((queries << 33) - products)
    starts = np.searchsorted(queries[order], np.arange(count + 1))
    rank = np.minimum(np.arange(k), (starts[1:] - starts[:-1] - 1)[:, None])
    found: Positions = order[starts[:-1, None] + rank]
    return found
