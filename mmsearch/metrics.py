"""How good a ranking is. Pure numpy; ties always count against us.

A *rank* is counted from 1. Where scores are equal, every irrelevant item is taken to stand before
the relevant one, so a model that gives the same score to everything earns nothing. A score that is
not a number is the worst possible for a relevant item and the best possible for an irrelevant one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Booleans = npt.NDArray[np.bool_]
Ranks = npt.NDArray[np.int64]

CUTS = (1, 5, 10)  # at which retrieval is told


def first_ranks(scores: Floats, relevant: Booleans) -> Ranks:
    """The rank of each query's best relevant item.

    scores: (queries, items), higher is nearer; relevant: (queries, items).
    rank(q) = 1 + the number of irrelevant items whose score is at least that of q's best relevant
    item. A query without a relevant item gets items + 1. Returns (queries,).
    """
    _same_shape(scores, relevant)
    worst, best = -np.inf, np.inf
    ours = np.where(relevant, np.where(np.isnan(scores), worst, scores), worst)
    others = np.where(relevant, worst, np.where(np.isnan(scores), best, scores))
    top = ours.max(axis=1, keepdims=True, initial=worst)
    # Relevant items stand at -inf among the others: leave them out of the count by hand.
    before = ((others >= top) & ~relevant).sum(axis=1)
    ranks: Ranks = np.where(relevant.any(axis=1), before + 1, scores.shape[1] + 1)
    return ranks


def recall_at_k(ranks: Ranks, k: int) -> float:
    """The share of queries whose best relevant item stands among the first k: R@k of the retrieval
    literature."""
    _some(ranks)
    return float(np.mean(ranks <= k))


def recalls(ranks: Ranks) -> dict[str, float]:
    """Recall at 1, 5 and 10, by the names "recall@1" and so on."""
    return {f"recall@{k}": round(recall_at_k(ranks, k), 6) for k in CUTS}


def median_rank(ranks: Ranks) -> float:
    """The middle rank of the best relevant item; the mean of the two middle ones where there is an
    even number."""
    _some(ranks)
    return float(np.median(ranks))


def mean_reciprocal_rank(ranks: Ranks) -> float:
    """The mean of 1 / rank of the best relevant item."""
    _some(ranks)
    return float(np.mean(1.0 / ranks))


def average_precision(scores: Floats, relevant: Booleans) -> float:
    """The mean, over one query's relevant items, of the precision at that item's rank; 0.0 where
    none is relevant.

    scores, relevant: (items,). Among equal scores the irrelevant come first.
    """
    return float(average_precisions(in_order(scores[None], relevant[None]))[0])


def mean_average_precision(scores: Floats, relevant: Booleans) -> float:
    """The mean of ``average_precision`` over queries. scores, relevant: (queries, items)."""
    _some(scores)
    return float(average_precisions(in_order(scores, relevant)).mean())


def precision_at_k(scores: Floats, relevant: Booleans, k: int) -> float:
    """The mean over queries of the share of relevant items among the first k.

    scores, relevant: (queries, items), at least k items. Among equal scores the irrelevant come
    first.
    """
    _some(scores)
    return float(in_order(scores, relevant)[:, :k].mean())


def in_order(scores: Floats, relevant: Booleans) -> Booleans:
    """Relevance by descending score, the irrelevant first among equals: (queries, items)."""
    _same_shape(scores, relevant)
    order = np.lexsort((relevant, -_worst_for(scores, relevant)))
    ordered: Booleans = np.take_along_axis(relevant, order, axis=-1)
    return ordered


def ranks_in(ordered: Booleans) -> Ranks:
    """The rank of each query's first relevant item; one more than there are items for none.

    ordered: (queries, items) relevance, best first, as ``in_order`` gives it.
    """
    some = ordered.any(axis=1)
    ranks: Ranks = np.where(some, ordered.argmax(axis=1) + 1, ordered.shape[1] + 1)
    return ranks


def average_precisions(ordered: Booleans) -> Floats:
    """``average_precision`` of each query: (queries, items), best first, to (queries,)."""
    precision = np.cumsum(ordered, axis=1) / np.arange(1, ordered.shape[1] + 1)
    counts = ordered.sum(axis=1)
    found: Floats = (precision * ordered).sum(axis=1) / np.maximum(counts, 1)
    return found


def ndcgs(ordered: Booleans, totals: npt.NDArray[np.integer], k: int) -> Floats:
    """``ndcg_at_k`` of each query whose relevant items all gain 1; 0.0 where none is relevant.

    ordered: (queries, items), best first, at least the first k of them where there are more;
    totals: (queries,) how many items are relevant in all. Returns (queries,).
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(totals, k)]
    gained = (ordered[:, :k] * discounts[: ordered.shape[1]]).sum(axis=1)
    found: Floats = np.divide(gained, best, out=np.zeros(len(ordered)), where=best > 0)
    return found


def ndcg_at_k(scores: Floats, gains: Floats, k: int) -> float:
    """Normalised discounted cumulative gain of one query.

    scores, gains: (items,); DCG@k = sum over the first k ranks i of gain_i / log2(i + 1), divided
    by the DCG@k of the best order. Among equal scores the smaller gain comes first. 0.0 where no
    gain is positive.
    """
    _same_shape(scores, gains)
    order = np.lexsort((gains, -_worst_for(scores, gains > 0)))
    discounts = 1.0 / np.log2(np.arange(2, min(k, len(gains)) + 2))
    best = float((np.sort(gains)[::-1][:k] * discounts).sum())
    return float((gains[order][:k] * discounts).sum()) / best if best > 0 else 0.0


def accuracy(scores: Floats, labels: npt.NDArray[np.integer]) -> float:
    """The share of rows whose own class scores higher than every other.

    scores: (n, classes); labels: (n,) the true class of each row.
    """
    relevant = np.zeros(scores.shape, bool)
    relevant[np.arange(len(labels)), labels] = True
    return recall_at_k(first_ranks(scores, relevant), 1)


def predicted_classes(scores: Floats, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """The class that each row is taken for: its own only where that scores higher than every
    other, else the first of the best others. So ``accuracy`` is the share of rows in their own.

    scores: (n, classes), of at least two; labels: (n,) the true class of each row. Returns (n,).
    """
    rows = np.arange(len(labels))
    others = np.where(np.isnan(scores), np.inf, scores)
    others[rows, labels] = -np.inf
    best = others.argmax(axis=1)
    ours = scores[rows, labels] > others[rows, best]  # never where it is not a number
    return np.where(ours, labels, best).astype(np.int64)


def macro_f1(
    predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], classes: int
) -> float:
    """The mean over classes of F1, which is 0.0 for one that is neither there nor predicted.

    predicted, labels: (n,) classes from 0 to ``classes`` - 1.
    """
    _some(labels)
    found = [precision_recall_f1(predicted == c, labels == c)[2] for c in range(classes)]
    return float(np.mean(found))


def precision_recall_f1(predicted: Booleans, actual: Booleans) -> tuple[float, float, float]:
    """Precision, recall and their harmonic mean F1 of yes/no answers; a ratio without a denominator
    is 0.0.

    predicted, actual: of the same shape.
    """
    _same_shape(predicted, actual)
    both = int((predicted & actual).sum())
    precision = both / int(predicted.sum()) if predicted.any() else 0.0
    recall = both / int(actual.sum()) if actual.any() else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if both else 0.0


def _worst_for(scores: Floats, relevant: Booleans) -> Floats:
    """Scores with each NaN replaced by what counts against us."""
    return np.where(np.isnan(scores), np.where(relevant, -np.inf, np.inf), scores)


def _same_shape(scores: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> None:
    if scores.shape != other.shape:
        raise ValueError(f"shapes differ: {scores.shape} and {other.shape}")


def _some(values: npt.NDArray[np.generic]) -> None:
    if len(values) == 0:
        raise ValueError("no query to measure")
