"""Caches of large libraries, built beside readers and writers, and killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, clean_environment
from test_candidates import filled, unit_rows

from mmsearch import engines, rebuilding
from mmsearch.catalog import Catalog, Content
from mmsearch.locking import WriterLock
from mmsearch.records import Kind, Modality
from mmsearch.space import Space
from mmsearch.spaces import Opened
from mmsearch.vectors import Engine, planning

pytest.importorskip("faiss", reason="an index needs FAISS")

DIM = 32
ROWS = 1200


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library whose 1,200 pictures have an index, and 300 more that its cache lacks."""
    monkeypatch.setattr(planning, "INDEX_FROM_ROWS", 1000)
    rows = unit_rows(3, ROWS + 300, DIM)
    filled(tmp_path, rows[:ROWS])
    add(tmp_path, rows, ROWS)
    return tmp_path, rows.astype(np.float16).astype(np.float32)


def add(folder, rows, first):
    """Put rows from the first on into the library, as its one writer."""
    with (
        WriterLock(folder / "LOCK"),
        Catalog.open(folder / "library.db", write=True) as catalog,
        catalog.transaction(),
    ):
        for number in range(first, len(rows)):
            one = Content(number.to_bytes(32, "big"), Modality.IMAGE, "any", 1, 8)
            content = catalog.put_content(one, 1, rows[number][None])
            catalog.put_file(b"/p/%d" % number, (1, 1, 1), content_id=content)


def opened(folder):
    """The one space, and an encoder without sentences."""
    with Catalog.open(folder / "library.db") as catalog:
        return Opened(Space(catalog, folder / "cache", catalog.spaces()[0]), FakeEncoder())


def answers(folder, rows):
    """Whether these are all rows and found as by products with each, how many stand in the cache,
    and what is wrong with it.
    """
    with Catalog.open(folder / "library.db") as catalog, catalog.snapshot():
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        group = space.groups()[Kind.IMAGE]
        queries = unit_rows(4, 30, DIM)
        expected = np.argsort(-(queries @ rows.T), axis=1)[:, :10] + 1
        right = np.array_equal(group.nearest(queries, 10)[1], expected)
        engine = group.store.plan.engine
        return right and len(group) == len(rows), engine, space.state().rows, space.problem


def test_readers_and_writers_go_on_while_an_index_is_built(library, monkeypatch):
    """Midway the old index answers and a writer adds; the new one finds that beside its rows."""
    folder, rows = library
    more = np.concatenate([rows, unit_rows(5, 7, DIM).astype(np.float16).astype(np.float32)])
    build = engines.build

    def between(*given):
        assert answers(folder, rows) == (True, Engine.STAGED, ROWS, None)
        add(folder, more, len(rows))
        assert answers(folder, more) == (True, Engine.STAGED, ROWS, None)
        return build(*given)

    monkeypatch.setattr(engines, "build", between)
    assert rebuilding.rebuild(folder, opened(folder)) == []
    assert answers(folder, more) == (True, Engine.STAGED, len(rows), None)
    assert sorted(os.listdir(folder / "cache")) == [
        "LOCK", "space-1-2-later-image.index", "space-1-2-later.matrix",
    ]  # fmt: skip


def test_a_cache_that_was_written_meanwhile_stands(library, monkeypatch):
    """`forget` writes its own: the one that was being built is not searched, and that is said."""
    folder, rows = library
    build = engines.build

    def overtaken(*given):
        monkeypatch.setattr(engines, "build", build)
        with (
            WriterLock(folder / "LOCK"),
            Catalog.open(folder / "library.db", write=True) as catalog,
        ):
            Space(catalog, folder / "cache", catalog.spaces()[0]).write_cache(always=True)
        return build(*given)

    monkeypatch.setattr(engines, "build", overtaken)
    [note] = rebuilding.rebuild(folder, opened(folder))
    assert "changed while its index was built" in note
    assert answers(folder, rows) == (True, Engine.STAGED, len(rows), None)


def test_a_first_cache_that_was_announced_is_outdated_like_any(library):
    """Where no cache is recorded yet, the note of what was begun says that it is outdated now."""
    folder, rows = library
    with (
        WriterLock(folder / "LOCK"),
        Catalog.open(folder / "library.db", write=True) as catalog,
    ):
        with catalog.transaction():
            catalog._connection.exec_driver_sql("DELETE FROM caches")
        space = Space(catalog, folder / "cache", catalog.spaces()[0])
        assert space.large() is True
        for _ in range(2):
            space.announce()
            assert catalog.cache(space.id)["generation"] == 0
        assert space.state().rows == 0
        draft = space.draft(later=True)
        with catalog.transaction():
            catalog.outdate_cache(space.id)
        space.announce()
        assert not space.switch(draft)
        assert catalog.cache(space.id)["generation"] == 1
        assert space.switch(space.draft(later=True))
        assert catalog.cache(space.id)["generation"] == 2
    assert answers(folder, rows) == (True, Engine.STAGED, len(rows), None)


def test_beside_another_writer_nothing_is_switched(library):
    """The one writer is at work for as long as it likes: the old index stays."""
    folder, rows = library
    with WriterLock(folder / "LOCK"):
        [note] = rebuilding.rebuild(folder, opened(folder))
    assert "another run is at work" in note
    assert answers(folder, rows) == (True, Engine.STAGED, ROWS, None)


KILLED = """
import os, signal, sys
from pathlib import Path
from test_rebuilding import opened
from mmsearch import durable, engines, rebuilding, space
from mmsearch.vectors import planning
planning.INDEX_FROM_ROWS = 1000
folder, where = Path(sys.argv[1]), sys.argv[2]
module, name = {"matrix": (space, "write_matrix"), "index": (durable, "replace"),
                "built": (engines, "build"), "switch": (space.Space, "switch"),
                "swept": (space.Space, "_remove_others")}[where]
usual = getattr(module, name)
def killed(*given, **named):
    if where in ("built", "switch"):  # done, and then
        usual(*given, **named)
    elif where == "matrix":  # the first half of it
        Path(given[0] + ".new").write_bytes(b"MMSMATRX")
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, killed)
rebuilding.rebuild(folder, opened(folder))
"""


@pytest.mark.parametrize("where", ["matrix", "index", "built", "switch", "swept"])
def test_row_18_killed_while_an_index_is_built(library, where):
    """Row 18: the old index answers, or the new one, whole; the next run builds and sweeps."""
    folder, rows = library
    environment = clean_environment(folder.parent) | {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), where], env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    in_cache = len(rows) if where in ("switch", "swept") else ROWS
    assert answers(folder, rows) == (True, Engine.STAGED, in_cache, None)
    assert rebuilding.rebuild(folder, opened(folder)) == []
    assert answers(folder, rows) == (True, Engine.STAGED, len(rows), None)
    assert len(os.listdir(folder / "cache")) == 3  # the lock, a matrix and its index
