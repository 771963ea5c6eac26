"""Another library.db in the place of the one that is there, with its log out of the way."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import IO

from mmsearch.catalog.connection import translated
from mmsearch.durable import private, replace, sync_folder

SET_ASIDE = "before-{verb}-{number}"  # a folder in the library's: what stood there before

_OF_THE_DISK = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


def set_aside(path: Path, verb: str) -> Path:
    """Copy library.db and its log, byte by byte, to a new folder beside it; the folder.

    The caller holds the library's lock. The copy is synced, and has its name when it is whole.
    """
    with translated(path):
        number = 1
        while (folder := path.with_name(SET_ASIDE.format(verb=verb, number=number))).exists():
            number += 1
        unfinished = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        for name in (path.name, f"{path.name}-wal"):
            source = path.with_name(name)
            if source.exists():
                with open(source, "rb") as file:
                    _copy(file, unfinished / name)
        sync_folder(str(unfinished))
        replace(str(unfinished), str(folder))
    return folder


def put_in_place(new: Path, path: Path) -> None:
    """Have `new`, which is whole and synced, be library.db. The caller holds the lock.

    The log of the old one must not be left: SQLite would play it into the new one. What it
    holds is first copied to the old file, so that a crash in between loses nothing of it.
    Readers keep the file that they have open.
    """
    with translated(path):
        if path.exists() and path.stat().st_size:  # SQLite removes the log of an empty file
            _empty_the_log(path)
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        sync_folder(str(path.parent))
        replace(str(new), str(path))


def _empty_the_log(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as old:
            old.execute("PRAGMA synchronous = FULL")
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
            raise
        # what cannot be opened has no log that could be played


def _copy(source: IO[bytes], target: Path) -> None:
    with open(target, "xb", opener=private) as file:
        shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
