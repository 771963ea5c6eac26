"""Engines over a matrix, through any history, against numpy's store: by value and by order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_index_file import DIM, MARK, clustered, matrix_of

from mmsearch.vectors import Engine, build_index, choose, gpu_available, open_store
from mmsearch.vectors.exact import ExactStore
from mmsearch.vectors.matrix import open_matrix
from mmsearch.vectors.planning import Plan
from mmsearch.vectors.rounded import Rounded, round_rows, step_of
from mmsearch.vectors.scanning import scan

faiss = pytest.importorskip("faiss", reason="FAISS is not installed")

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = {
    "staged": Plan(Engine.STAGED, "PQ4x4fs", 0.999, 0),
    # all of its lists are looked at: what is left to chance is measured, not asserted
    "partitioned": Plan(Engine.PARTITIONED, "OPQ16_32,IVF4,PQ16x4fsr", 1.0, 0),
    "flat": Plan(Engine.FAISS, "Flat", 1.0, 0),
}


@pytest.fixture(params=["staged", "gpu"])
def engine(request):
    """The name of an exact engine that can run here."""
    if request.param == "gpu" and not gpu_available():
        pytest.skip("no GPU, or a FAISS without GPUs")
    return request.param


def opened(engine, matrix, path):
    """A store of this engine over a matrix."""
    if engine == "gpu":
        return open_store("gpu", matrix.rows.vectors.shape[1], matrix)
    index, _ = build_index(path, matrix, ENGINES[engine], {})
    return open_store("auto", matrix.rows.vectors.shape[1], matrix, index)


def looked_at(matrix, index, queries):
    """How many lists a query looks at, on average, by products with all centres."""
    lists = open_store("auto", DIM, matrix, index).first
    centres = faiss.downcast_index(lists.inner.quantizer).reconstruct_n(0, lists.inner.nlist)
    leading = lists._turn.d_out - lists.inner.d
    near = lists._turn.apply(queries)[:, :leading] @ centres[:, :leading].T
    return (near >= near.max(axis=1, keepdims=True) - index.settings["gap"]).sum(axis=1).mean()


def whole_numbers(rng, count, dim=4):
    """Rows of small whole numbers: exact in half precision, and many of them alike."""
    return rng.integers(-2, 3, (count, dim)).astype(np.float32)


def same(store, oracle, queries, k, among=None):
    """Both answer alike, ids in order and scores to the last bits."""
    among = None if among is None else np.array(sorted(among), np.int64)
    scores, ids = store.search(queries, k, among)
    expected_scores, expected = oracle.search(queries, k, among)
    assert ids.tolist() == expected.tolist()
    assert np.allclose(scores, expected_scores, atol=1e-5)


vectors = st.lists(st.integers(-2, 2), min_size=4, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(vectors, min_size=1, max_size=6)),
        st.tuples(st.just("remove"), st.lists(st.integers(1, 700), max_size=40)),
        st.tuples(st.just("search"), st.lists(vectors, min_size=1, max_size=3), st.integers(1, 9)),
        st.tuples(st.just("many"), st.lists(vectors, min_size=14, max_size=14), st.just(5)),
        st.tuples(st.just("among"), st.lists(vectors, min_size=1, max_size=2), st.integers(1, 12),
                  st.sampled_from([2, 3, 30])),
        st.tuples(st.just("restart")),
    ),
    max_size=8,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps, seed=st.integers(0, 5))
def test_any_history_answers_as_numpy_does(engine, tmp_path_factory, monkeypatch, steps, seed):
    """Rows alike by the dozen and cuts that are far too near: adds, removes, filters, restarts."""
    monkeypatch.setattr("mmsearch.vectors.staged._FINALISTS", 4)
    monkeypatch.setattr("mmsearch.vectors.staged._BEYOND", 1)
    monkeypatch.setattr("mmsearch.vectors.staged._CHOSEN", 0)
    monkeypatch.setattr("mmsearch.vectors.staged._COARSE", 2)
    monkeypatch.setattr("mmsearch.vectors.rounded.BLOCK", 64)
    folder = tmp_path_factory.mktemp("history")
    matrix = matrix_of(folder / "0.matrix", whole_numbers(np.random.default_rng(seed), 600))
    matrix = matrix_of(
        folder / "0.matrix", matrix.rows.vectors.astype(np.float32), ids=np.arange(1, 601)
    )
    store, oracle = opened(engine, matrix, str(folder / "0.index")), ExactStore(4, matrix)
    next_id = 601
    for number, (step, *values) in enumerate(steps, 1):
        if step == "add":
            ids = np.arange(next_id, next_id + len(values[0]))
            next_id += len(values[0])
            for one in (store, oracle):
                one.add(ids, np.array(values[0], np.float32))
        elif step == "remove":
            for one in (store, oracle):
                one.remove(np.array(values[0], np.int64))
        elif step == "restart":
            matrix = open_matrix(oracle.save(str(folder / f"{number}.matrix"), number, MARK).path)
            store = opened(engine, matrix, str(folder / f"{number}.index"))
            oracle = ExactStore(4, matrix)
        elif step == "among":
            same(store, oracle, np.array(values[0], np.float32), values[1],
                 range(1, 700, values[2]))  # fmt: skip
        else:
            same(store, oracle, np.array(values[0], np.float32), values[1])
        assert len(store) == len(oracle)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Twenty thousand rows, their matrix, and forty queries."""
    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("large")
    return matrix_of(folder / "a.matrix", clustered(rng, 20_000)), clustered(rng, 40), folder


@pytest.mark.parametrize("name", ["staged", "partitioned", "flat", "gpu"])
@pytest.mark.parametrize("together", [1, 40])
def test_filters_keep_a_recall_of_one_at_every_selectivity(name, together, large):
    """From three ids to all but one, one query or many, with rows removed: numpy's answers."""
    matrix, queries, folder = large
    if name == "gpu" and not gpu_available():
        pytest.skip("no GPU, or a FAISS without GPUs")
    store, oracle = opened(name, matrix, str(folder / f"{name}.index")), ExactStore(DIM, matrix)
    rng = np.random.default_rng(8)
    for one in (store, oracle):
        one.remove(matrix.rows.ids[::9])
    for size in (3, 20, 200, 2000, 9000, 19_999):
        among = np.sort(rng.choice(matrix.rows.ids, size, replace=False))
        among.flags.writeable = False
        for _ in range(3):  # the second time its rows are held, the third time it is they
            _, ids = store.search(queries[:together], 10, among)
            assert ids.tolist() == oracle.search(queries[:together], 10, among)[1].tolist()
        for one in (store, oracle):
            one.remove(among[:1])  # and forgotten


def test_two_thousand_rows_alike_come_by_their_ids(engine, tmp_path):
    """More of the same than any stage lets through: the ten with the lowest ids."""
    rows = clustered(np.random.default_rng(9), 6000)
    rows[1::3] = rows[0]
    matrix = matrix_of(tmp_path / "a.matrix", rows, ids=np.arange(6000))
    store = opened(engine, matrix, str(tmp_path / "a.index"))
    for count in (1, 20):
        _, ids = store.search(np.repeat(rows[:1], count, axis=0), 10)
        assert ids.tolist() == [[0, 1, 4, 7, 10, 13, 16, 19, 22, 25]] * count


def test_lists_are_set_by_texts_and_measured_with_fresh_ones(tmp_path):
    """Few lists a query reach the target; figures of the other half."""
    rng = np.random.default_rng(10)
    matrix = matrix_of(tmp_path / "a.matrix", clustered(rng, 8000))
    plan = Plan(Engine.PARTITIONED, "OPQ16_32,IVF64,PQ16x4fsr", 0.9, 0)
    queries = {"text": clustered(rng, 200), "image": clustered(rng, 60)}
    index, _ = build_index(str(tmp_path / "a.index"), matrix, plan, queries)
    assert index.plan.engine is Engine.PARTITIONED
    assert index.note == ""
    assert 1 <= looked_at(matrix, index, queries["text"]) < 32
    store, oracle = open_store("auto", DIM, matrix, index), ExactStore(DIM, matrix)
    for kind, fresh in (("text", queries["text"][1::2]), ("image", queries["image"][1::2])):
        found, truth = store.search(fresh, 10)[1], oracle.search(fresh, 10)[1]
        hits = sum(
            len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)
        )
        assert index.measured[kind]["recall@10"] == pytest.approx(hits / truth.size)
        assert index.measured[kind]["queries"] == len(fresh)
    assert index.measured["text"]["recall@10"] >= 0.9


def test_what_falls_short_is_searched_exactly_and_says_so(tmp_path, monkeypatch):
    """Codes too coarse for their target: the exact plan is built in their place."""
    monkeypatch.setattr("mmsearch.vectors.tuning._CHOSEN", [10])
    rng = np.random.default_rng(11)
    matrix = matrix_of(tmp_path / "a.matrix", clustered(rng, 4000))
    plan = Plan(Engine.FAISS, "PQ2x4fs", 0.97, 0)
    index, _ = build_index(str(tmp_path / "a.index"), matrix, plan, {"text": clustered(rng, 100)})
    assert index.plan.exact
    assert "reached a recall of 0." in index.note
    assert "0.97 was asked for: searched exactly instead" in index.note
    assert index.measured["text"]["recall@10"] >= 0.999


def test_a_factory_string_that_faiss_does_not_know(tmp_path):
    """The user's mistake, in one sentence; nothing is left under the index's name."""
    matrix = matrix_of(tmp_path / "a.matrix", clustered(np.random.default_rng(12), 100))
    plan = choose(100, DIM, factory="IVQ12,Nonsense")
    with pytest.raises(ValueError, match="FAISS does not know an index 'IVQ12,Nonsense'"):
        build_index(str(tmp_path / "a.index"), matrix, plan, {})
    assert not (tmp_path / "a.index").exists()


@pytest.mark.parametrize("factory", ["IVF64,PQ4x4fs", "IVF16,Flat,RFlat", "OPQ4_8,PQ4x4fs", "PQ2"])
def test_few_rows_for_many_lists_are_no_news(tmp_path, capfd, factory):
    """FAISS's own warnings stay off the terminal."""
    matrix = matrix_of(tmp_path / "a.matrix", clustered(np.random.default_rng(14), 300))
    build_index(str(tmp_path / "a.index"), matrix, choose(300, DIM, factory=factory), {})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("count, size", [(1, 300), (5, 5000), (33, 40_000)])
def test_rounded_products_are_those_of_slow_loops(count, size):
    """The k highest of rounded rows with rounded queries, and their values, by whole numbers."""
    rng = np.random.default_rng(size)
    rows, queries = clustered(rng, size, 16), clustered(rng, count, 16)
    mean = rows.mean(axis=0)
    step = float(np.abs(rows - mean).max() / 127)
    held = np.concatenate(list(round_rows([rows], mean, step)))
    assert np.abs((held - 128.0) * step + mean - rows).max() <= step / 2 + 1e-6
    scales = np.abs(queries).max(axis=1) / 127
    whole = np.rint(queries / scales[:, None]).astype(np.int64)
    products = (held.astype(np.int64) - 128) @ whole.T  # (n, q)
    values = products.T * (step * scales)[:, None] + (queries @ mean)[:, None]
    some = rng.integers(0, size, (count, 9))
    at = Rounded(held, mean, step).scores(queries, some)
    assert at == pytest.approx(np.take_along_axis(values, some, 1), abs=1e-5)
    for keep in (None, np.arange(0, size, 7)):
        scores, places = Rounded(held, mean, step).best(queries, 12, keep)
        kept = np.arange(size) if keep is None else keep
        for line in range(count):
            best = np.sort(values[line, kept])[::-1][:12]
            assert np.sort(scores[line])[::-1] == pytest.approx(best, abs=1e-5)
            assert values[line, places[line]] == pytest.approx(scores[line], abs=1e-5)
            assert len(set(places[line].tolist())) == 12


def test_lists_without_clusters_are_set_to_few_rows_that_codes_choose(tmp_path):
    """Where most lists must be looked at, a recall is still reached by few rows of them."""
    rng = np.random.default_rng(15)
    rows = rng.normal(size=(7000, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    matrix, queries = matrix_of(tmp_path / "a.matrix", rows[:6000]), rows[6000:]
    plan = Plan(Engine.PARTITIONED, "OPQ16_32,IVF64,PQ16x4fsr", 0.95, 0)
    index, _ = build_index(str(tmp_path / "a.index"), matrix, plan, {"text": queries})
    assert index.plan.engine is Engine.PARTITIONED
    assert 16 <= looked_at(matrix, index, queries) <= 64
    assert index.settings["coarse"] <= 400
    store, oracle = open_store("auto", DIM, matrix, index), ExactStore(DIM, matrix)
    found, truth = (one.search(queries[::2], 10)[1] for one in (store, oracle))
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    assert hits >= 0.96 * truth.size


def test_codes_rank_the_true_rows_as_slow_loops_do(tmp_path):
    """Where each true row stands among what codes choose; beyond them all where it is missing."""
    from mmsearch.vectors import tuning

    rng = np.random.default_rng(16)
    matrix = matrix_of(tmp_path / "a.matrix", clustered(rng, 3000))
    store = opened("partitioned", matrix, str(tmp_path / "a.index"))
    store.set_up({"gap": 0.2})
    queries = clustered(rng, 9)
    truth = tuning.nearest(matrix.rows.vectors, queries)
    oracle = np.argsort(-(queries @ matrix.rows.vectors.astype(np.float32).T), axis=1)[:, :10]
    assert truth.places.tolist() == oracle.tolist()
    chosen = store.chosen(queries, 1600).tolist()
    expected = [
        [line.index(place) if place in line else 1600 for place in places]
        for line, places in zip(chosen, oracle.tolist(), strict=True)
    ]
    assert tuning._ranks(store, queries, truth.places, 1600).tolist() == expected


@pytest.mark.parametrize("stay", [2**27, 0])
def test_what_codes_choose_is_scored_from_the_rows(tmp_path, monkeypatch, stay):
    """Slow loops: of thirty rows that codes choose, the ten with the highest products; where rows
    may not stay in memory, of the sixteen with the highest products of whole numbers.
    """
    monkeypatch.setattr("mmsearch.vectors.staged._STAY", stay)
    rng = np.random.default_rng(19)
    matrix = matrix_of(tmp_path / "a.matrix", clustered(rng, 3000))
    store = opened("partitioned", matrix, str(tmp_path / "a.index"))
    store.set_up({"gap": 0.2})
    store.coarse = 30
    queries = clustered(rng, 9)
    scores, ids = store.search(queries, 10)
    chosen = store.chosen(queries, 30)
    if not stay:
        rough = store._rounded.scores(queries, chosen)
        chosen = np.take_along_axis(chosen, np.argsort(-rough, axis=1)[:, :16], 1)
    for query, line, found, places in zip(queries, scores, ids, chosen, strict=True):
        products = matrix.rows.vectors[places].astype(np.float32) @ query
        best = np.argsort(-products)[:10]
        assert found.tolist() == matrix.rows.ids[places[best]].tolist()
        assert line == pytest.approx(products[best], abs=1e-6)


@pytest.mark.parametrize("size, k", [(40, 40), (70_000, 30)])
def test_a_scan_over_bytes_is_a_product_with_each(size, k):
    """The k highest of rounded rows with whole queries, their values and where they are."""
    rng = np.random.default_rng(size)
    rows, queries = clustered(rng, size, 16), clustered(rng, 3, 16)
    mean = rows.mean(axis=0)
    step = step_of([rows], mean)
    held = np.concatenate(list(round_rows([rows], mean, step)))
    values = queries @ ((held - 128.0) * step + mean).T
    scores, places = scan(Rounded(held, mean, step), queries, k)
    for line in range(3):
        assert values[line, places[line]] == pytest.approx(scores[line], abs=1e-5)
        assert np.sort(scores[line]) == pytest.approx(np.sort(values[line])[-k:], abs=1e-5)
        assert len(set(places[line].tolist())) == k


def test_rows_that_codes_are_not_sure_of_are_found_among_all_rounded_rows(tmp_path, monkeypatch):
    """Pictures that are nearly alike: exact answers, without multiplying every row."""
    rng = np.random.default_rng(17)
    rows = rng.normal(size=(1, DIM)) + 0.03 * rng.normal(size=(12_000, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    matrix = matrix_of(tmp_path / "a.matrix", rows)
    store, oracle = opened("staged", matrix, str(tmp_path / "a.index")), ExactStore(DIM, matrix)
    queries = clustered(rng, 5)
    expected = oracle.search(queries, 10)[1].tolist()
    asked = []
    monkeypatch.setattr(
        "mmsearch.vectors.staged.scan", lambda *given: asked.append(given[2]) or scan(*given)
    )
    monkeypatch.setattr("mmsearch.vectors.staged._CHOSEN", 20)
    monkeypatch.setattr("mmsearch.vectors.staged._COARSE", 1)
    assert [store.search(query[None], 10)[1][0].tolist() for query in queries] == expected
    assert asked


@pytest.mark.parametrize("plan", ["staged", "partitioned"])
def test_pages_of_many_rows_are_given_back_while_they_are_read(tmp_path, monkeypatch, plan):
    """Of the file of rows and of the rounded ones, once so many were read by position; answers
    stay what they are.
    """
    rng = np.random.default_rng(18)
    matrix, queries = matrix_of(tmp_path / "a.matrix", clustered(rng, 6000)), clustered(rng, 60)
    usual = opened(plan, matrix, str(tmp_path / "a.index")).search(queries, 10)
    monkeypatch.setattr("mmsearch.vectors.staged._STAY", 0)
    monkeypatch.setattr("mmsearch.vectors.staged._ROUNDED_STAY", 0)
    monkeypatch.setattr("mmsearch.vectors.staged._READ", 100)
    store = opened(plan, matrix, str(tmp_path / "a.index"))
    given_back = {"rows": 0, "rounded": 0}

    def counted(pages, name):
        release = pages._release

        def counting():
            given_back[name] += 1
            release()

        pages._release = counting

    counted(store._pages, "rows")
    counted(store._rounded_pages, "rounded")
    for start in range(0, 60, 10):
        scores, ids = store.search(queries[start : start + 10], 10)
        assert ids.tolist() == usual[1][start : start + 10].tolist()
        assert scores.tolist() == usual[0][start : start + 10].tolist()
    # ten queries look at forty rows each, or sixteen: more than a hundred, every time
    assert given_back["rows"] >= 6
    assert given_back["rounded"] >= 6
