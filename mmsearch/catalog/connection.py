"""Opening library.db: pragmas, read-only places, and foreign errors in our own words."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from mmsearch.catalog import functions
from mmsearch.durable import is_full, private, storage_error, sync_folder
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
_ATTEMPTS = 5  # to read what a writer opens and closes meanwhile
_PAUSE = 0.01  # seconds more before each further one
_READER_PRAGMAS = ("PRAGMA query_only = ON", "PRAGMA trusted_schema = OFF")


def connect(path: Path, *, write: bool) -> Connection:
    """One connection to a SQLite file that exists; `write` for the one writer."""
    if write:
        _begin_log(path)
        connection = _connect(f"{_uri(path)}?mode=rw", "BEGIN IMMEDIATE", _WRITER_PRAGMAS)
        try:
            use_log(connection, path)
        except BaseException:
            dispose(connection)
            raise
        return connection
    for _ in range(_ATTEMPTS - 1):
        with suppress(FileNotFoundError):  # the writer closed, and its log is gone
            return _connect_beside_a_writer(path) or _connect_unwritable(path)
    return _connect_beside_a_writer(path) or _connect_unwritable(path)


def _connect_beside_a_writer(path: Path) -> Connection | None:
    """Read as SQLite means it, through the memory shared with a writer; None where it cannot be."""
    if not (os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)):
        return None
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE)
        connection = _connect(f"{_uri(path)}?mode=ro", "BEGIN", _READER_PRAGMAS)
        try:
            connection.exec_driver_sql("SELECT 1 FROM sqlite_schema").close()
            connection.rollback()
            return connection
        except OperationalError as error:
            dispose(connection)
            if _primary_code(error) not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise
    return None  # a full disk has no room for the shared memory: search still works


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


def _begin_log(path: Path) -> None:
    """Have the log there, and its name durable, before SQLite writes to it.

    SQLite syncs the folder of a new log as well, but keeps a failure of that to itself: all
    that is then committed would hang on a name that a power cut may take.
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        os.close(private(str(log), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return  # begun by an earlier run, in the same way
    try:
        sync_folder(str(path.parent))
    except BaseException:
        log.unlink()  # a later sync would not make it good
        raise


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
    folder = Path(tempfile.mkdtemp(prefix="mmsearch-"))
    try:
        _copy(path, log, folder)
        uri = f"{_uri(folder / path.name)}?mode=rw"
        connection = _connect(uri, "BEGIN", _READER_PRAGMAS)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    event.listen(connection.engine, "close", lambda *_: shutil.rmtree(folder, ignore_errors=True))
    return connection


def _copy(path: Path, log: Path, folder: Path) -> None:
    """Copy a database and its log while somebody may write to them.

    Pages reach the log before the database, so a log copied second has all that the copied
    database has, whole commits and the begin of one that SQLite leaves out, unless the log was
    begun anew in between: then its header (32 bytes, salted) is another.
    """
    for _ in range(_ATTEMPTS):
        before = _header(log)
        for file in (path, log):
            shutil.copyfile(file, folder / file.name)
        if before == _header(folder / log.name):
            return
    raise LibraryLocked(f"{path} is being written too fast to be read; try again")


def _header(log: Path) -> bytes:
    with log.open("rb") as file:
        return file.read(32)


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
