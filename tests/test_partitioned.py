"""Lists about centres: what is in them, which of them a query looks at, by slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from test_index_file import DIM, clustered

faiss = pytest.importorskip("faiss", reason="FAISS is not installed")

from mmsearch.vectors.centres import Centres, gather  # noqa: E402
from mmsearch.vectors.lists import Lists, build_lists, description  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, LISTS = 4000, 40


@pytest.fixture(scope="module")
def made():
    """Lists, the rows in each by FAISS's account, and products of queries with their centres."""
    rng = np.random.default_rng(21)
    rows = clustered(rng, ROWS)
    index = build_lists(rows, iter(np.split(rows, 4)), LISTS, rows.shape[1] // 2, rows[:0])
    lists = Lists(index)
    held = lists.inner.invlists
    members = [
        set(faiss.rev_swig_ptr(held.get_ids(number), held.list_size(number)).tolist())
        if held.list_size(number) else set()
        for number in range(LISTS)
    ]  # fmt: skip
    centres = faiss.downcast_index(lists.inner.quantizer).reconstruct_n(0, LISTS)
    queries = clustered(rng, 30)
    leading = lists._turn.d_out - lists.inner.d
    near, units = Centres(centres[:, :leading]).products(lists._turn.apply(queries)[:, :leading])
    return lists, members, near * units.astype(np.float64), queries


@pytest.mark.parametrize("gap", [0.0, 0.05, 0.3, np.inf])
def test_a_query_looks_at_the_lists_within_the_gap(made, gap):
    """Asked for every row there is, it finds those of these lists, each once, and no other."""
    lists, members, near, queries = made
    lists.gap = np.float32(gap)
    _, places = lists.search(queries, ROWS)
    for line, products in zip(places, near, strict=True):
        found = line[line >= 0].tolist()
        expected = set().union(
            *(members[number] for number in range(LISTS) if products[number] >= max(products) - gap)
        )
        assert len(found) == len(set(found))
        assert set(found) == expected
    assert sorted(set().union(*members)) == list(range(ROWS))


def test_gaps_say_from_where_on_a_row_is_looked_for(made):
    """How far the list of each row lies behind the query's nearest."""
    lists, members, near, queries = made
    places = np.random.default_rng(22).integers(0, ROWS, (len(queries), 7))
    for line, products, gaps in zip(places, near, lists.gaps(queries, places), strict=True):
        own = [next(n for n in range(LISTS) if place in members[n]) for place in line.tolist()]
        assert gaps == pytest.approx([max(products) - products[number] for number in own], abs=1e-5)


def test_a_cost_is_counted_from_lists_their_rows_and_what_is_scored(made):
    """By hand: 100 ns a list, 0.055 a byte of codes, 30 a row scored and 0.25 each of its bytes,
    and 1,500 more where its page has to be mapped.
    """
    lists, members, near, queries = made
    lists.gap = np.float32(0.1)
    looked = [
        [len(members[n]) for n in range(LISTS) if products[n] >= max(products) - 0.1]
        for products in near
    ]
    codes = lists.inner.pq.M / 2
    expected = sum(100 * len(sizes) + 0.055 * codes * sum(sizes) for sizes in looked) / len(looked)
    assert lists.cost(queries, 7, False) == pytest.approx(expected + 7 * (30 + 0.25 * DIM))
    assert lists.cost(queries, 7, True) == pytest.approx(expected + 7 * (1530 + 0.25 * DIM))


def test_codes_leave_out_directions_in_which_rows_hardly_vary():
    """Of 64 directions, 16 of which are next to nothing, 48 and no more are coded."""
    rng = np.random.default_rng(23)
    rows = rng.normal(size=(3000, 64)).astype(np.float32)
    rows[:, 40:] *= 0.01
    turned = np.linalg.qr(rng.normal(size=(64, 64)))[0].astype(np.float32)
    lists = Lists(build_lists(rows @ turned, iter([rows @ turned]), 16, 32, rows[:0]))
    assert lists.inner.d == 64  # as many as centres differ in, at least
    wide = np.concatenate([rows] + [0.01 * rows] * 3, axis=1)
    lists = Lists(build_lists(wide, iter([wide]), 16, 128, wide[:0]))
    assert (lists.inner.d, lists.inner.pq.M) == (64, 32)
    assert description(lists._index) == "OPQ32_64,IVF16,PQ32x4fsr"


def test_rows_alike_make_lists_all_the_same():
    """No variance at all, and as many centres as rows: each is found."""
    rows = np.repeat(clustered(np.random.default_rng(24), 1), 20, axis=0)
    lists = Lists(build_lists(rows, iter([rows]), 64, 16, rows[:0]))
    _, places = lists.search(rows[:1], 20)
    assert sorted(places[0].tolist()) == list(range(20))


def test_products_with_centres_are_those_of_slow_loops_by_whole_numbers():
    """Both sides rounded as said: products, and the centre with the highest."""
    rng = np.random.default_rng(25)
    rows, vectors = clustered(rng, 3000, 16), clustered(rng, 50, 16)
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    away = vectors - vectors.mean(axis=0)
    step = np.abs(away).max() / 127
    whole = np.rint(rows / scales).astype(np.int64) @ np.rint(away / step).astype(np.int64).T
    centres = Centres(vectors)
    products, units = centres.products(rows)
    assert products.tolist() == whole.tolist()
    assert units == pytest.approx(scales * step)
    assert centres.nearest(rows).tolist() == whole.argmax(axis=1).tolist()
    # within what rounding moves, they are those of the rows, but for a constant of each row
    exact = rows @ vectors.T - (rows @ vectors.mean(axis=0))[:, None]
    assert np.abs(products * units - exact).max() <= 16 * (scales.max() + step) / 2


def test_centres_are_unit_rows_where_rows_are_far_from_nought_too():
    """Every row about one place: lists share them out, none of them empty."""
    rng = np.random.default_rng(27)
    rows = clustered(rng, 5000, 16) + 3 * np.eye(16, dtype=np.float32)[3]
    vectors = gather(rows, 50)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(50), abs=1e-5)
    assert np.bincount(Centres(vectors).nearest(rows), minlength=50).min() > 0


def test_centres_gather_clusters():
    """Twelve clusters far apart: no two of their rows share a centre with another's."""
    rng = np.random.default_rng(26)
    middles = np.linalg.qr(rng.normal(size=(16, 16)))[0][:12]
    of = np.arange(2400) % 12
    rows = (middles[of] + 0.02 * rng.normal(size=(2400, 16))).astype(np.float32)
    near = Centres(gather(rows, 40)).nearest(rows)
    for number in np.unique(near):
        assert len(set(of[near == number].tolist())) == 1
