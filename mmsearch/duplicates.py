"""Answers that say the same, folded into the best of them.

An answer is folded into a better one of the same content: a copy of the file, another window
of the sound, another passage of the text. So is a picture whose vector has a cosine of at
least 0.95 with that of a better one: the same photo compressed anew, made smaller or a little
cropped. What this folds and what it spares, benchmarks/duplicates.py measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.records import Hit, Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

SAME = 0.95  # cosine of two pictures from which on they are taken to be one
_WIDER = 4  # answers asked for a group wanted, at first

# By an item's id: its content's id, and its unit row, if it has one.
Known = Mapping[int, tuple[int, "Vectors | None"]]


def grouped(
    find: Callable[[int], Sequence[Hit]], look_up: Callable[[Sequence[int]], Known], k: int
) -> list[Hit]:
    """The k best groups, each as its best answer; ranked anew.

    `find` gives the n best answers, `look_up` what is known of items. As many answers are
    asked for as it takes; duplicates are those among them.
    """
    wanted = _WIDER * k
    while True:
        hits = find(wanted)
        groups = fold(hits, look_up([hit.id for hit in hits]))
        if len(groups) >= k or len(hits) < wanted:
            return [replace(hit, rank=rank) for rank, hit in enumerate(groups[:k], start=1)]
        wanted *= 2


def fold(hits: Sequence[Hit], known: Known) -> list[Hit]:
    """These answers, best first, without those that are folded into a better one.

    Each goes to the best that it resembles; what resembles only a folded one stays. An item
    of which nothing is known stays, too. `duplicates` has every other file of the group once.
    """
    groups: list[list[Hit]] = []
    of_content: dict[int, list[Hit]] = {}
    pictures: list[list[Hit]] = []  # those of the groups that a picture began
    dim = max((len(row) for _, row in known.values() if row is not None), default=0)
    begun = np.empty((len(hits), dim), np.float32)  # the rows of the pictures that began them
    for hit in hits:
        content, row = known.get(hit.id, (None, None))
        if hit.modality is not Modality.IMAGE:
            row = None
        group = of_content.get(content) if content is not None else None
        if group is None and row is not None:
            near = np.flatnonzero(begun[: len(pictures)] @ row >= SAME)
            group = pictures[near[0]] if len(near) else None
        if group is None:
            group = []
            groups.append(group)
            if row is not None:
                begun[len(pictures)] = row
                pictures.append(group)
        group.append(hit)
        if content is not None:
            of_content[content] = group
    return [_best(group) for group in groups]


def _best(group: Sequence[Hit]) -> Hit:
    best = group[0]
    others = dict.fromkeys(hit.path for hit in group if hit.path != best.path)
    return replace(best, duplicates=tuple(others)) if others else best
