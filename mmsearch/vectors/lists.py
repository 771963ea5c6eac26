"""Rows in lists about centres, found by 4-bit codes of what is left of them.

Centres differ in the directions in which rows vary most, a quarter of all: what the rest adds to a
product is nearly the same for every centre, and to train, to sort rows into lists and to choose a
query's lists costs a quarter. Codes have directions of their own (`directions.py`); what they find
is scored again from whole rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.centres import Centres, gather
from mmsearch.vectors.codebook import Codebook
from mmsearch.vectors.directions import coded, principal
from mmsearch.vectors.faiss import faiss, shared_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

    Positions = NDArray[np.int64]

_ANALYSED = 8192  # rows whose variance is looked at, at most
# FAISS's way through the lists that keeps the best of a query in a reservoir, one query after the
# other: four fifths of the time of heaps, or of all queries of a list at once
_RESERVOIRS = 11
_LEADING = 64  # directions in which centres differ, at least
_ALL = 2**30  # beyond any product with a centre
# Nanoseconds that a list takes, a byte of codes, and a row that is scored, with each of its bytes,
# and with its page where that has to be mapped first: measured one by one on a processor with
# AVX-512. What counts is how they compare.
_PER_LIST, _PER_BYTE, _PER_SCORED, _PER_BYTE_SCORED, _PER_PAGE = 100.0, 0.055, 30.0, 0.25, 1500.0


class Lists:
    """An index of these lists. A query looks at those whose centres' products with it lie within
    `gap` of the highest: at one list or at hundreds, as it needs (query-aware pruning; Chen et al.,
    "SPANN: Highly-efficient Billion-scale Approximate Nearest Neighbor Search", 2021).
    """

    def __init__(self, index: Any) -> None:
        self._index = index  # owns what is looked at below
        self.gap = np.inf  # all of them, until it is set
        self._turn = _itself(faiss.downcast_VectorTransform(index.chain.at(0)))
        self.inner = _itself(faiss.downcast_index(index.index))
        self.inner.implem = _RESERVOIRS
        quantizer = _itself(faiss.downcast_index(self.inner.quantizer))
        self._leading = self._turn.d_out - self.inner.d
        self._centres = Centres(quantizer.reconstruct_n(0, self.inner.nlist)[:, : self._leading])

    @cached_property
    def _sizes(self) -> Positions:
        """(lists,) how many rows each holds: asked for by what tunes, by no search."""
        held = self.inner.invlists
        return np.array([held.list_size(number) for number in range(self.inner.nlist)])

    def search(self, queries: Vectors, k: int) -> tuple[Scores, Positions]:
        """(q, k) scores by codes, short of a constant of each query, and positions; -1 where there
        are fewer.
        """
        turned = self._turn.apply(queries)
        near, lists = self._nearest(turned)
        turned = np.ascontiguousarray(turned[:, self._leading :])
        scores, places = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), int)
        # of as many lists as these queries need: not so by its Python method
        how: Any = faiss.SearchParametersIVF()
        how.nprobe = lists.shape[1]
        self.inner.search_preassigned_c(
            len(queries), faiss.swig_ptr(turned), k, faiss.swig_ptr(lists), faiss.swig_ptr(near),
            faiss.swig_ptr(scores), faiss.swig_ptr(places), False, how,
        )  # fmt: skip
        return scores, places

    def gaps(self, queries: Vectors, places: Positions) -> NDArray[np.float32]:
        """(q, k) gaps from which on (q, dim) queries look at the lists of rows at (q, k)."""
        lists = np.empty(self.inner.ntotal, np.int64)
        for number, size in enumerate(self._sizes):
            if size:
                ids = self.inner.invlists.get_ids(number)
                lists[faiss.rev_swig_ptr(ids, int(size))] = number
        near, units = self._centres.products(self._turn.apply(queries)[:, : self._leading])
        behind = near.max(axis=1, keepdims=True) - np.take_along_axis(near, lists[places], 1)
        found: NDArray[np.float32] = behind * units
        return found

    def cost(self, queries: Vectors, chosen: int, paged: bool) -> float:
        """Nanoseconds of a query, on average, that chooses so many rows, `paged` where their pages
        do not stay in memory: counted, not timed, so that nothing else on a machine has a say in
        what an index is set to.
        """
        near, _, least = self._within(self._turn.apply(queries))
        on = near >= least
        codes = (on @ self._sizes).mean() * self.inner.pq.M / 2
        each = _PER_SCORED + _PER_BYTE_SCORED * self._turn.d_in + _PER_PAGE * paged
        return float(on.sum(axis=1).mean() * _PER_LIST + codes * _PER_BYTE + chosen * each)

    def _within(self, turned: Vectors) -> tuple[NDArray[np.int32], Vectors, NDArray[np.int32]]:
        """(q, lists) products with all centres, in units that are (q, 1), and the (q, 1) least
        of a list that is looked at.
        """
        near, units = self._centres.products(turned[:, : self._leading])
        gap = np.minimum(self.gap / units, _ALL).astype(np.int32)
        return near, units, near.max(axis=1, keepdims=True) - gap

    def _nearest(self, turned: Vectors) -> tuple[Scores, Positions]:
        """(q, m) products with the centres within the gap, falling, and their lists; the highest
        and -1 behind them.
        """
        near, units, least = self._within(turned)
        query, lists = np.divmod(np.flatnonzero(near >= least), near.shape[1])
        products = near[query, lists]
        # falling, query by query: what the nearest lists hold leaves out most of the rest
        order = np.argsort((query << 33) - products)
        products = (products[order] * units[query, 0]).astype(np.float32)
        count = np.bincount(query, minlength=len(near))
        first = np.cumsum(count) - count
        at = np.arange(len(query)) - np.repeat(first, count)
        found = np.full((len(near), count.max()), -1)
        scores = np.repeat(products[first][:, None], count.max(), axis=1)
        found[query, at], scores[query, at] = lists[order], products
        return scores, found


def build_lists(
    sample: Vectors, blocks: Iterator[Vectors], lists: int, parts: int, queries: Vectors
) -> Any:
    """FAISS's index of blocks of (n, dim) rows, with codes of so many parts at most; `sample` are
    some of the rows, evenly chosen, and `queries` what may be asked, or none.
    """
    dim = sample.shape[1]
    each = dim // parts
    some = sample[:: -(-len(sample) // _ANALYSED)]
    leading = min(dim, max(_LEADING, dim // 4))
    first = principal(some)[1][:, :leading]  # (dim, leading)
    # products by FAISS's BLAS, which shares its threads: those of numpy's would spin beside
    means = gather(_transform(first).apply(sample), min(lists, len(sample)))
    centres = Centres(means)
    whole: Vectors = means @ first.T  # (lists, dim)
    left: Vectors = some - whole[centres.nearest(some @ first)]
    of_rows, of_queries = coded(left, some, queries, parts, each, leading)
    book = Codebook(left @ of_rows, of_rows.shape[1] // each)
    held: Vectors = whole @ of_rows
    coder = _Coder(centres, book, np.hstack([first, of_rows]), held)
    return _filled(coder, blocks, means, np.hstack([first, of_queries]))


class _Coder:
    """Which list rows belong to, and what of them is coded there."""

    def __init__(self, centres: Centres, book: Codebook, turn: Vectors, held: Vectors) -> None:
        """`turn` are the (dim, leading + kept) directions of centres and of codes, `held` the
        (lists, kept) that a list has of what is coded.
        """
        self.book = book
        self._centres, self._turn, self._held = centres, _transform(turn), held

    def coded(self, rows: Vectors) -> tuple[Positions, NDArray[np.uint8]]:
        """(n,) lists of (n, dim) rows, and their codes."""
        turned = self._turn.apply(np.ascontiguousarray(rows))
        leading = turned.shape[1] - self._held.shape[1]
        near = self._centres.nearest(turned[:, :leading])
        left = turned[:, leading:]
        left -= self._held[near]
        return near, self.book.codes(left)


def _filled(coder: _Coder, blocks: Iterator[Vectors], means: Vectors, asked: Vectors) -> Any:
    """FAISS's index of these rows in lists about (lists, leading) means; `asked` are the
    (dim, leading + kept) directions of queries.
    """
    book, (lists, leading) = coder.book.quantizer, means.shape
    kept = book.d
    quantizer = faiss.IndexFlatIP(kept)
    quantizer.add(np.pad(means, ((0, 0), (0, kept - leading))))
    # into lists of plain codes: the packed ones, given their lists, hold nonsense (1.15.1)
    codes: Any = faiss.IndexIVFPQ(quantizer, kept, lists, book.M, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq, codes.is_trained = book, True
    bytes_of_list, start = codes.coarse_code_size(), 0
    for block in blocks:
        near, found = shared_out(coder.coded, block)
        named = near.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :bytes_of_list]
        ids = np.arange(start, start + len(block))
        codes.add_sa_codes(np.concatenate([named, found], axis=1), ids)
        start += len(block)
    packed = faiss.IndexIVFPQFastScan(codes)
    packed.orig_invlists = None  # of which nothing is looked at any more
    codes.replace_invlists(faiss.ArrayInvertedLists(lists, codes.code_size))
    whole: Any = faiss.IndexPreTransform(packed)
    last = np.arange(leading, leading + kept, dtype=np.int32)
    picked: Any = faiss.RemapDimensionsTransform(leading + kept, kept, faiss.swig_ptr(last))
    turn = _transform(asked)
    whole.prepend_transform(picked)
    whole.prepend_transform(turn)
    whole.referenced_objects = [turn, picked, packed, quantizer]
    return whole


def description(index: Any) -> str:
    """What a factory string would say of an index of `build_lists`."""
    lists = _itself(faiss.downcast_index(index.index))
    return f"OPQ{lists.pq.M}_{lists.d},IVF{lists.nlist},PQ{lists.pq.M}x4fsr"


def _transform(directions: Vectors) -> Any:
    """What gives the (n, m) products of (n, dim) vectors with (dim, m) directions."""
    dim, count = directions.shape
    found: Any = faiss.LinearTransform(dim, count, False)
    faiss.copy_array_to_vector(directions.T.astype(np.float32).ravel(), found.A)
    found.is_trained = True
    return found


def _itself(found: Any) -> Any:
    """What FAISS's stubs know too little of."""
    return found
