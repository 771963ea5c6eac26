"""Files that are whole or not there, the writer's lock, and a cache on a disk that fails."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import mmsearch
from mmsearch import durable, locking, space
from mmsearch.catalog import Catalog
from mmsearch.errors import DiskFull, LibraryLocked, LibraryReadOnly, StorageFailed, UsageError
from mmsearch.records import Kind, Rows
from mmsearch.scan import resolve


@pytest.mark.parametrize(
    "number, kind, said",
    [
        (errno.ENOSPC, DiskFull, "no space left for /a/b"),
        (errno.EDQUOT, DiskFull, "no space left for /a/b"),
        (errno.EFBIG, DiskFull, "no space left for /a/b"),
        (errno.EROFS, LibraryReadOnly, "/a/b cannot be written (Read-only file system); searching"),
        (errno.EACCES, LibraryReadOnly, "indexing needs a place that can be written"),
        (errno.EPERM, LibraryReadOnly, "/a/b cannot be written"),
        (errno.EIO, StorageFailed, "the disk reported an error at /a/b: Input/output error"),
    ],
)
def test_errors_of_the_disk_in_our_words(number, kind, said):
    """Full, forbidden, or broken; with the file's name."""
    found = durable.storage_error(OSError(number, os.strerror(number)), Path("/a/b"))
    assert type(found) is kind and said in str(found)


def test_an_error_without_words():
    """What was raised is what is told."""
    assert "odd" in str(durable.storage_error(OSError("odd"), "x"))


@pytest.mark.parametrize("number, full", [(errno.ENOSPC, True), (errno.EFBIG, True),
                                          (errno.EIO, False), (errno.EACCES, False)])  # fmt: skip
def test_a_disk_is_full_when_no_file_can_grow(tmp_path, monkeypatch, number, full):
    """As a try tells, which leaves nothing behind; other errors are no lack of space."""
    assert durable.is_full(tmp_path) is False

    def no_space(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", no_space)
    assert durable.is_full(tmp_path) is full
    assert os.listdir(tmp_path) == []


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path):
    """Where a file as long as the longest cannot grow by a little, though there is space."""
    import resource
    import signal

    (tmp_path / "long").write_bytes(bytes(300_000))
    before, usual = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (330_000, before[1]))
        assert durable.is_full(tmp_path) is True
        resource.setrlimit(resource.RLIMIT_FSIZE, (370_000, before[1]))
        assert durable.is_full(tmp_path) is False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert os.listdir(tmp_path) == ["long"]


def test_a_folder_is_synced_where_that_can_be(tmp_path, monkeypatch, on_fsync):
    """Not where it may not be listed, nor on a system that does not let folders be opened."""
    synced = []
    on_fsync(synced.append)
    before = os.listdir("/proc/self/fd")
    durable.sync_folder(str(tmp_path))
    assert synced == [str(tmp_path)]
    assert len(os.listdir("/proc/self/fd")) == len(before)

    def refused(*_):
        raise PermissionError(errno.EACCES, "not to be listed")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refused)
        durable.sync_folder(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.delattr(os, "O_DIRECTORY")
        durable.sync_folder(str(tmp_path / "nowhere"))
    assert synced == [str(tmp_path)]
    with pytest.raises(FileNotFoundError):
        durable.sync_folder(str(tmp_path / "nowhere"))


def test_row_6_a_name_is_durable_once_it_is_given(tmp_path, on_fsync):
    """Row 6: a power cut must not take it again: its folder is synced behind it."""
    there = []
    on_fsync(lambda path: there.append((path, sorted(os.listdir(tmp_path)))))
    (tmp_path / "new").touch()
    durable.replace(str(tmp_path / "new"), str(tmp_path / "name"))
    assert there == [(str(tmp_path), ["name"])]


# -- the lock ----------------------------------------------------------------------------


def test_a_lock_where_nothing_can_be_written(tmp_path):
    """The error is ours, and has the file's name."""
    with pytest.raises(StorageFailed, match="LOCK: No such file"):
        locking.WriterLock(tmp_path / "nowhere" / "LOCK").__enter__()


def test_a_disk_that_is_full_when_the_lock_is_to_say_who_holds_it(tmp_path, monkeypatch):
    """It is dropped again: the next one gets it."""

    def lock(self, file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(locking.WriterLock, "_lock", lock)
        with pytest.raises(DiskFull, match=r"no space left for .*LOCK"):
            locking.WriterLock(tmp_path / "LOCK").__enter__()
    with locking.WriterLock(tmp_path / "LOCK"):
        assert (tmp_path / "LOCK").read_text().startswith(f"pid {os.getpid()} since ")


def test_row_11_a_holder_that_never_says_who_it_is(tmp_path, monkeypatch):
    """Row 11: the second is refused all the same, after half a second of waiting for its name."""
    now, pauses = [100.0], []

    def sleep(seconds):
        pauses.append(seconds)
        now[0] += 0.2

    monkeypatch.setattr(locking.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locking.time, "sleep", sleep)
    with locking.WriterLock(tmp_path / "LOCK"):
        (tmp_path / "LOCK").write_bytes(b"")
        with pytest.raises(LibraryLocked, match="locked by another process; wait for it"):
            locking.WriterLock(tmp_path / "LOCK").__enter__()
    assert pauses == [0.005] * 3


# -- the cache ---------------------------------------------------------------------------


@pytest.mark.parametrize("number, kind", [(errno.ENOSPC, DiskFull), (errno.EIO, StorageFailed)])
def test_a_cache_that_cannot_be_written(three, photos, monkeypatch, number, kind):
    """The run says so, what it indexed is there and found, and the next run writes the cache."""

    def write_matrix(*_, **__):
        raise OSError(number, os.strerror(number))

    photos.paint("white.png", "white")
    with monkeypatch.context() as patched:
        patched.setattr(space, "write_matrix", write_matrix)
        with pytest.raises(kind, match=r"space-1-2\.matrix"):
            three.index(photos)
    assert len(three.query("red", all=True)) == 4
    assert three.index(photos).unchanged == 4
    with Catalog.open(three.folder / "library.db") as catalog:
        record = catalog.cache(1)
    assert (record["rows"], record["file"]) == (4, "space-1-2.matrix")
    assert three.check() == []


def test_the_figures_of_a_copied_library_are_noted(three, photos, tmp_path):
    """By the next run, when its hash is right: from then on nothing is hashed to search it."""
    shutil.copytree(three.folder, tmp_path / "copy")
    with mmsearch.open_library(tmp_path / "copy", workers=1) as copy:
        copy.index(photos)
    with Catalog.open(tmp_path / "copy" / "library.db") as catalog:
        record = catalog.cache(1)
    status = (tmp_path / "copy" / "cache" / record["file"]).stat()
    assert (record["size"], record["inode"]) == (status.st_size, status.st_ino)
    assert (record["mtime_ns"], record["ctime_ns"]) == (status.st_mtime_ns, status.st_ctime_ns)
    assert record["generation"] == 1


def test_bytes_that_changed_behind_the_dates_are_seen_by_check(three, monkeypatch):
    """A file whose figures are those of the record is hashed by check alone."""
    with Catalog.open(three.folder / "library.db") as catalog:
        record = catalog.cache(1)
    path = three.folder / "cache" / record["file"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    figures = {name: record[name] for name in ("size", "inode", "mtime_ns", "ctime_ns")}
    monkeypatch.setattr(space.engines, "figures", lambda path: figures)
    assert any("is not what was written" in said for said in three.check())


def test_scores_from_the_catalog_itself(three):
    """Row by row, of those vectors that are there; of none, none."""
    with three._access.reading() as (_, spaces):
        mine = spaces.opened[0].space
        queries = np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32)
        ids, scores = mine.exact(queries, [3, 1, 99])
        assert ids.tolist() == [1, 3]
        stored = "SELECT data FROM vectors WHERE id IN (1, 3) ORDER BY id"
        with closing(sqlite3.connect(three.folder / "library.db")) as raw:
            rows = [np.frombuffer(data, "<f2").astype(float) for (data,) in raw.execute(stored)]
        for query, line in zip(queries, scores, strict=True):
            assert line == pytest.approx([sum(query * row) for row in rows], abs=1e-6)
        ids, scores = mine.exact(queries, [99])
        assert (ids.tolist(), scores.shape) == ([], (2, 0))


def test_how_a_kind_is_searched_can_be_measured(three):
    """Kept figures where nothing is measured anew, else those of now."""
    with three._access.reading() as (_, spaces):
        mine = spaces.opened[0].space
        (kept,) = mine.searched()
        (anew,) = mine.searched(anew=True)
    assert (kept["kind"], kept["vectors"], kept["measured"]) == ("image", 3, {})
    assert anew["vectors"] == 3 and anew["measured"]


def test_a_large_half_matrix_without_an_index_stays_as_it_is(monkeypatch):
    """Few rows are widened for speed, many are not: they would take twice the memory."""
    from mmsearch.records import Rows
    from mmsearch.vectors.matrix import Matrix

    vectors = np.eye(3, dtype=np.float16)
    rows = Rows(np.arange(3), vectors, np.zeros(3, np.uint8), np.zeros(3, np.float32))
    base = Matrix("x", 1, "f", 3, rows)
    quick = space._quick(base, None)
    assert quick.rows.vectors.dtype == np.float32
    assert np.array_equal(quick.rows.vectors, vectors)
    monkeypatch.setattr(space, "INDEX_FROM_ROWS", 3)
    assert space._quick(base, None).rows.vectors.dtype == np.float32
    monkeypatch.setattr(space, "INDEX_FROM_ROWS", 2)
    assert space._quick(base, None) is base
    assert space._quick(None, None) is None
    assert base.of(Kind.TEXT) is None and len(base.of(Kind.IMAGE).rows.ids) == 3


def test_a_path_that_was_never_there(three, tmp_path):
    """Is refused by its name; one whose files are known is gone, not wrong."""
    with Catalog.open(three.folder / "library.db") as catalog:
        with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere"):
            resolve(catalog, [os.fsencode(tmp_path / "nowhere")])
        with pytest.raises(UsageError, match=r"no such file or folder: .*other"):
            resolve(catalog, [os.fsencode(tmp_path / "photos" / "other.png")])
        (tmp_path / "photos" / "red.png").unlink()
        path = os.fsencode(tmp_path / "photos" / "red.png")
        (scope,), offline = resolve(catalog, [path])
        assert (scope.path, scope.device, offline) == (path, None, [])


def test_the_folders_that_wait_to_be_synced(tmp_path):
    """Those that got a name: from the new one's own to the last that was there."""
    made = durable.make_folders(str(tmp_path / "a" / "b" / "c"))
    assert made == [str(tmp_path / "a" / "b"), str(tmp_path / "a"), str(tmp_path)]
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert durable.make_folders(str(tmp_path)) == []


def test_rows_that_are_not_there_are_not_the_same():
    """A later id than any is no reason to fail."""
    vectors = np.eye(3, dtype=np.float32)
    nothing = np.zeros(3, np.uint8), np.zeros(3, np.float32)
    there = Rows(np.array([1, 2, 3]), vectors, *nothing)
    rows = Rows(np.array([1, 2, 9]), vectors, *nothing)
    assert space._same(there, rows, np.array([True, True, False]))
    assert not space._same(there, rows, np.array([True, True, True]))
