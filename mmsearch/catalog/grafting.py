"""Reading a library.db whose first page is damaged: with the first page of another.

The first page says what a SQLite file is, and begins the list of its tables. A library that is
made now has the same tables, and has them at the same pages, as every one that was made by this
schema, or was vacuumed since: its list is put in the place of the damaged one, in a copy.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from mmsearch.catalog import tables
from mmsearch.catalog.remains import Remains
from mmsearch.catalog.session import Session

_HEADER = 100  # bytes before the list of tables
_INTERIOR = 5  # the kind of a page whose rows are on pages below it
_LOOKED_AT = 1000  # vectors whose checksums say whether a graft has taken


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """The file itself where SQLite finds its tables, else the copy of which the most can be read;
    the file itself where nothing can. Copies lie beside it, and go when the block ends.
    """
    if not path.stat().st_size or _has_tables(path):
        yield path
        return
    with TemporaryDirectory(prefix="graft-", dir=path.parent) as scratch:
        best, most = path, 0
        for number, pages in enumerate(_first_pages(path, Path(scratch))):
            graft = _copy(path, Path(scratch) / f"{number}.db", pages)
            if (found := _sound_vectors(graft)) > most:
                best, most = graft, found
        yield best


def _copy(path: Path, graft: Path, pages: dict[int, bytes]) -> Path:
    """A copy with its log, and with some pages that are others."""
    shutil.copyfile(path, graft)
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        shutil.copyfile(log, graft.with_name(f"{graft.name}-wal"))
    with graft.open("r+b") as file:
        for page, data in pages.items():
            file.seek((page - 1) * len(data))
            file.write(data)
    return graft


def _has_tables(path: Path) -> bool:
    names = {table.name for table in tables.metadata.sorted_tables}
    with suppress(sqlite3.DatabaseError):
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            found = raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return names & {name for (name,) in found} != set()
    return False


def _first_pages(path: Path, scratch: Path) -> Iterator[dict[int, bytes]]:
    """The first page with the header of a new library, then all pages with its list of tables,
    then those of a vacuumed one.
    """
    new = Session.make(scratch / "fresh.db")
    fresh = new.read_bytes()
    with closing(sqlite3.connect(new)) as raw:
        raw.execute("VACUUM")
    size = int.from_bytes(fresh[16:18], "big")
    count = path.stat().st_size // size
    with path.open("rb") as file:
        first = file.read(size)
    yield {1: _counted(fresh[:_HEADER] + first[_HEADER:], count)}
    for whole in (fresh, new.read_bytes()):
        pages = {n: whole[(n - 1) * size : n * size] for n in _schema_pages(whole, size)}
        yield pages | {1: _counted(pages[1], count)}


def _counted(page: bytes, count: int) -> bytes:
    """A first page that says how many pages there are, and that none of them is free."""
    return page[:28] + count.to_bytes(4, "big") + bytes(8) + page[40:]


def _schema_pages(data: bytes, size: int) -> list[int]:
    """The pages, from 1, that the list of tables is on."""
    found, waiting = [], [1]
    while waiting:
        page = waiting.pop()
        found.append(page)
        start = (page - 1) * size
        at = start + (_HEADER if page == 1 else 0)
        if data[at] == _INTERIOR:
            cells = range(at + 12, at + 12 + 2 * int.from_bytes(data[at + 3 : at + 5], "big"), 2)
            below = [start + int.from_bytes(data[cell : cell + 2], "big") for cell in cells]
            waiting += [int.from_bytes(data[n : n + 4], "big") for n in (*below, at + 8)]
    return found


def _sound_vectors(path: Path) -> int:
    """How many of the first vectors are what was written."""
    with Remains(path) as remains:
        rows = islice(remains.rows(tables.vectors), _LOOKED_AT)
        return sum(zlib.crc32(row["data"]) == row["crc"] for row in rows)
