"""A copy of library.db by SQLite itself: one state of it, whatever a writer does meanwhile."""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from sqlalchemy import Connection

from mmsearch.catalog.connection import connect, create, damaged, dispose, translated, use_log
from mmsearch.catalog.migrations import schema_version
from mmsearch.durable import private
from mmsearch.errors import LibraryDamaged

_CACHES = "DELETE FROM caches"  # their files stay where they are


def copy_database(source: Path, target: Path) -> tuple[Path, int]:
    """Copy `source` to a new file beside `target`: whole, synced, read through, but without
    its name yet. That file, and how many files are indexed in it.

    The caches are not part of it. Raises LibraryDamaged where the source is not sound.
    """
    new = target.with_name(f"{target.name}.new")
    if source.stat().st_size == 0:
        raise LibraryDamaged(damaged(source, "it is empty"))
    with translated(source):
        reader = connect(source, write=False)
    try:
        with translated(target):
            for leftover in target.parent.glob(f"{new.name}*"):
                leftover.unlink()
            with open(new, "xb", opener=private) as file:
                writer = create(new)
                try:
                    _copy(reader, writer, source)
                    count = _verify(writer, source)
                    use_log(writer, new)
                finally:
                    dispose(writer)
                os.fsync(file.fileno())
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        dispose(reader)
    return new, count


def _copy(reader: Connection, writer: Connection, source: Path) -> None:
    there, here = (one.connection.driver_connection for one in (reader, writer))
    assert isinstance(there, sqlite3.Connection) and isinstance(here, sqlite3.Connection)
    with translated(source):
        there.backup(here)  # all pages at once: of one state
    here.execute("PRAGMA journal_mode = DELETE").close()


def _verify(copy: Connection, source: Path) -> int:
    """Read the copy through and leave the caches behind; how many files are indexed in it."""
    run = copy.exec_driver_sql
    with translated(source), copy.begin():
        if schema_version(copy) is None:
            raise LibraryDamaged(damaged(source, "it is not a library of mmsearch"))
        wrong = [row[0] for row in run("PRAGMA integrity_check") if row[0] != "ok"]
        wrong += [f"a row of {row[0]} refers to nothing" for row in run("PRAGMA foreign_key_check")]
        if wrong:
            raise LibraryDamaged(damaged(source, wrong[0]))
        for id, data, crc in run("SELECT id, CAST(data AS BLOB), crc FROM vectors"):
            if zlib.crc32(data) != crc:
                raise LibraryDamaged(damaged(source, f"vector {id} is not what was written"))
        run(_CACHES)
        return int(run("SELECT count(*) FROM files WHERE content_id IS NOT NULL").scalar_one())
