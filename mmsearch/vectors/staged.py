"""Search in stages: codes choose what bytes are looked at, and bytes what rows are.

Product quantisation with 4-bit codes, compared in registers (FAISS's fast scan; André et al.,
"Quicker ADC", 2018), passes over every row or over the nearest lists; the best of what it finds is
scored from the rounded rows, and the best of those from the rows themselves. Many queries at once,
and few rows that a filter keeps, begin with products of all rounded rows.

What a stage leaves out is judged by its own errors: when the k-th answer lies so near to the cut
that a row beyond it could have done better, the query is asked again with a wider cut, and in the
end, of rows that are all alike, against every row.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import FaissStore, faiss, threads
from mmsearch.vectors.tuning import set_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors.codes import IndexFile
    from mmsearch.vectors.matrix import Matrix

    Positions = NDArray[np.int64]

_FINALISTS = 40  # rows that are scored exactly, at least; and four times k
_COARSE = 25  # times as many that codes choose
_WIDER = 8  # times the finalists when a cut was too near
_SURE = 3.5  # standard deviations of a stage's error between the k-th answer and its cut
_TOGETHER = 12  # queries from which on products of all rounded rows cost less than codes
_MOST = 20  # codes look at every row: for less than one in so many, bytes are gathered instead
_READ = 2048  # rows read by position before their pages are given back
_HELD = 2**23  # numbers of the rows that a filter keeps, held when it is asked for again: 32 MB


class StagedStore(FaissStore):
    """A matrix with its index, and rows added since in memory."""

    def __init__(self, matrix: Matrix, index: IndexFile) -> None:
        super().__init__(matrix.rows.vectors.shape[1], matrix)
        self.plan = index.plan
        self._matrix = matrix
        self._base = matrix.rows.vectors
        self._rounded = index.rounded
        self.codes: Any = faiss.deserialize_index(index.faiss)
        set_up(self.codes, index.settings)
        self.coarse = index.settings.get("coarse", 0)  # 0: what is exact enough
        self._masked: tuple[Positions, NDArray[np.bool_]] | None = None
        self._filter: tuple[Positions, Vectors | None] | None = None  # the last, and its rows
        self._read = 0

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: Positions | None
    ) -> tuple[NDArray[np.float32], Positions]:
        if rows is not self._base:
            return super()._nearest(queries, rows, k, keep)
        held = None if keep is None else self._held(keep)
        if keep is not None and held is not None:
            scores, places = super()._nearest(queries, held, k, None)
            return scores, keep[places]
        size = len(rows) if keep is None else len(keep)
        scores = np.empty((len(queries), k), np.float32)
        places = np.empty((len(queries), k), np.int64)
        left = np.arange(len(queries))
        finalists = max(_FINALISTS, 4 * k)
        while len(left):
            if finalists * 4 >= size:
                scores[left], places[left] = super()._nearest(queries[left], rows, k, keep)
                break
            near = np.ascontiguousarray(queries[left])
            sure, values, found = self._once(near, k, finalists, keep)
            scores[left], places[left] = values, found
            left = left[~sure]
            finalists *= _WIDER
        return scores, places

    def _once(
        self, queries: Vectors, k: int, finalists: int, keep: Positions | None
    ) -> tuple[NDArray[np.bool_], Scores, Positions]:
        """(q,) whether that is all, (q, k) scores and (q, k) positions."""
        # what a filter keeps is found exactly by any plan; rows that were removed are no filter
        filtered = keep is not None and keep is not self._blocks[0].positions(None)
        exactly = self.plan.exact or filtered
        few = keep is not None and len(keep) * _MOST < len(self._base)
        if (filtered and (few or not self.plan.exact)) or (exactly and len(queries) >= _TOGETHER):
            approximate, found = self._rounded.best(queries, finalists, keep)
            sure = np.ones(len(queries), bool)
        else:
            approximate, found, sure = self._by_codes(queries, k, finalists, keep)
        exact = self._exactly(queries, found)
        kth = -np.partition(-exact, k - 1, axis=1)[:, k - 1]
        order = np.lexsort((found, -exact), axis=1)[:, :k]
        sure &= _clear(kth, approximate, exact)
        if not exactly:
            sure |= (found >= 0).sum(axis=1) >= k
        return sure, np.take_along_axis(exact, order, 1), np.take_along_axis(found, order, 1)

    def _by_codes(
        self, queries: Vectors, k: int, finalists: int, keep: Positions | None
    ) -> tuple[Scores, Positions, NDArray[np.bool_]]:
        """(q, m) scores by rounded rows and positions, and (q,) whether codes saw enough."""
        size = len(self._base)
        share = 1.0 if keep is None else len(keep) / size
        wanted = max(_COARSE * finalists, size // 400) if not self.coarse else self.coarse
        with threads(len(queries)):
            told, places = self.codes.search(queries, min(size, round(wanted / share)))
        alive = None if keep is None else self._mask(keep)
        approximate = np.full((len(queries), finalists), -np.inf, np.float32)
        found = np.full((len(queries), finalists), -1, np.int64)
        sure = np.ones(len(queries), bool)

        def look(number: int) -> None:
            cut = places[number] >= 0
            cut &= alive[places[number]] if alive is not None else True
            there, coarse = places[number][cut], told[number][cut]
            scores = self._rounded.scores(queries[number], there)
            if len(there) > finalists:
                best = np.argpartition(-scores, finalists)[:finalists]
            else:
                best = np.arange(len(there))
            found[number, : len(best)], approximate[number, : len(best)] = there[best], scores[best]
            if self.plan.exact and len(there) > k:
                kth = -np.partition(-scores, k - 1)[k - 1]
                sure[number] = _clear(kth[None], coarse[None], scores[None])[0]

        _each(look, len(queries))
        return approximate, found, sure

    def _exactly(self, queries: Vectors, found: Positions) -> Scores:
        """(q, m) products of the rows themselves at (q, m) positions; -inf where there is none."""
        exact = np.empty(found.shape, np.float32)

        def look(number: int) -> None:
            rows = self._base.take(np.maximum(found[number], 0), axis=0).astype(np.float32)
            exact[number] = rows @ queries[number]

        _each(look, len(queries))
        exact[found < 0] = -np.inf
        self._give_back(found.size)
        return exact

    def _mask(self, keep: Positions) -> NDArray[np.bool_]:
        if self._masked is None or self._masked[0] is not keep:
            mask = np.zeros(len(self._base), bool)
            mask[keep] = True
            self._masked = keep, mask
        return self._masked[1]

    def _held(self, keep: Positions) -> Vectors | None:
        """(m, dim) rows that a filter keeps, from the second time on that it is asked for; None
        where they would take too much memory.
        """
        if self._filter is None or self._filter[0] is not keep:
            self._filter = keep, None
            return None
        rows = self._filter[1]
        if rows is None and len(keep) * self.dim <= _HELD:
            rows = self._base.take(keep, axis=0).astype(np.float32)
            self._filter = keep, rows
            self._give_back(len(keep))
        return rows

    def _give_back(self, rows: int) -> None:
        """Pages of rows that were read by position stay in memory only for a while."""
        self._read += rows
        if self._read > _READ:
            self._matrix.release()
            self._read = 0


def _clear(kth: Scores, approximate: Scores, exact: Scores) -> NDArray[np.bool_]:
    """(q,) whether nothing below the least of (q, m) approximate scores can reach the k-th.

    The errors are known where the exact scores are; a row below the cut would need one that is
    `_SURE` deviations beyond their mean.
    """
    there = np.isfinite(exact) & np.isfinite(approximate)
    error = np.where(there, exact, 0) - np.where(there, approximate, 0)
    count = np.maximum(there.sum(axis=1), 1)
    mean = error.sum(axis=1) / count
    deviation = np.sqrt(np.where(there, (error - mean[:, None]) ** 2, 0).sum(axis=1) / count)
    least = np.where(there, approximate, np.inf).min(axis=1)
    clear: NDArray[np.bool_] = kth > least + mean + _SURE * deviation
    return clear


def _each(look: Any, count: int) -> None:
    """Do it for every query; many are shared out."""
    if count < 8:
        for number in range(count):
            look(number)
        return
    with ThreadPoolExecutor(faiss.omp_get_max_threads()) as pool:
        shares: Iterable[range] = (
            range(start, min(start + 16, count)) for start in range(0, count, 16)
        )
        list(pool.map(lambda share: [look(number) for number in share], shares))
