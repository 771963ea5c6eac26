"""Setting an index so that it keeps what is promised, and measuring whether it does.

Queries of words lie far from all pictures, so that an index tuned with pictures finds far less for
words. It is tuned with words, to a hundredth more than is promised, since fresh queries find a
little less than those it was tuned on; half of the queries are kept fresh, and measured with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss, singles

if TYPE_CHECKING:
    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors import VectorStore
    from mmsearch.vectors.staged import StagedStore

K = 10
MARGIN = 0.01
# Rows that codes choose: what they leave out is lost, and each costs a look at its bytes.
_CHOSEN = [24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 400, 800, 1600]
_SINGLE = 100  # queries that are timed one by one
_BLOCK = 16_384
_ALIKE = 2e-6  # products of one row differ by as much, by the order of their terms


def set_up(index: Any, settings: dict[str, int]) -> None:
    """Give FAISS's index its settings: nprobe of lists, efSearch of a graph."""
    for name, value in settings.items():
        if name in ("nprobe", "efSearch"):
            faiss.ParameterSpace().set_index_parameter(index, name, value)


def knob(index: Any) -> tuple[str, list[int]] | None:
    """What trades time for recall in this index, and its values, rising; None: nothing does."""
    inner = faiss.downcast_index(index)
    lists = faiss.try_extract_index_ivf(inner)
    if lists is not None:
        most = lists.nlist
        name = "nprobe"
    elif hasattr(inner, "hnsw"):
        most, name = 4096, "efSearch"
    else:
        return None
    steps = {round(2 ** (step / 4)) for step in range(4 * most.bit_length())}
    return name, sorted({value for value in steps if value < most} | {most})


def nearest(rows: Vectors, queries: Vectors, k: int = K) -> Scores:
    """(q, k) highest products with (n, dim) rows, falling, each of them multiplied."""
    best = np.full((len(queries), k), -np.inf, np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = singles(rows[start : start + _BLOCK])
        some = min(k, len(block))
        scores, _ = faiss.knn(queries, block, some, metric=faiss.METRIC_INNER_PRODUCT)
        best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :k]
    return best


def recall(scores: Scores, truth: Scores) -> float:
    """How many of (q, k) answers score no less than the k-th of (q, k) true ones.

    Rows that are alike are as good as each other: which of them was found is not counted.
    """
    return float((scores >= truth[:, -1:] - _ALIKE).sum() / truth.size)


def tune(store: StagedStore, queries: Vectors, truth: Scores, target: float) -> dict[str, int]:
    """The least settings that reach the target with these queries, or the highest there are.

    First how many rows codes are to choose: so many that with an eighth of all lists a third of
    what the target leaves open is won, which leaves room for fewer lists. Then how many lists.
    """
    turned = knob(store.codes)
    name, values = turned or ("", [0])

    def reached(value: int, wanted: float, some: slice) -> bool:
        set_up(store.codes, {name: value})
        return recall(store.search(queries[some], K)[0], truth[some]) >= wanted

    def chosen(count: int) -> bool:
        store.coarse = count
        return reached(max(1, values[-1] // 8), target + (1 - target) / 3, slice(0, None, 2))

    store.coarse = _least(_CHOSEN, chosen)
    found = _least(values, lambda value: reached(value, target, slice(None)))
    set_up(store.codes, {name: found})
    return {"coarse": store.coarse} | ({name: found} if turned else {})


def _least(values: Sequence[int], enough: Callable[[int], bool]) -> int:
    """The first of rising values that is enough, as every higher one is, or the last."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if enough(values[middle]):
            high = middle
        else:
            low = middle + 1
    return values[low]


def measure(store: VectorStore, queries: Vectors, truth: Scores) -> dict[str, float]:
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
        "recall@10": recall(found, truth),
        "p50_ms": 1e3 * float(np.percentile(alone, 50)),
        "p95_ms": 1e3 * float(np.percentile(alone, 95)),
        "qps": len(queries) / together,
        "queries": len(queries),
    }
