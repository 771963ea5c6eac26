"""A library where it lies: long readers, other programs, folders that are moved or copied."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from contextlib import closing, suppress

import portalocker
import pytest
from conftest import clean_environment, paint

import mmsearch
from mmsearch import space
from mmsearch.catalog import Catalog
from mmsearch.errors import LibraryDamaged, MmsearchError, StorageFailed


def log_of(folder):
    """The write-ahead log."""
    return folder / "library.db-wal"


def put(catalog, value):
    """Commit one value, in two places."""
    with catalog.transaction():
        for key in ("one", "other"):
            catalog.put_setting(key, value)


# -- row 13 ------------------------------------------------------------------------------


@pytest.fixture
def beside_a_writer(three, tmp_path, monkeypatch):
    """A library that a writer has open, with settings over many pages in its log alone."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with Catalog.open(three.folder / "library.db", write=True) as catalog:
        with catalog.transaction():
            for number in range(40):
                catalog.put_setting(f"{number}", "first" * 400)
        yield three.folder, catalog


def settings(folder):
    """What a reader that opens the library now is told."""
    with Catalog.open(folder / "library.db") as catalog:
        return [catalog.setting(f"{number}") for number in range(40)]


def while_a_reader_copies(monkeypatch, happens):
    """A place that may not be written, and what happens between copying database and log."""
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    really, left = shutil.copyfile, [happens]

    def copyfile(source, target):
        if str(source).endswith("-wal") and left:
            left.pop()()
        return really(source, target)

    monkeypatch.setattr("shutil.copyfile", copyfile)


def test_row_13_a_writer_closes_while_a_reader_opens(beside_a_writer, tmp_path, monkeypatch):
    """Row 13: the log is gone when it is to be copied, and its content is in the database."""
    folder, catalog = beside_a_writer
    while_a_reader_copies(monkeypatch, catalog.close)
    assert settings(folder) == ["first" * 400] * 40
    assert not log_of(folder).exists()
    assert os.listdir(tmp_path / "temporary") == []


def test_row_13_a_log_begun_anew_while_a_reader_opens(beside_a_writer, monkeypatch):
    """Row 13: an old database with a new log would be a state that never was."""
    folder, catalog = beside_a_writer

    def begin_anew():
        with closing(sqlite3.connect(folder / "library.db")) as raw:
            assert raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
        with catalog.transaction():
            catalog.put_setting("39", "second")

    while_a_reader_copies(monkeypatch, begin_anew)
    assert settings(folder) == ["first" * 400] * 39 + ["second"]


def test_row_13_a_passing_failure_to_open(beside_a_writer, monkeypatch):
    """Row 13: the memory shared with a writer is asked for again before it is done without."""
    folder, catalog = beside_a_writer
    catalog.close()
    shared = folder / "library.db-shm"
    shared.symlink_to("nowhere")  # SQLite follows none
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            shared.unlink()

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.delattr("mmsearch.catalog.connection._connect_unwritable")
    assert settings(folder) == ["first" * 400] * 40
    assert len(pauses) == 3


def test_row_13_a_cache_replaced_while_it_is_checked(three, photos, monkeypatch):
    """Row 13: that its file is gone is no damage when the writer has written another."""
    really, looks = space.hash_file, []

    def hash_file(path):
        looks.append(path)
        if len(looks) == 1:
            with mmsearch.open_library(three.folder, workers=1) as writer:
                assert writer.forget(photos / "green.png") == 1
            assert not os.path.exists(path)
        return really(path)

    monkeypatch.setattr("mmsearch.space.hash_file", hash_file)
    assert three.check() == []
    assert len(set(looks)) == 2
    os.unlink(looks[-1])
    assert [looks[-1] in line for line in three.check()] == [True]


# -- rows 14 and 15 ----------------------------------------------------------------------


def test_row_14_a_long_reader_is_said_to_keep_the_log(three, photos, monkeypatch):
    """Row 14: while a stranger holds a snapshot the log grows, and the run says so; then not."""
    monkeypatch.setattr("mmsearch.indexing.LONGEST_LOG", 200_000)
    with closing(sqlite3.connect(three.folder / "library.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN")
        stranger.execute("SELECT count(*) FROM files").fetchall()
        for number in range(3):
            photos.paint(f"{number}.png", (number, 200, 9))
            notes = three.index(photos).notes
            if notes:
                break
            with Catalog.open(three.folder / "library.db", write=True) as catalog:
                put(catalog, "x" * 60_000)
        assert len(notes) == 1 and "another program reads the library" in notes[0]
        assert str(log_of(three.folder)) in notes[0]
        stranger.execute("ROLLBACK")
    photos.paint("last.png", "white")
    three.index(photos)
    assert three.index(photos).notes == []


def test_row_14_our_own_readers_pin_nothing(three):
    """Row 14: beside an open library that is asked again and again the log stays bounded, and can
    be emptied; beside a stranger who stays in one state of it, it grows by all that is written.
    """

    def log_beside(ask):
        with Catalog.open(three.folder / "library.db", write=True) as catalog:
            sizes = []
            for number in range(30):
                put(catalog, "abcdefghij"[number % 10] * 200_000)  # some 400 kB
                if number % 8 == 0:
                    ask()
                sizes.append(catalog.log_bytes())
        with closing(sqlite3.connect(three.folder / "library.db")) as raw:
            busy, *_ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return max(sizes), busy

    with mmsearch.open_library(three.folder) as reader:
        most, busy = log_beside(lambda: reader.query("red", all=True))
        assert most < 8_000_000 and busy == 0  # SQLite empties it each 4 MB
        assert len(reader.query("red", all=True)) == 3
    with closing(sqlite3.connect(three.folder / "library.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN")
        stranger.execute("SELECT count(*) FROM files").fetchall()
        assert log_beside(lambda: None)[0] > 11_000_000


def test_row_15_one_connection_writes_and_the_others_only_read(three, photos, monkeypatch):
    """Row 15: whatever is asked is read with mode=ro; a run has one connection that may write."""
    from mmsearch.catalog import connection

    opened, really = [], connection._connect

    def connect(uri, begin, pragmas):
        opened.append(uri.rpartition("?")[2])
        return really(uri, begin, pragmas)

    monkeypatch.setattr(connection, "_connect", connect)

    def modes(*commands):
        three.close()
        opened.clear()
        for command in commands:
            command()
        return opened

    asked = modes(lambda: three.query("red", all=True), three.status, three.errors, three.check)
    assert set(asked) == {"mode=ro"}
    photos.paint("white.png", "white")
    assert modes(lambda: three.index(photos)).count("mode=rw") == 1
    assert modes(lambda: three.forget(photos / "white.png")).count("mode=rw") == 1
    assert set(opened) <= {"mode=rw", "mode=ro"}


def test_row_15_a_reader_never_empties_the_log(three, tmp_path):
    """Row 15: readers open read-only and leave library.db and its log byte for byte."""
    with Catalog.open(three.folder / "library.db", write=True) as catalog:
        assert catalog._connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert catalog._connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        catalog._connection.rollback()
        put(catalog, "late")
        shutil.copytree(three.folder, tmp_path / "killed")
    (tmp_path / "killed" / "library.db-shm").unlink()
    before = [path.read_bytes() for path in (tmp_path / "killed" / "library.db",
                                             log_of(tmp_path / "killed"))]  # fmt: skip
    assert before[1]
    with mmsearch.open_library(tmp_path / "killed") as reader:
        reader.query("red", all=True)
        reader.check()
        with reader._access.reading() as (catalog, _):
            assert catalog.setting("one") == "late"
            with pytest.raises(MmsearchError), catalog.transaction():
                catalog.put_setting("one", "no")
    assert [path.read_bytes() for path in (tmp_path / "killed" / "library.db",
                                           log_of(tmp_path / "killed"))] == before  # fmt: skip


# -- row 17 ------------------------------------------------------------------------------


def killed(library, target, value):
    """A copy of a library as a killed writer leaves it: its last commit in the log alone."""
    with Catalog.open(library.folder / "library.db", write=True) as catalog:
        put(catalog, value)
        shutil.copytree(library.folder, target)
    (target / "library.db-shm").unlink()
    return target


def pair(folder):
    """Both places of the value."""
    with Catalog.open(folder / "library.db") as catalog:
        return catalog.setting("one"), catalog.setting("other")


def test_row_17_a_log_that_was_deleted(three, tmp_path):
    """Row 17: the library is what it was before the commits in it, whole and sound."""
    with Catalog.open(three.folder / "library.db", write=True) as catalog:
        put(catalog, "early")
    folder = killed(three, tmp_path / "killed", "late")
    assert pair(folder) == ("late", "late")
    folder = killed(three, tmp_path / "cut", "later")
    log_of(folder).unlink()
    assert pair(folder) in {("early", "early"), ("late", "late")}
    with mmsearch.open_library(folder, workers=1) as library:
        assert library.check() == []
        assert len(library.query("red", all=True)) == 3


@pytest.mark.parametrize("cut", [0, 31, 32, 4000, -1])
def test_row_17_a_log_that_was_cut(three, tmp_path, cut):
    """Row 17: a commit that is not whole in the log is not there, and nothing else is lost."""
    with Catalog.open(three.folder / "library.db", write=True) as catalog:
        put(catalog, "early")
    folder = killed(three, tmp_path / "killed", "late")
    data = log_of(folder).read_bytes()
    log_of(folder).write_bytes(data[:cut])
    assert pair(folder) == ("early", "early")
    with mmsearch.open_library(folder, workers=1) as library:
        assert library.check() == []


def test_row_17_the_log_of_another_library(three, photos, tmp_path):
    """Row 17: played into the wrong file, it is found by check, or says what that library said."""
    with mmsearch.open_library(tmp_path / "other", workers=1) as other:
        for number in range(30):
            photos.paint(f"{number}.png", (number * 8, 255, 9))
        other.index(photos)
    foreign = killed(other, tmp_path / "foreign", "foreign")
    folder = killed(three, tmp_path / "killed", "late")
    log_of(folder).write_bytes(log_of(foreign).read_bytes())
    with mmsearch.open_library(folder, workers=1) as library:
        found = library.check()
        try:
            answered = [hit.path.name for hit in library.query("red", all=True)]
        except LibraryDamaged as error:
            answered = [str(error)]
    if found:
        assert all("mmsearch repair" in said or "cache" in said for said in found)
    else:  # played in as a whole: it is that library now, down to its answers
        assert pair(folder) in {("late", "late"), ("foreign", "foreign")}
    if found and "mmsearch repair" not in answered[0]:
        assert set(answered) <= {path.name for path in photos.folder.iterdir()}


# -- row 25 ------------------------------------------------------------------------------


@pytest.mark.parametrize("instead", ["nothing", "an empty folder", "another library", "deleted"])
def test_row_25_a_folder_that_goes_while_it_is_written(three, photos, tmp_path, instead):
    """Row 25: the run ends with an error; nothing is written where the folder was."""
    shutil.copytree(three.folder, tmp_path / "copy")
    three.close()
    for number in range(12):
        photos.paint(f"{number}.png", (number * 20, 255, 9))
    there = three.folder
    calls = []

    def move(progress):
        if progress.total and not calls:
            calls.append(progress)
            there.rename(tmp_path / "moved")
            if instead == "deleted":
                shutil.rmtree(tmp_path / "moved")
            if instead == "an empty folder":
                there.mkdir()
            elif instead == "another library":
                shutil.copytree(tmp_path / "copy", there)

    with (
        mmsearch.open_library(there, workers=1, batch=2) as library,
        pytest.raises(StorageFailed, match="was moved, replaced or deleted"),
    ):
        library.index(photos, progress=move)
    assert calls
    if instead in ("nothing", "deleted"):
        assert not there.exists()
    elif instead == "an empty folder":
        assert os.listdir(there) == []
    else:
        with mmsearch.open_library(there) as library:
            assert (library.status()["files"], library.check()) == (3, [])
    if instead == "deleted":
        with mmsearch.open_library(there, workers=1) as library:  # begun anew, by the next run
            assert library.index(photos).added == 15
        return
    with mmsearch.open_library(tmp_path / "moved", workers=1) as library:
        assert library.check() == []
        assert library.status()["files"] >= 3
        library.index(photos)
        assert library.status()["files"] == 15


# -- row 26 ------------------------------------------------------------------------------


def test_row_26_copies_made_while_it_is_written(three, tmp_path):
    """Row 26: `cp -r` beside a writer: a copy holds one state, or is said to be damaged."""
    stop = threading.Event()

    def write():
        with Catalog.open(three.folder / "library.db", write=True) as catalog:
            number = 0
            while not stop.is_set():
                put(catalog, str(number % 10) * 9000)
                number += 1

    three.close()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(12):
            shutil.copytree(three.folder, tmp_path / str(number))
    finally:
        stop.set()
        writer.join()
    sound = 0
    for number in range(12):
        (tmp_path / str(number) / "library.db-shm").unlink(missing_ok=True)
        with mmsearch.open_library(tmp_path / str(number)) as copy:
            if found := copy.check():
                assert all("mmsearch repair" in said or "cache" in said for said in found)
                with suppress(LibraryDamaged):
                    assert len(copy.query("red", all=True)) == 3
                continue
            assert next(hit.path.name for hit in copy.query("red", all=True)) == "red.png"
        sound += 1
        one, other = pair(tmp_path / str(number))
        assert one == other
    assert sound


# -- rows 28 and 37 ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_row_28_a_file_system_without_locks(three, photos, monkeypatch, number):
    """Row 28: where flock itself fails, writing is refused and says why; searching goes on."""

    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", flock)
    before = (three.folder / "library.db").read_bytes()
    photos.paint("white.png", "white")
    for write in (lambda: three.index(photos), lambda: three.forget(photos), three.repair):
        with pytest.raises(StorageFailed, match="this file system has no locks") as caught:
            write()
        assert os.strerror(number) in str(caught.value)
        assert str(three.folder / "LOCK") in str(caught.value)
        assert "keep the library on a local disk" in str(caught.value)
    assert (three.folder / "library.db").read_bytes() == before
    assert len(three.query("red", all=True)) == 3


def test_row_37_many_files_and_few_descriptors(tmp_path):
    """Row 37: many more files in one folder than the 64 descriptors, and then nothing to do."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(1500):
        (photos / f"{number}.csv").touch()
    for number in range(40):
        paint(photos / f"{number}.png", (number, 6 * number, 9))
    command = 'ulimit -n 64 && exec "$@"'
    mmsearch_index = [
        "sh", "-c", command, "sh", sys.executable, "-m", "mmsearch", "index", str(photos),
        "--index", str(tmp_path / "index"), "--json",
    ]  # fmt: skip

    for added, unchanged in ((40, 0), (0, 40)):
        done = subprocess.run(
            mmsearch_index, env=clean_environment(tmp_path), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["added"], report["unchanged"], report["failed"]) == (added, unchanged, [])


def test_row_37_descriptors_and_memory_do_not_grow_with_the_files(three, tmp_path, monkeypatch):
    """Row 37: six times the files take as many descriptors, and memory for their names alone."""
    # on a busy machine a picture may take so long that a second worker is started beside the first
    monkeypatch.setattr("mmsearch.decoding.pool._SLOW", 1e9)

    def cost(count):
        photos = tmp_path / f"photos-{count}"
        photos.mkdir()
        for number in range(count):
            (photos / f"{number:06}.csv").touch()
        paint(photos / "a.png", (count % 255, 1, 2))
        paint(photos / "z.png", (count % 255, 1, 3))
        descriptors = []

        def look(_):
            descriptors.append(len(os.listdir("/proc/self/fd")))

        tracemalloc.start()
        assert three.index(photos, progress=look).skipped == count
        three.close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return max(descriptors), peak

    cost(100)  # what is imported and compiled once
    few, small = cost(400)
    many, large = cost(2400)
    assert many == few
    assert (large - small) / 2000 < 2000  # bytes a file of the largest folder


def test_row_16_a_library_that_was_emptied_keeps_its_log(three, tmp_path):
    """Row 16: SQLite would take an empty file for a beginning and delete the log beside it."""
    folder = killed(three, tmp_path / "killed", "late")
    log = log_of(folder).read_bytes()
    (folder / "library.db").write_bytes(b"")
    with mmsearch.open_library(folder) as library:
        with pytest.raises(LibraryDamaged, match="it is empty"):
            library.query("red")
        assert len(library.check()) == 1
        saved = library.repair().saved
    assert (saved / "library.db-wal").read_bytes() == log
