"""Fusion of lists and of evidence: hand arithmetic, slow loops, and the laws it has to keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.ranking import fuse, reciprocal_rank_fusion

NONE = math.nan
Z = st.floats(-8, 8, width=32)
NATS = st.floats(0, 20, width=32)


def slow_fuse(own, captions, words):
    """One item by the definition in the docstring; None where it has nothing."""
    if own is not None and captions is not None:
        described = max((own + captions - 0.5) / 2, own - 0.5)
    elif own is not None:
        described = own
    else:
        described = None if captions is None else captions - 0.5
    if words is None:
        return described
    told = words / 2
    return (told if described is None else max(described, told)) + words / 10


def one(own, captions, words):
    """fuse for a single item."""
    return float(fuse(np.array(own), np.array(captions), np.array(words)))


@pytest.mark.parametrize(
    "own, captions, words, value",
    [
        (3, NONE, NONE, 3),  # no caption, no words: its own z
        (3, 4.5, NONE, 3.5),  # the mean, with half a deviation off what the caption says
        (3, 0, NONE, 2.5),  # a caption of something else takes half a deviation, no more
        (NONE, 4, NONE, 3.5),  # no vector of its own
        (3, NONE, 4, 3.4),  # words add a tenth of their nats
        (0.5, NONE, 8, 4.8),  # asked for by name: whatever it shows
        (NONE, NONE, 8, 4.8),  # waits to be encoded
        (3, 4.5, 0, 3.5),
        (NONE, NONE, NONE, NONE),
    ],
)
def test_fuse_by_hand(own, captions, words, value):
    """What each rule gives."""
    assert one(own, captions, words) == pytest.approx(value, nan_ok=True)


@given(st.lists(st.tuples(*[st.one_of(st.none(), values) for values in (Z, Z, NATS)]), min_size=1))
def test_fuse_of_many_is_that_of_each(items):
    """Arrays of any shape, elementwise, as one by one; no warning is raised for what is absent."""
    columns = [
        np.array([NONE if v is None else v for v in c], np.float32)
        for c in zip(*items, strict=True)
    ]
    with np.errstate(invalid="raise", divide="raise"):
        found = fuse(*columns)
        assert np.array_equal(fuse(*(c[None] for c in columns))[0], found, equal_nan=True)
    assert found.dtype == np.float32
    right = [slow_fuse(*item) for item in items]
    assert found.tolist() == pytest.approx(
        [NONE if value is None else value for value in right], rel=1e-5, abs=1e-5, nan_ok=True
    )


@given(Z, Z, NATS, st.floats(0, 4), st.integers(0, 2))
def test_more_evidence_is_never_worth_less(own, captions, words, more, which):
    """Rising in each argument; so one list alone keeps its order."""
    low = [own, captions, words]
    high = [value + more * (which == number) for number, value in enumerate(low)]
    assert one(*high) >= one(*low)


@given(Z, Z)
def test_a_caption_takes_little_away(own, captions):
    """However little a caption fits, its picture loses half a deviation at most."""
    assert one(own, captions, NONE) >= own - 0.5


# -- lists -----------------------------------------------------------------------------


def slow_fusion(lists, k, weights):
    """The sums by the definition, for every id there is."""
    ids = dict.fromkeys(id for ranking in lists for id in ranking)
    sums = {
        id: sum(
            weight / (k + ranking.index(id) + 1)
            for ranking, weight in zip(lists, weights, strict=True)
            if id in ranking
        )
        for id in ids
    }
    return sorted(ids, key=lambda id: -sums[id])


def test_rank_fusion_by_hand():
    """2 is in both lists; of the others the one that stands higher comes first."""
    assert reciprocal_rank_fusion([[1, 2], [2, 3]]) == [2, 1, 3]
    # 1: 1/6 + 0.5/8, 2: 1/7 + 0.5/6, 4: 1/8, 3: 0.5/7
    assert reciprocal_rank_fusion([[1, 2, 4], [2, 3, 1]], k=5, weights=[1, 0.5]) == [1, 2, 4, 3]
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion([[], []]) == []


@given(
    st.lists(st.permutations(range(8)).map(lambda one: one[:5]), max_size=4),
    st.sampled_from([0, 5, 60]),
    st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=4, max_size=4),
)
def test_rank_fusion_agrees_with_slow_loops(lists, k, weights):
    """The same list as from the definition, ties included."""
    mine = weights[: len(lists)]
    assert reciprocal_rank_fusion(lists, k, mine) == slow_fusion(lists, k, mine)


@given(st.permutations(range(20)))
def test_rank_fusion_of_one_list(ranking):
    """A list alone, or twice, stays as it is."""
    assert reciprocal_rank_fusion([ranking]) == list(ranking)
    assert reciprocal_rank_fusion([ranking, ranking], weights=[1, 3]) == list(ranking)


def test_rank_fusion_wants_a_weight_a_list():
    """Three lists, two weights: no list is left out in silence."""
    with pytest.raises(ValueError, match="zip"):
        reciprocal_rank_fusion([[1], [2], [3]], weights=[1, 1])
