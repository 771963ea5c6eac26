"""Indexes on a GPU: the choice, and what becomes of them where it is full or there is none.

What a card does cannot be had here: where there is none, its index is the same one on this side.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from test_index_file import clustered, matrix_of

from mmsearch import engines
from mmsearch.records import Kind
from mmsearch.vectors import Engine, build_index, choose, gpu_available, open_store
from mmsearch.vectors.exact import ExactStore

faiss = pytest.importorskip("faiss", reason="FAISS is not installed")

ROWS = 3000
FULL = "Error: 'err == cudaSuccess' failed: alloc fail (cudaMalloc error out of memory [2])"


class Card:
    """What stands for a copy on a card: the same lists, and errors when it is full."""

    def __init__(self, codes, full_after):
        self.nprobe, self._codes, self._left = 0, codes, full_after

    def search(self, queries, k):
        """As on this side, with its own nprobe."""
        self._left -= 1
        if self._left < 0:
            raise RuntimeError(FULL)
        assert k <= 2048
        lists = faiss.extract_index_ivf(self._codes)
        before, lists.nprobe = lists.nprobe, self.nprobe
        found = self._codes.search(queries, k)
        lists.nprobe = before
        return found


@pytest.fixture
def card(monkeypatch):
    """Have there be a card that takes so many searches, -1: has no room for the index."""

    def there(full_after):
        def copied(resources, number, codes, options):
            if full_after < 0:
                raise RuntimeError(FULL)
            assert options.useFloat16
            return Card(codes, full_after)

        names = {
            "get_num_gpus": lambda: 1, "StandardGpuResources": object,
            "GpuClonerOptions": type("Options", (), {}), "index_cpu_to_gpu": copied,
        }  # fmt: skip
        for name, value in names.items():
            monkeypatch.setattr(faiss, name, value, raising=False)

    return there


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A matrix of 3,000 rows, its index for a card, and two hundred queries."""
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    folder, rng = tmp_path_factory.mktemp("card"), np.random.default_rng(3)
    matrix = matrix_of(folder / "a.matrix", clustered(rng, ROWS))
    dim = matrix.rows.vectors.shape[1]
    plan = choose(10**6, dim, target_recall=0.9, gpu=True)
    assert plan.engine is Engine.GPU_LISTS
    plan = type(plan)(plan.engine, plan.factory.replace("IVF2048", "IVF32"), 0.9, 0)
    queries = clustered(rng, 400)
    index, _ = build_index(str(folder / "a.index"), matrix, plan, {"text": queries})
    yield matrix, index, queries[1::2]
    faiss.omp_set_num_threads(usual)


def recall(store, matrix, queries):
    """Of ten answers, by products with every row."""
    oracle = ExactStore(store.dim, matrix)
    scores, ids = store.search(queries, 10)
    truth, _ = oracle.search(queries, 10)
    rows = matrix.rows.vectors.astype(np.float32)
    at = np.searchsorted(matrix.rows.ids, ids)
    np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", rows[at], queries), atol=1e-5)
    return float((scores >= truth[:, -1:] - 2e-6).mean())


def test_lists_keep_their_recall_with_a_card_and_without(built, card):
    """Set by the measured recall, scored from the rows, the same answers either way."""
    matrix, index, queries = built
    assert (index.plan.engine, index.note) == (Engine.GPU_LISTS, "")
    assert index.measured["text"]["recall@10"] >= 0.9
    here = open_store("auto", queries.shape[1], matrix, index)
    assert recall(here, matrix, queries) == pytest.approx(index.measured["text"]["recall@10"])
    expected = here.search(queries, 10)
    if not gpu_available():
        card(10**9)
    there = open_store("auto", queries.shape[1], matrix, index)
    assert recall(there, matrix, queries) >= 0.9
    if isinstance(there.first._card, Card):
        np.testing.assert_array_equal(there.search(queries, 10)[1], expected[1])


@pytest.mark.parametrize("full_after", [-1, 1])
def test_a_full_card_is_given_up_and_that_is_said(built, card, full_after):
    """At the beginning, or once others have taken its memory: one warning, the same answers."""
    matrix, index, queries = built
    expected = open_store("auto", queries.shape[1], matrix, index).search(queries, 10)
    card(full_after)
    with pytest.warns(RuntimeWarning, match="the GPU is not used: its memory is full") as told:
        store = open_store("auto", queries.shape[1], matrix, index)
        for _ in range(3):
            np.testing.assert_array_equal(store.search(queries, 10)[1], expected[1])
    assert len(told) == 1


def test_a_card_without_room_for_the_rows_leaves_them_here(built, card, monkeypatch):
    """The store of all rows falls back on the index beside them, and says so."""
    matrix, index, queries = built
    card(-1)

    def full(*given):
        raise RuntimeError(FULL)

    for name in ("GpuIndexFlatConfig", "GpuIndexFlatIP"):
        monkeypatch.setattr(faiss, name, full, raising=False)
    with pytest.warns(RuntimeWarning, match="its memory is full"):
        store = open_store("gpu", queries.shape[1], matrix, index)
    assert store.plan.engine is Engine.GPU_LISTS


def test_where_a_card_is_there_an_approximate_index_is_for_it(monkeypatch):
    """Below a recall of 0.999 alone, and only where vectors are many."""
    counts = {Kind.IMAGE: 10**6, Kind.AUDIO: 100}
    for there, wish, engine in (
        (True, 0.95, Engine.GPU_LISTS), (True, 0.0, Engine.STAGED),
        (False, 0.95, Engine.PARTITIONED), (True, 0.999, Engine.STAGED),
    ):  # fmt: skip
        monkeypatch.setattr(engines, "gpu_available", lambda there=there: there)
        found, why = engines.plans(counts, 512, engines.Wishes(target_recall=wish))
        assert (found[Kind.IMAGE].engine, found[Kind.AUDIO].engine) == (engine, Engine.PLAIN)
        assert why == ""


def test_without_a_card_nothing_is_said(built):
    """A library from another machine is searched here."""
    matrix, index, queries = built
    if gpu_available():
        pytest.skip("there is a GPU")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_store("auto", queries.shape[1], matrix, index).search(queries, 10)
