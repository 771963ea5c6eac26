"""The index file: what an engine needs beside the matrix, behind a checked header.

A cache, as the matrix is. It is written to a temporary name, synced and renamed; the catalog then
records its SHA-256. FAISS never reads a file: it is handed bytes whose own hash has been compared.
indexes/README.md has the format.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.durable import private
from mmsearch.errors import LibraryDamaged
from mmsearch.vectors.matrix import release
from mmsearch.vectors.planning import Engine, Plan
from mmsearch.vectors.rounded import Rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.vectors.matrix import Matrix

MAGIC = b"MMSINDEX"
VERSION = 4
# magic, version, dim, rows, generation, last id, fingerprint, SHA-256 of the matrix's ids,
# and where the description starts: it ends where the file does
_HEADER = struct.Struct("<8sIIQQq64s32sQ")
_START = 4096
_PARTS = ("rows", "mean", "faiss")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index file, mapped, with what it is and what was measured when it was built.

    `measured` has, for "text" and "image" queries, "recall@10" on fresh ones, "p50_ms" and
    "p95_ms" of one query, "qps" of many together, and how many "queries"; `settings` are those
    of the engine. `note` says why the engine is not the one that was planned, or nothing.
    """

    path: str
    generation: int
    fingerprint: str
    last_id: int
    plan: Plan
    settings: dict[str, float]
    measured: dict[str, dict[str, float]]
    note: str
    rounded: Rounded
    faiss: NDArray[np.uint8]  # of FAISS's own format, mapped; hashed when the file was opened
    pages: mmap.mmap | None = None  # what both are mapped through

    def release(self) -> None:
        """Let go of the pages that were read, as Matrix does."""
        release(self.pages)


class IndexWriter:
    """Writes an index file: `begin`, its parts, `finish`. Disk errors are OSError."""

    def __init__(self, path: str, matrix: Matrix) -> None:
        self.path, self.temporary = path, f"{path}.new"
        self._matrix = matrix
        self._parts: dict[str, dict[str, Any]] = {}
        self._file = open(self.temporary, "w+b", opener=private)  # noqa: SIM115 - closed below
        self._file.seek(_START)

    def put(self, name: str, blocks: Iterable[NDArray[Any]]) -> None:
        """Stream one part, from a page's beginning."""
        at = self._begin()
        digest = hashlib.sha256()
        for block in blocks:
            data = np.ascontiguousarray(block).data.cast("B")
            digest.update(data)
            self._file.write(data)
        self._end(name, at, digest)

    def put_streamed(self, name: str, write: Callable[[Callable[[bytes], Any]], Any]) -> int:
        """One part that `write` hands over piece by piece, never as a whole; how many bytes."""
        at = self._begin()
        digest = hashlib.sha256()

        def take(piece: bytes) -> None:
            digest.update(piece)
            self._file.write(piece)

        write(take)
        return self._end(name, at, digest)

    def mapped(self, name: str, dim: int) -> tuple[NDArray[np.uint8], mmap.mmap]:
        """(n, dim) bytes of a part that was put, as they lie in the file, and their pages."""
        self._file.flush()
        pages = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        part = self._parts[name]
        found = np.frombuffer(pages, np.uint8, part["bytes"], part["at"]).reshape(-1, dim)
        return found, pages

    def finish(
        self,
        plan: Plan,
        step: float,
        settings: dict[str, float],
        measured: dict[str, dict[str, float]],
        note: str = "",
    ) -> str:
        """Write description and header, and sync; return the SHA-256 as hex. It has yet to be
        given its name.
        """
        described = {
            "plan": asdict(plan), "step": step, "settings": settings, "measured": measured,
            "note": note, "parts": self._parts,
        }  # fmt: skip
        at = self._file.tell()
        self._file.write(json.dumps(described).encode())
        rows, matrix = self._matrix.rows, self._matrix
        self._file.seek(0)
        self._file.write(
            _HEADER.pack(
                MAGIC, VERSION, rows.vectors.shape[1], len(rows.ids), matrix.generation,
                matrix.last_id, matrix.fingerprint.encode("ascii"), _digest(matrix), at,
            )
        )  # fmt: skip
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        return digest

    def _begin(self) -> int:
        return self._file.seek(-(-self._file.tell() // _START) * _START)

    def _end(self, name: str, at: int, digest: Any) -> int:
        size = self._file.tell() - at
        self._parts[name] = {"at": at, "bytes": size, "sha256": digest.hexdigest()}
        return size

    def close(self) -> None:
        """Give the file up; what was written stays under its temporary name."""
        self._file.close()


def open_index(path: str, matrix: Matrix) -> IndexFile:
    """Map the index file of a matrix.

    Raises FileNotFoundError, and LibraryDamaged when it is no such file, belongs to another
    matrix (generation, rows, ids, dim or encoder), or FAISS's part is not what was written. The
    part that is only mapped is not read: whoever opens the file compares its hash.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or head[: len(MAGIC)] != MAGIC:
            raise LibraryDamaged(f"{path} is not an index of mmsearch")
        _, version, dim, rows, generation, last_id, mark, ids, at = _HEADER.unpack(head)
        if version != VERSION or not _START <= at < size:
            raise LibraryDamaged(f"{path}: its header does not fit its {size} bytes")
        there = (matrix.rows.vectors.shape[1], len(matrix.rows.ids), matrix.generation)
        names = (matrix.fingerprint.encode("ascii"), _digest(matrix))
        if (dim, rows, generation) != there or (mark.rstrip(b"\0"), ids) != names:
            raise LibraryDamaged(f"{path} belongs to another matrix")
        file.seek(at)
        try:
            described = json.loads(file.read())
            plan = Plan(**described["plan"] | {"engine": Engine(described["plan"]["engine"])})
            parts = [described["parts"][name] for name in _PARTS]
            spans = [(int(part["at"]), int(part["bytes"])) for part in parts]
            step = float(described["step"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LibraryDamaged(f"{path}: its description cannot be read") from error
        sizes = (rows * dim, 4 * dim, spans[2][1])
        for (start, length), expected in zip(spans, sizes, strict=True):
            if length != expected or not _START <= start <= at - length:
                raise LibraryDamaged(f"{path}: its parts do not fit its {size} bytes")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    held, mean, codes = (np.frombuffer(pages, np.uint8, size, at) for at, size in spans)
    for read, part in zip((mean, codes), parts[1:], strict=True):
        if hashlib.sha256(read.data).hexdigest() != part["sha256"]:
            raise LibraryDamaged(f"{path} is not what was written")
    release(pages)
    rounded = Rounded(held.reshape(rows, dim), mean.view("<f4").copy(), step)
    return IndexFile(
        path, generation, matrix.fingerprint, last_id, plan, described["settings"],
        described["measured"], described["note"], rounded, codes, pages,
    )  # fmt: skip


def _digest(matrix: Matrix) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(matrix.rows.ids).data).digest()
