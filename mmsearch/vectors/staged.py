"""Search in stages: codes choose what bytes are looked at, and bytes what rows are.

Product quantisation with 4-bit codes, compared in registers (FAISS's fast scan; André et al.,
"Quicker ADC", 2018), passes over every row or over the nearest lists; the best of what it finds is
scored from the rounded rows, and the best of those from the rows themselves. Few rows that lists
give are scored from themselves at once, where all may stay in memory. Many queries at once, and few
rows that a filter keeps, begin with products of all rounded rows.

What a stage leaves out is judged by its own errors: when the k-th answer lies so near to the cut
that a row beyond it could have done better, the query is asked again of all rounded rows, with ever
wider cuts, and in the end, of rows that are all alike, against every row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.cards import CardLists
from mmsearch.vectors.faiss import FaissStore, faiss, read_from, shared_out, threads
from mmsearch.vectors.kernels import products_at
from mmsearch.vectors.lists import Lists
from mmsearch.vectors.planning import Engine
from mmsearch.vectors.scanning import scan
from mmsearch.vectors.tuning import K, set_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors.codes import IndexFile
    from mmsearch.vectors.matrix import Matrix

    Positions = NDArray[np.int64]
    # (q,) whether that is all, (q, m) scores and (q, m) positions
    Found = tuple[NDArray[np.bool_], Scores, Positions]

_FINALISTS = 40  # rows that are scored exactly, at least; and
_BEYOND = 128  # beyond k so many, or three times k where that is less
_CHOSEN = 680  # rows that codes choose, and
_COARSE = 8  # more for each that is scored exactly
_SPARE = 6  # finalists beyond k where recall is measured, not proved
_WIDER = 8  # times the finalists when a cut was too near
# Standard deviations of a stage's error between the k-th answer and its cut. Errors of codes have
# longer tails than a normal distribution where rows lie in clusters: at 3.5, two of 1,200 answers
# to pictures among a million were missed.
_SURE = 4.5
_TOGETHER = 12  # queries from which on products of all rounded rows cost less than codes
_MOST = 20  # codes look at every row: for less than one in so many, bytes are gathered instead
_GATHERED = 2048  # rows that are gathered at a time: they stay in a core's own memory
# Bytes of a file's rows that may all stay in memory: of rows as they are, and rounded
_STAY, _ROUNDED_STAY = 2**27, 2**30
_READ = 2048  # rows of more than that read by position before their pages are given back
_HELD = 2**23  # numbers of the rows that a filter keeps, held when it is asked for again: 32 MB
_AT_ONCE = 4096  # rows that a filter keeps: so few are multiplied by many queries as they are


class StagedStore(FaissStore):
    """A matrix with its index, and rows added since in memory."""

    def __init__(self, matrix: Matrix, index: IndexFile, codes: Any = None) -> None:
        """`codes` are FAISS's index, where it is at hand. An index file without any is searched
        by its rounded rows.
        """
        super().__init__(matrix.rows.vectors.shape[1], matrix)
        self.plan = index.plan
        self._base = matrix.rows.vectors
        self._rounded = index.rounded
        if codes is None and len(index.faiss):
            read: Any = read_from(faiss.swig_ptr(index.faiss), len(index.faiss))
            codes = faiss.read_index(read)
            index.release()
        self.codes = codes
        self.first: Any = codes  # what is searched first
        if codes is not None and self.plan.engine is Engine.PARTITIONED:
            self.first = Lists(codes)
        elif codes is not None and self.plan.engine is Engine.GPU_LISTS:
            self.first = CardLists(codes)
        self.set_up(index.settings)
        self.coarse = int(index.settings.get("coarse", 0))  # 0: what is exact enough
        self._masked: tuple[Positions, NDArray[np.bool_]] | None = None
        self._filter: tuple[Positions, Vectors | None] | None = None  # the last, and its rows
        self._pages = _Pages(matrix.release, matrix.rows.vectors.nbytes > _STAY)
        self._rounded_pages = _Pages(index.release, index.rounded.rows.nbytes > _ROUNDED_STAY)

    def _nearest(
        self, queries: Vectors, rows: Vectors, k: int, keep: Positions | None
    ) -> tuple[NDArray[np.float32], Positions]:
        if rows is not self._base:
            return super()._nearest(queries, rows, k, keep)
        few = len(queries) < _TOGETHER or (keep is not None and len(keep) <= _AT_ONCE)
        held = self._held(keep) if keep is not None and few else None
        if keep is not None and held is not None:
            scores, places = super()._nearest(queries, held, k, None)
            return scores, keep[places]
        size = len(rows) if keep is None else len(keep)
        scores = np.empty((len(queries), k), np.float32)
        places = np.empty((len(queries), k), np.int64)
        left, again = np.arange(len(queries)), False
        finalists = k + _SPARE
        if self._exactly_asked(keep):
            finalists = max(_FINALISTS, k + min(3 * k, _BEYOND))
        while len(left):
            if finalists * 4 >= size:
                scores[left], places[left] = super()._nearest(queries[left], rows, k, keep)
                break
            near = np.ascontiguousarray(queries[left])
            sure, values, found = self._once(near, k, finalists, keep, again)
            scores[left], places[left] = values, found
            left, again = left[~sure], True
            finalists *= _WIDER
        return scores, places

    def set_up(self, settings: Mapping[str, float]) -> None:
        """Give what is searched first its settings, as `tune` found them."""
        if "gap" in settings:
            self.first.gap = np.float32(settings["gap"])
        set_up(self.codes, settings)

    @property
    def paged(self) -> bool:
        """Whether the pages of rounded rows that codes choose are mapped anew for each query."""
        return self._rounded_pages.many

    def chosen(self, queries: Vectors, count: int) -> Positions:
        """(q, m) positions that codes choose, falling by their scores; -1 where there are fewer."""
        with threads(len(queries)):
            places: Positions = self.first.search(queries, min(len(self._base), count))[1]
        return places

    def _once(
        self, queries: Vectors, k: int, finalists: int, keep: Positions | None, again: bool
    ) -> Found:
        """What is found by one pass; asked `again`, codes were not sure."""
        exactly, filtered = self._exactly_asked(keep), self._filtered(keep)
        few = keep is not None and len(keep) * _MOST < len(self._base)
        whole = exactly and len(queries) >= _TOGETHER
        whole = whole or (filtered and (few or not self.plan.exact))
        exactly_at = partial(products_at, self._base)

        def finish(queries: Vectors, approximate: Scores, found: Positions) -> Found:
            exact = self._each(exactly_at, self._pages, queries, found)
            exact[found < 0] = -np.inf
            if not exactly:  # else ties are broken by position
                exact, found = _highest(exact, found, k + _SPARE)
            order = np.lexsort((found, -exact), axis=1)[:, :k]
            scores = np.take_along_axis(exact, order, 1)
            places = np.take_along_axis(found, order, 1)
            if exactly:
                return _clear(scores[:, -1], approximate, exact), scores, places
            return places[:, -1] >= 0, scores, places

        if whole or again or self.first is None:
            if keep is None and len(queries) < _TOGETHER:
                return shared_out(finish, queries, *scan(self._rounded, queries, finalists))
            best = self._rounded.best(queries, finalists, keep)
            return shared_out(finish, queries, *best)
        size = len(self._base)
        kept = size if keep is None else len(keep)
        if self.coarse:
            wanted = max(finalists, self.coarse + _COARSE * max(0, k - K))
        else:
            wanted = max(_CHOSEN + _COARSE * finalists, kept // 400)
        chosen = min(size, round(wanted * size / kept))
        mask = None if keep is None else self._mask(keep)

        def look(queries: Vectors, *codes: Any) -> Found:
            told, near = codes or self.first.search(queries, chosen)
            told, near = _kept(told, near, mask, wanted)
            if not self.plan.exact and not self._pages.many:
                return finish(queries, told, near)
            sure, told, near = self._by_bytes(queries, told, near, k, finalists)
            enough, scores, places = finish(queries, told, near)
            return sure & enough, scores, places

        # a card is asked for all of them at once
        on_card = self.plan.engine is Engine.GPU_LISTS
        codes = self.first.search(queries, chosen) if on_card else ()
        return shared_out(look, queries, *codes)

    def _by_bytes(
        self, queries: Vectors, told: Scores, places: Positions, k: int, finalists: int
    ) -> Found:
        """Whether codes, which told (q, m) scores and positions, saw enough; of those, the
        finalists by rounded rows.
        """
        scores = self._each(self._rounded.scores, self._rounded_pages, queries, places)
        scores[places < 0] = -np.inf
        sure = np.ones(len(queries), bool)
        if self.plan.exact:
            sure = _clear(-np.partition(-scores, k - 1, axis=1)[:, k - 1], told, scores)
        return sure, *_highest(scores, places, finalists)

    def _filtered(self, keep: Positions | None) -> bool:
        """Whether these are what a filter keeps: rows that were removed are no filter."""
        return keep is not None and keep is not self._blocks[0].positions(None)

    def _exactly_asked(self, keep: Positions | None) -> bool:
        """Whether every row must be looked at: what a filter keeps is found exactly by any plan."""
        return self.plan.exact or self._filtered(keep)

    @staticmethod
    def _each(
        products: Callable[[Vectors, Positions], Scores],
        pages: _Pages,
        queries: Vectors,
        places: Positions,
    ) -> Scores:
        """(q, m) products with the rows at (q, m) positions, some queries at a time; of the first
        row where there is none.
        """
        places = np.maximum(places, 0)
        found = np.empty(places.shape, np.float32)
        share = max(1, pages.at_once // places.shape[1])
        for start in range(0, len(queries), share):
            mine = slice(start, start + share)
            found[mine] = products(queries[mine], places[mine])
            pages.read(places[mine].size)
        return found

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
            self._pages.read(len(keep))
        return rows


def _kept(
    told: Scores, places: Positions, mask: NDArray[np.bool_] | None, wanted: int
) -> tuple[Scores, Positions]:
    """Of (q, m) scores and positions, the first that the mask keeps, so many at most; -inf and -1
    where there are fewer.
    """
    gone = places < 0
    if mask is not None:
        gone |= ~mask[places]
        first = np.argsort(gone, axis=1, kind="stable")[:, :wanted]
        told, places = np.take_along_axis(told, first, 1), np.take_along_axis(places, first, 1)
        gone = np.take_along_axis(gone, first, 1)
    return np.where(gone, -np.inf, told), np.where(gone, -1, places)


def _highest(scores: Scores, places: Positions, count: int) -> tuple[Scores, Positions]:
    """Of (q, m) scores and positions, so many with the highest, in no order, or all of them."""
    if scores.shape[1] <= count:
        return scores, places
    best = np.argpartition(scores, -count, axis=1)[:, -count:]
    return np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)


class _Pages:
    """Pages of a mapped file: of rows that are read by position, they stay only for a while. A
    system that keeps files in large pieces maps half a megabyte for each.
    """

    def __init__(self, release: Callable[[], None], many: bool) -> None:
        """`many`: there are more of them than may all stay."""
        self._release, self.many = release, many
        self._rows = 0
        self.at_once = _READ // 8 if many else _GATHERED  # rows that may be read

    def read(self, rows: int) -> None:
        """So many rows were."""
        self._rows += rows
        if self.many and self._rows > _READ:
            self._release()
            self._rows = 0


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
