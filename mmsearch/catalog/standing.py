"""What vectors stand for, kept in memory: for a process that asks again and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmsearch.records import Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids

_NAMES = [str(kind) for kind in Modality]


class Match(NamedTuple):
    """An item that a vector, or a caption's, stands for. Copies are several items of one."""

    vector_id: int
    item_id: int
    modality: str


class Pairs:
    """(n,) keys and what each goes with; a key may go with several."""

    def __init__(self, keys: Ids, values: Ids) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._values = keys[order], values[order]

    def of(self, keys: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(key, value) for each value of these keys, in their order."""
        first, last = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        for key, start, end in zip(keys, first.tolist(), last.tolist(), strict=True):
            for value in self._values[start:end].tolist():
                yield key, value


class Standing:
    """The items of one space that are not gone: answers as the catalog's Items does.

    What a filter did not let through is not in here: it is not asked for again.
    """

    def __init__(self, own: NDArray[np.int64], captions: NDArray[np.int64]) -> None:
        """`own`: (n, 3) vector, item, number of its modality; the vector of an item without one
        is 0. `captions`: (c, 2) vector, item.
        """
        vectors, items, kinds = own.T
        #: every vector of these, items' own and captions', rising
        self.vectors = np.unique(np.concatenate([vectors[vectors > 0], captions[:, 0]]))
        there = vectors > 0
        self._item_of = Pairs(vectors[there], items[there])
        self._vector_of = Pairs(items[there], vectors[there])
        self._kind_of = Pairs(items, kinds)
        self._captioned, self._captions = Pairs(*captions.T), Pairs(*captions.T[::-1])

    def matches(
        self,
        vector_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Match]:
        """See Items."""
        return self._matches(self._item_of.of(vector_ids), modality)

    def captioned(
        self,
        vector_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Match]:
        """See Items."""
        return self._matches(self._captioned.of(vector_ids), modality)

    def _matches(self, pairs: Iterator[tuple[int, int]], modality: Modality | None) -> list[Match]:
        found = list(pairs)
        kinds = self.kinds_of([item for _, item in found], modality)
        return [Match(vector, item, kinds[item]) for vector, item in found if item in kinds]

    def vectors_of_items(self, space_id: int, item_ids: Sequence[int]) -> dict[int, int]:
        """See Items."""
        return dict(self._vector_of.of(item_ids))

    def captions_of_items(self, space_id: int, item_ids: Sequence[int]) -> list[tuple[int, int]]:
        """See Items."""
        return list(self._captions.of(item_ids))

    def kinds_of(
        self,
        item_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> dict[int, str]:
        """See Items."""
        kinds = {item: _NAMES[kind] for item, kind in self._kind_of.of(item_ids)}
        if modality is None:
            return kinds
        return {item: kind for item, kind in kinds.items() if kind == modality}
