"""What vectors stand for, kept in memory: for a process that asks again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmsearch.places import Places
from mmsearch.records import Kind, Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Kinds

KINDS = {kind: Kind[kind.name] for kind in Modality}


class Matches(NamedTuple):
    """Items that vectors, or captions', stand for: three arrays of (n,). A vector stands for
    several items where there are copies; the kind is the item's.
    """

    vectors: Ids
    items: Ids
    kinds: Kinds


class Pairs:
    """(n,) keys and what each goes with; a key may go with several."""

    def __init__(self, keys: Ids, values: Ids) -> None:
        order = np.argsort(keys, kind="stable")
        self._places, self._values = Places(keys[order]), values[order]

    def of(self, keys: Ids | Sequence[int]) -> tuple[Ids, Ids]:
        """Two arrays: a key and a value for each value of these keys, in their order."""
        keys = np.asarray(keys, np.int64)
        first, last = self._places.spans(keys)
        counts = last - first
        if np.all(counts == 1):  # as they nearly always have
            return keys, self._values[first]
        at = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return np.repeat(keys, counts), self._values[at]


class Standing:
    """The items of one space that are not gone: answers as the catalog's Items does.

    What a filter did not let through is not in here: it is not asked for again.
    """

    def __init__(self, own: NDArray[np.int64], captions: NDArray[np.int64]) -> None:
        """`own`: (n, 3) vector, item, number of its modality; the vector of an item without one
        is 0. `captions`: (c, 2) vector, item.
        """
        vectors, items, kinds = own.T
        there = vectors > 0
        self._vectors = {
            kind: np.unique(vectors[there & (kinds == kind)])
            for kind in np.unique(kinds[there]).tolist()
        } | {int(Kind.CAPTION): np.unique(captions[:, 0])}
        self._item_of = Pairs(vectors[there], items[there])
        self._vector_of = Pairs(items[there], vectors[there])
        self._kind_of = Pairs(items, kinds)
        self._captioned, self._captions = Pairs(*captions.T), Pairs(*captions.T[::-1])

    def vectors_of(self, kind: Kind) -> Ids:
        """Every vector of these that is of one kind, rising."""
        return self._vectors.get(kind, np.empty(0, np.int64))

    def matches(
        self,
        vector_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> Matches:
        """See Items."""
        return self._matches(*self._item_of.of(vector_ids), modality)

    def captioned(
        self,
        vector_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> Matches:
        """See Items."""
        return self._matches(*self._captioned.of(vector_ids), modality)

    def _matches(self, vectors: Ids, items: Ids, modality: Modality | None) -> Matches:
        # each of them has a kind, and only one
        kinds = self._kind_of.of(items)[1].astype(np.uint8)
        here = slice(None) if modality is None else kinds == KINDS[modality]
        return Matches(vectors[here], items[here], kinds[here])

    def vectors_of_items(self, space_id: int, item_ids: Ids | Sequence[int]) -> tuple[Ids, Ids]:
        """See Items."""
        return self._vector_of.of(item_ids)

    def captions_of_items(self, space_id: int, item_ids: Ids | Sequence[int]) -> tuple[Ids, Ids]:
        """See Items."""
        return self._captions.of(item_ids)

    def kinds_of(
        self,
        item_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> tuple[Ids, Kinds]:
        """See Items."""
        items, kinds = self._kind_of.of(item_ids)
        here = slice(None) if modality is None else kinds == KINDS[modality]
        return items[here], kinds[here].astype(np.uint8)
