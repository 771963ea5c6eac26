"""The matrix file: ids, what they stand for and rows as in memory, behind a checked header.

A cache: everything in it stands in the catalog too. It is written to a temporary name,
synced and renamed; the catalog then records its SHA-256. indexes/README.md has the format.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.durable import private, replace
from mmsearch.errors import LibraryDamaged
from mmsearch.records import Rows

if TYPE_CHECKING:
    pass

MAGIC = b"MMSMATRX"
VERSION = 3
# magic, version, dim, rows, generation, last id, dtype, fingerprint of the encoder
_HEADER = struct.Struct("<8sIIQQq8s64s")
_START = 4096  # where the ids begin: a page, so that rows lie aligned when mapped
_DTYPES: tuple[np.dtype[Any], ...] = (  # of ids, hubness and kinds
    np.dtype("<i8"), np.dtype("<f4"), np.dtype("u1"),
)  # fmt: skip
# of the vectors, by the word in the header; the catalog's are halves, so neither loses anything
_VECTORS: dict[bytes, np.dtype[Any]] = {
    b"float32\0": np.dtype("<f4"),
    b"float16\0": np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix file, mapped; its rows as records.Rows has them."""

    path: str
    generation: int
    fingerprint: str
    last_id: int  # the highest id when it was written; newer rows are not in here
    rows: Rows  # the vectors are float16 where it was written so
    pages: mmap.mmap | None = None  # what they are mapped through

    def release(self) -> None:
        """Let go of the pages that were read: they are in memory again when they are touched."""
        release(self.pages)

    def of(self, kind: int) -> Matrix | None:
        """The rows of one kind, which lie together, as a matrix of their own; None for none."""
        first, last = np.searchsorted(self.rows.kinds, (kind, kind + 1)).tolist()
        if first == last:
            return None
        part, rows = slice(first, last), self.rows
        mine = Rows(rows.ids[part], rows.vectors[part], rows.kinds[part], rows.hubness[part])
        return replace_fields(self, rows=mine)


def write_matrix(
    path: str,
    blocks: Iterable[Rows],
    rows: int,
    dim: int,
    generation: int,
    last_id: int,
    fingerprint: str,
    *,
    half: bool = False,
) -> str:
    """Stream blocks of rows, kind after kind, into a new file; return its SHA-256 as hex.

    Never more than a block in memory. The file appears under `path` whole and synced, or
    not at all. `half` writes the vectors as float16, which an index reads by position.
    Raises OSError, and ValueError when the blocks hold another number of rows.
    """
    temporary = f"{path}.new"
    word = b"float16\0" if half else b"float32\0"
    dtypes = (*_DTYPES, _VECTORS[word])
    starts, end = _layout(rows, dim, dtypes[-1].itemsize)
    with open(temporary, "w+b", opener=private) as file:
        header = _HEADER.pack(
            MAGIC, VERSION, dim, rows, generation, last_id, word, fingerprint.encode("ascii")
        )
        file.write(header)
        done = 0
        for block in blocks:
            columns = (block.ids, block.hubness, block.kinds, block.vectors)
            for start, dtype, column in zip(starts, dtypes, columns, strict=True):
                values = np.ascontiguousarray(column, dtype)
                file.seek(start + done * values.itemsize * (dim if values.ndim == 2 else 1))
                file.write(values.tobytes())
            done += len(block.ids)
        if done != rows:
            raise ValueError(f"{done} rows for a matrix of {rows}")
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    replace(temporary, path)
    return digest


def open_matrix(path: str) -> Matrix:
    """Map a matrix file. Raises FileNotFoundError, or LibraryDamaged when it cannot be one.

    Only the header is judged here: whoever opens it compares the hash.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or head[: len(MAGIC)] != MAGIC:
            raise LibraryDamaged(f"{path} is not a matrix of mmsearch")
        _, version, dim, rows, generation, last_id, dtype, mark = _HEADER.unpack(head)
        vectors_of = _VECTORS.get(dtype)
        starts, end = _layout(rows, dim, vectors_of.itemsize if vectors_of else 0)
        if version != VERSION or vectors_of is None or size != end or not dim:
            raise LibraryDamaged(f"{path}: its header does not fit its {size} bytes")
        # one read-only map for both; numpy views of it keep it open
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    fingerprint = mark.rstrip(b"\0").decode("ascii", "replace")
    counts = (rows, rows, rows, rows * dim)
    ids, hubness, kinds, vectors = (
        np.frombuffer(pages, dtype, count, start)
        for dtype, count, start in zip((*_DTYPES, vectors_of), counts, starts, strict=True)
    )
    found = Rows(ids, vectors.reshape(rows, dim), kinds, hubness)
    return Matrix(path, generation, fingerprint, last_id, found, pages)


def release(pages: mmap.mmap | None) -> None:
    """Let go of the pages that were read through this map, where the system allows it."""
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def hash_file(path: str) -> str:
    """The SHA-256 of a file as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layout(rows: int, dim: int, itemsize: int) -> tuple[tuple[int, int, int, int], int]:
    """Where ids, hubness, kinds and vectors start, and where the file ends."""
    hubness_at = _START + rows * 8
    kinds_at = hubness_at + rows * 4
    vectors_at = -(-(kinds_at + rows) // 64) * 64  # rows start on a cache line
    return (_START, hubness_at, kinds_at, vectors_at), vectors_at + rows * dim * itemsize
