"""Products of a few queries with all rounded rows, by FAISS's scan over bytes.

MatMulInteger begins to pay with a dozen queries; for one, FAISS multiplies the bytes as they lie in
the file, with the query as it is, in a quarter of the time that rows in single precision take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss
from mmsearch.vectors.rounded import Rounded, hands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

    Positions = NDArray[np.int64]

_SHARE = 65_536  # rows that a thread scans at a time


def scan(rounded: Rounded, queries: Vectors, k: int) -> tuple[Scores, Positions]:
    """(q, k) highest products of (q, dim) queries with the rows as they are rounded, and their
    positions, in no order; k is at most the number of rows.
    """
    starts = range(0, len(rounded.rows), _SHARE)
    best = []
    for query in queries:
        found = hands().map(lambda start, query=query: _part(rounded, query, k, start), starts)
        scores, places = (np.concatenate(parts) for parts in zip(*found, strict=True))
        highest = np.argpartition(scores, -k)[-k:]
        best.append((scores[highest], places[highest]))
    scores, places = (np.stack(parts) for parts in zip(*best, strict=True))
    beside = rounded.beside(queries, queries.sum(axis=1))
    return (scores * rounded.step + beside).astype(np.float32), places


def _part(rounded: Rounded, query: Vectors, k: int, start: int) -> tuple[Scores, Positions]:
    """Highest products of the bytes from this row on, and where; -inf and -1 where there are
    fewer than k.
    """
    rows = rounded.rows[start : start + _SHARE]
    query = np.ascontiguousarray(query, np.float32)
    scores, places = np.full(k, -np.inf, np.float32), np.full(k, -1 - start)
    quantizer: Any = faiss.ScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_8bit_uniform)
    # a code stands for the middle of its 255th part of what begins here and is so wide: for itself
    quantizer.trained.resize(2)
    faiss.copy_array_to_vector(np.array([-0.5, 255], np.float32), quantizer.trained)
    scanner = quantizer.select_InvertedListScanner(
        faiss.METRIC_INNER_PRODUCT, None, True, None, False
    )
    scanner.set_query(faiss.swig_ptr(query))
    scanner.set_list(0, 0.0)
    scanner.scan_codes(
        len(rows), faiss.swig_ptr(rows), None, faiss.swig_ptr(scores), faiss.swig_ptr(places), k
    )
    return scores, places + start
