"""A copy of a library that opens anywhere, made also while it is written; and the way back."""

from __future__ import annotations

import os
from pathlib import Path

from mmsearch.catalog.copying import copy_database
from mmsearch.catalog.replacing import put_in_place, set_aside
from mmsearch.durable import storage_error, sync_folder
from mmsearch.errors import LibraryMissing, UsageError
from mmsearch.locking import WriterLock

_NAME = "library.db"


def backup(folder: Path, target: Path, *, force: bool = False) -> int:
    """Copy a library to a new folder; how many files it has.

    One state of it, as of a moment after the call, whatever a writer does meanwhile; whole,
    synced and read through before it has its name. Caches stay behind: the first `mmsearch
    index` makes them anew, and until then queries are slower. With `force` an earlier backup
    gives way. Raises LibraryMissing, LibraryDamaged, UsageError for a target that is there,
    DiskFull, StorageFailed.
    """
    source, copy = folder / _NAME, target / _NAME
    if not source.exists():
        raise LibraryMissing.at(folder)
    _refuse(folder, target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(mode=0o700, exist_ok=True)
        sync_folder(str(target.parent))
    except OSError as error:
        raise storage_error(error, target) from error
    with WriterLock(target / "LOCK"):
        new, count = copy_database(source, copy)
        put_in_place(new, copy)
    return count


def restore(folder: Path, source: Path) -> tuple[int, Path | None]:
    """Have a library be what a backup of it was: how many files, and where the old one is kept.

    The backup is read through first and stays as it is. Raises LibraryMissing where `source`
    is no library, LibraryDamaged for one that is not sound, LibraryLocked beside a writer.
    """
    database = folder / _NAME
    given = source / _NAME if source.is_dir() else source
    if not given.exists():
        raise LibraryMissing(f"{source} has no library.db: name a folder that mmsearch backup made")
    if os.path.realpath(given) == os.path.realpath(database):
        raise UsageError(f"{source} is this library itself")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder) from error
    with WriterLock(folder / "LOCK"):
        new, count = copy_database(given, database)
        saved = set_aside(database, "restore") if database.exists() else None
        put_in_place(new, database)
    return count, saved


def _refuse(folder: Path, target: Path, force: bool) -> None:
    if os.path.realpath(folder) == os.path.realpath(target):
        raise UsageError(f"{target} is this library itself: name another folder")
    try:
        # of a backup that was interrupted there may be a lock and half a copy
        there = [n for n in os.listdir(target) if n != "LOCK" and not n.startswith(f"{_NAME}.new")]
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, target) from error
    if there and not (force and _NAME in there):
        hint = "--force replaces an earlier backup" if _NAME in there else "name another folder"
        raise UsageError(f"{target} is not empty: {hint}")
