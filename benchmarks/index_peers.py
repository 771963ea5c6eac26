"""FAISS's own indexes as anyone would set them up, tuned to a recall as ours is.

Each is built over the same half-precision rows, made float32, with two threads; build time is wall
and CPU time of training and adding. Their one search parameter is the least that reaches the
wanted recall on the texts they are tuned on, of a ladder; fresh texts are then asked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from index_data import Data, K, recall
from numpy.typing import NDArray

from mmsearch.vectors.faiss import multiply_matrices

PEERS = ("faiss-flat", "faiss-hnsw32", "faiss-ivfpq")
_LADDER = [2 ** (step / 4) for step in range(8, 60)]  # 4, 4.8, 5.7, 6.7, 8, ... 27,000
_TRAINED_ON = 65_536


def factory(name: str, rows: int, dim: int) -> str:
    """FAISS's description of a peer."""
    lists = 2 ** round(np.log2(4 * rows**0.5))
    return {
        "faiss-flat": "Flat",
        "faiss-hnsw32": "HNSW32",
        "faiss-ivfpq": f"IVF{lists},PQ{dim // 8},RFlat",
    }[name]


def build(name: str, data: Data, seconds: float = 540) -> bool:
    """Build a peer, or go on building it, for at most so many seconds; True when it is whole.

    It is kept in the data's folder with how long it took so far.
    """
    path, state = data.folder / f"{name}.faiss", data.folder / f"{name}.json"
    rows = data.matrix.rows.vectors
    done: dict[str, Any] = {"rows": 0, "build_s": 0.0, "build_cpu_s": 0.0}
    if state.exists():
        done = json.loads(state.read_text())
        index = faiss.read_index(str(path))
    else:
        done["setting"] = factory(name, *rows.shape)
        index = faiss.index_factory(rows.shape[1], done["setting"], faiss.METRIC_INNER_PRODUCT)
    begun, cpu = time.perf_counter(), time.process_time()
    if not index.is_trained:
        index.train(rows[:: -(-len(rows) // _TRAINED_ON)].astype(np.float32))
    for start in range(done["rows"], len(rows), 16_384):
        if time.perf_counter() - begun > seconds:
            break
        index.add(rows[start : start + 16_384].astype(np.float32))
    done["rows"] = index.ntotal
    done["build_s"] += time.perf_counter() - begun
    done["build_cpu_s"] += time.process_time() - cpu
    faiss.write_index(index, str(path))
    state.write_text(json.dumps(done))
    return bool(index.ntotal == len(rows))


def opened(name: str, data: Data) -> Any:
    """A peer that was built; it multiplies matrices for many queries, as ours does."""
    multiply_matrices(data.matrix.rows.vectors.shape[1])
    return faiss.read_index(str(data.folder / f"{name}.faiss"))


def tuned(name: str, index: Any, data: Data, target: float) -> str:
    """Set the least parameter that reaches the target on the texts to tune on, once and for all
    turns; say which.
    """
    if name == "faiss-flat":
        return "Flat"
    state = data.folder / f"{name}.json"
    told = json.loads(state.read_text())
    if "tuned" not in told:
        told["tuned"] = _least(name, index, data, target)
        state.write_text(json.dumps(told))
    _parameter(name, index)(told["tuned"])
    return f"{'efSearch' if name == 'faiss-hnsw32' else 'nprobe'}={told['tuned']}"


def _least(name: str, index: Any, data: Data, target: float) -> int:
    asked, truth = data.queries("tune")[::2], data.truth("tune")[::2]  # as ours is
    set_parameter = _parameter(name, index)

    def reached(value: int) -> float:
        set_parameter(value)
        return recall(data.matrix.rows.vectors, asked, index.search(asked, K)[1], truth)

    # of more lists than there are, the last is as good as any
    most = _lists(index).nlist if name == "faiss-ivfpq" else _LADDER[-1]
    ladder = sorted({min(round(value), most) for value in _LADDER})
    low, high = 0, len(ladder) - 1
    while low < high:  # recall rises with the parameter
        middle = (low + high) // 2
        if reached(ladder[middle]) >= target:
            high = middle
        else:
            low = middle + 1
    return ladder[low]


def _parameter(name: str, index: Any) -> Callable[[int], None]:
    if name == "faiss-hnsw32":
        return lambda value: setattr(index.hnsw, "efSearch", value)
    faiss.downcast_index(index).k_factor = 20  # 200 are scored again
    return lambda value: setattr(_lists(index), "nprobe", value)


def _lists(index: Any) -> Any:
    """The lists behind the scoring of finalists."""
    return faiss.downcast_index(faiss.downcast_index(index).base_index)


def selector(positions: NDArray[np.int64], rows: int) -> tuple[Any, Any]:
    """A bitmap of what may be found, and the search parameters that hold it."""
    bits = np.zeros(rows, bool)
    bits[positions] = True
    packed = np.packbits(bits, bitorder="little")
    kept = faiss.IDSelectorBitmap(len(packed), faiss.swig_ptr(packed))
    return packed, faiss.SearchParameters(sel=kept)
