"""Exact search with numpy alone: the store every other one is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from mmsearch.records import Rows
from mmsearch.vectors.matrix import Matrix, open_matrix, write_matrix
from mmsearch.vectors.planning import Engine, Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Ids, Scores, Vectors

_FEW = 2  # queries
_GROUP = 64  # values of which the highest stands for all when the k highest are looked for
_BLOCK = 16_384  # rows copied at a time: 16 MB at 256 dimensions


class ExactStore:
    """Inner products with every row. A mapped base, and rows added since in memory."""

    def __init__(self, dim: int, base: Matrix | None = None) -> None:
        self.dim = dim
        self.plan = Plan(Engine.PLAIN, "", 1.0, 4 * dim)
        self._blocks: list[_Block] = []
        if base and len(base.rows.ids):
            self._blocks.append(_Block(base.rows.ids, base.rows.vectors))

    def __len__(self) -> int:
        return sum(block.alive for block in self._blocks)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """See VectorStore."""
        if len(ids) == 0:
            return
        last = self._blocks[-1] if self._blocks else None
        if last and len(last.ids) and ids[0] <= last.ids[-1]:
            raise ValueError(f"id {ids[0]} does not come after {last.ids[-1]}")
        if last and len(last.ids) < _BLOCK and last.alive == len(last.ids):
            # many small additions grow one block rather than a long list of them
            self._blocks[-1] = _Block(
                np.concatenate([last.ids, ids]), np.concatenate([last.rows, vectors])
            )
        else:
            self._blocks.append(_Block(np.asarray(ids), np.asarray(vectors, np.float32)))

    def remove(self, ids: Ids) -> None:
        """See VectorStore."""
        for block in self._blocks:
            block.remove(ids)

    def search(
        self, queries: Vectors, k: int, among: Ids | None = None
    ) -> tuple[NDArray[np.float32], Ids]:
        """See VectorStore."""
        found: list[tuple[NDArray[np.float32], Ids]] = []
        for block in self._blocks:
            keep = block.positions(among)
            size = len(block.ids) if keep is None else len(keep)
            if size and k > 0:
                scores, positions = self._nearest(queries, block.rows, min(k, size), keep)
                found.append((scores, block.ids[positions]))
        if not found:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if len(found) == 1:  # in order already, as ids rise with positions
            return found[0]
        scores = np.concatenate([s for s, _ in found], axis=1)
        ids = np.concatenate([i for _, i in found], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)

    def scores(self, queries: Vectors, among: Ids | None = None) -> tuple[Ids, Scores]:
        """See VectorStore."""
        found: list[tuple[Ids, Scores]] = []
        for block in self._blocks:
            keep = block.positions(among)
            if few(keep, len(block.ids)):
                found.append((block.ids[keep], self._products(queries, block.rows[keep])))
            else:
                ids, scores = block.ids, self._products(queries, block.rows)
                found.append((ids, scores) if keep is None else (ids[keep], scores[:, keep]))
        if len(found) == 1:
            return found[0]
        empty = np.empty((len(queries), 0), np.float32)
        return (
            np.concatenate([ids for ids, _ in found]) if found else np.empty(0, np.int64),
            np.concatenate([empty, *(scores for _, scores in found)], axis=1),
        )

    def _products(self, queries: Vectors, rows: Vectors) -> Scores:
        """(q, n) inner products."""
        if rows.dtype == np.float32:
            return multiplied(queries, rows)
        products = np.empty((len(queries), len(rows)), np.float32)
        for start in range(0, len(rows), _BLOCK):  # halves, a block of them made whole at a time
            part = slice(start, start + _BLOCK)
            products[:, part] = queries @ rows[part].astype(np.float32).T
        return products

    def save(self, path: str, generation: int, fingerprint: str) -> Matrix:
        """See VectorStore."""
        last = int(self._blocks[-1].ids[-1]) if self._blocks else 0
        pieces = (_bare(*piece) for block in self._blocks for piece in block.pieces())
        write_matrix(path, pieces, len(self), self.dim, generation, last, fingerprint)
        return open_matrix(path)

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores (q, k) and positions (q, k) of the best rows; ties by position."""
        if few(keep, len(rows)):
            scores, positions = self._nearest(queries, rows[keep], k, None)
            return scores, keep[positions]
        scores = ExactStore._products(self, queries, rows)  # (q, n)
        if keep is not None:
            left_out = np.ones(len(rows), bool)
            left_out[keep] = False
            scores[:, left_out] = -np.inf  # never among the k: k is at most len(keep)
        positions = np.stack([highest(row, k) for row in scores])
        return np.take_along_axis(scores, positions, 1), positions


def multiplied(queries: Vectors, rows: Vectors) -> Scores:
    """(q, n) inner products. Few queries stay in this thread: those of BLAS, once they are woken,
    wait for more work for longer than such a product takes, and burn a core meanwhile.
    """
    few = len(queries) <= _FEW
    products: Scores = np.einsum("qd,nd->qn", queries, rows) if few else queries @ rows.T
    return products


def few(keep: NDArray[np.int64] | None, rows: int) -> TypeGuard[NDArray[np.int64]]:
    """True when copying the kept rows costs less than scoring all of them."""
    return keep is not None and len(keep) * 8 < rows


def highest(values: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Where the k highest of (n,) values are, highest first, equal ones from left to right.

    -inf is never among them.
    """
    at = np.arange(len(values))
    if k < len(values):
        # k groups have a highest value of at least that of the k-th: so have k values, and few more
        groups = len(values) // _GROUP
        some = values[: groups * _GROUP].reshape(groups, -1).max(axis=1) if groups >= k else values
        at = np.flatnonzero(values >= np.partition(some, -k)[-k])
    at = at[values[at] > -np.inf]
    order: NDArray[np.int64] = at[np.lexsort((at, -values[at]))][:k]
    return order


def _bare(ids: Ids, vectors: Vectors) -> Rows:
    """Rows of a store, which does not know what they stand for."""
    return Rows(ids, vectors, np.zeros(len(ids), np.uint8), np.zeros(len(ids), np.float32))


class _Block:
    """Rows that lie together, ids rising, some of them perhaps removed."""

    def __init__(self, ids: Ids, rows: Vectors) -> None:
        self.ids = ids
        self.rows = rows
        self.alive = len(ids)
        self._mask: NDArray[np.bool_] | None = None  # True: can be found; None: all
        self._alive: NDArray[np.int64] | None = None  # positions by the mask, once asked for
        self._among: tuple[Ids, NDArray[np.int64]] | None = None  # the last, and its positions

    def remove(self, ids: Ids) -> None:
        positions = self._find(ids)
        if len(positions):
            if self._mask is None:
                self._mask = np.ones(len(self.ids), bool)
            self._mask[positions] = False
            self.alive = int(self._mask.sum())
            self._alive = self._among = None

    def positions(self, among: Ids | None) -> NDArray[np.int64] | None:
        """Positions that may be found, rising; None for all of them.

        The last `among` is remembered while it cannot be written to: a filter is asked for often.
        """
        if among is None:
            if self._mask is not None and self._alive is None:
                self._alive = np.flatnonzero(self._mask)
            return self._alive
        if self._among is not None and self._among[0] is among:
            return self._among[1]
        positions = self._find(among)
        positions = positions if self._mask is None else positions[self._mask[positions]]
        if not among.flags.writeable:
            self._among = among, positions
        return positions

    def pieces(self) -> list[tuple[Ids, Vectors]]:
        if self._mask is None:
            starts = range(0, len(self.ids), _BLOCK)
            return [(self.ids[s : s + _BLOCK], self.rows[s : s + _BLOCK]) for s in starts]
        return [(self.ids[self._mask], self.rows[self._mask])]

    def _find(self, ids: Ids) -> NDArray[np.int64]:
        if not len(self.ids):
            return np.empty(0, np.int64)
        wanted = np.asarray(ids, np.int64)
        # the catalog's come rising: to sort them again would cost more than the search
        if not np.all(wanted[1:] > wanted[:-1]):
            wanted = np.unique(wanted)
        positions = np.searchsorted(self.ids, wanted).clip(max=len(self.ids) - 1)
        found: NDArray[np.int64] = positions[self.ids[positions] == wanted]
        return found
