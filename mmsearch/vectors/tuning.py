"""Setting an index so that it keeps what is promised, and measuring whether it does.

Queries of words lie far from all pictures, so that an index tuned with pictures finds far less for
words. It is tuned with words, to a hundredth more than is promised, since fresh queries find a
little less than those it was tuned on; half of the queries are kept fresh, and measured with.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss

if TYPE_CHECKING:
    from mmsearch.records import Scores, Vectors
    from mmsearch.vectors import VectorStore
    from mmsearch.vectors.staged import StagedStore

K = 10
MARGIN = 0.01
_DOUBLED = 5  # times, at most, that codes choose twice as many
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
        block = rows[start : start + _BLOCK].astype(np.float32)
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

    First how many rows codes are to choose, with all lists looked at; then how many lists.
    """

    def reached(name: str, value: int) -> bool:
        set_up(store.codes, {name: value})
        return recall(store.search(queries, K)[0], truth) >= target

    turned = knob(store.codes)
    name, values = turned if turned else ("", [0])
    for _ in range(_DOUBLED):
        if reached(name, values[-1]):
            break
        store.coarse *= 2
    low, high = 0, len(values) - 1
    while low < high:  # recall rises with it
        middle = (low + high) // 2
        if reached(name, values[middle]):
            high = middle
        else:
            low = middle + 1
    set_up(store.codes, {name: values[low]})
    return {"coarse": store.coarse} | ({name: values[low]} if turned else {})


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
