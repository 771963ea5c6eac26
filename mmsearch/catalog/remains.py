"""What can still be read of a damaged library.db: rows of its tables, around what is broken."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Table

from mmsearch.catalog import tables

_NEAR = 4096  # keys in a row that are tried one by one before they are given up
_PROBES = 64  # keys that are tried of a longer row
_MOST = 1 << 40  # keys of a table that does not say how far it goes


class Remains:
    """A SQLite file that may be damaged anywhere, open for reading.

    `lost` counts, by table, rows that were read but are not what a row can be, and `broken`
    the stretches of a table that could not be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.lost: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self._raw: sqlite3.Connection | None = None
        if path.stat().st_size:  # SQLite removes the log of an empty file
            self._raw = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
            )
            self._raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            self._tried("PRAGMA writable_schema = ON")  # one bad entry of the schema is no end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._raw is not None:
            self._raw.close()

    def rows(self, table: Table) -> Iterator[dict[str, Any]]:
        """Every row of a table that can be read and is one, by its columns' names."""
        there = {row[1] for row in self._tried(f'PRAGMA table_info("{table.name}")')}
        columns = [column for column in table.columns if column.name in there]
        if not columns:
            self.broken[table.name] += 1
            return
        with_rowid = table.dialect_options["sqlite"]["with_rowid"]
        key = "rowid" if with_rowid else columns[0].name  # of which there may be several rows
        names = ", ".join(f'"{column.name}"' for column in columns)
        query = f'SELECT "{key}", {names} FROM "{table.name}" WHERE "{key}" BETWEEN ? AND ?'
        query = f'{query} ORDER BY "{key}"'
        for row in self._between(table.name, query, self._last(table, key), int(with_rowid)):
            values = dict(zip(columns, row[1:], strict=True))
            if all(tables.fits(column, value) for column, value in values.items()):
                yield {column.name: value for column, value in values.items()}
            else:
                self.lost[table.name] += 1

    def sequences(self) -> list[tuple[str, int]]:
        """(table, highest id that it ever gave) of those whose ids only grow."""
        found = self._tried("SELECT name, seq FROM sqlite_sequence")
        return [(name, last) for name, last in found if isinstance(last, int)]

    def _last(self, table: Table, key: str) -> int:
        """A key that none of the table's exceeds."""
        for query in (
            f'SELECT max("{key}") FROM "{table.name}"',
            f"SELECT max(seq) FROM sqlite_sequence WHERE name = '{table.name}'",
        ):
            for (found,) in self._tried(query):
                if isinstance(found, int):
                    return found
        return _MOST

    def _tried(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query; none where it fails."""
        with suppress(sqlite3.DatabaseError):
            return self._raw.execute(query).fetchall() if self._raw else []
        return []

    def _between(self, name: str, query: str, last: int, step: int) -> Iterator[tuple[Any, ...]]:
        """The rows with keys up to `last`; of a stretch that fails, those of its halves.

        Where `step` is 0 a row may come twice: its key may have more rows behind it.
        """
        assert self._raw is not None
        stretches = [(0, last)]
        while stretches:
            low, high = stretches.pop()
            try:
                for row in self._raw.execute(query, (low, high)):
                    yield row
                    low = max(low, row[0] + step)
            except (sqlite3.DatabaseError, OverflowError) as error:
                _raise_of_the_disk(error)
                if low >= high or self._is_hopeless(query, low, high):
                    self.broken[name] += 1
                    continue
                middle = (low + high) // 2
                stretches += [(middle + 1, high), (low, middle)]

    def _is_hopeless(self, query: str, low: int, high: int) -> bool:
        """True for a long stretch none of whose keys, as far as some are tried, can be read."""
        if high - low < _NEAR:
            return False
        assert self._raw is not None
        for step in range(_PROBES):
            key = low + (high - low) * step // (_PROBES - 1)
            with suppress(sqlite3.DatabaseError):
                self._raw.execute(query, (key, key)).fetchall()
                return False
        return True


def _raise_of_the_disk(error: Exception) -> None:
    """Go on after damage; a disk that fails now would make every row seem to be lost."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL):
        raise error
