"""Lists of codes on a GPU, and what becomes of them where there is no room, or no GPU.

The index file holds them as FAISS for processors has them (IVF-PQ, 8 bits a part), so that it is
one file wherever it is read: copied to the first card where there is one (faiss-gpu 1.15 and
later), else searched here, slower and with the same answers. What a card finds is scored again
from the rows, as with every other engine.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.vectors.faiss import faiss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Scores, Vectors

MOST = 2048  # rows that a card selects, and lists that it looks at, for one query


def available() -> bool:
    """Whether the FAISS that is installed reaches a GPU."""
    return bool(getattr(faiss, "get_num_gpus", lambda: 0)())


def given_up(error: RuntimeError) -> None:
    """Say that a card is not used any more, and why: FAISS's errors end in a sentence."""
    full = "out of memory" in str(error)
    why = "its memory is full" if full else str(error).rsplit(": ", 1)[-1]
    told = f"the GPU is not used: {why}; searched here instead"
    warnings.warn(told, RuntimeWarning, stacklevel=2)


class CardLists:
    """IVF-PQ of FAISS on the first card. `codes` are the same on this side, with their nprobe."""

    def __init__(self, codes: Any) -> None:
        self._codes = codes
        self._card: Any = None
        if available():
            try:
                self._resources = faiss.StandardGpuResources()
                options = faiss.GpuClonerOptions()
                options.useFloat16 = True  # tables: those of 64 parts in full precision do not fit
                self._card = faiss.index_cpu_to_gpu(self._resources, 0, codes, options)
            except RuntimeError as error:
                given_up(error)

    def search(self, queries: Vectors, k: int) -> tuple[Scores, NDArray[np.int64]]:
        """(q, m) products with codes, falling, and (q, m) positions, -1 for none; m <= k."""
        lists = faiss.extract_index_ivf(self._codes).nprobe
        if self._card is not None and lists <= MOST:
            self._card.nprobe = lists
            try:
                found: tuple[Scores, NDArray[np.int64]] = self._card.search(queries, min(k, MOST))
                return found
            except RuntimeError as error:  # others have taken its memory since
                given_up(error)
                self._card = None
        here: tuple[Scores, NDArray[np.int64]] = self._codes.search(queries, k)
        return here
