"""Indexes after `forget`, `repair` and Ctrl-C: measured anew, or left to the next run."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest
from conftest import FakeEncoder, inject
from test_candidates import filled, unit_rows
from typer.testing import CliRunner

import mmsearch
from mmsearch import engines
from mmsearch.catalog import Catalog
from mmsearch.cli import app
from mmsearch.records import Kind
from mmsearch.space import Space
from mmsearch.vectors import Engine, planning

faiss = pytest.importorskip("faiss", reason="an index needs FAISS")

pytestmark = pytest.mark.usefixtures("one_thread")

DIM, ROWS = 32, 1200
FIGURES = (
    r"          (\w+) queries: recall@10 ([01]\.\d{3}), p50 ([\d.]+) ms, p95 ([\d.]+) ms, "
    r"([\d,]+) a second together"
)


@pytest.fixture
def approximate(tmp_path, monkeypatch):
    """A library of 1,200 pictures and no captions, whose index is tuned with sentences."""
    monkeypatch.setattr(planning, "INDEX_FROM_ROWS", 1000)
    encoder = FakeEncoder()
    encoder.folder = tmp_path
    np.save(tmp_path / "queries.npy", unit_rows(8, 2000, DIM))
    inject(monkeypatch, encoder)
    filled(tmp_path, unit_rows(7, ROWS, DIM))
    with Catalog.open(tmp_path / "library.db", write=True) as catalog:
        engines.remember(catalog, engines.Wishes(target_recall=0.8))
    with mmsearch.open_library(tmp_path) as library:
        library.forget("/p/0")
        yield library


def recall(library):
    """Of the index as it lies there, by products with every row: with the words that were kept
    fresh when it was tuned, counted by score.
    """
    with Catalog.open(library.folder / "library.db") as catalog, catalog.snapshot():
        space = Space(catalog, library.folder / "cache", catalog.spaces()[0])
        group = space.groups()[Kind.IMAGE]
        assert (group.store.plan.engine, space.problem) == (Engine.PARTITIONED, None)
        assert len(group) == len(catalog.pictures(space.id)[0])
        matrix = space._open(space._record())
        rows = matrix.rows.vectors.astype(np.float32)
        sentences = np.load(library.folder / "queries.npy")
        asked = engines.queries(matrix, Kind.IMAGE, sentences, rows[:0])["text"]
        asked = asked[1::2]
        found, _ = group.nearest(asked, 10)
        truth = -np.sort(-(asked @ rows.T), axis=1)[:, 9]
        return float((found >= truth[:, None] - 2e-6).mean())


def change(database, statement):
    """As a disk may, or a run of before."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def told(library):
    """What `status` says of it."""
    [[searched]] = [one["search"] for one in library.status()["spaces"]]
    return searched["measured"]["text"]["recall@10"]


@pytest.mark.parametrize("how", ["forget", "gone", "cache", "database"])
def test_recall_is_that_of_the_index_that_is_there(approximate, how):
    """Files forgotten, gone ones dropped, a damaged cache or row repaired: tuned with the same
    sentences, and what `status` prints is what the new index finds.
    """
    library, database = approximate, approximate.folder / "library.db"
    if how == "forget":
        assert library.forget([f"/p/{number}" for number in range(1, 120)]) == 119
    elif how == "gone":
        change(database, "UPDATE files SET gone_at = 1 WHERE id BETWEEN 51 AND 90")
        assert library.forget(gone=True) == 40
    elif how == "cache":
        path = next((library.folder / "cache").glob("*.index"))
        path.write_bytes(path.read_bytes()[:-1])
        assert library.repair().steps
    else:
        change(database, "UPDATE vectors SET crc = crc + 1 WHERE id = 77")
        assert library.repair().steps
    assert told(library) == pytest.approx(recall(library), abs=1e-9)
    assert told(library) >= 0.8


def test_status_prints_what_an_index_is_worth(approximate):
    """Recall for words and for pictures, times, queries a second, bytes a vector; now, if asked."""
    folder = str(approximate.folder)
    for more in ([], ["--measure"]):
        done = CliRunner().invoke(app, ["status", "--index", folder, *more])
        assert done.exit_code == 0
        [engine, *lines] = [
            line for line in done.stdout.splitlines() if re.match("search|  .* queries: ", line)
        ]
        assert re.fullmatch(r"search    image: partitioned OPQ\S+, [1-9]\d+ bytes a vector", engine)
        told = [re.fullmatch(FIGURES, line) for line in lines]
        assert [one[1] for one in told] == ["text", "image"]
        for _, found, median, tail, rate in (one.groups() for one in told):
            assert 0.5 < float(found) <= 1
            assert 0 <= float(median) <= float(tail)
            assert int(rate.replace(",", "")) > 0


def test_an_index_that_falls_short_is_replaced_and_status_says_so(approximate, monkeypatch):
    """By exact search, with the recall that was reached and the one that was wanted."""
    monkeypatch.setattr("mmsearch.vectors.tuning._CHOSEN", [10])
    with Catalog.open(approximate.folder / "library.db", write=True) as catalog:
        engines.remember(catalog, engines.Wishes(target_recall=0.99, faiss="IVF64,PQ1x4fs"))
    approximate.forget("/p/1")
    done = CliRunner().invoke(app, ["status", "--index", str(approximate.folder)])
    assert re.search(
        r"search    image: staged PQ.*recall@10 1\.000,.*\n"
        r"          IVF64,PQ1x4fs reached a recall of 0\.\d+ where 0\.99 was asked for: "
        r"searched exactly instead\n",
        done.stdout, re.DOTALL,
    )  # fmt: skip


def test_ctrl_c_while_an_index_is_built_loses_nothing(library, photos, monkeypatch):
    """The counts are out before it begins; the files are found, and the next run builds it."""
    monkeypatch.setattr(planning, "INDEX_FROM_ROWS", 20)
    for number in range(30):
        photos.paint(f"{number}.png", (number * 8, 255 - number * 8, 90))
    build = engines.build
    monkeypatch.setattr(engines, "build", lambda *given: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, lambda number, _: sys.exit(128 + number))  # as cli.run
    try:
        done = CliRunner().invoke(app, ["index", os.fspath(photos), "--index", str(library.folder)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.exit_code == 130
    assert done.stdout == "30 added\n"
    assert "Ctrl-C leaves this to the next mmsearch index" in done.stderr
    assert len(library.query("red", 100)) == 30
    assert library.check() == []
    monkeypatch.setattr(engines, "build", build)
    library.index()
    [[searched]] = [one["search"] for one in library.status()["spaces"]]
    assert searched["engine"] == Engine.STAGED
    assert len(library.query("red", 100)) == 30
    assert library.check() == []
