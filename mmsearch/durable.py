"""Files that are whole or not there: what every writer of ours shares."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from mmsearch.errors import DiskFull, LibraryError, LibraryReadOnly, StorageFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def private(path: str, flags: int) -> int:
    """An opener for `open` that makes files only their owner may read."""
    return os.open(path, flags, 0o600)


def replace(temporary: str, path: str) -> None:
    """Give a synced file its name, and make the name durable."""
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def make_folders(path: str) -> list[str]:
    """Make a folder with those above it, where they are not there; returns the folders that got
    one by it: they wait to be synced.
    """
    missing = [os.path.abspath(path)]
    while not os.path.isdir(missing[-1]):
        missing.append(os.path.dirname(missing[-1]))
    os.makedirs(path, exist_ok=True)
    return missing[1:]


def sync_folder(path: str) -> None:
    """Make the names in a folder durable, where the system lets folders be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one that may be passed through, but not listed
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(error: OSError, path: str | os.PathLike[str]) -> LibraryError:
    """An error of the disk in our own words."""
    name = os.fspath(path)
    if error.errno in _FULL:
        return DiskFull(f"no space left for {name}")
    if error.errno in _FORBIDDEN:
        return LibraryReadOnly(
            f"{name} cannot be written ({error.strerror}); "
            "searching works, indexing needs a place that can be written"
        )
    return StorageFailed(f"the disk reported an error at {name}: {error.strerror or error}")


def is_full(folder: str | os.PathLike[str]) -> bool:
    """True when no file in a folder can grow by a little: no space, or a limit on file size."""
    probe = os.path.join(folder, f".probe-{os.getpid()}")
    little = bytes(65_536)  # as much as SQLite's shared memory file grows by
    try:
        with open(probe, "wb", opener=private) as file:
            file.write(little)
            # a hole costs no space, but a file that long is what a limit forbids
            file.seek(max(entry.stat().st_size for entry in os.scandir(folder)))
            file.write(little)
    except OSError as error:
        return error.errno in _FULL
    finally:
        with suppress(OSError):
            os.unlink(probe)
    return False
