"""Setting an index so that it keeps what is promised, and measuring whether it does.

Queries of words lie far from all pictures, so that an index tuned with pictures finds far less for
words. It is tuned with words, to more than is promised, since fresh queries may find less than
those it was tuned on; half of the queries are kept fresh, and measured with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmsearch.vectors.faiss import faiss
from mmsearch.vectors.kernels import singles
from mmsearch.vectors.lists import Lists

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors import VectorStore
    from mmsearch.vectors.staged import StagedStore

    Positions = NDArray[np.int64]

K = 10
# Of what may be lost, a share that no tuning uses, and a hundredth at least: of a million rows, a
# thousand fresh texts found 0.013 less than the thousand that had set the index to 0.96.
_UNUSED, _LEAST_UNUSED = 0.3, 0.01
# Rows that codes choose: what they leave out is lost, and each costs a look at its bytes.
_CHOSEN = [
    *range(24, 96, 8), *range(96, 160, 16), *range(160, 320, 32), *range(320, 560, 40),
    *range(560, 800, 80), 800, 1130, 1600,
]  # fmt: skip
_FEWER = 4  # a first look takes one in so many queries
_ALL = slice(None)
# What lists may lose, of all that may be lost: codes and bytes lose the rest
_LOST = np.array([0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0])
_TIMED = 256  # queries whose cost is compared
_TOGETHER = 128  # queries whose chosen rows are compared at a time
_SINGLE = 100  # queries that are timed one by one
_BLOCK = 16_384
_ALIKE = 2e-6  # products of one row differ by as much, by the order of their terms


def aim(target: float) -> float:
    """The recall to tune to, so that fresh queries reach the target."""
    return min(1.0, target + max(_LEAST_UNUSED, _UNUSED * (1 - target)))


def set_up(index: Any, settings: Mapping[str, float]) -> None:
    """Give FAISS's index its settings: nprobe of lists, efSearch of a graph."""
    for name, value in settings.items():
        if name in ("nprobe", "efSearch"):
            faiss.ParameterSpace().set_index_parameter(index, name, value)


def knob(index: Any) -> tuple[str, list[float]]:
    """What trades time for recall in an index of FAISS, and its values, rising; nothing may."""
    inner = faiss.downcast_index(index)
    lists = faiss.try_extract_index_ivf(inner)
    if lists is not None:
        most = lists.nlist
        name = "nprobe"
    elif hasattr(inner, "hnsw"):
        most, name = 4096, "efSearch"
    else:
        return "", [0]
    steps = {round(2 ** (step / 4)) for step in range(4 * most.bit_length())}
    return name, sorted({value for value in steps if value < most} | {most})


class Truth(NamedTuple):
    """(q, k) highest products of all rows, falling, and their positions."""

    scores: Scores
    places: Positions

    def part(self, first: int, last: int) -> Truth:
        """That of some of the queries."""
        return Truth(self.scores[first:last], self.places[first:last])


def nearest(rows: Vectors, queries: Vectors, k: int = K) -> Truth:
    """The nearest of (n, dim) rows, each of them multiplied."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    places = np.full((len(queries), k), -1)
    for start in range(0, len(rows), _BLOCK):
        block = singles(rows[start : start + _BLOCK])
        some = min(k, len(block))
        more, found = faiss.knn(queries, block, some, metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, more], axis=1)
        places = np.concatenate([places, found + start], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, places = (np.take_along_axis(each, order, 1) for each in (scores, places))
    return Truth(scores, places)


def recall(scores: Scores, truth: Scores) -> float:
    """How many of (q, k) answers score no less than the k-th of (q, k) true ones.

    Rows that are alike are as good as each other: which of them was found is not counted.
    """
    return float((scores >= truth[:, -1:] - _ALIKE).sum() / truth.size)


def tune(store: StagedStore, queries: Vectors, truth: Truth, target: float) -> dict[str, float]:
    """The cheapest settings that reach the target with these queries, or the highest there are.

    Two things lose answers: lists that are not looked at, and rows of these that codes do not
    choose. One search tells for every number of chosen rows what would be found, by where codes
    rank the true answers. From the fewest lists with which all that codes may choose would do,
    more lists are tried with ever fewer rows, until a search costs more.
    """
    most = _CHOSEN[-1]

    def shares(value: float, part: slice = _ALL) -> list[float]:
        """Of the true answers, those that codes would choose, by how many they choose."""
        store.set_up({name: value})
        ranks = _ranks(store, queries[part], truth.places[part], most)
        return [float((ranks < count).mean()) for count in _CHOSEN if count <= most]

    if isinstance(store.first, Lists):
        # what is lost by lists is known without a search
        gaps, lost = store.first.gaps(queries, truth.places), (1 - target) * _LOST
        name, values = "gap", [float(gap) for gap in np.quantile(gaps, 1 - lost)]
    else:
        name, values = knob(store.codes)
        some = slice(None, None, _FEWER)
        fewest = _least(values, lambda value: shares(value, some)[-1] >= target)
        values = values[values.index(fewest) :]
    best, cheapest = (len(values) - 1, most), np.inf
    for place, value in enumerate(values):
        enough = [share >= target for share in shares(value)]
        if not any(enough):
            continue
        store.coarse = most = _CHOSEN[enough.index(True)]
        cost = _cost(store, queries[:_TIMED])
        if cost > cheapest:
            break
        best, cheapest = (place, store.coarse), cost

    def reached(value: float) -> bool:
        store.set_up({name: value})
        return recall(store.search(queries, K)[0], truth.scores) >= target

    at, store.coarse = best
    found = values[at]
    if not reached(found):  # by what bytes left out, or because fewer were asked of a graph
        store.coarse = _CHOSEN[min(_CHOSEN.index(store.coarse) + 1, len(_CHOSEN) - 1)]
        found = _least(values[at:], reached)
        store.set_up({name: found})
    return {"coarse": store.coarse} | ({name: found} if name else {})


def _cost(store: StagedStore, queries: Vectors) -> float:
    """What a search costs: counted where it can be, else seconds of the processor."""
    if isinstance(store.first, Lists):
        return store.first.cost(queries, store.coarse, store.paged)
    begun = time.process_time()
    store.search(queries, K)
    return time.process_time() - begun


def _ranks(store: StagedStore, queries: Vectors, places: Positions, most: int) -> Positions:
    """(q, k) where codes rank these rows among the most that they may choose; beyond where they
    miss.
    """
    found = []
    for start in range(0, len(queries), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        told = store.chosen(queries[part], most)
        same = told[:, :, None] == places[part, None, :]  # (q, chosen, k)
        found.append(np.where(same.any(axis=1), same.argmax(axis=1), most))
    return np.concatenate(found)


def _least(values: Sequence[float], enough: Callable[[float], bool]) -> float:
    """The first of rising values that is enough, as every higher one is, or the last."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if enough(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[low]


def measure(store: VectorStore, queries: Vectors, truth: Truth) -> dict[str, float]:
    """Recall@10, milliseconds of one query, and queries a second of many together."""
    alone = []
    for query in queries[:_SINGLE]:
        begun = time.perf_counter()
        store.search(query[None], K)
        alone.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    found, _ = store.search(queries, K)
    together = time.perf_counter() - begun
    return {
        "recall@10": recall(found, truth.scores),
        "p50_ms": 1e3 * float(np.percentile(alone, 50)),
        "p95_ms": 1e3 * float(np.percentile(alone, 95)),
        "qps": len(queries) / together,
        "queries": len(queries),
    }
