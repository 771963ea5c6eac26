"""Several answers to one question made into one: of lists by rank, of one item by its evidence."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Scores = NDArray[np.floating]  # any shape; the arrays of one call have the same

Id = TypeVar("Id", bound=Hashable)

# Chosen on Flickr8k's dev split (benchmarks/hybrid.py has what the others came to).
_AHEAD = 0.5  # a caption that fits scores about as much higher than a picture that does, in z
_DOUBT = 0.5  # what a caption that does not fit may take from the item's own z, at most
_NATS = 2.0  # of information about which words, where all are found, are worth one z
_SHARE = 0.2  # of what words are worth is added to what vectors say


def reciprocal_rank_fusion(
    lists: Sequence[Sequence[Id]],
    k: float = 60,
    weights: Sequence[float] | None = None,
    known: Mapping[Id, int] | None = None,
) -> list[Id]:
    """One list of several, best first: by the sum of weight / (k + rank), with ranks from 1.

    `known` has, by id, how many of the lists could have it (else 1), by which its sum is divided:
    what only one list can know stands then where it stands there.

    What a list does not have gets nothing from it; equal sums stay in the order in which they
    were met. A low k lets the first places of each list decide; with a high one what stands in
    most lists comes first, however far down, and what only one list can know never does.
    (Cormack, Clarke and Büttcher, Reciprocal Rank Fusion, SIGIR 2009, with k = 60.)
    """
    sums: dict[Id, float] = {}
    for ranking, weight in zip(lists, weights or [1.0] * len(lists), strict=True):
        for rank, id in enumerate(ranking, start=1):
            share = weight / max(known.get(id, 1), 1) if known else weight
            sums[id] = sums.get(id, 0.0) + share / (k + rank)
    return sorted(sums, key=lambda id: -sums[id])


def fuse(own: Scores, captions: Scores, words: Scores) -> Scores:
    """What an item is worth to a query, on the scale of z, by all that is known of it.

    own: z of its own vector, that is the score's distance, in standard deviations, from the
    mean of unrelated items. captions: z of the best of its captions' vectors. words: how much
    of what the query says its words say, in nats (see catalog.keywords). NaN where it has
    none; the result is NaN where it has nothing at all. With one's own z as o, that of the
    captions as c and the words' nats as n:

        described = max((o + c - 1/2) / 2, o - 1/2)     with both
                  = o, or c - 1/2                       with one of them
        worth     = max(described, n / 2) + n / 10

    The mean of what is there neither punishes an item for having no caption (as a sum does,
    and a sum of ranks) nor lets a caption stand for the picture whatever that shows (as a
    maximum does). The mean alone would bury a picture whose caption says something else, such
    as the name of a camera; so a caption takes little away. Words count a little, for the
    caption's vector has said most of it already, unless they say all that was asked for: then
    the item may have been asked for by name.

    Never falls when an argument rises, so one list alone keeps its order.
    """
    both = np.maximum((own + captions - _AHEAD) / 2, own - _DOUBT)
    described = np.where(np.isnan(both), np.fmax(own, captions - _AHEAD), both)
    told = words / _NATS
    worth: Scores = np.fmax(described, told) + _SHARE * np.where(np.isnan(words), 0, told)
    return worth
