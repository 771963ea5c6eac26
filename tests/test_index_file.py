"""Indexes beside a matrix: what is built, what is refused, and that answers are those of numpy."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from mmsearch.errors import LibraryDamaged
from mmsearch.records import Rows
from mmsearch.vectors import Engine, build_index, choose, open_index, open_store
from mmsearch.vectors.matrix import hash_file, open_matrix, write_matrix
from mmsearch.vectors.planning import Plan

pytest.importorskip("faiss", reason="FAISS is not installed")

HEADER = struct.Struct("<8sIIQQq64s32sQ")  # as indexes/README.md has it
DIM, ROWS = 32, 3000
MARK = "0123456789abcdef" * 4


def clustered(rng, count, dim=DIM):
    """(n, dim) unit rows about a hundred places, in half precision, as float32."""
    rows = rng.normal(size=(100, dim))[rng.integers(100, size=count)] * 2
    rows += rng.normal(size=(count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16).astype(np.float32)


def matrix_of(path, rows, *, ids=None, generation=1, half=True):
    """A matrix file of these rows, opened."""
    count, dim = rows.shape
    ids = np.arange(count) * 3 + 7 if ids is None else ids
    nothing = np.zeros(count, np.uint8), np.zeros(count, np.float32)
    write_matrix(
        str(path), [Rows(ids, rows, *nothing)], count, dim, generation, int(ids[-1]), MARK,
        half=half,
    )  # fmt: skip
    return open_matrix(str(path))


STAGED = Plan(Engine.STAGED, f"PQ{DIM // 4}x4fs", 0.999, 0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Rows, their matrix, the path of its index, and the index's SHA-256."""
    folder = tmp_path_factory.mktemp("index")
    rows = clustered(np.random.default_rng(0), ROWS)
    matrix = matrix_of(folder / "a.matrix", rows)
    _, sha256 = build_index(str(folder / "a.index"), matrix, STAGED, {})
    return rows, matrix, str(folder / "a.index"), sha256


@pytest.mark.parametrize("together", [1, 40])
def test_a_staged_store_answers_as_numpy_does(made, together):
    """The same ids in the same order, scores to the last bits, one by one and together."""
    _, matrix, path, _ = made
    store = open_store("auto", DIM, matrix, open_index(path, matrix))
    oracle = open_store("exact", DIM, matrix)
    queries = clustered(np.random.default_rng(1), 40)
    for start in range(0, 40, together):
        part = queries[start : start + together]
        scores, ids = store.search(part, 10)
        expected_scores, expected = oracle.search(part, 10)
        assert ids.tolist() == expected.tolist()
        assert scores == pytest.approx(expected_scores, abs=1e-6)


def test_an_index_comes_back_as_it_was_written(made):
    """Plan, generation, last id; the digest is the file's."""
    _, matrix, path, sha256 = made
    index = open_index(path, matrix)
    assert (index.plan.engine, index.plan.factory) == (STAGED.engine, STAGED.factory)
    assert (index.generation, index.last_id) == (1, matrix.last_id)
    assert sha256 == hash_file(path)
    assert index.rounded.rows.shape == (ROWS, DIM)


def test_row_19_an_index_of_another_matrix_is_refused(made, tmp_path):
    """Row 19: another generation, other ids, fewer rows, another dim."""
    rows, _, path, _ = made
    ids = np.arange(ROWS) * 3 + 7
    swapped = ids.copy()
    swapped[5] += 1
    others = [
        matrix_of(tmp_path / "generation", rows, generation=2),
        matrix_of(tmp_path / "ids", rows, ids=swapped),
        matrix_of(tmp_path / "rows", rows[:-1]),
        matrix_of(tmp_path / "dim", np.ascontiguousarray(rows[:, :-1])),
    ]
    for other in others:
        with pytest.raises(LibraryDamaged, match="belongs to another matrix"):
            open_index(path, other)


def test_choices():
    """Small: plain. Larger: in stages. A recall below exact: lists. What does not fit: an error."""
    assert choose(10_000, 256).engine is Engine.PLAIN
    assert choose(1_000_000, 512).factory == "PQ256x4fs"
    assert choose(1_000_000, 512, target_recall=0.95).engine is Engine.PARTITIONED
    assert choose(1_999_999, 512).target_recall == 0.999
    many = choose(2_000_000, 512)
    assert (many.engine, many.target_recall) == (Engine.PARTITIONED, 0.98)
    assert choose(2_000_000, 512, target_recall=1).engine is Engine.STAGED
    assert choose(1_000_000, 512, gpu=True).engine is Engine.GPU
    coded = choose(1_000_000, 512, target_recall=0.95, gpu=True)
    assert (coded.engine, coded.factory) == (Engine.GPU_LISTS, "IVF2048,PQ64")
    assert choose(1_000_000, 250, target_recall=0.95, gpu=True).factory == "IVF2048,PQ2"
    assert choose(10_000, 512, target_recall=0.95, gpu=True).engine is Engine.PLAIN
    assert choose(1_000_000, 512, factory="HNSW32").engine is Engine.FAISS
    assert choose(1_000_000, 512).bytes_per_vector * 1e6 < 1e9
    assert choose(10_000_000, 512).bytes_per_vector * 1e7 < 8e9
    with pytest.raises(ValueError, match="more than 100 MB"):
        choose(1_000_000, 512, max_memory=1e8)
    with pytest.raises(ValueError, match="a recall lies above 0"):
        choose(1_000_000, 512, target_recall=95)


@pytest.mark.parametrize(
    "rows, lists", [(50_000, 2048), (205_568, 4096), (1_000_000, 4096), (10_000_000, 8192)]
)
def test_as_many_lists_as_rows_need(rows, lists):
    """Eight times the root of few rows, four times that of many, as a power of two."""
    assert f",IVF{lists}," in choose(rows, 512, target_recall=0.95).factory


def test_halves_are_searched_as_whole_numbers_are(tmp_path):
    """A matrix in half precision: the products of its rows as float32."""
    rows = clustered(np.random.default_rng(2), 50)
    matrix = matrix_of(tmp_path / "a.matrix", rows)
    assert matrix.rows.vectors.dtype == np.float16
    queries = clustered(np.random.default_rng(3), 6)
    for kind in ("exact", "faiss"):
        store = open_store(kind, DIM, matrix)
        assert store.scores(queries)[1] == pytest.approx(queries @ rows.T, abs=1e-6)
        best = np.argsort(-(queries @ rows.T), axis=1)[:, :5]
        assert store.search(queries, 5)[1].tolist() == matrix.rows.ids[best].tolist()


def described(raw):
    """Where the description starts, and what it says."""
    at = HEADER.unpack_from(raw)[-1]
    return at, json.loads(raw[at:])


def test_the_layout_is_the_documented_one(made):
    """Anyone can read the file: header, parts at pages, a description in JSON at the end."""
    rows, matrix, path, _ = made
    raw = Path(path).read_bytes()
    magic, version, dim, count, generation, last_id, mark, ids, _ = HEADER.unpack_from(raw)
    assert (magic, version, dim, count) == (b"MMSINDEX", 4, DIM, ROWS)
    assert (generation, last_id, mark.decode()) == (1, matrix.last_id, MARK)
    assert ids == hashlib.sha256(matrix.rows.ids.tobytes()).digest()
    _, said = described(raw)
    for part in said["parts"].values():
        assert part["at"] % 4096 == 0
        data = raw[part["at"] : part["at"] + part["bytes"]]
        assert hashlib.sha256(data).hexdigest() == part["sha256"]
    at = said["parts"]["rows"]["at"]
    held = np.frombuffer(raw, np.uint8, ROWS * DIM, at).reshape(ROWS, DIM).astype(np.float32)
    mean = np.frombuffer(raw, "<f4", DIM, said["parts"]["mean"]["at"])
    assert (held - 128) * said["step"] + mean == pytest.approx(rows, abs=said["step"] * 0.51)


def test_row_18_a_damaged_index_is_refused(made, tmp_path):
    """Row 18: cut anywhere, or one bit flipped: refused when opened, or another hash."""
    _, matrix, path, sha256 = made
    raw = Path(path).read_bytes()
    copy = tmp_path / "a.index"
    rng = np.random.default_rng(13)
    at, said = described(raw)
    faiss_at = said["parts"]["faiss"]["at"]
    for cut in (0, 7, 150, 4096, 5000, faiss_at + 10, at, len(raw) - 1):
        copy.write_bytes(raw[:cut])
        with pytest.raises(LibraryDamaged, match=r"a\.index"):
            open_index(str(copy), matrix)
    inside = range(faiss_at, faiss_at + said["parts"]["faiss"]["bytes"])
    places = [*rng.integers(0, len(raw), 60).tolist(), *rng.choice(inside, 40).tolist()]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        copy.write_bytes(flipped)
        assert hash_file(str(copy)) != sha256
        if place in inside:  # FAISS is never handed it
            with pytest.raises(LibraryDamaged, match="is not what was written"):
                open_index(str(copy), matrix)


@pytest.mark.parametrize("value", [-1, 0, 4095, 2**31, 2**63, 2**64, "many", None])
@pytest.mark.parametrize("field", ["at", "bytes"])
@pytest.mark.parametrize("part", ["rows", "mean", "faiss"])
def test_row_20_sizes_that_overflow_are_refused(made, tmp_path, part, field, value):
    """Row 20: a crafted description promises parts that are not there; nothing is read."""
    _, matrix, path, _ = made
    raw = Path(path).read_bytes()
    at, said = described(raw)
    said["parts"][part][field] = value
    copy = tmp_path / "a.index"
    copy.write_bytes(raw[:at] + json.dumps(said).encode())
    with pytest.raises(LibraryDamaged, match=r"a\.index"):
        open_index(str(copy), matrix)
