"""Every vector store against brute force, by value and by order; the matrix file."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.errors import LibraryDamaged
from mmsearch.records import Rows
from mmsearch.vectors import FAISS_FROM_ROWS, open_store
from mmsearch.vectors.exact import ExactStore
from mmsearch.vectors.matrix import Matrix, hash_file, open_matrix, write_matrix

DIM = 5
MARK = "0123456789abcdef" * 4  # a fingerprint


@pytest.fixture(params=["exact", "faiss"])
def kind(request):
    """The name of a store that is installed."""
    if request.param == "faiss":
        pytest.importorskip("faiss", reason="FAISS is not installed")
    return request.param


def brute_force(rows, query, k, among=None):
    """(score, id) of the k best of {id: row}: higher scores first, then lower ids."""
    kept = rows if among is None else {id: row for id, row in rows.items() if id in set(among)}
    scored = [(float(np.dot(row, query)), id) for id, row in kept.items()]
    return sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]


def found(store, query, k, among=None):
    """What a store answers to one query, in the form of brute_force."""
    ids = None if among is None else np.array(among, np.int64)
    scores, found = store.search(np.asarray(query, np.float32)[None], k, ids)
    assert scores.shape == found.shape
    return [(float(score), int(id)) for score, id in zip(scores[0], found[0], strict=True)]


def integers(rng, n, dim=DIM):
    """Small whole numbers: their inner products are exact, and tie often."""
    return rng.integers(-2, 3, (n, dim)).astype(np.float32)


def test_an_empty_store_answers_nothing(kind):
    """No rows, no answers, whatever k."""
    store = open_store(kind, DIM)
    assert len(store) == 0
    scores, ids = store.search(np.ones((2, DIM), np.float32), 3)
    assert (scores.shape, ids.shape) == ((2, 0), (2, 0))


def test_hand_arithmetic(kind):
    """Scores are inner products, higher first; ids are the catalog's."""
    store = open_store(kind, 2)
    store.add(np.array([3, 7, 9]), np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))
    answer = found(store, [0.6, 0.8], 3)
    assert [id for _, id in answer] == [9, 7, 3]
    assert [score for score, _ in answer] == pytest.approx([1.0, 0.8, 0.6])


def test_ties_come_in_the_order_of_their_ids(kind):
    """A hundred equal rows: the k with the lowest ids, also beside removed ones."""
    store = open_store(kind, DIM)
    rows = np.ones((100, DIM), np.float32)
    store.add(np.arange(1, 101), rows)
    assert [id for _, id in found(store, rows[0], 7)] == [1, 2, 3, 4, 5, 6, 7]
    store.remove(np.array([2, 4]))
    assert [id for _, id in found(store, rows[0], 4)] == [1, 3, 5, 6]
    assert [id for _, id in found(store, rows[0], 2, among=[50, 4, 40, 60])] == [40, 50]


@pytest.mark.parametrize("k", [1, 2, 10, 47, 400])
def test_the_best_of_many_rows_that_tie(kind, k):
    """A thousand rows, most of them alike to others: brute force's, by score and id."""
    rng = np.random.default_rng(3)
    rows, queries = integers(rng, 1000), integers(rng, 6)
    store = open_store(kind, DIM)
    store.add(np.arange(1, 1001), rows)
    store.remove(np.arange(1, 1001, 7))
    held = {id: rows[id - 1] for id in range(1, 1001) if id % 7 != 1}
    among = range(1, 1001, 3)
    for query in queries:
        assert found(store, query, k) == brute_force(held, query, k)
        assert found(store, query, k, among) == brute_force(held, query, k, among)


def test_k_beyond_the_rows_gives_them_all(kind):
    """k larger than the store is no error."""
    store = open_store(kind, DIM)
    rows = integers(np.random.default_rng(0), 4)
    store.add(np.array([1, 2, 3, 4]), rows)
    assert len(found(store, rows[0], 1000)) == 4
    assert found(store, rows[0], 0) == []


def test_ids_only_grow(kind):
    """An id that does not come after all others is refused."""
    store = open_store(kind, DIM)
    store.add(np.array([5]), np.ones((1, DIM), np.float32))
    with pytest.raises(ValueError, match="id 5 does not come after 5"):
        store.add(np.array([5]), np.ones((1, DIM), np.float32))


def test_several_queries_at_once(kind):
    """Each query of a batch gets the answers it would get alone."""
    rng = np.random.default_rng(1)
    rows, queries = integers(rng, 300), integers(rng, 9)
    store = open_store(kind, DIM)
    store.add(np.arange(300), rows)
    scores, ids = store.search(queries, 12)
    for query, line, named in zip(queries, scores, ids, strict=True):
        expected = brute_force(dict(enumerate(rows)), query, 12)
        assert list(zip(line.tolist(), named.tolist(), strict=True)) == expected


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("limits", [None, [3, 290, 700, 1500], list(range(5, 1600, 2))])
def test_every_score_at_once(kind, count, limits, tmp_path):
    """Ids rising and products, of a mapped base and of what came later; none of the removed."""
    rng = np.random.default_rng(3)
    rows, queries = integers(rng, 1600), integers(rng, count)
    ids = np.arange(1600)
    write_matrix(
        str(tmp_path / "a.matrix"),
        [Rows(ids[:1000], rows[:1000], np.zeros(1000, np.uint8), np.zeros(1000, np.float32))],
        1000, DIM, 1, 999, MARK,
    )  # fmt: skip
    store = open_store(kind, DIM, open_matrix(str(tmp_path / "a.matrix")))
    store.add(ids[1000:], rows[1000:])
    store.remove(np.array([3, 1001]))
    wanted = [id for id in (ids.tolist() if limits is None else limits) if id not in (3, 1001)]
    found, scores = store.scores(queries, None if limits is None else np.array(limits))
    assert found.tolist() == wanted
    assert scores.tolist() == [[float(rows[id] @ query) for id in wanted] for query in queries]


def test_real_numbers(kind):
    """Unit rows of real numbers: the ids of brute force, scores to the last few bits."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(3000, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = rows[17]
    store = open_store(kind, 64)
    for start in range(0, 3000, 700):
        store.add(np.arange(start, min(start + 700, 3000)), rows[start : start + 700])
    answer = found(store, query, 25)
    expected = brute_force(dict(enumerate(rows.astype(np.float64))), query, 25)
    assert [id for _, id in answer] == [id for _, id in expected]
    assert [s for s, _ in answer] == pytest.approx([s for s, _ in expected], abs=1e-6)


def test_blocks_beyond_the_first(kind, monkeypatch):
    """Rows in many blocks, mapped and added, with some removed in each: as brute force."""
    monkeypatch.setattr("mmsearch.vectors.exact._BLOCK", 8)
    rng = np.random.default_rng(3)
    store = open_store(kind, DIM)
    rows = {}
    for start in range(0, 60, 5):
        block = integers(rng, 5)
        store.add(np.arange(start, start + 5), block)
        rows |= dict(zip(range(start, start + 5), block, strict=True))
        if start % 3 == 0:
            store.remove(np.array([start + 1, start - 4, 999]))
            rows.pop(start + 1)
            rows.pop(start - 4, None)
    assert len(store) == len(rows)
    for query in integers(rng, 5):
        assert found(store, query, 11) == brute_force(rows, query, 11)


vectors = st.lists(st.integers(-2, 2), min_size=DIM, max_size=DIM)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(vectors, min_size=1, max_size=6)),
        st.tuples(st.just("remove"), st.lists(st.integers(1, 60), max_size=6)),
        st.tuples(st.just("search"), vectors, st.integers(1, 12)),
        st.tuples(st.just("among"), vectors, st.integers(1, 12), st.sets(st.integers(1, 60))),
        st.tuples(st.just("reopen")),
    ),
    max_size=14,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_any_history_answers_as_brute_force(kind, tmp_path_factory, steps):
    """Additions, removals, saving and reopening in any order: the answers of a plain dict."""
    folder = tmp_path_factory.mktemp("store")
    store, rows, next_id = open_store(kind, DIM), {}, 1
    for number, (step, *values) in enumerate(steps):
        if step == "add":
            ids = range(next_id, next_id + len(values[0]))
            next_id = ids.stop
            store.add(np.array(ids), np.array(values[0], np.float32))
            rows |= {id: np.array(row, np.float32) for id, row in zip(ids, values[0], strict=True)}
        elif step == "remove":
            store.remove(np.array(values[0], np.int64))
            rows = {id: row for id, row in rows.items() if id not in values[0]}
        elif step == "reopen":
            matrix = store.save(str(folder / f"{number}.matrix"), number, MARK)
            assert matrix.rows.ids.tolist() == sorted(rows)
            store = open_store(kind, DIM, open_matrix(matrix.path))
        else:
            query, k, among = (values[0], values[1], values[2] if step == "among" else None)
            limits = None if among is None else sorted(among)
            assert found(store, query, k, limits) == brute_force(rows, query, k, limits)
        assert len(store) == len(rows)


def test_among_few_and_among_many(kind):
    """Both ways of keeping to some ids, copying a few rows or masking many, agree."""
    rng = np.random.default_rng(4)
    rows = dict(enumerate(integers(rng, 400)))
    store = open_store(kind, DIM)
    store.add(np.arange(400), np.stack(list(rows.values())))
    store.remove(np.arange(0, 400, 7))
    alive = {id: row for id, row in rows.items() if id % 7}
    query = integers(rng, 1)[0]
    for size in (1, 30, 49, 50, 51, 200, 399):
        among = rng.choice(450, size, replace=False).tolist()  # some of them unknown
        assert found(store, query, 20, among) == brute_force(alive, query, 20, among)


def test_auto_takes_faiss_only_where_it_pays(monkeypatch):
    """A small matrix is searched without importing FAISS."""
    rows = np.zeros((FAISS_FROM_ROWS, 1), np.float32)
    large, small = (
        Matrix("", 1, MARK, n, Rows(np.arange(n), rows[:n], np.zeros(n, np.uint8), rows[:n, 0]))
        for n in (len(rows), 5)
    )
    assert type(open_store("auto", 1, small)) is ExactStore
    monkeypatch.setattr("mmsearch.vectors.find_spec", lambda name: None)
    assert type(open_store("auto", 1, large)) is ExactStore


# -- the matrix file -----------------------------------------------------------------------

HEADER = struct.Struct("<8sIIQQq8s64s")  # as indexes/README.md has it


FIRST, REST = slice(7), slice(7, None)


def make_matrix(path, rows=20, dim=DIM, generation=3, last_id=77):
    """A matrix file of whole numbers, with its ids and rows."""
    data = integers(np.random.default_rng(rows), rows, dim)
    ids = np.arange(10, 10 + rows, dtype=np.int64)
    kinds, hubness = (ids % 4).astype(np.uint8), (ids / 8).astype(np.float32)
    halves = [Rows(*(c[part] for c in (ids, data, kinds, hubness))) for part in (FIRST, REST)]
    digest = write_matrix(str(path), halves, rows, dim, generation, last_id, MARK)
    return ids, data, digest


def test_a_matrix_comes_back_as_it_was_written(tmp_path):
    """Ids, rows, generation, last id and fingerprint; the digest is the file's SHA-256."""
    path = tmp_path / "a.matrix"
    ids, data, digest = make_matrix(path)
    matrix = open_matrix(str(path))
    assert np.array_equal(matrix.rows.ids, ids)
    assert np.array_equal(matrix.rows.vectors, data)
    assert np.array_equal(matrix.rows.kinds, ids % 4)
    assert np.array_equal(matrix.rows.hubness, ids / 8)
    assert (matrix.generation, matrix.last_id, matrix.fingerprint) == (3, 77, MARK)
    assert digest == hash_file(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.matrix"]


def test_pages_that_are_let_go_are_read_again(tmp_path):
    """The map stays as it was; rows that are not mapped have nothing to let go of."""
    path = tmp_path / "a.matrix"
    ids, data, _ = make_matrix(path)
    matrix = open_matrix(str(path))
    matrix.release()
    replace(matrix, pages=None).release()
    assert np.array_equal(matrix.rows.ids, ids)
    assert np.array_equal(matrix.rows.vectors, data)


def test_a_matrix_of_no_rows(tmp_path):
    """An empty library has a matrix, too."""
    path = tmp_path / "a.matrix"
    write_matrix(str(path), [], 0, DIM, 1, 0, MARK)
    matrix = open_matrix(str(path))
    assert (len(matrix.rows.ids), matrix.rows.vectors.shape) == (0, (0, DIM))


def test_the_layout_is_the_documented_one(tmp_path):
    """Anyone can read the file: header, ids at 4096, hubness, kinds, rows at a cache line."""
    path = tmp_path / "a.matrix"
    ids, data, _ = make_matrix(path)
    raw = path.read_bytes()
    magic, version, dim, rows, generation, last_id, dtype, mark = HEADER.unpack_from(raw)
    assert (magic, version, dim, rows) == (b"MMSMATRX", 3, DIM, 20)
    assert (generation, last_id, dtype, mark.decode()) == (3, 77, b"float32\0", MARK)
    assert np.array_equal(np.frombuffer(raw, "<i8", 20, 4096), ids)
    assert np.array_equal(np.frombuffer(raw, "<f4", 20, 4096 + 160), ids / 8)
    assert np.array_equal(np.frombuffer(raw, "u1", 20, 4096 + 240), ids % 4)
    assert np.array_equal(np.frombuffer(raw, "<f4", 20 * DIM, 4096 + 320), data.ravel())


def test_a_matrix_needs_the_number_of_rows_it_was_promised(tmp_path):
    """Fewer blocks than rows: no file appears under the name."""
    path = tmp_path / "a.matrix"
    with pytest.raises(ValueError, match="0 rows for a matrix of 3"):
        write_matrix(str(path), [], 3, DIM, 1, 0, MARK)
    assert not path.exists()


def test_a_missing_matrix_is_file_not_found(tmp_path):
    """The caller tells a cache that is not there from one that is damaged."""
    with pytest.raises(FileNotFoundError):
        open_matrix(str(tmp_path / "none.matrix"))


LENGTHS = [0, 1, 8, 63, 111, 112, 4095, 4096, 4200]


@pytest.mark.parametrize("length", [*LENGTHS, -1])
def test_row_18_a_truncated_matrix_is_refused(tmp_path, length):
    """Row 18: a matrix cut anywhere is damage, also when cut to nothing."""
    path = tmp_path / "a.matrix"
    make_matrix(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(LibraryDamaged, match=r"a\.matrix"):
        open_matrix(str(path))


def test_row_18_a_matrix_with_a_tail_is_refused(tmp_path):
    """Row 18: bytes behind the end are damage, too."""
    path = tmp_path / "a.matrix"
    make_matrix(path)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(LibraryDamaged, match="does not fit its"):
        open_matrix(str(path))


def test_row_18_a_zeroed_matrix_is_refused(tmp_path):
    """Row 18: a file of the right length that holds only zeros."""
    path = tmp_path / "a.matrix"
    make_matrix(path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(LibraryDamaged, match="is not a matrix of mmsearch"):
        open_matrix(str(path))


@pytest.mark.parametrize("bit", range(0, HEADER.size * 8, 5))
def test_row_18_a_flipped_bit_of_the_header_is_seen(tmp_path, bit):
    """Row 18: refused, or one of the fields that the catalog's record is compared with."""
    path = tmp_path / "a.matrix"
    ids, data, digest = make_matrix(path)
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)
    assert hash_file(str(path)) != digest
    try:
        matrix = open_matrix(str(path))
    except LibraryDamaged:
        return
    named = (matrix.generation, len(matrix.rows.ids), matrix.last_id, matrix.fingerprint)
    assert named != (3, 20, 77, MARK)
    assert np.array_equal(matrix.rows.vectors, data)
    assert np.array_equal(matrix.rows.ids, ids)


HUGE = [2**31, 2**32 - 1, 2**61, 2**62, 2**63, 2**64 - 1, 2**64 - 20, (2**64 - 4096) // 12]


@pytest.mark.parametrize("rows", HUGE)
@pytest.mark.parametrize("dim", [1, DIM, 2**30, 2**32 - 1])
def test_row_20_sizes_that_overflow_are_refused(tmp_path, rows, dim):
    """Row 20: a crafted header promises more than the file holds; nothing is allocated."""
    path = tmp_path / "a.matrix"
    make_matrix(path)
    raw = bytearray(path.read_bytes())
    HEADER.pack_into(raw, 0, b"MMSMATRX", 3, dim, rows, 3, 77, b"float32\0", MARK.encode())
    path.write_bytes(raw)
    with pytest.raises(LibraryDamaged, match="does not fit its"):
        open_matrix(str(path))


@pytest.mark.parametrize(
    "field, value", [(0, b"MMSMATRY"), (1, 2), (1, 4), (2, 0), (2, DIM + 1), (6, b"float64\0")]
)
def test_row_19_another_kind_of_matrix_is_refused(tmp_path, field, value):
    """Rows 18 and 19: other magic, version, dim or number type."""
    path = tmp_path / "a.matrix"
    make_matrix(path)
    raw = bytearray(path.read_bytes())
    fields = list(HEADER.unpack_from(raw))
    fields[field] = value
    HEADER.pack_into(raw, 0, *fields)
    path.write_bytes(raw)
    with pytest.raises(LibraryDamaged, match=r"a\.matrix"):
        open_matrix(str(path))


def test_an_open_matrix_outlives_its_name(tmp_path):
    """A reader keeps its rows while the writer replaces and removes the file."""
    path = tmp_path / "a.matrix"
    _, data, _ = make_matrix(path)
    matrix = open_matrix(str(path))
    make_matrix(path, rows=9, generation=4)
    assert np.array_equal(matrix.rows.vectors, data)
    path.unlink()
    assert np.array_equal(matrix.rows.vectors, data)
    assert matrix.rows.vectors.flags.writeable is False
    assert all(a < b for a, b in pairwise(matrix.rows.ids.tolist()))
