"""Answers from candidates against answers from every score; index files beside a matrix."""

from __future__ import annotations

import errno
import itertools
import json
import os

import numpy as np
import pytest
from conftest import FakeEncoder, inject

import mmsearch
from mmsearch import engines
from mmsearch.answers import answering, nearest
from mmsearch.catalog import Catalog, Content
from mmsearch.errors import DiskFull, StorageFailed
from mmsearch.records import Kind, Modality
from mmsearch.space import Space
from mmsearch.vectors import Engine, planning

pytest.importorskip("faiss", reason="an index needs FAISS")

DIM = 32


def filled(folder, rows, *, said=(), hubness=()):
    """A library of pictures with these rows, some of them captioned with a colour."""
    with Catalog.create(folder / "library.db") as catalog:
        with catalog.transaction():
            space = catalog.put_space("fake", "fa" * 32, rows.shape[1])
            catalog.put_root(b"/p", 0)
            for number, row in enumerate(rows):
                one = Content(number.to_bytes(32, "big"), Modality.IMAGE, "any", number % 7 + 1, 8)
                content = catalog.put_content(one, space, row[None])
                file = catalog.put_file(b"/p/%d" % number, (1, 1, 1), content_id=content)
                if number in said:
                    unit = FakeEncoder().encode(Modality.TEXT, [said[number]])
                    caption = catalog.put_caption(said[number], space, unit)
                    catalog.put_captions(file, [(caption, "sidecar")])
        with catalog.transaction():
            if len(hubness):
                catalog.put_hubness(enumerate(hubness, start=1))
        Space(catalog, folder / "cache", catalog.spaces()[0]).write_cache(always=True)


def unit_rows(seed, count, dim):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ASKED = [
    ("red", {}), ('"red" AND "green"', {}), ('"red" OR "blue"', {}), ('"red" AND NOT "cyan"', {}),
    ('"red" - "magenta"', {}), ('"red" - "magenta"', {"subtract": True}),
    ('"red" + "green"', {"fusion": "product"}), ('"red" + "2:blue"', {"fusion": "max"}),
    ('"red" + "green"', {"fusion": "mean"}), ("yellow", {"hybrid": "off"}),
    ("red", {"where": "width = 3"}), ('("red" OR "cyan") AND "blue"', {"where": "width <= 5"}),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_candidates_answer_as_every_score_does(tmp_path, monkeypatch, seed):
    """Conditions, fusions, exclusion, filters, captions and hubness: the same hits and scores."""
    random = np.random.default_rng(seed)
    rows = unit_rows(seed, 300, 3)
    said = {7: "red", 50: "green", 120: "red blue"}
    filled(tmp_path, rows, said=said, hubness=random.uniform(-0.05, 0.05, 300))
    inject(monkeypatch, FakeEncoder())
    monkeypatch.setattr(answering, "_CANDIDATES", 4)
    monkeypatch.setattr(answering, "_SPARE", 1)
    searched = []
    found = nearest.Group.nearest
    monkeypatch.setattr(
        nearest.Group, "nearest", lambda *given: searched.append(given) or found(*given)
    )
    answers = []
    for share in (10**9, 0):  # to score all costs less at once; never
        monkeypatch.setattr(nearest, "_WHOLE", share)
        monkeypatch.setattr(nearest, "_WIDE", 1)
        with mmsearch.open_library(tmp_path) as library:
            answers.append([
                [(hit.id, round(hit.score, 5)) for hit in library.query(asked, 5, **how)]
                for asked, how in ASKED
            ])  # fmt: skip
        assert bool(searched) == (share == 0)
    assert answers[0] == answers[1]
    assert all(len(hits) == 5 for hits in answers[0][:3])


@pytest.mark.parametrize("at_once", [1 << 24, 1, 40_000])
def test_many_together_are_answered_as_one_by_one(tmp_path, monkeypatch, at_once):
    """With an index, captions, words and conditions, in products of all, of some and of one: the
    same hits, scores and order as each alone.
    """
    monkeypatch.setattr(planning, "INDEX_FROM_ROWS", 100)
    monkeypatch.setattr(answering, "_AT_ONCE", at_once)
    monkeypatch.setattr(answering, "_CANDIDATES", 4)
    monkeypatch.setattr(answering, "_SPARE", 1)
    monkeypatch.setattr(nearest, "_WHOLE", 0)
    rows = unit_rows(4, 300, 3)
    pairs = itertools.permutations(["red", "green", "blue", "cyan", "yellow"], 2)
    said = {number: f"{one} {other}" for number, (one, other) in enumerate(pairs, start=7)}
    filled(tmp_path, rows, said=said, hubness=np.random.default_rng(4).uniform(-0.05, 0.05, 300))
    inject(monkeypatch, FakeEncoder())
    asked = [words for words, how in ASKED if not how] + [*said.values(), "17", "p 250"]
    with mmsearch.open_library(tmp_path) as library:
        together = library.query_many(asked, 5)
        alone = [library.query(words, 5) for words in asked]
    told = [[[(hit.id, hit.rank) for hit in hits] for hits in some] for some in (together, alone)]
    assert told[0] == told[1]
    scores = [np.array([hit.score for hits in some for hit in hits]) for some in (together, alone)]
    np.testing.assert_allclose(*scores, atol=1e-6)


WISHES = {
    Engine.STAGED: engines.Wishes(),
    Engine.PARTITIONED: engines.Wishes(target_recall=0.5),
    Engine.FAISS: engines.Wishes(target_recall=0.5, faiss="HNSW8"),
}


@pytest.fixture(params=[Engine.STAGED])
def indexed(request, tmp_path, monkeypatch):
    """A folder with an index of 500 pictures, and their rows as the catalog has them."""
    monkeypatch.setattr(planning, "INDEX_FROM_ROWS", 100)
    monkeypatch.setattr(engines, "wished", lambda *given: WISHES[request.param])
    rows = unit_rows(1, 500, DIM)
    filled(tmp_path, rows)
    return tmp_path, rows.astype(np.float16).astype(np.float32)


def asked(folder, rows, k=10):
    """The engine, what is wrong with its file, and whether it answers as brute force does."""
    queries = unit_rows(9, 20, DIM)
    with Catalog.open(folder / "library.db") as catalog:
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        group = space.groups()[Kind.IMAGE]
        _, ids = group.nearest(queries, k)
        expected = np.argsort(-(queries @ rows.T), axis=1)[:, :k] + 1
        return group.store.plan.engine, space.problem, np.array_equal(ids, expected)


def test_a_large_kind_gets_an_index(indexed):
    """Built with its matrix, in half precision, and answers as every row does."""
    folder, rows = indexed
    assert asked(folder, rows) == (Engine.STAGED, None, True)
    names = sorted(os.listdir(folder / "cache"))
    assert names == ["space-1-1-image.index", "space-1-1.matrix"]


@pytest.mark.parametrize(
    ("damage", "indexed"),
    [*((damage, Engine.STAGED) for damage in ("flip", "cut", "zero", "gone", "huge")),
     ("flip", Engine.PARTITIONED), ("cut", Engine.FAISS)],
    indirect=["indexed"],
)  # fmt: skip
def test_rows_18_to_20_a_damaged_index_is_never_searched(indexed, damage):
    """Rows 18, 19 and 20: altered anywhere, cut, zeroed, gone, or with sizes that overflow: all
    rows are multiplied instead, the reason is said, and the next run builds it anew.
    """
    folder, rows = indexed
    path = folder / "cache" / "space-1-1-image.index"
    whole, problem, _ = asked(folder, rows)
    assert (whole in WISHES, problem) == (True, None)
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[len(raw) // 2] ^= 1
    elif damage == "huge":
        raw[16:24] = b"\xff" * 8
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": raw[:-9], "zero": bytes(len(raw))}.get(damage, raw))
    engine, problem, right = asked(folder, rows)
    assert (engine, right) == (Engine.PLAIN, True)
    assert path.name in problem
    with Catalog.open(folder / "library.db", write=True) as catalog:
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        assert path.name in space.state(hashed=True).problem
        space.write_cache()
    engine, problem, right = asked(folder, rows)
    assert (engine, problem, right or whole is not Engine.STAGED) == (whole, None, True)


def test_an_index_that_was_copied_is_hashed_once(indexed):
    """Beside a copied library: whole, so its new figures are noted with those of the matrix."""
    folder, rows = indexed
    cache = folder / "cache"
    for name in os.listdir(cache):  # other inodes, other times
        data = (cache / name).read_bytes()
        (cache / name).unlink()
        (cache / name).write_bytes(data)
    with Catalog.open(folder / "library.db", write=True) as catalog:
        space = Space(catalog, cache, catalog.spaces()[0])
        before = catalog.cache(space.id)
        assert space.state(hashed=True).problem is None
        assert space.write_cache() == []
        after = catalog.cache(space.id)
        assert after["generation"] == before["generation"] == 1
        assert {name: after[name] for name in ("size", "inode", "mtime_ns", "ctime_ns")} == (
            engines.figures(str(cache / "space-1-1.matrix"))
        )
        mine = json.loads(before["indexes"])
        mine["files"]["IMAGE"] |= engines.figures(str(cache / "space-1-1-image.index"))
        assert json.loads(after["indexes"]) == mine != json.loads(before["indexes"])
    assert asked(folder, rows) == (Engine.STAGED, None, True)


@pytest.mark.parametrize("code, error", [(errno.ENOSPC, DiskFull), (errno.EIO, StorageFailed)])
def test_a_disk_that_fails_while_an_index_is_built(indexed, monkeypatch, code, error):
    """The error names the file, and what was there answers as before."""
    folder, rows = indexed

    def failing(*given):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(engines, "build", failing)
    with Catalog.open(folder / "library.db", write=True) as catalog:
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        with pytest.raises(error, match=r"space-1-2\.matrix"):
            space.write_cache(always=True)
        assert catalog.cache(space.id)["generation"] == 1
    assert asked(folder, rows) == (Engine.STAGED, None, True)


@pytest.mark.parametrize("indexed", [Engine.STAGED, Engine.PARTITIONED], indirect=True)
def test_row_18_an_index_of_another_generation(indexed):
    """Row 18: yesterday's index in the place of today's does not fit its matrix."""
    folder, rows = indexed
    old = (folder / "cache" / "space-1-1-image.index").read_bytes()
    with Catalog.open(folder / "library.db", write=True) as catalog:
        Space(catalog, folder / "cache", catalog.spaces()[0]).write_cache(always=True)
    (folder / "cache" / "space-1-2-image.index").write_bytes(old)
    engine, problem, right = asked(folder, rows)
    assert (engine, right) == (Engine.PLAIN, True)
    assert "space-1-2-image.index" in problem
