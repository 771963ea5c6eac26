"""A backup is one sound state of a library and opens anywhere; restoring keeps what was there."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing

import pytest

import mmsearch
from mmsearch.catalog import Catalog
from mmsearch.errors import LibraryDamaged, LibraryLocked, LibraryMissing, UsageError
from mmsearch.locking import WriterLock


def everything(library):
    """What library.db says of every item, by name and part: (id, digest, vector, start, end)."""
    library.close()
    with closing(sqlite3.connect(library.folder / "library.db")) as raw:
        rows = raw.execute(
            "SELECT files.name, items.part, items.id, contents.digest, vectors.data, items.start,"
            " items.end FROM items JOIN files ON files.id = items.file_id"
            " JOIN contents ON contents.id = files.content_id JOIN vectors ON"
            " vectors.content_id = contents.id AND vectors.part = items.part"
        )
        return {(name, part): rest for name, part, *rest in rows}


def test_a_backup_opens_as_a_library(three, tmp_path):
    """The same items and answers from another folder, nothing to complain of, nobody else's."""
    assert three.backup(tmp_path / "away" / "backup") == 3
    folder = tmp_path / "away" / "backup"
    assert sorted(os.listdir(folder)) == ["LOCK", "library.db"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "library.db").stat().st_mode & 0o777 == 0o600
    with mmsearch.open_library(folder, workers=1) as copy:
        assert copy.check() == []
        assert [h.path.name for h in copy.query("red", all=True)] == [
            h.path.name for h in three.query("red", all=True)
        ]
        assert copy.index().unchanged == 3
        assert copy.status()["cache"]["rows"] == 3
        assert everything(copy) == everything(three)


def test_row_6_a_backup_is_durable_before_it_has_its_name(three, tmp_path, on_fsync):
    """Row 6: the file is synced under another name, and its folder when it has the right one."""
    there, synced = tmp_path / "away" / "library.db", []
    on_fsync(lambda path: synced.append((os.path.basename(path), there.exists())))
    three.backup(there.parent)
    named = [name for name, is_there in synced if not is_there]
    assert "library.db.new" in named
    assert ("away", True) in synced


def test_row_26_a_backup_beside_a_writer_is_one_state(three, tmp_path):
    """Row 26: pairs that a writer only ever changes together are together in every backup."""
    stop = threading.Event()
    written = []

    def write():
        with Catalog.open(three.folder / "library.db", write=True) as catalog:
            while not stop.is_set():
                with catalog.transaction():
                    for key in ("one", "other"):
                        catalog.put_setting(key, str(len(written)))
                written.append(None)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        pairs = []
        for number in range(8):
            before = len(written)
            three.backup(tmp_path / str(number))
            with Catalog.open(tmp_path / str(number) / "library.db") as copy:
                pairs.append((copy.setting("one"), copy.setting("other")))
            assert pairs[-1][0] is None or int(pairs[-1][0]) >= before - 1
    finally:
        stop.set()
        writer.join()
    assert all(one == other for one, other in pairs)
    assert len(written) > 8


def test_an_earlier_backup_gives_way_only_when_told(three, tmp_path, photos):
    """A folder with anything in it is refused; force replaces a backup and nothing else."""
    target = tmp_path / "backup"
    three.backup(target)
    photos.paint("white.png", "white")
    three.index(photos)
    with pytest.raises(UsageError, match="is not empty: --force replaces an earlier backup"):
        three.backup(target)
    assert three.backup(target, force=True) == 4
    with pytest.raises(UsageError, match="is not empty: name another folder"):
        three.backup(photos, force=True)
    with pytest.raises(UsageError, match="is this library itself"):
        three.backup(three.folder, force=True)
    with mmsearch.open_library(target) as copy:
        assert (copy.status()["files"], copy.check()) == (4, [])


def test_a_backup_that_was_interrupted_is_begun_again(three, tmp_path):
    """Half a copy and a lock are no obstacle, and do not stay."""
    target = tmp_path / "backup"
    target.mkdir()
    (target / "LOCK").touch()
    (target / "library.db.new").write_bytes(b"half")
    three.backup(target)
    assert sorted(os.listdir(target)) == ["LOCK", "library.db"]


def damaged(library):
    """Its second vector is not what was written."""
    library.close()
    with closing(sqlite3.connect(library.folder / "library.db")) as raw, raw:
        raw.execute("UPDATE vectors SET crc = crc + 1 WHERE id = 2")


def test_a_damaged_library_is_not_backed_up(three, tmp_path):
    """An earlier backup must not give way to damage."""
    three.backup(tmp_path / "backup")
    before = (tmp_path / "backup" / "library.db").read_bytes()
    damaged(three)
    with pytest.raises(LibraryDamaged, match="vector 2 is not what was written"):
        three.backup(tmp_path / "backup", force=True)
    assert (tmp_path / "backup" / "library.db").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "backup")) == ["LOCK", "library.db"]


def test_restoring_brings_back_the_state_and_keeps_the_other(three, tmp_path, photos):
    """What was there is kept beside; the backup itself stays as it is; answers are the old ones."""
    three.backup(tmp_path / "backup")
    backup = (tmp_path / "backup" / "library.db").read_bytes()
    right = everything(three)
    photos.paint("white.png", "white")
    three.index(photos)
    three.close()
    damaged(three)
    replaced = (three.folder / "library.db").read_bytes()
    count, saved = three.restore(tmp_path / "backup")
    assert (count, saved) == (3, three.folder / "before-restore-1")
    assert (saved / "library.db").read_bytes() == replaced
    assert (tmp_path / "backup" / "library.db").read_bytes() == backup
    assert three.check() == []
    assert everything(three) == right
    assert three.index(photos).added == 1
    assert three.check() == []


def test_restoring_where_nothing_is(three, tmp_path):
    """A new machine: the folder is made."""
    three.backup(tmp_path / "backup")
    with mmsearch.open_library(tmp_path / "new" / "library") as fresh:
        assert fresh.restore(tmp_path / "backup") == (3, None)
        assert (fresh.check(), fresh.folder.stat().st_mode & 0o777) == ([], 0o700)


def test_restoring_from_what_is_no_sound_backup(three, tmp_path):
    """The library stays as it is."""
    before = everything(three)
    three.backup(tmp_path / "backup")
    with closing(sqlite3.connect(tmp_path / "backup" / "library.db")) as raw, raw:
        raw.execute("UPDATE vectors SET crc = crc + 1 WHERE id = 2")
    other = tmp_path / "other"
    other.mkdir()
    closing(sqlite3.connect(other / "library.db")).thing.execute("CREATE TABLE x (y)")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "library.db").touch()
    for source, kind, message in (
        (tmp_path / "backup", LibraryDamaged, "vector 2"),
        (other, LibraryDamaged, "not a library"),
        (tmp_path / "empty", LibraryDamaged, "is empty"),
        (tmp_path, LibraryMissing, "has no library.db"),
        (three.folder, UsageError, "is this library itself"),
    ):
        with pytest.raises(kind, match=message):
            three.restore(source)
    assert everything(three) == before
    with (
        WriterLock(three.folder / "LOCK"),
        pytest.raises(LibraryLocked),
    ):
        three.restore(tmp_path / "backup")


def test_an_open_reader_sees_what_was_restored(three, tmp_path, photos):
    """A library object that was open before answers from the restored state."""
    three.backup(tmp_path / "backup")
    photos.paint("white.png", "white")
    three.index(photos)
    with mmsearch.open_library(three.folder) as reader:
        assert len(reader.query("red", all=True)) == 4
        three.restore(tmp_path / "backup")
        assert len(reader.query("red", all=True)) == 3
