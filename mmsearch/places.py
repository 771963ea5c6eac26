"""Where keys stand among others: a table once it is worth making, a binary search until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.records import Ids

_SPARSE = 4  # a table has so many entries for each key at most
_REPAID = 8  # a search in keys takes about as long as so many of them take in the table's making


class Places:
    """(n,) rising keys, a key perhaps several times: the catalog's, which lie close together."""

    def __init__(self, keys: Ids) -> None:
        self._keys = keys
        self._searched = 0
        # of every number from one below the least key on: how many keys are less
        self._first: NDArray[np.int32] | None = None

    def spans(self, wanted: Ids) -> tuple[Ids, Ids]:
        """(m,) where each of these begins and ends among the keys: nowhere, where it is none."""
        self._searched += len(wanted)
        if self._first is None and not self._worth_it():
            first, last = (np.searchsorted(self._keys, wanted, side) for side in ("left", "right"))
            return first, last
        if self._first is None:
            counts = np.bincount(self._keys - self._keys[0])
            below = np.cumsum(counts)
            self._first = np.concatenate([[0, 0], below, below[-1:]]).astype(np.int32)
        # one below the least key stands for all that are less, one above the highest for the others
        at = (wanted - (self._keys[0] - 1)).clip(0, len(self._first) - 2)
        return self._first[at].astype(np.int64), self._first[at + 1].astype(np.int64)

    def _worth_it(self) -> bool:
        count = len(self._keys)
        if self._searched * _REPAID < count or not count:
            return False
        return int(self._keys[-1] - self._keys[0]) <= _SPARSE * count
