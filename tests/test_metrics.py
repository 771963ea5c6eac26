"""The metrics against slow loops and hand arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch import metrics


@st.composite
def queries(draw):
    """Scores with many ties, and which items are relevant."""
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    cells = st.lists(st.integers(-2, 2), min_size=n * m, max_size=n * m)
    flags = st.lists(st.booleans(), min_size=n * m, max_size=n * m)
    scores = np.array(draw(cells), np.float32).reshape(n, m)
    return scores, np.array(draw(flags)).reshape(n, m)


def slow_order(scores, good):
    """Items from first to last; among equal scores the worse for us first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], good[i]))


@given(queries())
def test_first_ranks_is_where_a_loop_meets_the_first_relevant_item(case):
    """The rank is the place of the first relevant item, the irrelevant going first among equals."""
    scores, relevant = case
    expected = []
    for row, flags in zip(scores, relevant, strict=True):
        order = slow_order(row, flags)
        places = [place for place, item in enumerate(order, 1) if flags[item]]
        expected.append(places[0] if places else len(row) + 1)
    assert expected == metrics.first_ranks(scores, relevant).tolist()


def test_a_constant_score_earns_nothing():
    """A model that says the same of everything has the worst possible rank."""
    ranks = metrics.first_ranks(np.ones((1, 10)), np.eye(1, 10, dtype=bool))
    assert ranks.tolist() == [10]
    assert metrics.recall_at_k(ranks, 9) == 0.0


@pytest.mark.parametrize(("scores", "rank"), [([math.nan, 1.0], 2), ([1.0, math.nan], 2)])
def test_a_score_that_is_no_number_counts_against_us(scores, rank):
    """NaN for the relevant item is the worst score, for another item the best."""
    ranks = metrics.first_ranks(np.array([scores]), np.array([[True, False]]))
    assert [rank] == ranks.tolist()


def test_several_relevant_items_do_not_hinder_each_other():
    """Only irrelevant items push the best relevant one down."""
    ranks = metrics.first_ranks(np.array([[0.9, 0.9, 0.1]]), np.array([[True, True, False]]))
    assert ranks.tolist() == [1]


def test_recall_median_and_reciprocal_rank_by_hand():
    """Ranks 1, 2, 4 and 10: half of them within 2, the middle between 2 and 4."""
    ranks = np.array([10, 1, 4, 2])
    assert [metrics.recall_at_k(ranks, k) for k in (1, 2, 3, 5, 10)] == [0.25, 0.5, 0.5, 0.75, 1.0]
    assert metrics.recalls(ranks) == {"recall@1": 0.25, "recall@5": 0.75, "recall@10": 1.0}
    assert metrics.median_rank(ranks) == 3.0
    assert metrics.mean_reciprocal_rank(ranks) == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 10) / 4)


@given(queries())
def test_average_precision_is_the_mean_of_precisions_at_relevant_items(case):
    """Average precision and its mean over queries, by loops."""
    scores, relevant = case
    expected = []
    for row, flags in zip(scores, relevant, strict=True):
        found, precisions = 0, []
        for place, item in enumerate(slow_order(row, flags), 1):
            if flags[item]:
                found += 1
                precisions.append(found / place)
        expected.append(sum(precisions) / len(precisions) if precisions else 0.0)
    for row, flags, value in zip(scores, relevant, expected, strict=True):
        assert metrics.average_precision(row, flags) == pytest.approx(value)
    assert metrics.mean_average_precision(scores, relevant) == pytest.approx(np.mean(expected))


@given(queries(), st.integers(1, 8))
def test_precision_counts_the_relevant_among_the_first(case, k):
    """Precision at k and its mean over queries, by loops."""
    scores, relevant = case
    k = min(k, scores.shape[1])
    shares = []
    for row, flags in zip(scores, relevant, strict=True):
        shares.append(sum(bool(flags[item]) for item in slow_order(row, flags)[:k]) / k)
    expected = sum(shares) / len(shares)
    assert metrics.precision_at_k(scores, relevant, k) == pytest.approx(expected)


@given(queries(), st.integers(1, 10))
def test_ndcg_is_the_discounted_gain_over_the_best_order(case, k):
    """NDCG@k of graded gains, by loops."""
    scores = case[0][0]
    gains = np.abs(case[0][-1])

    def discounted(order):
        return sum(gains[item] / math.log2(place + 1) for place, item in enumerate(order[:k], 1))

    best = discounted(sorted(range(len(gains)), key=lambda i: -gains[i]))
    expected = discounted(slow_order(scores, gains)) / best if best else 0.0
    assert metrics.ndcg_at_k(scores, gains, k) == pytest.approx(expected)


def test_ndcg_of_a_known_order():
    """Gains 3, 0, 2 in this order: (3 + 2 / 2) / (3 + 2 / log2 3)."""
    value = metrics.ndcg_at_k(np.array([3.0, 2.0, 1.0]), np.array([3.0, 0.0, 2.0]), 3)
    assert value == pytest.approx(4 / (3 + 2 / math.log2(3)))


def test_accuracy_wants_the_true_class_strictly_first():
    """A tie with another class is a miss."""
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    assert metrics.accuracy(scores, np.array([0, 0, 1])) == pytest.approx(2 / 3)


def test_precision_recall_f1_by_hand():
    """Three said, two of them right, four true: 2/3, 1/2, and their harmonic mean 4/7."""
    predicted = np.array([1, 1, 1, 0, 0, 0], bool)
    actual = np.array([1, 1, 0, 1, 1, 0], bool)
    found = metrics.precision_recall_f1(predicted, actual)
    assert found == pytest.approx((2 / 3, 1 / 2, 4 / 7))


def test_precision_recall_f1_of_nothing_is_zero():
    """Nothing said and nothing true divides by nothing."""
    nothing = np.zeros(3, bool)
    assert metrics.precision_recall_f1(nothing, nothing) == (0.0, 0.0, 0.0)


def test_shapes_that_differ_are_refused():
    """Scores and labels of other shapes are a mistake, not something to broadcast."""
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.first_ranks(np.zeros((2, 3)), np.zeros((3, 2), bool))


def test_an_empty_measurement_is_refused():
    """No query at all has no recall."""
    with pytest.raises(ValueError, match="no query"):
        metrics.recall_at_k(np.array([], np.int64), 1)


def test_a_tie_is_taken_for_the_other_class():
    """Own only where strictly first; not a number is never right, and always in the way."""
    nan = float("nan")
    scores = np.array(
        [[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.2, 0.8, 0.9], [nan, 0.1, 0], [1, nan, 0]]
    )
    labels = np.array([0, 0, 1, 0, 0])
    assert metrics.predicted_classes(scores, labels).tolist() == [0, 1, 2, 1, 1]


@given(st.integers(0, 2**32 - 1))
def test_accuracy_and_macro_f1_are_those_of_slow_loops(seed):
    """F1 of each class by counting, and their mean; coarse scores, so that there are ties."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 4, (20, 5)) / 4
    labels = generator.integers(0, 5, 20)
    predicted = metrics.predicted_classes(scores, labels)
    assert metrics.accuracy(scores, labels) == pytest.approx(np.mean(predicted == labels))
    found = []
    for c in range(5):
        true = sum(p == c and label == c for p, label in zip(predicted, labels, strict=True))
        false = sum(p == c and label != c for p, label in zip(predicted, labels, strict=True))
        missed = sum(p != c and label == c for p, label in zip(predicted, labels, strict=True))
        found.append(2 * true / (2 * true + false + missed) if true else 0.0)
    assert metrics.macro_f1(predicted, labels, 5) == pytest.approx(sum(found) / 5)


def test_macro_f1_is_that_of_scikit_learn():
    """On random predictions of ten classes, one of which is never there."""
    reference = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    generator = np.random.default_rng(0)
    predicted, labels = generator.integers(0, 9, 200), generator.integers(0, 9, 200)
    expected = reference.f1_score(
        labels, predicted, average="macro", labels=list(range(10)), zero_division=0
    )
    assert metrics.macro_f1(predicted, labels, 10) == pytest.approx(expected)
