"""What an item is worth to a query, against loops over one item at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import UsageError
from mmsearch.fusion import Fusion, leaves, wanted, worth
from mmsearch.language import And, Not, Or, Sum, checked, parse, said, terms_of, text

WORDS = ["cat", "dog", "car", "sea"]


def value(query, z, fusion, subtract=False):
    """What one item is worth; z by the words of a leaf, several of a sum joined by +."""

    def of(terms):
        return z["+".join(f"{term.value}{term.weight:g}" for term in terms)]

    match query:
        case Sum(terms) if subtract:
            return of(terms)
        case Sum(terms):
            plus = [term for term in terms if term.weight > 0]
            if fusion == "sum" or len(plus) == 1:
                base = of(plus)
            elif fusion == "mean":
                base = sum(t.weight * of([t]) for t in plus) / sum(t.weight for t in plus)
            elif fusion == "product":
                total = sum(t.weight for t in plus)
                base = math.prod(max(of([t]), 0.0) ** (t.weight / total) for t in plus)
            else:
                most = max(t.weight for t in plus)
                base = max(t.weight / most * of([t]) for t in plus)
            for term in terms:
                if term.weight < 0 and -term.weight * z[f"{term.value}1"] > base:
                    return -math.inf
            return base
        case And(parts):
            base = min(value(p, z, fusion) for p in parts if not isinstance(p, Not))
            unwanted = [value(p.part, z, fusion) for p in parts if isinstance(p, Not)]
            return -math.inf if any(one > base for one in unwanted) else base
        case Or(parts):
            return max(value(p, z, fusion) for p in parts)


def sums():
    """One to three terms, one of them wanted at least."""
    term = st.tuples(st.sampled_from(WORDS), st.sampled_from([1.0, 0.5, 2.0, -1.0, -2.0]))
    lists = st.lists(term, min_size=1, max_size=3, unique_by=lambda one: one[0])
    wanted_ones = lists.filter(lambda terms: any(weight > 0 for _, weight in terms))
    return wanted_ones.map(
        lambda terms: Sum(tuple(t for w, weight in terms for t in (weight * text(w)).terms))
    )


def queries():
    """Sums, and conditions over them that can be answered."""

    def joined(part):
        either = st.lists(part, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts)))
        both = st.tuples(part, st.lists(part | part.map(Not), min_size=1, max_size=2))
        return either | both.map(lambda parts: And((parts[0], *parts[1])))

    return st.recursive(sums(), joined, max_leaves=5)


@given(queries(), st.sampled_from(Fusion), st.integers(0, 2**32 - 1))
def test_conditions_and_fusions_are_what_they_are_said_to_be(query, fusion, seed):
    """Against one item at a time, in plain arithmetic; and each leaf is asked for once."""
    checked(query)
    mine = leaves(query, fusion)
    assert len(set(mine)) == len(mine)
    z = np.random.default_rng(seed).normal(0, 2, (len(mine), 5)).astype(np.float32)
    found = worth(query, dict(zip(mine, z, strict=True)), fusion)
    for item in range(5):
        by_words = {
            "+".join(f"{term.value}{term.weight:g}" for term in leaf): float(row[item])
            for leaf, row in zip(mine, z, strict=True)
        }
        assert found[item] == pytest.approx(value(query, by_words, fusion), rel=1e-4, abs=1e-5)


def test_subtracting_makes_one_vector_of_a_sum():
    """One leaf, with its weights as they are; nothing is left out."""
    query = text("cat") - 2 * text("dog")
    [leaf] = leaves(query, subtract=True)
    assert [(term.value, term.weight) for term in leaf] == [("cat", 1), ("dog", -2)]
    z = np.array([1.0, -3.0], np.float32)
    assert worth(query, {leaf: z}, subtract=True).tolist() == [1.0, -3.0]
    cat, dog = leaves(query)
    apart = {cat: np.array([1.0, 3.0], np.float32), dog: np.array([1.0, 1.0], np.float32)}
    assert worth(query, apart).tolist() == [-np.inf, 3.0]  # twice 1 is more than 1, less than 3
    assert worth(query, apart, exclude=False).tolist() == [1.0, 3.0]
    assert wanted(query) == [cat]


@pytest.mark.parametrize(
    "words, said_back",
    [
        ('"a dog" AND "a ball"', And((text("a dog"), text("a ball")))),
        ('"a dog" NOT "a ball"', And((text("a dog"), Not(text("a ball"))))),
        ('"a" OR "b" AND NOT "c"', Or((text("a"), And((text("b"), Not(text("c"))))))),
        ('("a" OR "b") AND "c"', And((Or((text("a"), text("b"))), text("c")))),
        ('2:"a" + "b" - "c"', 2 * text("a") + text("b") - text("c")),
        ('a sign that says "no" AND "go"', text('a sign that says "no" AND "go"')),
        ("cats AND dogs", text("cats AND dogs")),
        ('"NOT"', text('"NOT"')),
    ],
)
def test_a_string_of_quoted_parts_is_joined(words, said_back):
    """NOT binds first, then AND, then OR; a string with anything else in it is a phrase."""
    assert said(words) == said_back


def test_conditions_as_arguments_and_in_python_are_the_same():
    """The shell takes the quotes away; & | ~ and - build the same trees."""
    a, b, c = text("a dog"), text("a ball"), text("snow")
    assert parse(["a dog", "AND", "NOT", "a ball"]) == a & ~b
    assert parse(["(", "a dog", "OR", "a ball", ")", "AND", "snow"]) == (a | b) & c
    assert (a & b) - c == And((a, b, Not(c)))
    assert ~~a == a
    assert [term.value for term in terms_of((a | b) & ~c)] == ["a dog", "a ball", "snow"]


@pytest.mark.parametrize(
    "words, why",
    [
        (["a", "AND"], "missing before the end"),
        (["OR", "a"], "missing before OR"),
        (["(", "a"], "never closed"),
        (["a", "AND", ")"], r"missing before \)"),
        (["a", ")"], r"\) is not expected there"),
        (["("] * 40 + ["a"] + [")"] * 40, "16 deep"),
    ],
)
def test_conditions_that_do_not_fit_say_where(words, why):
    """One sentence, no traceback."""
    with pytest.raises(UsageError, match=why):
        parse(words)


@pytest.mark.parametrize("query", [~text("a"), -text("a"), ~text("a") & ~text("b")])
def test_what_says_only_what_to_leave_out_is_refused(query):
    """There has to be something to look for."""
    with pytest.raises(UsageError, match="only what to leave out"):
        checked(query)


def test_row_71_limits_are_named():
    """Row 71: weights that are no numbers, too many terms, conditions too deep."""
    with pytest.raises(UsageError, match="a weight is"):
        checked(math.nan * text("a"))
    with pytest.raises(UsageError, match="200 is the limit"):
        checked(Sum(text("a").terms * 100_000))
    deep = text("a")
    for _ in range(5000):
        deep = And((Or((deep, text("b"))), text("c")))
    with pytest.raises(UsageError, match="16 deep"):
        checked(deep)
    with pytest.raises(UsageError, match="conditions cannot be added"):
        (text("a") & text("b")) + text("c")
