"""Queries of every kind through the library, against brute force with the fake encoder's rows."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import colour_row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mmsearch
from mmsearch.answers import answering
from mmsearch.errors import UsageError
from mmsearch.fusion import leaves, worth
from mmsearch.language import said

NAMES = ["red", "green", "blue", "yellow", "cyan", "magenta", "white"]
UNKNOWN = 0.05  # a standardised score where an encoder knows no background: its score over this


@pytest.fixture
def coloured(library, photos):
    """A picture of each colour, named by a number, so that words have no part in it."""
    for number, name in enumerate(NAMES):
        photos.paint(f"{number}.png", name, (8, 8 + number))
    library.index(photos)
    return library


def colours(hits):
    """The colours of the answers, in order."""
    return [NAMES[int(hit.path.stem)] for hit in hits]


def by_hand(query, **how):
    """The colours that are left, best first; earlier ones first among equals."""
    z = {}
    for leaf in leaves(query, **how):
        row = np.sum([term.weight * colour_row(term.value) for term in leaf], axis=0)
        row = row / np.linalg.norm(row)
        z[leaf] = np.array([row @ colour_row(name) for name in NAMES]) / UNKNOWN
    values = worth(query, z, **how)
    order = sorted(range(len(NAMES)), key=lambda n: (-round(float(values[n]), 2), n))
    return [NAMES[n] for n in order if values[n] > -np.inf]


@pytest.mark.parametrize(
    "asked, how, first",
    [
        ('"red" AND "green"', {}, "yellow"),
        ('"red" + "green"', {}, "yellow"),
        ('"red" OR "blue"', {}, "red"),
        ('"red" + "green"', {"fusion": "product"}, "yellow"),
        ('"red" + "blue"', {"fusion": "max"}, "red"),
        ('"yellow" AND NOT "green"', {}, "yellow"),
        ('"yellow" - "green"', {}, "yellow"),
        ('"yellow" - "green"', {"subtract": True}, "red"),
        ('("red" OR "cyan") AND "blue"', {}, "blue"),
    ],
)
def test_conditions_by_hand(coloured, asked, how, first):
    """In the order of the arithmetic; what is not wanted is not there."""
    hits = coloured.query(asked, k=9, **how)
    expected = by_hand(said(asked), **how)
    assert colours(hits)[0] == first == expected[0]
    assert set(colours(hits)) == set(expected)


def test_what_is_not_wanted_goes_when_it_fits_better(coloured):
    """Yellow is as much green as red: it stays; green, cyan and what is nearer to green go."""
    assert set(colours(coloured.query('"red" AND NOT "green"', k=9))) == {
        "red", "blue", "yellow", "magenta", "white",
    }  # fmt: skip
    twice = colours(coloured.query('"red" - 2:"green"', k=9))
    assert set(twice) == {"red", "blue", "magenta"}


ASKED = st.sampled_from(NAMES[:6])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(ASKED, ASKED, st.sampled_from(["AND", "OR", "+", "-"])), max_size=40))
def test_many_at_once_are_answered_as_one_by_one(coloured, asked):
    """The same hits, scores and order, however many share a product."""
    queries = [f'"{a}" {sign} "{b}"' for a, b, sign in asked]
    together = coloured.query_many(queries, 3)
    assert [[(hit.id, hit.rank) for hit in hits] for hits in together] == [
        [(hit.id, hit.rank) for hit in coloured.query(query, 3)] for query in queries
    ]
    for hits, query in zip(together, queries, strict=True):
        scores = [hit.score for hit in coloured.query(query, 3)]
        assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-6)


def test_a_filter_chooses_what_is_scored(coloured):
    """The best of those that fit, however far down they are among all."""
    for height in range(8, 15):
        [hit] = coloured.query("red", where=f"height >= {height}", k=1)
        left = NAMES[height - 8 :]
        best = max(float(colour_row("red") @ colour_row(name)) for name in left)
        assert hit.score == pytest.approx(best, abs=1e-3)
    assert coloured.query("red", where="height > 99") == []


def test_a_filter_never_cuts_the_first_words(library, photos, monkeypatch):
    """Words that fit better outside of the filter do not take the place of those within."""
    monkeypatch.setattr(answering, "_CANDIDATES", 2)
    monkeypatch.setattr(answering, "_SPARE", 1)
    names = [f"a/zebra {n}.png" for n in range(3)] + [f"b/{n}.png" for n in range(4)]
    for number, name in enumerate([*names, "b/zebra.png"]):
        photos.paint(name, "red", (8, 8 + number))
    library.index(photos)
    kept = {"where": "path like '*/b/*'"}
    assert library.query("zebra", 1, **kept)[0].path == photos / "b/zebra.png"
    assert library.query("zebra", 1, **kept, hybrid="off")[0].path == photos / "b/0.png"


def test_files_that_are_not_to_be_answers(coloured, photos):
    """What a query is made of can be left out, and the next best takes its place."""
    red = photos / "0.png"
    asked = mmsearch.image(red)
    assert coloured.query(asked, 1)[0].path == red
    first, second = coloured.query(asked, 3)[:2]
    assert coloured.query(asked, 1, exclude=[red])[0].path == second.path != first.path


def test_a_caption_finds_its_picture(library, photos):
    """Through its vector, and not when only the items' own vectors are looked at."""
    photos.paint("0.png", "blue")
    photos.paint("1.png", "cyan", (8, 9))
    (photos / "0.txt").write_text("red\n")
    library.index(photos)
    assert [hit.path.name for hit in library.query("red", 1)] == ["0.png"]
    assert library.query("red", 1)[0].captions == ("red",)
    assert [hit.path.name for hit in library.query("green", 1)] == ["1.png"]
    by_vectors = library.query("red", 2, hybrid="off")
    assert [hit.score for hit in by_vectors] == pytest.approx([0, 0], abs=1e-3)
    [by_words] = library.query("red", hybrid="only")
    assert (by_words.path.name, by_words.score) == ("0.png", None)


@pytest.mark.parametrize(
    "how, why",
    [
        ({"k": 0}, "at least 1, not 0"),
        ({"fusion": "vote"}, "fusion is one of sum, mean, product, max, not 'vote'"),
        ({"hybrid": "maybe"}, "hybrid is one of auto, off, only"),
        ({"sort": "size"}, "sort is one of score, date, path"),
        ({"min_relevance": 1.5}, "from 0 to 1, not 1.5"),
        ({"colour": "red"}, "a query has no option 'colour'"),
    ],
)
def test_options_that_are_none_are_named(coloured, how, why):
    """Before anything is looked for."""
    with pytest.raises(UsageError, match=why):
        coloured.query("red", **how)


def test_pictures_have_no_words(coloured, photos):
    """`hybrid` "only" with a picture says what to do instead."""
    with pytest.raises(UsageError, match="ask in words"):
        coloured.query(mmsearch.image(photos / "0.png"), hybrid="only")
