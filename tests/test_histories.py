"""A library through any history of files, restarts and rebuilds, against brute force."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar

import numpy as np
import pytest
from conftest import FakeEncoder, inject, paint, unit
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import mmsearch
from mmsearch import space
from mmsearch.catalog import Catalog
from mmsearch.vectors import Engine, planning

faiss = pytest.importorskip("faiss", reason="an index needs FAISS")

COLOUR = st.tuples(*[st.sampled_from([1, 60, 128, 255])] * 3)  # few, so that many rows are alike
NUMBER = st.integers(0, 1000)
WORDS = ["red", "green yellow", "white cyan"]
NARROW = 10  # pixels
STARTED_WITH = 70
LARGE = 40  # pictures, from which on there is an index


def half(row):
    return np.asarray(row, np.float32).astype(np.float16).astype(np.float32)


class History(RuleBasedStateMachine):
    """Files come, change, go and return; what is known of them is kept beside, by hand."""

    target = 0.0  # of recall@10: none is exact
    seen: ClassVar[set[Engine]] = set()

    def __init__(self):
        super().__init__()
        self.place = Path(mkdtemp())
        self.photos = self.place / "photos"
        self.disk = {}  # path: colour and width, of the files that are there
        self.known = {}  # and of those that the library is to find
        self.made = 0
        self.library, self.reader = self.open(), self.open()

    def open(self):
        return mmsearch.open_library(
            self.place / "index", workers=1, target_recall=self.target or None
        )

    def paint(self, path, colour, width):
        self.disk[path] = (colour, width)
        paint(path, colour, (width, 8))

    def add(self, colours):
        for colour in colours:
            self.made += 1
            self.paint(self.photos / f"{self.made}.png", colour, 8 + self.made % 5)

    def some(self, number):
        return sorted(self.disk)[number % len(self.disk)] if self.disk else None

    @initialize(seed=st.integers(0, 3))
    def begin(self, seed):
        random = np.random.default_rng(seed)
        self.add([tuple(c) for c in random.choice([1, 60, 128, 255], (STARTED_WITH, 3)).tolist()])
        self.index()

    @rule(colours=st.lists(COLOUR, min_size=1, max_size=6))
    def come(self, colours):
        self.add(colours)

    @rule(number=NUMBER, colour=COLOUR)
    def change(self, number, colour):
        if path := self.some(number):
            self.made += 1
            self.paint(path, colour, 8 + self.made % 5)
            os.utime(path, ns=(0, self.made * 10**9))

    @rule(numbers=st.lists(NUMBER, min_size=1, max_size=12))
    def go(self, numbers):
        for path in filter(None, map(self.some, numbers)):
            if self.disk.pop(path, None):
                path.unlink()

    @rule(number=NUMBER)
    def copy(self, number):
        if path := self.some(number):
            self.made += 1
            there = self.photos / f"{self.made}.png"
            shutil.copy(path, there)
            self.disk[there] = self.disk[path]

    @rule()
    def index(self):
        self.library.index(self.photos)
        self.known = dict(self.disk)

    @rule(number=NUMBER)
    def forget(self, number):
        if self.known:
            path = sorted(self.known)[number % len(self.known)]
            assert self.library.forget(path) == 1
            del self.known[path]

    @rule()
    def forget_gone(self):
        self.library.forget(gone=True)

    @rule()
    def restart(self):
        self.library.close()
        self.library = self.open()

    @rule(number=NUMBER)
    def lose_a_cache(self, number):
        files = sorted((self.place / "index" / "cache").glob("space-*"))
        if files:
            files[number % len(files)].unlink()

    @rule()
    def repair(self):
        self.library.repair()

    @invariant()
    def answers_are_those_of_brute_force(self):
        if not self.made:
            return
        vectors, items = self.catalog()
        for library in (self.library, self.reader):
            [searched] = [one["search"] for one in library.status()["spaces"]]
            promised = min((one["target_recall"] for one in searched), default=1)
            self.seen |= {Engine(one["engine"]) for one in searched}
            for number, words in enumerate(WORDS):
                for where, widest in ((None, 99), (f"width <= {NARROW}", NARROW)):
                    k = 3 + 4 * number
                    expected = self.expected(words, widest, vectors, items)
                    hits = library.query(words, k, where=where, hybrid="off")
                    exact = where is not None or promised > 0.99
                    self.compare(hits, expected, k, exact)

    def catalog(self):
        """By path, an item's id and its vector's."""
        with Catalog.open(self.place / "index" / "library.db") as catalog, catalog.snapshot():
            hits = self.library.query("17", 10**6, hybrid="off")
            item_ids = {hit.path: hit.id for hit in hits}
            _, vectors = catalog.vectors_of_items(1, sorted(item_ids.values()))
            by_item = dict(zip(sorted(item_ids.values()), vectors.tolist(), strict=True))
        return {path: by_item[id] for path, id in item_ids.items()}, item_ids

    def expected(self, words, widest, vectors, items):
        """(score, path) of what the library is to find, in its order."""
        query = FakeEncoder()._text(words)
        scores = {
            path: np.float32((half(unit(*colour)) * query).sum())
            for path, (colour, width) in self.known.items()
            if width <= widest
        }
        worth = {path: score / np.float32(0.05) for path, score in scores.items()}
        order = sorted(scores, key=lambda path: (-worth[path], vectors[path], items[path]))
        return [(scores[path], path) for path in order]

    def compare(self, hits, expected, k, exact):
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        if exact:
            assert [hit.path for hit in hits] == [path for _, path in expected[:k]]
        scores = {path: score for score, path in expected}
        mine = [scores[hit.path] for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(mine, abs=1e-6)
        assert len(hits) == min(k, len(expected))
        places = [[path for _, path in expected].index(hit.path) for hit in hits]
        assert places == sorted(places)

    def teardown(self):
        self.library.close()
        self.reader.close()
        shutil.rmtree(self.place)


@pytest.fixture
def small(monkeypatch, warm_pools):
    """Indexes from forty pictures on, and a fifth of a cache may be stale."""
    inject(monkeypatch, FakeEncoder())
    monkeypatch.setattr("mmsearch.ingest.DecoderPool", warm_pools)
    for module in (planning, space):
        monkeypatch.setattr(module, "INDEX_FROM_ROWS", LARGE)
    monkeypatch.setattr(space, "STALE_SHARE", 0.2)
    monkeypatch.setattr("mmsearch.answers.nearest._WHOLE", 0)
    usual = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(usual)


@pytest.mark.parametrize("target", [0.0, 0.9])
def test_any_history_answers_as_brute_force(small, target):
    """Adds, changes, removes, copies, forgets, lost caches, repairs, restarts, and a reader beside:
    the same files, scores and order, with the index in use.
    """
    machine = type("OneHistory", (History,), {"target": target, "seen": set()})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=6, stateful_step_count=8, deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    assert (Engine.PARTITIONED if target else Engine.STAGED) in machine.seen
