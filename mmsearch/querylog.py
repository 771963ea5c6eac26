"""Vectors of what was asked in words, kept for those who opted in (the setting `keep_queries`).

An index is tuned and measured with queries like those that people ask; what they asked is the best
of them. Only vectors are kept, the newest few thousand: what a query was about can be guessed from
one, its words cannot be read. They lie in the cache, of whose files nothing is promised: any of
them may be lost, and to forget them is to delete the files.

A search is a reader, which holds no lock and waits for none. It appends whole records in one
write; whoever reads them passes over what is not one, such as the half that a full disk leaves. A
file that is full takes the place of the one before it, and another is begun.

    record: 8 bytes MMSQUERY, CRC-32 of what follows, dim float16, little-endian
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.durable import private, storage_error

if TYPE_CHECKING:
    from mmsearch.records import Vectors

MOST = 2000  # queries that are read, the newest; twice as many may lie on the disk

_MARK = b"MMSQUERY"
_NAME = "queries-"
_HEAD = len(_MARK) + 4


class QueryLog:
    """What one encoder was asked, in one library."""

    def __init__(self, cache: Path, fingerprint: str, dim: int) -> None:
        self._path, self._dim = cache / f"{_NAME}{fingerprint}", dim
        self._before = self._path.with_name(f"{self._path.name}.1")
        self._files = self._before, self._path

    def keep(self, rows: Sequence[Vectors]) -> None:
        """Append (dim,) unit rows. What cannot be written is not kept, and that is all."""
        records = []
        for row in rows:
            data = row.astype("<f2").tobytes()
            records.append(_MARK + zlib.crc32(data).to_bytes(4, "little") + data)
        with suppress(OSError):
            if not records:
                return
            file = private(str(self._path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(file, b"".join(records[-MOST:]))
                full = os.fstat(file).st_size >= MOST * (_HEAD + 2 * self._dim)
            finally:
                os.close(file)
            if full:
                os.replace(self._path, self._before)

    def rows(self) -> Vectors:
        """(n, dim) float32 of the newest, oldest first; what cannot be read is not there."""
        found = [row for path in self._files for row in self._read(path)][-MOST:]
        return np.array(found, np.float32).reshape(-1, self._dim)

    def forget(self) -> int:
        """Delete what was kept; how many queries that were.

        Raises LibraryReadOnly, StorageFailed.
        """
        count = len(self.rows())
        for path in self._files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, path) from error
        return count

    def _read(self, path: Path) -> list[Vectors]:
        try:
            data = path.read_bytes()
        except OSError:
            return []
        found, size = [], 2 * self._dim
        at = data.find(_MARK)
        while at >= 0:
            row = data[at + _HEAD : at + _HEAD + size]
            crc = int.from_bytes(data[at + len(_MARK) : at + _HEAD], "little")
            whole = len(row) == size and zlib.crc32(row) == crc
            if whole:
                found.append(np.frombuffer(row, "<f2").astype(np.float32))
            at = data.find(_MARK, at + (_HEAD + size if whole else 1))
        return found
