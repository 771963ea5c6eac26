"""Lists of several spaces made into one, by hand."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.joint import join
from mmsearch.ranking import reciprocal_rank_fusion
from mmsearch.records import Hit, Modality


def hits(space, *rows):
    """(id, score, relevance) as hits, in this order."""
    return [
        Hit(
            rank, score, relevance, Path(str(id)), Modality.TEXT, id, space=space if score else None
        )
        for rank, (id, score, relevance) in enumerate(rows, start=1)
    ]


def test_by_rank():
    """1/6; then (1/8 + 1/6) / 2 of the one that both know; then 1/7 twice, as they were met."""
    a = hits("a", (1, 0.3, None), (2, 0.2, None), (3, 0.1, None))
    b = hits("b", (3, 0.9, None), (4, 0.8, None))
    found = join([a, b], Counter({1: 1, 2: 1, 3: 2, 4: 1}))
    assert [(hit.rank, hit.id, hit.score, hit.space) for hit in found] == [
        (1, 1, 0.3, "a"), (2, 3, 0.9, "b"), (3, 2, 0.2, "a"), (4, 4, 0.8, "b")
    ]  # fmt: skip


def test_what_one_list_lacks_costs_what_it_knows():
    """Known to both and found by one alone, an item has half of its rank's worth: 1/12 < 1/7."""
    a = hits("a", (1, 0.3, None), (2, 0.2, None))
    b = hits("b", (3, 0.9, None))
    assert [h.id for h in join([a, b], Counter({1: 2, 2: 1, 3: 1}))] == [3, 2, 1]


def test_by_relevance_where_all_have_one():
    """The highest of an item's relevances counts, whatever its ranks; its score is by rank."""
    a = hits("a", (1, 0.3, 0.5), (2, 0.2, 0.4))
    b = hits("b", (2, 0.9, 0.8), (3, 0.1, 0.7))
    found = join([a, b], Counter({1: 1, 2: 2, 3: 1}))
    assert [(hit.id, hit.relevance, hit.score) for hit in found] == [
        (2, 0.8, 0.9), (3, 0.7, 0.1), (1, 0.5, 0.3)
    ]  # fmt: skip


def test_by_rank_where_one_is_not_calibrated():
    """A relevance of one list says nothing of the other's items; who has one keeps it."""
    a = hits("a", (1, 0.3, 0.1), (2, 0.2, 0.05))
    b = hits("b", (3, 0.9, None), (1, 0.1, None))
    found = join([a, b], Counter({1: 2, 2: 1, 3: 1}))
    assert [(hit.id, hit.relevance) for hit in found] == [(3, None), (1, 0.1), (2, 0.05)]


def test_words_alone_count_where_no_vector_does():
    """Once, where the first list has it; not where some space knows the item by its vector."""
    a = hits("a", (7, None, None), (1, 0.3, None), (2, None, None))
    b = hits("b", (2, 0.9, None), (7, None, None))
    found = join([a, b], Counter({1: 1, 2: 1}))
    assert [(hit.id, hit.score) for hit in found] == [(7, None), (2, 0.9), (1, 0.3)]


@settings(deadline=None)
@given(st.lists(st.permutations(range(8)), min_size=1, max_size=4))
def test_items_that_all_lists_know_are_fused_as_ever(lists):
    """Divided by the same number, sums keep their order."""
    known = dict.fromkeys(range(8), len(lists))
    plain = reciprocal_rank_fusion(lists, 5)

    def values(order):  # without rounding: ids of equal sums may change places
        return [sum(Fraction(1, 6 + ranking.index(id)) for ranking in lists) for id in order]

    assert values(plain) == sorted(values(plain), reverse=True)
    assert values(reciprocal_rank_fusion(lists, 5, known=known)) == values(plain)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9))
def test_lists_without_a_common_item_take_turns(one, other):
    """Neither is buried: first come both first places, then both second ones."""
    a, b = [f"a{n}" for n in range(one)], [f"b{n}" for n in range(other)]
    known = dict.fromkeys([*a, *b], 1)
    turns = [row[n] for n in range(max(one, other)) for row in (a, b) if n < len(row)]
    assert reciprocal_rank_fusion([a, b], 5, known=known) == turns
