"""Retrieval by exact search over raw embeddings, and what the measures of it mean.

A query is right with every item of its own group: a caption with its file, a file with each of its
captions, a file or the name of a class with every other file of that class. Items are ranked by
inner product, and of equal ones the wrong come first: ties count against us. Over the queries,

- recall@k: the share with a right item among the first k, as CLIP (arXiv 2103.00020) and
  CLIP_benchmark have it: a photo of five captions is found when any of them is
- median_rank, mrr: the median and the mean reciprocal of the rank of the first right item
- ndcg@10: the gain of right items discounted by log2(rank + 1), of the best possible
- map: the mean of the precisions at the rank of each right item

All but the rank are fractions from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmsearch import metrics
from mmsearch.datasets.captions import CaptionedFile
from mmsearch.metrics import CUTS, Booleans, Floats, Ranks, recalls
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Ids, Vectors

Recalls = dict[str, float]  # "recall@1", "recall@5", "recall@10"
Measures = dict[str, float]  # the same and those above, by name
Encode = Callable[[Modality, list[Any]], "Vectors"]

One = TypeVar("One")

_BLOCK = 1024  # queries whose scores are in memory at a time


def at_cuts(measures: Measures) -> Recalls:
    """Of all measures, recall at 1, 5 and 10."""
    return {f"recall@{k}": measures[f"recall@{k}"] for k in CUTS}


def sample(whole: Sequence[One], limit: int | None, seed: int) -> list[One]:
    """So many of these, drawn by the seed, in their order; all where there are no more."""
    if limit is None or limit >= len(whole):
        return list(whole)
    chosen = np.random.default_rng(seed).choice(len(whole), limit, replace=False)
    return [whole[row] for row in np.sort(chosen)]


def measured(
    queries: Vectors, items: Vectors, query_of: Ids, item_of: Ids, *, without_self: bool = False
) -> Measures:
    """Every measure of these queries; those that nothing is right for are left out.

    queries: (n, dim), items: (m, dim) unit rows; query_of: (n,), item_of: (m,) their groups.
    `without_self`: the queries are the items, and none is to find itself. Raises ValueError
    where no query is left.
    """
    ranks, ndcgs, precisions = [], [], []
    for ordered in _orders(queries, items, query_of, item_of, without_self):
        right = ordered[ordered.any(axis=1)]
        ranks.append(metrics.ranks_in(right))
        ndcgs.append(metrics.ndcgs(right, right.sum(axis=1), CUTS[-1]))
        precisions.append(metrics.average_precisions(right))
    return told(np.concatenate(ranks), np.concatenate(ndcgs), np.concatenate(precisions))


def told(ranks: Ranks, ndcgs: Floats, precisions: Floats | None = None) -> Measures:
    """The measures of (n,) first ranks, nDCG and, where whole lists are known, precisions.

    Without those, the lists end at the last cut: there is no median, and "mrr@10" takes nothing
    for what is further down.
    """
    found = {**recalls(ranks)}
    if precisions is None:
        found[f"mrr@{CUTS[-1]}"] = float(np.mean(np.where(ranks > CUTS[-1], 0, 1 / ranks)))
    else:
        found["median_rank"] = metrics.median_rank(ranks)
        found["mrr"] = metrics.mean_reciprocal_rank(ranks)
        found["map"] = float(precisions.mean())
    found[f"ndcg@{CUTS[-1]}"] = float(ndcgs.mean())
    return {name: round(value, 6) for name, value in found.items()}


def exact_ranks(files: Sequence[CaptionedFile], encode: Encode) -> dict[str, Ranks]:
    """The rank of each caption's photo ("text_to_image"), and of each photo's best caption
    ("image_to_text").

    `encode` gives (n, dim) unit rows for n inputs of a modality: photos by their paths.
    """
    texts, pictures, owners = encoded(files, encode)
    own = np.arange(len(files))
    return {
        "text_to_image": best_ranks(texts, pictures, owners, own),
        "image_to_text": best_ranks(pictures, texts, own, owners),
    }


def encoded(files: Sequence[CaptionedFile], encode: Encode) -> tuple[Vectors, Vectors, Ids]:
    """The rows of all captions (c, dim) and of all files (n, dim), which are of one modality, and
    (c,) whose caption each is.
    """
    sentences = [caption for file in files for caption in file.captions]
    owners = np.repeat(np.arange(len(files)), [len(file.captions) for file in files])
    # each once, the short ones together: the same words get the same row, and little is padded
    different = sorted(set(sentences), key=lambda said: (len(said), said))
    row_of = {said: row for row, said in enumerate(different)}
    texts = encode(Modality.TEXT, different)[[row_of[said] for said in sentences]]
    return texts, encode(files[0].modality, [file.path for file in files]), owners


def best_ranks(queries: Vectors, items: Vectors, query_of: Ids, item_of: Ids) -> Ranks:
    """The rank of each query's best right item: the first of its own group.

    queries: (n, dim), items: (m, dim) unit rows; query_of: (n,), item_of: (m,) their groups.
    Items with equal rows get equal scores, wherever they stand. Returns (n,).
    """
    ranks = [np.empty(0, np.int64)]
    for scores, right in _scores(queries, items, query_of, item_of):
        ranks.append(metrics.first_ranks(scores, right))
    return np.concatenate(ranks)


def _orders(
    queries: Vectors, items: Vectors, query_of: Ids, item_of: Ids, without_self: bool
) -> Iterator[Booleans]:
    """Which items are right for each query, best first: (queries, items), in blocks."""
    first = 0
    for scores, right in _scores(queries, items, query_of, item_of):
        if without_self:
            rows = np.arange(len(scores))
            scores[rows, first + rows], right[rows, first + rows] = -np.inf, False
            first += len(scores)
        yield metrics.in_order(scores, right)


def _scores(
    queries: Vectors, items: Vectors, query_of: Ids, item_of: Ids
) -> Iterator[tuple[Floats, Booleans]]:
    """Scores of some queries with all items, and which are right, in blocks."""
    different, which = np.unique(items, axis=0, return_inverse=True)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = (queries[block] @ different.T)[:, which.ravel()]
        yield scores, query_of[block, None] == item_of[None, :]
