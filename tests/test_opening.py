"""Opening library.db, copying and replacing it, where disk, SQLite or a neighbour fails."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine

from mmsearch.catalog import Catalog, Content, connection, replacing
from mmsearch.catalog.contents import Part
from mmsearch.catalog.remains import Remains
from mmsearch.errors import (
    DiskFull,
    LibraryDamaged,
    LibraryLocked,
    LibraryReadOnly,
    StorageFailed,
)
from mmsearch.records import Modality

STATE = (10, 20, 30)


@pytest.fixture
def place(tmp_path):
    """A closed library.db with a setting."""
    with Catalog.create(tmp_path / "library.db") as catalog, catalog.transaction():
        catalog.put_space("fake", "fa" * 32, 3)
        catalog.put_setting("one", "1")
    return tmp_path / "library.db"


def failing(code, text="said so"):
    """An error as SQLite's driver raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


# -- a connection ------------------------------------------------------------------------


@pytest.mark.parametrize("full, number", [(True, errno.ENOSPC), (False, errno.EIO)])
def test_a_file_that_gets_no_log(tmp_path, monkeypatch, full, number):
    """A database in memory has none: the error says whether the disk is full."""
    monkeypatch.setattr(connection, "is_full", lambda folder: full)
    with create_engine("sqlite://").connect() as memory, pytest.raises(OSError) as caught:
        connection.use_log(memory, tmp_path / "library.db")
    assert caught.value.errno == number


@pytest.mark.parametrize("number, kind", [(errno.ENOSPC, DiskFull), (errno.EIO, StorageFailed)])
def test_a_writer_without_a_log_is_closed_again(place, monkeypatch, number, kind):
    """The error is ours, and the file is not held open."""

    def use_log(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(connection, "use_log", use_log)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(kind, match=r"library.db"):
        Catalog.open(place, write=True)
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("vanishing", [4, 5])
def test_a_log_that_is_gone_each_time(place, monkeypatch, vanishing):
    """Four times it is tried again; a fifth failure is told."""
    really, tries = connection._connect_unwritable, []

    def unwritable(path):
        tries.append(path)
        if len(tries) <= vanishing:
            raise FileNotFoundError(errno.ENOENT, "gone", str(path))
        return really(path)

    monkeypatch.setattr(connection, "_connect_beside_a_writer", lambda path: None)
    monkeypatch.setattr(connection, "_connect_unwritable", unwritable)
    if vanishing == 5:
        with pytest.raises(StorageFailed, match="gone"):
            Catalog.open(place)
    else:
        with Catalog.open(place) as catalog:
            assert catalog.setting("one") == "1"
    assert len(tries) == 5


def test_no_memory_to_share(place, monkeypatch):
    """Where it can never be made, as on a full disk, both files are copied and read elsewhere."""
    monkeypatch.setattr("time.sleep", pauses := [].append)
    pauses = pauses.__self__
    with closing(sqlite3.connect(place)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("UPDATE settings SET value = '2'")
        writer.commit()
        log = place.with_name("library.db-wal").read_bytes()
    place.with_name("library.db-wal").write_bytes(log)
    place.with_name("library.db-shm").symlink_to("nowhere")
    with Catalog.open(place) as catalog:
        assert catalog.setting("one") == "2"
    assert pauses == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
    assert place.with_name("library.db-wal").read_bytes() == log


def test_a_program_that_lets_nobody_in(place, monkeypatch):
    """A library that another program holds for itself is locked, not unreadable."""
    really = sqlite3.connect

    def connect(*given, **options):
        return really(*given, **(options | {"timeout": 0.0}))

    with closing(sqlite3.connect(place, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE settings SET value = '2'")
        monkeypatch.setattr(sqlite3, "connect", connect)
        with pytest.raises(LibraryLocked, match="locked by another program"):
            Catalog.open(place)


def test_a_log_that_is_always_another(place, monkeypatch):
    """Five copies of a library that is begun anew under each: it says to try again."""
    headers = iter(range(100))
    place.with_name("library.db-wal").write_bytes(b"x" * 40)
    monkeypatch.setattr(connection, "_connect_beside_a_writer", lambda path: None)
    monkeypatch.setattr(connection, "_header", lambda log: str(next(headers)).encode())
    with pytest.raises(LibraryLocked, match="too fast to be read; try again"):
        Catalog.open(place)
    assert next(headers) == 10


@pytest.mark.parametrize(
    "code, full, kind, said",
    [
        (sqlite3.SQLITE_FULL, False, DiskFull, "no space left"),
        (sqlite3.SQLITE_IOERR | 3 << 8, True, DiskFull, "no space left"),
        (sqlite3.SQLITE_CANTOPEN, True, DiskFull, "no space left"),
        (sqlite3.SQLITE_IOERR | 3 << 8, False, StorageFailed, "said so"),
        (sqlite3.SQLITE_CANTOPEN, False, LibraryReadOnly, "cannot be opened"),
        (sqlite3.SQLITE_ERROR, True, LibraryDamaged, "said so"),
        (sqlite3.SQLITE_SCHEMA, False, LibraryDamaged, "said so"),
        (sqlite3.SQLITE_MISMATCH, False, LibraryDamaged, "said so"),
        (sqlite3.SQLITE_CORRUPT, False, LibraryDamaged, "mmsearch repair"),
        (sqlite3.SQLITE_NOTADB, False, LibraryDamaged, "restore it from a backup"),
        (sqlite3.SQLITE_BUSY, True, LibraryLocked, "another program"),
        (sqlite3.SQLITE_READONLY, False, LibraryReadOnly, "cannot be written"),
        (sqlite3.SQLITE_PERM, False, LibraryReadOnly, "may not be opened"),
        (sqlite3.SQLITE_NOMEM, False, StorageFailed, "said so"),
    ],
)
def test_what_sqlite_says_in_our_words(tmp_path, monkeypatch, code, full, kind, said):
    """Each of its codes, the extended ones too, with the file's name."""
    monkeypatch.setattr(connection, "is_full", lambda folder: full)
    path = tmp_path / "library.db"
    with pytest.raises(kind, match=said) as caught, connection.translated(path):
        raise failing(code)
    assert type(caught.value) is kind and str(path) in str(caught.value)


def test_an_error_without_a_code_is_the_programs_own(tmp_path):
    """It is no fault of the file, and stays what it is."""
    with pytest.raises(sqlite3.ProgrammingError, match="closed"), connection.translated(tmp_path):
        raise sqlite3.ProgrammingError("closed")


def test_a_message_that_is_no_text(tmp_path):
    """SQLite quotes what it cannot read."""
    with (
        pytest.raises(LibraryDamaged, match=r"is damaged .*invalid start byte"),
        connection.translated(tmp_path / "library.db"),
    ):
        b"\xff".decode()


def test_a_disk_that_fails_beside_sqlite(tmp_path):
    """An error of the system is told with the file's name."""
    with (
        pytest.raises(StorageFailed, match=r"library.db: Input/output error"),
        connection.translated(tmp_path / "library.db"),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


# -- another file in its place -----------------------------------------------------------


def test_what_was_set_aside_twice_has_two_folders(place):
    """Numbered from 1; each has the bytes, and an unfinished one of before is no obstacle."""
    (place.parent / "before-repair-2.new").mkdir()
    (place.parent / "before-repair-2.new" / "left").touch()
    for number in (1, 2, 3):
        folder = replacing.set_aside(place, "repair")
        assert folder == place.parent / f"before-repair-{number}"
        assert os.listdir(folder) == ["library.db"]
        assert (folder / "library.db").read_bytes() == place.read_bytes()
        assert folder.stat().st_mode & 0o777 == 0o700
    assert replacing.set_aside(place, "restore").name == "before-restore-1"


def test_a_log_of_before_is_not_played_into_what_takes_its_place(place):
    """It goes, and its shared memory; what it held is in the old file, which a reader keeps."""
    new = Catalog.make(place.with_name("new.db"))
    with Catalog.open(place, write=True) as catalog:
        with catalog.transaction():
            catalog.put_setting("written", "late")
        logs = [place.with_name(place.name + ending) for ending in ("-wal", "-shm")]
        assert all(log.stat().st_size for log in logs)
        old = place.open("rb")
        replacing.put_in_place(new, place)
        assert not any(log.exists() for log in logs) and not new.exists()
    with old:
        assert b"late" in old.read()
    with Catalog.open(place) as catalog:
        assert catalog.setting("written") is None


@pytest.mark.parametrize("code, kind", [
    (sqlite3.SQLITE_FULL, DiskFull), (sqlite3.SQLITE_IOERR, StorageFailed)
])  # fmt: skip
def test_a_disk_that_fails_while_a_log_is_emptied(place, tmp_path, monkeypatch, code, kind):
    """What the log holds is nowhere else yet: the old library stays."""
    before = place.read_bytes()
    (tmp_path / "new").write_bytes(b"new")

    def connect(*_, **__):
        raise failing(code)

    monkeypatch.setattr(replacing.sqlite3, "connect", connect)
    with pytest.raises(kind):
        replacing.put_in_place(tmp_path / "new", place)
    assert place.read_bytes() == before and (tmp_path / "new").exists()


def test_a_log_of_what_cannot_be_opened_is_left_behind(place, tmp_path):
    """It could never be played: the new library comes without it."""
    place.write_bytes(b"no database at all")
    place.with_name("library.db-wal").write_bytes(b"log")
    (tmp_path / "new").write_bytes(b"new")
    replacing.put_in_place(tmp_path / "new", place)
    assert place.read_bytes() == b"new"
    assert not place.with_name("library.db-wal").exists()


def test_a_library_with_rows_that_refer_to_nothing_is_not_backed_up(place):
    """The backup says which, and leaves nothing behind."""
    from mmsearch.catalog.copying import copy_database

    with Catalog.open(place, write=True) as catalog, catalog.transaction():
        catalog.put_file(b"/a/b.txt", STATE, message="x")
    with closing(sqlite3.connect(place)) as raw, raw:
        raw.execute("DELETE FROM folders")
    target = place.with_name("backup.db")
    with pytest.raises(LibraryDamaged, match="a row of files refers to nothing"):
        copy_database(place, target)
    assert not list(place.parent.glob("backup*"))


# -- what is left of a damaged one -------------------------------------------------------


class Pages:
    """Stands for a SQLite table with the keys 0 to `last`, some of which cannot be read."""

    def __init__(self, last, broken, code=sqlite3.SQLITE_CORRUPT):
        self._last, self._broken, self._code = last, broken, code
        self.asked = 0

    def execute(self, _, between):
        self.asked += 1
        self._rows = self._between(*between)
        return self

    def __iter__(self):
        return self._rows

    def fetchall(self):
        return list(self._rows)

    def _between(self, low, high):
        for key in range(low, min(high, self._last) + 1):
            if key in self._broken:
                raise failing(self._code)
            yield (key,)


def remains(pages):
    found = Remains.__new__(Remains)
    found._raw = pages
    found.lost, found.broken = type(Remains(Path(os.devnull)).lost)(), type(
        Remains(Path(os.devnull)).lost)()  # fmt: skip
    return found


@pytest.mark.parametrize("broken", [range(0), range(7, 8), range(5000, 9000), range(3)])
def test_what_stands_around_a_broken_stretch(broken):
    """Every row outside of it is read once, and the search does not try key after key for ever."""
    pages = Pages(20_000, broken)
    found = remains(pages)
    keys = [row[0] for row in found._between("files", "", 20_000, 1)]
    assert sorted(keys) == [key for key in range(20_001) if key not in broken]
    assert len(keys) == len(set(keys))
    assert (found.broken["files"] > 0) == bool(broken)


def test_a_stretch_none_of_which_can_be_read_is_given_up():
    """64 keys of it are tried, not a million million."""
    pages = Pages(1 << 40, range(1 << 41))
    found = remains(pages)
    assert list(found._between("files", "", 1 << 40, 1)) == []
    assert found.broken == {"files": 1}
    assert pages.asked == 65


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR | 1 << 8, sqlite3.SQLITE_FULL])
def test_a_disk_that_fails_is_no_damage(code):
    """Every row would seem to be lost."""
    found = remains(Pages(100, range(50, 51), code))
    with pytest.raises(sqlite3.OperationalError, match="said so"):
        list(found._between("files", "", 100, 1))
    assert not found.broken


# -- what is asked and written -----------------------------------------------------------


def test_what_opens_a_space_is_noted(place):
    """The model, and what it reads, in any order."""
    with Catalog.open(place, write=True) as catalog:
        with catalog.transaction():
            other = catalog.put_space("other", "0b" * 32, 4)
            catalog.put_model(1, "hf-hub:a/b", {Modality.TEXT, Modality.IMAGE})
        assert catalog.models() == {
            1: ("hf-hub:a/b", frozenset({Modality.IMAGE, Modality.TEXT})),
            other: ("", frozenset()),
        }


def test_no_vectors_for_a_content_that_went(place):
    """It says so, and adds none."""
    row = np.array([[1, 0, 0]], np.float32)
    with Catalog.open(place, write=True) as catalog:
        with catalog.transaction():
            content = Content(b"d" * 32, Modality.IMAGE, "PNG")
            id = catalog.put_content(content, 1, row)
            catalog.put_file(b"/a/b.png", STATE, content_id=id)
            other = catalog.put_space("other", "0b" * 32, 3)
            assert catalog.put_vectors(id, other, row)
            assert not catalog.put_vectors(id + 1, other, row)
        assert catalog.count_vectors(1) == (1, 1)
        assert catalog.count_vectors(other) == (1, 2)


def test_long_sounds_and_texts_are_found_by_their_words(place):
    """More windows and passages than are taken up at a time: each passage has its words once."""
    with Catalog.open(place, write=True) as catalog:
        rows = np.tile(np.array([[1, 0, 0]], np.float32), (2100, 1))
        for number, kind in enumerate((Modality.AUDIO, Modality.TEXT)):
            parts = tuple(
                Part(n, n + 1) if kind is Modality.AUDIO else Part(text=f"word{n}")
                for n in range(2100)
            )
            with catalog.transaction():
                content = Content(bytes([number]) * 32, kind, "X", parts=parts)
                id = catalog.put_content(content, 1, rows)
                path = b"/a/long-" + str(kind).encode()
                catalog.put_file(path, STATE, content_id=id, modality=kind)
        count = "SELECT count(*) FROM "
        run = catalog._connection.exec_driver_sql
        assert run(f"{count} keywords").scalar() == 2101  # a sound's first window has its name
        assert run("SELECT count(*) FROM keywords WHERE names IS NOT NULL").scalar() == 2
        assert run("SELECT count(*) FROM substrings WHERE substrings MATCH 'ong'").scalar() == 2
        catalog._connection.rollback()
        for word, parts in (("word2099", [2099]), ("word7", [7]), ("audio", [0])):
            ids, _ = catalog.fits_by_words([word], thorough=True)
            assert [item.part for item in catalog.items_of(ids)] == parts
        assert catalog.broken_keywords() == []


def test_phrases_in_memory_are_bounded(place, monkeypatch):
    """When there are too many, those of before are looked up again."""
    from mmsearch.catalog import keywords

    with Catalog.open(place, write=True) as catalog:
        for number in range(3):
            with catalog.transaction():
                content = Content(bytes([number]) * 32, Modality.IMAGE, "PNG")
                id = catalog.put_content(content, 1, np.array([[1, 0, 0]], np.float32))
                catalog.put_file(b"/photos/cat%d.png" % number, STATE, content_id=id)
        asked, really = [], keywords._found
        monkeypatch.setattr(
            keywords, "_found", lambda c, n, asks, m: asked.append(asks) or really(c, n, asks, m)
        )
        known = keywords.Phrases()
        told = [catalog.all_that_fit([["photos"]], known=known) for _ in range(2)]
        assert len(asked) == 1
        monkeypatch.setattr(keywords, "_KEPT", 2)
        told.append(catalog.all_that_fit([["photos"]], known=known))
        assert len(asked) == 2
        for ((ids, fits),) in told:
            assert len(ids) == 3 and (fits > 0).all()


def test_a_filter_applies_to_items_that_are_asked_by_id(place):
    """Each of several files, with its folder, as far as the filter lets it through."""
    from mmsearch.filters.parser import parse_filter

    with Catalog.open(place, write=True) as catalog:
        with catalog.transaction():
            for number, name in enumerate(("a.png", "b.png", "b.jpg")):
                content = Content(bytes([number]) * 32, Modality.IMAGE, "PNG", 8, 4 + 4 * number)
                id = catalog.put_content(content, 1, np.array([[1, 0, 0]], np.float32))
                catalog.put_file(b"/photos/" + name.encode(), STATE, content_id=id)
        for text, expected in (
            ("name = 'b.png'", ["b.png"]), ("height > 4", ["b.png", "b.jpg"]),
            ("path like '/other/*'", []),
        ):  # fmt: skip
            chosen = parse_filter(text)
            assert [
                item.path.name for item in catalog.items_of([1, 2, 3], None, chosen)
            ] == expected
            ids, kinds = catalog.kinds_of([1, 2, 3], Modality.IMAGE, chosen)
            assert len(ids) == len(expected) and set(kinds.tolist()) <= {0}
