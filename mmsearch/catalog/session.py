"""Opening a catalog, and its transactions."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Connection, CursorResult, Table, delete, exists, func, insert, select

from mmsearch.catalog import connection as connections
from mmsearch.catalog import keywords, tables
from mmsearch.catalog.migrations import MIGRATIONS, migrate, schema_version
from mmsearch.catalog.tables import captions, contents, files, items, metadata, vectors
from mmsearch.durable import private, replace
from mmsearch.errors import LibraryDamaged, LibraryMissing, SchemaMismatch, StorageFailed

if TYPE_CHECKING:
    from mmsearch.records import Vectors

Named = TypeVar("Named", bound=StrEnum)

_VARIABLES = 500  # ids a statement: SQLite's least limit is 999
_INSERT = {table.name: insert(table) for table in metadata.sorted_tables}
_LAST_ITEM = select(func.coalesce(func.max(items.c.id), 0))


class Session:
    """One connection, its transactions, and what they write together at their end."""

    def __init__(self, path: Path, connection: Connection) -> None:
        self.path = path
        self._connection = connection
        self._folder_ids: dict[bytes, int] = {}
        # written together at the end of a transaction: one statement for many rows
        self._new_items: list[dict[str, Any]] = []
        self._new_vectors: list[dict[str, Any]] = []
        self._loose: set[int | None] = set()  # contents that may have lost their last file
        self._retold: set[int] = set()  # files whose captions are others now
        self._written: tuple[int, int] | None = None  # device and inode of what is written to

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Self:
        """Open what is there. Raises LibraryMissing, LibraryDamaged, SchemaMismatch.

        The writer brings an older schema up to date, in one transaction, after a backup.
        """
        if not path.exists():
            raise LibraryMissing.at(path.parent)
        if path.stat().st_size == 0:  # SQLite would take it for a beginning, and drop its log
            raise LibraryDamaged(connections.damaged(path, "it is empty"))
        with connections.translated(path):
            catalog = cls(path, connections.connect(path, write=write))
            try:
                catalog._written = _identity(path) if write else None
                catalog._check_schema(write)
            except BaseException:
                catalog.close()
                raise
        return catalog

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new catalog and open it for writing.

        It is made under another name and renamed when whole: a library.db that is empty
        or has no tables is therefore damage, never an index that has only just begun.
        """
        new = cls.make(path)
        with connections.translated(path):
            replace(str(new), str(path))
        return cls.open(path, write=True)

    @classmethod
    def make(cls, path: Path, fill: Callable[[Self], None] = lambda catalog: None) -> Path:
        """A new catalog beside `path`, filled, whole and synced, but without its name yet."""
        new = path.with_name(f"{path.name}.new")
        with connections.translated(path):
            for leftover in path.parent.glob(f"{new.name}*"):
                leftover.unlink()
            with open(new, "xb", opener=private) as file:
                catalog = cls(path, connections.create(new))
                try:
                    with catalog.transaction():
                        migrate(catalog._connection, 0)
                        fill(catalog)
                    connections.use_log(catalog._connection, new)
                finally:
                    catalog.close()
                os.fsync(file.fileno())
        return new

    def _check_schema(self, write: bool) -> None:
        version = schema_version(self._connection)
        self._connection.rollback()
        if version is None:
            raise LibraryDamaged(
                f"{self.path} is not a library of mmsearch; your photos are untouched: restore "
                "it from a backup, or have mmsearch repair keep what can still be read"
            )
        newest = len(MIGRATIONS)
        if version > newest:
            raise SchemaMismatch(
                f"{self.path} was written by a newer mmsearch (schema {version}, this one knows "
                f"{newest}); upgrade: pip install -U mmsearch"
            )
        if version < newest and not write:
            raise SchemaMismatch(
                f"{self.path} was written by an older mmsearch (schema {version} of {newest}); "
                "run mmsearch index to bring it up to date"
            )
        if version < newest:
            self._back_up(self.path.with_name(f"{self.path.name}.schema-{version}"))
            with self.transaction():
                migrate(self._connection, version)

    def _back_up(self, target: Path) -> None:
        raw: Any = self._connection.connection.driver_connection
        os.close(private(str(target), os.O_CREAT | os.O_WRONLY))  # before SQLite makes it
        copy = sqlite3.connect(target)
        try:
            raw.backup(copy)
        finally:
            copy.close()

    def close(self) -> None:
        """Close the file; a second time is no error."""
        connections.dispose(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # an error while closing matters less than the one that brought us here
        with suppress(Exception) if error else connections.translated(self.path):
            self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. What is inside is on the disk when the block ends."""
        with connections.translated(self.path), self._connection.begin():
            yield
            self._flush()
            self._drop_unused()
            if self._written is not None and _identity(self.path) != self._written:
                raise StorageFailed(
                    f"{self.path} was moved, replaced or deleted while it was written to: what was "
                    "committed before is where it went; run the same command again"
                )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """One state of the catalog for all that is read inside."""
        with connections.translated(self.path):
            if self._connection.in_transaction():
                yield
                return
            with self._connection.begin() as begun:
                yield
                begun.rollback()

    def log_bytes(self) -> int:
        """The size of the write-ahead log: what is committed and not yet in library.db itself."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return log.stat().st_size if log.exists() else 0

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        with self.snapshot():
            return int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def _insert(self, table: Table, **values: Any) -> int:
        result = self._connection.execute(_INSERT[table.name], values)
        key = result.inserted_primary_key
        return int(key[0]) if key else 0

    def _add_vectors(self, content_id: int, space_id: int, rows: Vectors) -> None:
        """A content's (parts, dim) unit rows, in the order of its parts."""
        for part, row in enumerate(rows):
            data = row.astype("<f2").tobytes()
            self._new_vectors.append(
                {
                    "space_id": space_id, "content_id": content_id, "part": part, "data": data,
                    "crc": zlib.crc32(data),
                }
            )  # fmt: skip

    def _flush(self) -> None:
        told = {row["file_id"] for row in self._new_items}  # with their captions
        if self._new_items:
            last = self._connection.execute(_LAST_ITEM).scalar_one()
            self._connection.execute(_INSERT[items.name], self._new_items)
            keywords.take_up(self._connection, last)
            self._new_items.clear()
        if self._new_vectors:
            self._connection.execute(_INSERT[vectors.name], self._new_vectors)
            self._new_vectors.clear()
        if again := self._retold - told:
            keywords.refresh(self._connection, sorted(again))
        self._retold.clear()

    def _drop_unused(self) -> None:
        """Drop contents that no file has any more, nor as a caption; their vectors go with them.

        At the end of a transaction: until then another file may take a content up.
        """
        loose = [content_id for content_id in self._loose if content_id is not None]
        self._loose.clear()
        for chunk in chunks(loose):
            held = exists().where(files.c.content_id == contents.c.id)
            said = exists().where(captions.c.content_id == contents.c.id)
            here = contents.c.id.in_(chunk)
            self._connection.execute(delete(contents).where(here, ~held, ~said))

    def _drop_captions(self, file_ids: Sequence[int]) -> None:
        """Take all captions from these files."""
        theirs = captions.c.file_id.in_(file_ids)
        said = select(captions.c.content_id).where(theirs).distinct()
        self._loose.update(self._connection.execute(said).scalars())
        self._connection.execute(delete(captions).where(theirs))


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and inode of a file; None when it is not there."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def member(kind: type[Named], value: Any) -> Named:
    """The member of an enumeration that a row names. Raises LibraryDamaged."""
    try:
        return kind(value)
    except ValueError as error:
        raise LibraryDamaged(_senseless(f"{value!r} is no {kind.__name__.lower()}")) from error


def sound(table: Table, rows: CursorResult[Any]) -> Iterator[Sequence[Any]]:
    """These rows of some columns of a table, each of what they can hold. Raises LibraryDamaged."""
    names = list(rows.keys())
    for row in rows:
        for name, value in zip(names, row, strict=True):
            if not tables.fits(table.c[name], value):
                raise LibraryDamaged(_senseless(f"{name} {value!r} of {table.name}"))
        yield row


def _senseless(what: str) -> str:
    return (
        f"library.db is damaged ({what}); your photos are untouched: have mmsearch repair mend it"
    )


def chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """These values in lists short enough for one statement."""
    for start in range(0, len(values), _VARIABLES):
        yield values[start : start + _VARIABLES]
