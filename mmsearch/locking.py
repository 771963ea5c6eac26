"""The lock of the one writer: an advisory lock that the kernel drops when we die."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from mmsearch.durable import private, storage_error
from mmsearch.errors import LibraryLocked, StorageFailed

_PATIENCE = 0.5  # seconds for one who has just got the lock to say so


class WriterLock:
    """Held while a process writes to a library: `with WriterLock(folder / "LOCK"): ...`

    The file says who holds it and since when; it stays behind when the lock goes, and a
    stale one is no obstacle. Raises LibraryLocked at once when another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> WriterLock:
        try:
            # appending neither empties the file of a holder nor needs one to exist
            self._file = open(self.path, "a+b", buffering=0, opener=private)
            self._lock(self._file)
            self._file.truncate(0)
            since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self._file.write(f"pid {os.getpid()} since {since}\n".encode())
        except OSError as error:
            self.__exit__()
            raise storage_error(error, self.path) from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lock(self, file: IO[bytes]) -> None:
        import portalocker  # only writers pay for it

        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.AlreadyLocked as error:
            holder = _said_by_the_holder(file)
            raise LibraryLocked(
                f"{self.path.parent} is locked by {holder}; wait for it or stop it"
            ) from error
        except portalocker.LockException as error:
            raise StorageFailed(
                f"{self.path} cannot be locked: this file system has no locks ({error}); "
                "keep the library on a local disk"
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()  # closing the only descriptor drops the lock
            self._file = None


def _said_by_the_holder(file: IO[bytes]) -> str:
    end = time.monotonic() + _PATIENCE
    while True:
        file.seek(0)
        if said := file.read(200).decode("utf-8", "replace").strip():
            return said
        if time.monotonic() > end:
            return "another process"
        time.sleep(0.005)
