"""Opening library.db: pragmas, read-only places, and foreign errors in our own words."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from mmsearch.catalog import functions
from mmsearch.durable import is_full, storage_error
from mmsearch.errors import (
    DiskFull,
    LibraryDamaged,
    LibraryError,
    LibraryLocked,
    LibraryReadOnly,
    StorageFailed,
)

_WRITER_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # a commit is on the disk before it is reported
    "PRAGMA fullfsync = ON",  # macOS: through the drive's own cache as well
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
)
_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF")


def connect(path: Path, *, write: bool) -> Connection:
    """One connection to a SQLite file that exists; `write` for the one writer."""
    if write:
        connection = _connect(f"{_uri(path)}?mode=rw", "BEGIN IMMEDIATE", _WRITER_PRAGMAS)
        try:
            use_log(connection, path)
        except BaseException:
            dispose(connection)
            raise
        return connection
    if os.access(path.parent, os.W_OK) and os.access(path, os.W_OK):
        connection = _connect(f"{_uri(path)}?mode=ro", "BEGIN", _READER_PRAGMAS)
        try:
            connection.exec_driver_sql("SELECT 1 FROM sqlite_schema").close()
            connection.rollback()
            return connection
        except OperationalError as error:
            # a full disk has no room for SQLite's shared memory: search still works
            if _primary_code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise
            dispose(connection)
    return _connect_unwritable(path)


def create(path: Path) -> Connection:
    """A connection to a SQLite file that is made now, for the writer that fills it.

    Without a write-ahead log: closing one copies the log into the file, and SQLite keeps an
    error of that copy to itself.
    """
    return _connect(f"{_uri(path)}?mode=rwc", "BEGIN IMMEDIATE", _WRITER_PRAGMAS)


def use_log(connection: Connection, path: Path) -> None:
    """Give the file a write-ahead log. A disk that fails meanwhile is no error to SQLite."""
    raw: Any = connection.connection.driver_connection
    if raw.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        code = errno.ENOSPC if is_full(path.parent) else errno.EIO
        raise OSError(code, os.strerror(code))


def _uri(path: Path) -> str:
    return path.absolute().as_uri()


def _connect_unwritable(path: Path) -> Connection:
    """Read a library where SQLite may not make its -shm file.

    Without a write-ahead log the file is all there is and cannot change under us. With one,
    `immutable` would lose what stands in the log, so both are copied and read elsewhere.
    """
    log = path.with_name(f"{path.name}-wal")
    if not log.exists() or log.stat().st_size == 0:
        return _connect(f"{_uri(path)}?immutable=1", "BEGIN", _READER_PRAGMAS)
    folder = tempfile.mkdtemp(prefix="mmsearch-")
    for file in (path, log):
        shutil.copyfile(file, Path(folder) / file.name)
    connection = _connect(f"{_uri(Path(folder) / path.name)}?mode=rw", "BEGIN", _READER_PRAGMAS)
    event.listen(connection.engine, "close", lambda *_: shutil.rmtree(folder, ignore_errors=True))
    return connection


def _connect(uri: str, begin: str, pragmas: tuple[str, ...]) -> Connection:
    def open_sqlite() -> sqlite3.Connection:
        # isolation_level None: BEGIN and COMMIT are ours, not guessed by the driver
        return sqlite3.connect(
            uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False
        )

    engine = create_engine("sqlite://", creator=open_sqlite, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        for pragma in pragmas:
            connection.execute(pragma).close()
        functions.register(connection)

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine.connect()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and the disk into ours, with the file's name and what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
    except (DBAPIError, sqlite3.Error) as error:
        raise _translate(path, error) from error
    except UnicodeDecodeError as error:  # SQLite quotes the damaged text in its message
        raise LibraryDamaged(damaged(path, error)) from error


def _translate(path: Path, error: DBAPIError | sqlite3.Error) -> Exception:
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = _primary_code(error)
    if code is None:
        return LibraryDamaged(damaged(path, origin)) if isinstance(error, DatabaseError) else error
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and is_full(path.parent):
        code = sqlite3.SQLITE_FULL
    # our statements are right, so what SQLite finds wrong with them is wrong with the file
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH):
        code = sqlite3.SQLITE_CORRUPT
    kinds: dict[int, LibraryError] = {
        sqlite3.SQLITE_FULL: DiskFull(f"no space left for {path}"),
        sqlite3.SQLITE_CORRUPT: LibraryDamaged(damaged(path, origin)),
        sqlite3.SQLITE_NOTADB: LibraryDamaged(damaged(path, origin)),
        sqlite3.SQLITE_BUSY: LibraryLocked(f"{path} is locked by another program"),
        sqlite3.SQLITE_READONLY: LibraryReadOnly(f"{path} cannot be written"),
        sqlite3.SQLITE_PERM: LibraryReadOnly(f"{path} may not be opened"),
        sqlite3.SQLITE_CANTOPEN: LibraryReadOnly(f"{path} cannot be opened"),
    }
    return kinds.get(code, StorageFailed(f"the disk reported an error at {path}: {origin}"))


def _primary_code(error: DBAPIError | sqlite3.Error) -> int | None:
    origin = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(origin, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF  # the rest of an extended code is detail


def damaged(path: Path, origin: object) -> str:
    """What is said of a library.db that is not what was written."""
    said = " ".join(str(origin).split())  # SQLite quotes whole statements, lines and all
    return (
        f"{path} is damaged ({said}); your photos are untouched: restore it from a backup, "
        "or have mmsearch repair keep what can still be read"
    )


def dispose(connection: Connection) -> None:
    """Close for good, whatever state it is in."""
    engine: Engine = connection.engine
    connection.close()
    engine.dispose()
