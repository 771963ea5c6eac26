"""The catalog: what is written comes back, by value, from every file that SQLite keeps."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import zlib
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, inject, items_by_words, matched
from fixtures import make_library
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

import mmsearch
from mmsearch.catalog import Catalog, Content, session, tables
from mmsearch.catalog import migrations as steps
from mmsearch.errors import (
    LibraryDamaged,
    LibraryError,
    LibraryMissing,
    LibraryReadOnly,
    MmsearchError,
    SchemaMismatch,
    StorageFailed,
)
from mmsearch.records import Caption, Modality, Reason

FIXTURES = Path(make_library.__file__).parent
STATE = (10, 20, 30)


@pytest.fixture
def catalog(tmp_path):
    """A new catalog, open for writing, with a space of three dimensions."""
    with Catalog.create(tmp_path / "library.db") as made:
        with made.transaction():
            made.put_space("fake", "fa" * 32, 3)
        yield made


def put(catalog, path, row=(1, 0, 0), digest=None, state=STATE):
    """One file with a content of its own, or with that of a digest; its content's id."""
    content = Content(digest or os.urandom(32), Modality.IMAGE, "PNG", 8, 6)
    known = catalog.content_ids([content.digest])
    content_id = known.get(content.digest)
    if content_id is None:
        content_id = catalog.put_content(content, 1, np.array([row], np.float32))
    catalog.put_file(path, state, content_id=content_id)
    return content_id


def raw(catalog, query, *values):
    """Rows straight from the file, on a connection of their own."""
    connection = sqlite3.connect(catalog.path)
    try:
        rows = connection.execute(query, values).fetchall()
        connection.commit()
        return rows
    finally:
        connection.close()


def vector_rows(catalog):
    """{vector id: row} as they are read back."""
    found = {}
    for rows in catalog.vectors_after(1, 0):
        found |= dict(zip(rows.ids.tolist(), rows.vectors.tolist(), strict=True))
    return found


# -- the file ------------------------------------------------------------------------------


def test_a_new_catalog_is_ours_and_private(catalog):
    """Mark, version, WAL, and nobody else may read it."""
    assert raw(catalog, "PRAGMA application_id") == [(steps.MARK,)]
    assert raw(catalog, "PRAGMA user_version") == [(len(steps.MIGRATIONS),)]
    assert raw(catalog, "PRAGMA journal_mode") == [("wal",)]
    assert catalog.path.stat().st_mode & 0o777 == 0o600
    assert not catalog.path.with_name("library.db.new").exists()
    assert catalog.inspect() == []


def test_the_writer_syncs_every_commit(catalog):
    """synchronous FULL, fullfsync, foreign keys; a reader can write nothing."""

    def pragma(of, name):
        return of._connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    assert [pragma(catalog, name) for name in ("synchronous", "fullfsync", "foreign_keys")] == [
        2, 1, 1,
    ]  # fmt: skip
    with Catalog.open(catalog.path) as reader:
        assert pragma(reader, "query_only") == 1
    with (
        Catalog.open(catalog.path) as reader,
        pytest.raises(LibraryReadOnly, match=r"library\.db cannot be written"),
        reader.transaction(),
    ):
        reader.put_setting("a", "b")


def test_tables_and_columns(catalog):
    """The schema that indexes/README.md describes."""
    found = {}
    for (name,) in raw(catalog, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
        found[name] = {row[1] for row in raw(catalog, f"PRAGMA table_info({name})")}
    assert found.pop("sqlite_sequence") == {"name", "seq"}
    least = {
        "roots": {"id", "path", "device", "added_at"},
        "folders": {"id", "path"},
        "contents": {
            "id", "digest", "modality", "format", "width", "height", "duration", "taken",
            "taken_source", "camera", "lens", "iso", "latitude", "longitude", "described",
        },
        "parts": {"content_id", "part", "start", "end", "text"},
        "keywords": {"names", "text", "captions"},
        "files": {
            "id", "folder_id", "name", "size", "mtime_ns", "inode", "content_id", "reason",
            "message", "gone_at", "added_at", "sidecars",
        },
        "items": {"id", "file_id", "part", "modality", "start", "end"},
        "captions": {"id", "file_id", "content_id", "source"},
        "labels": {"content_id", "label", "relevance"},
        "spaces": {"id", "name", "fingerprint", "dim"},
        "vectors": {"id", "space_id", "content_id", "part", "data", "crc"},
        "backgrounds": {"vector_id", "hubness"},
        "caches": {
            "space_id", "generation", "file", "rows", "last_id", "sha256", "size", "inode",
            "mtime_ns", "ctime_ns",
        },
        "settings": {"key", "value"},
    }  # fmt: skip
    for table, columns in least.items():
        assert columns <= found[table], table
    assert least.keys() <= found.keys()


def shape(path):
    """Of each table its columns (name, type, not null, default, place in the key), its indexes
    (unique, made by what, of which columns), what it refers to, and whether ids only grow.
    """
    with closing(sqlite3.connect(path)) as there:
        run = there.execute
        names = run("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: (
                {tuple(row[1:6]) for row in run(f"PRAGMA table_info({name})")},
                sorted(
                    (*row[2:4], *(c[2] for c in run(f"PRAGMA index_info({row[1]})").fetchall()))
                    for row in run(f"PRAGMA index_list({name})").fetchall()
                ),
                {tuple(row[2:7]) for row in run(f"PRAGMA foreign_key_list({name})")},
                ("AUTOINCREMENT" in sql, "WITHOUT ROWID" in sql),
            )
            for name, sql in names
        }


@pytest.mark.parametrize("version", range(1, len(steps.MIGRATIONS) + 1))
def test_row_23_every_library_has_the_tables_of_a_new_one(catalog, tmp_path, version):
    """Row 23: one of every past schema as well, once it is migrated; the newest saved one as it
    is. Another rule or default needs a migration.
    """
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / f"library-schema-{version}.db", path)
    if version < len(steps.MIGRATIONS):
        Catalog.open(path, write=True).close()
    found = shape(path)
    assert found == shape(catalog.path)
    assert found["spaces"][0] == {
        ("id", "INTEGER", 1, None, 1),
        ("name", "VARCHAR", 1, None, 0),
        ("fingerprint", "VARCHAR", 1, None, 0),
        ("dim", "INTEGER", 1, None, 0),
        ("model", "VARCHAR", 1, "''", 0),
        ("modalities", "VARCHAR", 1, "''", 0),
    }


@pytest.mark.parametrize("column, values, others", [
    (tables.files.c.size, [0, -(2**63)], [None, 1.0, "1", b"1"]),
    (tables.files.c.gone_at, [5, None], [5.0]),
    (tables.files.c.id, [1, None], ["1"]),  # its number may stand in the rowid alone
    (tables.parts.c.part, [0], [None]),  # one of two that are the key
    (tables.parts.c.start, [0, 1.5, None], ["0"]),
    (tables.files.c.name, [b"\xff", b""], [None, "name"]),
    (tables.parts.c.text, ["", "\ud7ff\ue000 red", None], ["\udc80", "red \udcff", b"red", 1]),
])  # fmt: skip
def test_what_a_column_can_hold(column, values, others):
    """Values of its type, NULL where the table has it so, and text that is UTF-8."""
    assert [tables.fits(column, value) for value in values] == [True] * len(values)
    assert [tables.fits(column, value) for value in others] == [False] * len(others)


def test_a_word_that_no_enumeration_has():
    """It is damage, and quoted."""
    assert session.member(Modality, "image") is Modality.IMAGE
    with pytest.raises(LibraryDamaged, match="'odour' is no modality"):
        session.member(Modality, "odour")


def test_what_is_to_be_read_anew_is_not_missing(catalog):
    """Neither of pictures nor of captions: a newer model meets them as new contents."""
    kinds = {Modality.IMAGE, Modality.TEXT}
    with catalog.transaction():
        said = catalog.put_caption("a dog", 1, np.array([[1, 0, 0]], np.float32))
        put(catalog, b"/p/a.png")
        catalog.put_captions(1, [(said, "sidecar")])
        other = catalog.put_space("other", "fb" * 32, 3)
    assert (catalog.count_waiting([1]), catalog.count_waiting([other])) == (1, 0)
    with catalog.transaction():
        assert catalog.count_missing(other, kinds) == {Modality.IMAGE: 1, Modality.TEXT: 1}
        catalog.supersede()
        assert catalog.count_missing(other, kinds) == {}
        assert catalog.missing(other, kinds, 0) == []


def test_captions_go_with_a_content_but_not_with_a_change(catalog):
    """A file of another content keeps what is said beside it; one that fails has nothing."""
    with catalog.transaction():
        said = catalog.put_caption("a dog", 1, np.array([[1, 0, 0]], np.float32))
        put(catalog, b"/p/a.png")
        catalog.put_captions(1, [(said, "sidecar")])
    with catalog.transaction():
        put(catalog, b"/p/a.png", (0, 1, 0))
    assert [one.text for one in catalog.captions_of([2])[2]] == ["a dog"]
    with catalog.transaction():
        catalog.put_file(b"/p/a.png", STATE, reason=Reason.EMPTY)
    assert raw(catalog, "SELECT count(*) FROM captions") == [(0,)]
    assert raw(catalog, "SELECT count(*) FROM contents") == [(0,)]


def test_nothing_is_opened_where_nothing_is(tmp_path):
    """Missing is missing, and asking makes no file."""
    with pytest.raises(LibraryMissing, match="try: mmsearch index FOLDER"):
        Catalog.open(tmp_path / "library.db")
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_of_an_interrupted_start_is_no_obstacle(tmp_path):
    """A library.db.new of a run that died is made anew."""
    for name in ("library.db.new", "library.db.new-wal", "library.db.new-journal"):
        (tmp_path / name).write_bytes(b"half")
    with Catalog.create(tmp_path / "library.db") as made:
        assert made.inspect() == []
    assert {path.name for path in tmp_path.iterdir()} == {"library.db"}


def test_a_foreign_database_is_not_a_library(tmp_path):
    """A sound SQLite file of somebody else is refused and left alone."""
    path = tmp_path / "library.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE files (id INTEGER)")
    other.commit()
    other.close()
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(LibraryDamaged, match="is not a library of mmsearch"):
            Catalog.open(path, write=write)
    left = sqlite3.connect(path)
    assert left.execute("SELECT count(*) FROM files").fetchone() == (0,)
    left.close()
    assert len(path.read_bytes()) == len(before)


# -- transactions --------------------------------------------------------------------------


def test_a_transaction_is_all_or_nothing(catalog):
    """An error inside takes everything back: files, contents and vectors."""
    with pytest.raises(RuntimeError, match="half way"), catalog.transaction():
        put(catalog, b"/p/a.png")
        catalog.put_root(b"/p", 1)
        raise RuntimeError("half way")
    with Catalog.open(catalog.path) as reader:
        counts = reader.counts()
        assert set(counts.values()) == {0}
        assert (reader.roots(), vector_rows(reader)) == ([], {})


def test_a_reader_sees_what_was_committed_and_keeps_its_snapshot(catalog):
    """Within a snapshot nothing moves; after it the newest commit shows."""
    with Catalog.open(catalog.path) as reader:
        with reader.snapshot():
            before = reader.data_version(), reader.counts()
            with catalog.transaction():
                put(catalog, b"/p/a.png")
            assert (reader.data_version(), reader.counts()) == before
        assert reader.counts()["files"] == 1
        assert reader.data_version() != before[0]


# -- files, items, vectors ---------------------------------------------------------------------

components = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(paths=st.lists(st.lists(components, min_size=1, max_size=3), min_size=1, max_size=6))
def test_paths_are_bytes(tmp_path_factory, paths):
    """Any name a file system allows comes back byte for byte, found by what is above it."""
    whole = {b"/" + b"/".join(parts) for parts in paths}
    with Catalog.create(tmp_path_factory.mktemp("c") / "library.db") as catalog:
        with catalog.transaction():
            catalog.put_space("fake", "fa" * 32, 3)
            for path in sorted(whole):
                put(catalog, path)
        ids = catalog.files_below(b"/")
        assert {path for _, path in catalog.paths_by_id(ids)} == whole
        for path in whole:
            below = {p for p in whole if p == path or p.startswith(path + b"/")}
            got = {p for _, p in catalog.paths_by_id(catalog.files_below(path))}
            assert got == below
            assert catalog.count_below(path) == len(below)
            folder, name = os.path.split(path)
            assert catalog.known_files(folder)[name].state == STATE


def test_prefix_ranges(catalog):
    """What is below /a/b is neither /a/b2 nor /a/b.png; / is above everything."""
    inside = [b"/a/b/1.png", b"/a/b/c/2.png", "/a/b/…/3.png".encode(), b"/a/b/\xff/4.png"]
    outside = [b"/a/b2/5.png", b"/a/b.png", b"/a/b-/6.png", b"/a/b0", b"/a/7.png", b"/8.png"]
    with catalog.transaction():
        for path in inside + outside:
            put(catalog, path)

    def below(path):
        return {path for _, path in catalog.paths_by_id(catalog.files_below(path))}

    assert below(b"/a/b") == set(inside)
    assert below(b"/a/b2") == {b"/a/b2/5.png"}
    assert below(b"/a/b.png") == {b"/a/b.png"}
    assert below(b"/") == {*inside, *outside}
    assert below(b"/a") == {*inside, *outside} - {b"/8.png"}
    assert below(b"/b") == set()
    assert catalog.folders_below(b"/a/b") == sorted({os.path.dirname(path) for path in inside})
    with catalog.transaction():
        catalog.drop_files(catalog.files_below(b"/a/b"))
    assert below(b"/") == set(outside)


def test_roots_take_the_place_of_those_below_them(catalog):
    """A wider root replaces the narrower ones, and only those."""
    with catalog.transaction():
        for path in (b"/a/b", b"/a/b/c", b"/a/b2", b"/d"):
            catalog.put_root(path, 7)
        catalog.put_root(b"/a/b", 8)
    assert [(path, device) for _, path, device in catalog.roots()] == [
        (b"/a/b", 8), (b"/a/b2", 7), (b"/d", 7),
    ]  # fmt: skip
    with catalog.transaction():
        catalog.put_root(b"/", 9)
    assert [(path, device) for _, path, device in catalog.roots()] == [(b"/", 9)]


@given(st.lists(st.floats(-1, 1, width=16), min_size=3, max_size=3))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_vectors_come_back_in_half_precision(catalog, row):
    """float16 little-endian with a CRC-32: what fits in 16 bits comes back exactly."""
    with catalog.transaction():
        content_id = put(catalog, b"/p/%d.png" % random.getrandbits(60), row)
    [(id, data, crc)] = raw(
        catalog, "SELECT id, data, crc FROM vectors WHERE content_id = ?", content_id
    )
    assert data == np.array(row, "<f2").tobytes()
    assert crc == zlib.crc32(data)
    ids, rows = catalog.vectors_of([id])
    assert (ids.tolist(), rows.dtype) == ([id], np.float32)
    assert rows[0].tolist() == row


def test_a_vector_that_is_not_what_was_written(catalog):
    """A wrong checksum raises, wherever the vector is read, and is listed by check."""
    with catalog.transaction():
        for number in range(3):
            put(catalog, b"/p/%d.png" % number)
    raw(catalog, "UPDATE vectors SET data = x'003c003c0000' WHERE id = 2")
    for read in (lambda: vector_rows(catalog), lambda: catalog.vectors_of([1, 2])):
        with pytest.raises(LibraryDamaged, match="vector 2 is not what was written"):
            read()
    assert catalog.vectors_of([1, 3])[0].tolist() == [1, 3]
    assert list(catalog.broken_vectors(1)) == [(2, "is not what was written")]
    fitting = zlib.crc32(bytes.fromhex("003c003c0000"))
    raw(catalog, "UPDATE vectors SET crc = ? WHERE id = 2", fitting)
    assert list(catalog.broken_vectors(1)) == [(2, "has length 1.414 instead of 1")]


def test_ids_are_never_used_again(catalog):
    """AUTOINCREMENT: what is dropped leaves a gap, also when it was the newest."""

    def newest():
        return tuple(
            raw(catalog, f"SELECT max(id) FROM {table}")[0][0]
            for table in ("files", "items", "contents", "vectors")
        )

    with catalog.transaction():
        put(catalog, b"/p/a.png")
        put(catalog, b"/p/b.png")
    assert newest() == (2, 2, 2, 2)
    with catalog.transaction():
        catalog.drop_files(catalog.files_below(b"/p"))
    assert newest() == (None,) * 4
    with catalog.transaction():
        put(catalog, b"/p/a.png")
    assert newest() == (3, 3, 3, 3)


def test_a_content_goes_with_its_last_file(catalog):
    """Orphans are dropped: contents and vectors, by cascade, in the same transaction."""
    digest = b"d" * 32
    with catalog.transaction():
        put(catalog, b"/p/a.png", digest=digest)
        put(catalog, b"/p/b.png", digest=digest)
        put(catalog, b"/p/c.png")
    assert catalog.counts() == {
        "files": 3, "gone": 0, "failed": 0, "skipped": 0, "items": 3, "captions": 0,
        "vectors": 2,
    }  # fmt: skip
    [first] = catalog.files_below(b"/p/a.png")
    with catalog.transaction():
        catalog.drop_files([first])
    assert digest in catalog.content_ids([digest])
    with catalog.transaction():
        catalog.put_file(b"/p/b.png", STATE, reason=Reason.CORRUPT, message="broken")
    assert catalog.content_ids([digest]) == {}
    counts = catalog.counts()
    assert (counts["files"], counts["items"], counts["vectors"], counts["failed"]) == (1, 1, 1, 1)
    assert catalog.inspect() == []


def test_a_content_that_another_file_takes_up_stays(catalog):
    """Within one transaction the last file may leave a content before another takes it."""
    digests = [b"1" * 32, b"2" * 32]
    with catalog.transaction():
        for name, digest in zip((b"/p/a", b"/p/b"), digests, strict=True):
            put(catalog, name, digest=digest)
    before = vector_rows(catalog)
    with catalog.transaction():
        put(catalog, b"/p/a", digest=digests[1])
        put(catalog, b"/p/b", digest=digests[0])
    assert vector_rows(catalog) == before
    assert catalog.inspect() == []


def test_a_moved_file_keeps_its_ids(catalog):
    """Same file, same item, same vector; what stood under the new path is replaced."""
    with catalog.transaction():
        put(catalog, b"/p/a.png", (0, 1, 0))
        put(catalog, b"/q/b.png", (1, 0, 0))
    before = matched(catalog, [1])[0][1]
    [id] = catalog.files_below(b"/p/a.png")
    with catalog.transaction():
        catalog.move_file(id, b"/q/b.png", (1, 2, 3))
    after = matched(catalog, [1])[0][1]
    assert (after.id, after.modality) == (before.id, before.modality)
    assert [os.fsencode(item.path) for _, item in matched(catalog, [1])] == [b"/q/b.png"]
    assert matched(catalog, [2]) == []
    assert vector_rows(catalog) == {1: [0, 1, 0]}
    assert catalog.known_files(b"/q")[b"b.png"].state == (1, 2, 3)
    assert catalog.known_files(b"/p") == {}


def test_a_gone_file_has_no_match_but_keeps_its_vector(catalog):
    """Hidden until it is recorded again; one that was never indexed is forgotten."""
    with catalog.transaction():
        content_id = put(catalog, b"/p/a.png")
        catalog.put_file(b"/p/bad.png", STATE, reason=Reason.EMPTY, message="empty")
    [item] = catalog.matches([1]).items
    with catalog.transaction():
        catalog.mark_gone(catalog.files_below(b"/p"))
    assert matched(catalog, [1]) == []
    assert (catalog.counts()["gone"], catalog.counts()["vectors"]) == (1, 1)
    assert len(catalog.files_below(b"/p")) == 1
    assert catalog.paths_of(content_id) == [(1, b"/p/a.png", True)]
    with catalog.transaction():
        catalog.put_file(b"/p/a.png", STATE, content_id=content_id)
    assert catalog.matches([1]).items == [item]


def test_what_no_encoder_read_is_looked_at_again(catalog):
    """When one came that may; what failed otherwise stays named."""
    with catalog.transaction():
        for reason in (Reason.UNSUPPORTED, Reason.NO_MODEL, Reason.EMPTY):
            catalog.put_file(b"/p/" + reason.encode(), STATE, reason=reason)
        put(catalog, b"/p/a.png")
        catalog.forget_unsupported()
    assert sorted(catalog.known_files(b"/p")) == [b"a.png", b"empty"]


def test_failures_and_skips(catalog):
    """Named with reason and message, by path; the two kinds apart."""
    with catalog.transaction():
        catalog.put_file(b"/p/z.png", STATE, reason=Reason.CORRUPT, message="broken")
        catalog.put_file(b"/p/a.txt", STATE, reason=Reason.UNSUPPORTED, message="not a picture")
        catalog.put_folder_failure(b"/p/closed", "Permission denied")
    assert catalog.problems() == [
        (b"/p/closed", Reason.UNREADABLE, "Permission denied"),
        (b"/p/z.png", Reason.CORRUPT, "broken"),
    ]
    assert catalog.problems(skipped=True) == [(b"/p/a.txt", Reason.UNSUPPORTED, "not a picture")]
    with catalog.transaction():
        catalog.clear_folder_failures(b"/p")
    assert [path for path, _, _ in catalog.problems()] == [b"/p/z.png"]


@pytest.mark.parametrize("state", [(0, 0, 1), (2**63 - 1, 2**63 - 1, 2**63 - 1), (5, -(2**63), -1)])
def test_row_27_extreme_states(catalog, state):
    """Row 27: sizes, dates and inodes to the ends of 64 bits come back as they were."""
    with catalog.transaction():
        put(catalog, b"/p/a.png", state=state)
    assert catalog.known_files(b"/p")[b"a.png"].state == state


def test_many_ids_at_once(catalog):
    """More ids than SQLite takes variables in one statement."""
    with catalog.transaction():
        for number in range(1300):
            put(catalog, b"/p/%04d.png" % number)
    ids = catalog.files_below(b"/p")
    assert [path for _, path in catalog.paths_by_id(ids)] == [
        b"/p/%04d.png" % number for number in range(1300)
    ]
    assert len(catalog.matches(range(1, 1301)).items) == 1300
    assert len(catalog.vectors_of(range(1, 1301))[0]) == 1300
    with catalog.transaction():
        catalog.drop_files(ids)
    assert set(catalog.counts().values()) == {0}


def test_vacuum_takes_names_out_of_the_file(catalog):
    """What was dropped is not in the file's bytes any more."""
    with catalog.transaction():
        put(catalog, b"/secret-folder/secret-name.png")
        put(catalog, b"/p/kept.png")
    with catalog.transaction():
        catalog.drop_files(catalog.files_below(b"/secret-folder"))
        catalog.drop_roots_below(b"/secret-folder")
    catalog.vacuum()
    log = catalog.path.with_name("library.db-wal")
    left = catalog.path.read_bytes() + (log.read_bytes() if log.exists() else b"")
    assert b"secret" not in left
    assert b"kept.png" in left


def test_inspect_says_what_the_rules_forbid(catalog):
    """Rows that no code of ours leaves behind are found, a sentence each."""
    with catalog.transaction():
        for number in range(4):
            put(catalog, b"/p/%d.png" % number)
    raw(catalog, "DELETE FROM vectors WHERE id = 1")
    raw(catalog, "DELETE FROM items WHERE id = 2")
    raw(catalog, "UPDATE files SET reason = 'corrupt' WHERE id = 3")
    raw(catalog, "UPDATE files SET folder_id = 99 WHERE id = 4")
    assert sorted(catalog.inspect()) == [
        "1 contents have no vector",
        "1 files are neither indexed nor refused, or both",
        "1 indexed files have no item",
        "row 4 of files refers to a row of folders that is absent",
    ]


# -- row 23: schema versions -------------------------------------------------------------------


def test_row_23_a_newer_library_is_refused(catalog):
    """Row 23: reader and writer say which schema it has, and leave it alone."""
    catalog.close()
    raw(catalog, "PRAGMA user_version = 99")
    before = catalog.path.read_bytes()
    for write in (False, True):
        with pytest.raises(SchemaMismatch, match=r"newer mmsearch \(schema 99, this one knows"):
            Catalog.open(catalog.path, write=write)
    assert catalog.path.read_bytes() == before


@pytest.fixture
def one_more_step(monkeypatch):
    """A schema change to come, registered for one test."""
    added = list(steps.MIGRATIONS)
    monkeypatch.setattr(steps, "MIGRATIONS", added)
    monkeypatch.setattr("mmsearch.catalog.session.MIGRATIONS", added)

    def register(function):
        added.append(function)
        return len(added)

    return register


def test_row_23_an_older_library_is_migrated_after_a_backup(catalog, one_more_step):
    """Row 23: a reader asks for the writer; the writer migrates, the old file stays as a copy."""
    with catalog.transaction():
        put(catalog, b"/p/a.png", (0, 1, 0))
    catalog.close()

    def add_column(connection):
        connection.exec_driver_sql("ALTER TABLE files ADD COLUMN colour TEXT")

    newest = one_more_step(add_column)
    with pytest.raises(SchemaMismatch, match=r"older mmsearch .* run mmsearch index"):
        Catalog.open(catalog.path)
    with Catalog.open(catalog.path, write=True) as opened:
        assert vector_rows(opened) == {1: [0, 1, 0]}
        assert raw(opened, "SELECT colour FROM files") == [(None,)]
        assert raw(opened, "PRAGMA user_version") == [(newest,)]
        assert opened.inspect() == []
    backup = catalog.path.with_name(f"library.db.schema-{newest - 1}")
    old = sqlite3.connect(backup)
    assert old.execute("PRAGMA user_version").fetchone() == (newest - 1,)
    assert old.execute("SELECT count(*) FROM vectors").fetchone() == (1,)
    old.close()
    assert backup.stat().st_mode & 0o777 == 0o600
    with Catalog.open(catalog.path) as reader:
        assert reader.counts()["files"] == 1


def test_row_23_a_migration_that_fails_changes_nothing(catalog, one_more_step):
    """Row 23: one transaction: the library is of the old schema, whole, and can be tried again."""
    with catalog.transaction():
        put(catalog, b"/p/a.png", (0, 1, 0))
    catalog.close()

    def half(connection):
        connection.exec_driver_sql("ALTER TABLE files ADD COLUMN colour TEXT")
        raise RuntimeError("half way")

    newest = one_more_step(half)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half way"):
            Catalog.open(catalog.path, write=True)
        assert raw(catalog, "PRAGMA user_version") == [(newest - 1,)]
        columns = {row[1] for row in raw(catalog, "PRAGMA table_info(files)")}
        assert "colour" not in columns
        assert raw(catalog, "SELECT count(*) FROM vectors") == [(1,)]


@pytest.mark.parametrize("version", range(1, len(steps.MIGRATIONS) + 1))
def test_row_23_a_library_of_every_past_schema_opens(tmp_path, version, monkeypatch):
    """Row 23: the tiny saved library of each version still says what it said."""
    path = tmp_path / "library.db"
    shutil.copy(FIXTURES / f"library-schema-{version}.db", path)
    with Catalog.open(path, write=True) as catalog:
        assert [path for _, path, _ in catalog.roots()] == [b"/photos"]
        assert catalog.spaces() == [(1, "fake", make_library.FINGERPRINT, 3)]
        rows = vector_rows(catalog)
        assert [rows[id] for id in (1, 2, 3)] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
        found = {
            (vector_id, os.fsencode(item.path)) for vector_id, item in matched(catalog, [1, 2, 3])
        }
        assert found == {
            (1, b"/photos/1.png"), (2, b"/photos/2.png"), (1, b"/photos/below/copy\xff.png"),
        }  # fmt: skip
        assert catalog.problems() == [(b"/photos/bad.png", Reason.EMPTY, "no bytes")]
        assert catalog.counts()["gone"] == 1
        assert catalog.setting("made") == "by make_library.py"
        assert catalog.inspect() == []
        [(copy, _)] = items_by_words(catalog, ["copy"], 10)
        assert os.fsencode(copy.path) == b"/photos/below/copy\xff.png"
        if version >= 2:
            told = [(item.part, item.start) for _, item in matched(catalog, [4, 5])]
            assert told == [(0, 0.0), (1, 5.0)]
            [(passage, _)] = items_by_words(catalog, ["fox"], 10)
            assert catalog.details([passage.id])[passage.id].text == "a red fox"
        if version >= 3:
            assert catalog.captions_of([1, 2]) == {1: [Caption("sidecar", "a red square")]}
    inject(monkeypatch, FakeEncoder(fingerprint=make_library.FINGERPRINT))
    with mmsearch.open_library(tmp_path) as library:
        hits = library.query("red", modality="image")
        assert [os.fsencode(hit.path) for hit in hits] == [
            b"/photos/1.png", b"/photos/below/copy\xff.png", b"/photos/2.png",
        ]  # fmt: skip
        assert [hit.score for hit in hits] == [1, 1, 0]
        assert library.check() == []


# -- row 16: a damaged library.db --------------------------------------------------------------


class Victim:
    """A library at rest whose file tests damage, and what it should answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        path = folder / "library.db"
        with Catalog.create(path) as catalog:
            with catalog.transaction():
                catalog.put_root(b"/photos", 1)
                catalog.put_space("fake", "fa" * 32, 3)
                for number in range(60):
                    row = rng.normal(size=3).astype(np.float32)
                    name = b"/photos/%d/%02d.png" % (number % 5, number)
                    put(catalog, name, row / np.linalg.norm(row), digest=rng.bytes(32))
                catalog.put_file(b"/photos/bad.png", STATE, reason=Reason.EMPTY, message="empty")
            catalog.vacuum()
        self.data = path.read_bytes()
        self.right = self.answers()
        assert len(self.right) == 60

    def write(self, data: bytes) -> None:
        for leftover in self.folder.glob("library.db-*"):
            leftover.unlink()
        (self.folder / "library.db").write_bytes(data)

    def answers(self) -> list[tuple[int, float, bytes]]:
        with mmsearch.open_library(self.folder) as library:
            hits = library.query("red", 100)
        return [(hit.id, round(hit.score, 6), os.fsencode(hit.path)) for hit in hits]

    def is_sound(self) -> bool:
        """What check says; damage that it raises counts as said."""
        try:
            with mmsearch.open_library(self.folder) as library:
                return library.check() == []
        except LibraryDamaged:
            return False


@pytest.fixture
def victim(tmp_path, encoder):
    """A library of sixty vectors, without a cache."""
    return Victim(tmp_path)


def test_row_16_a_truncated_library_is_damaged(victim):
    """Row 16: cut anywhere, to nothing too: damaged, never an empty library."""
    size = len(victim.data)
    for length in [0, 1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, size // 2, size - 4096]:
        victim.write(victim.data[:length])
        with pytest.raises(LibraryDamaged, match=r"library\.db") as caught:
            victim.answers()
        assert "your photos are untouched" in str(caught.value), length
    victim.write(victim.data[:-1])
    assert not victim.is_sound() or victim.answers() == victim.right
    victim.write(victim.data)
    assert victim.answers() == victim.right


def test_row_16_a_writer_refuses_a_truncated_library(victim, tmp_path):
    """Row 16: index says the same, and makes no new library over the old one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for length in (0, 100, 4096, 8192):
        victim.write(victim.data[:length])
        with (
            mmsearch.open_library(victim.folder, workers=1) as library,
            pytest.raises(LibraryDamaged, match="your photos are untouched"),
        ):
            library.index(photos)
        assert (victim.folder / "library.db").read_bytes()[:length] == victim.data[:length]


def test_row_16_a_zeroed_tail(victim):
    """Row 16: the pages behind some point are zeros: reported, or not needed for the answer."""
    size = len(victim.data)
    for start in range(0, size, 4096):
        victim.write(victim.data[:start] + bytes(size - start))
        with suppress(LibraryDamaged):
            assert victim.answers() == victim.right
        assert not victim.is_sound()


def test_row_16_flipped_bits(victim):
    """Row 16: the same answers, or one error of ours; what differs, check finds. Never empty."""
    rng = random.Random(16)
    told = 0
    for number in range(220):
        # the first pages hold the schema: a third of the flips go there
        at = rng.randrange(8192 if number % 3 == 0 else len(victim.data))
        data = bytearray(victim.data)
        data[at] ^= 1 << rng.randrange(8)
        victim.write(bytes(data))
        try:
            answers = victim.answers()
        except (LibraryDamaged, SchemaMismatch, LibraryReadOnly) as error:
            told += 1
            assert "library.db" in str(error)
            assert "\n" not in str(error)
            continue
        assert answers, f"bit flipped in byte {at}: empty"
        if answers != victim.right:
            assert not victim.is_sound(), f"bit flipped in byte {at}: other answers, unnoticed"
    assert told > 2


def test_row_16_other_bytes(victim):
    """Row 16: text, a picture, noise in the place of library.db."""
    for data in (b"words", b"\x89PNG\r\n\x1a\n" * 1000, random.Random(3).randbytes(50_000)):
        victim.write(data)
        with pytest.raises(LibraryDamaged, match="your photos are untouched"):
            victim.answers()


def test_row_16_a_folder_in_the_place_of_the_file(tmp_path):
    """Row 16: whatever stands under the name, the error is ours."""
    (tmp_path / "library.db").mkdir()
    with pytest.raises(LibraryError, match=r"library\.db"):
        Catalog.open(tmp_path / "library.db")
    assert issubclass(LibraryError, MmsearchError)


def test_row_6_the_name_of_a_log_is_durable_before_it_is_used(tmp_path, monkeypatch):
    """Row 6: SQLite hides that a new log's folder could not be synced, so that is done before."""
    path = tmp_path / "library.db"
    Catalog.create(path).close()
    log = tmp_path / "library.db-wal"
    assert not log.exists()

    seen = []

    def sync_folder(folder):
        seen.append((folder, log.exists() and log.stat().st_size == 0))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("mmsearch.catalog.connection.sync_folder", sync_folder)
        with pytest.raises(StorageFailed, match="the disk reported an error"):
            Catalog.open(path, write=True)
    assert seen == [(str(tmp_path), True)]
    assert not log.exists()
    with Catalog.open(path, write=True) as catalog, catalog.transaction():
        catalog.put_setting("key", "value")


def test_row_6_a_new_library_is_durable_before_it_has_its_name(tmp_path, on_fsync):
    """Row 6: first the file under another name, then its folder with the right one."""
    path, synced = tmp_path / "library.db", []
    on_fsync(lambda synced_path: synced.append((os.path.basename(synced_path), path.exists())))
    Catalog.create(path).close()
    assert synced[0] == ("library.db.new", False)
    assert (tmp_path.name, True) in synced[1:]


def test_an_error_while_closing_hides_no_other(tmp_path, monkeypatch):
    """It is one of the disk where nothing else went wrong."""
    path = tmp_path / "library.db"
    Catalog.create(path).close()
    dispose = session.connections.dispose

    def failing(connection):
        dispose(connection)
        raise OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))

    monkeypatch.setattr(session.connections, "dispose", failing)
    with pytest.raises(MmsearchError, match=r"library\.db"), Catalog.open(path):
        pass
    with pytest.raises(KeyError), Catalog.open(path):
        raise KeyError("what the caller did")


def test_row_16_a_value_of_another_kind(tmp_path):
    """Row 16: what a column cannot hold is found by `inspect`, or refused where it is read."""
    path = tmp_path / "library.db"
    with Catalog.create(path) as catalog, catalog.transaction():
        catalog.put_space("toy", "c4" * 32, 3)
        catalog.put_setting("key", "value")
    for statement, said in (
        ("UPDATE settings SET value = x'00'", "1 rows of settings have values of another kind"),
        ("UPDATE spaces SET dim = 'many'", "1 rows of spaces have values of another kind"),
    ):
        with closing(sqlite3.connect(path)) as raw, raw:
            raw.execute(statement)
        with Catalog.open(path) as catalog:
            assert said in catalog.inspect()
    with Catalog.open(path) as catalog, pytest.raises(LibraryDamaged, match="dim 'many' of spaces"):
        catalog.spaces()
