"""One open library.db: what is asked of it and what is written to it, and no SQL elsewhere."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from mmsearch.catalog import connection as connections
from mmsearch.catalog.migrations import MIGRATIONS, migrate, schema_version
from mmsearch.catalog.tables import (
    caches,
    contents,
    files,
    folders,
    items,
    metadata,
    roots,
    settings,
    spaces,
    vectors,
)
from mmsearch.durable import private, replace
from mmsearch.errors import LibraryDamaged, LibraryMissing, SchemaMismatch
from mmsearch.records import Modality, Reason

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Vectors

_CHUNK = 4096  # vectors read at a time: 2 MB at 256 dimensions
_VARIABLES = 500  # ids a statement: SQLite's least limit is 999
_INSERT = {table.name: insert(table) for table in metadata.sorted_tables}
_FILE_AT = select(files.c.id, files.c.content_id).where(
    files.c.folder_id == bindparam("folder"), files.c.name == bindparam("name")
)
_FOLDER = (0, 0, 0)  # the state of a folder that could not be listed; no file has inode 0


@dataclass(frozen=True, slots=True)
class Known:
    """A file as the catalog has it. `state` is (size, mtime_ns, inode)."""

    id: int
    state: tuple[int, int, int]
    content_id: int | None
    reason: Reason | None
    gone: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, known by the digest of its bytes."""

    digest: bytes
    modality: Modality
    format: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """An item that a vector stands for. Copies of a picture are several items of one vector."""

    vector_id: int
    item_id: int
    path: bytes
    modality: Modality
    start: float | None
    end: float | None


class Catalog:
    """A catalog, open for reading or, under the library's lock, for writing.

    Every method raises the LibraryError its file deserves. After one, the connection is
    closed and of no further use: nothing is retried on it.
    """

    def __init__(self, path: Path, connection: Connection) -> None:
        self.path = path
        self._connection = connection
        self._folder_ids: dict[bytes, int] = {}
        # written together at the end of a transaction: one statement for many rows
        self._new_items: list[dict[str, Any]] = []
        self._new_vectors: list[dict[str, Any]] = []
        self._loose: set[int | None] = set()  # contents that may have lost their last file

    @classmethod
    def open(cls, path: Path, *, write: bool = False) -> Catalog:
        """Open what is there. Raises LibraryMissing, LibraryDamaged, SchemaMismatch.

        The writer brings an older schema up to date, in one transaction, after a backup.
        """
        if not path.exists():
            raise LibraryMissing(f"nothing is indexed in {path.parent}; try: mmsearch index FOLDER")
        with connections.translated(path):
            catalog = cls(path, connections.connect(path, write=write))
            try:
                catalog._check_schema(write)
            except BaseException:
                catalog.close()
                raise
        return catalog

    @classmethod
    def create(cls, path: Path) -> Catalog:
        """Make a new catalog and open it for writing.

        It is made under another name and renamed when whole: a library.db that is empty
        or has no tables is therefore damage, never an index that has only just begun.
        """
        new = path.with_name(f"{path.name}.new")
        with connections.translated(path):
            for leftover in path.parent.glob(f"{new.name}*"):
                leftover.unlink()
            with open(new, "xb", opener=private) as file:
                catalog = cls(path, connections.create(new))
                try:
                    with catalog.transaction():
                        migrate(catalog._connection, 0)
                    connections.use_log(catalog._connection, new)
                finally:
                    catalog.close()
                os.fsync(file.fileno())
            replace(str(new), str(path))
        return cls.open(path, write=True)

    def _check_schema(self, write: bool) -> None:
        version = schema_version(self._connection)
        self._connection.rollback()
        if version is None:
            raise LibraryDamaged(
                f"{self.path} is not a library of mmsearch; your photos are untouched: restore "
                "the file from a copy, or move its folder away and run mmsearch index again"
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
        raw = self._connection.connection.driver_connection
        if raw is None:
            raise LibraryDamaged(f"{self.path} is closed")
        os.close(private(str(target), os.O_CREAT | os.O_WRONLY))  # before SQLite makes it
        copy = sqlite3.connect(target)
        try:
            raw.backup(copy)
        finally:
            copy.close()

    def close(self) -> None:
        """Close the file; a second time is no error."""
        connections.dispose(self._connection)

    def __enter__(self) -> Catalog:
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

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        with self.snapshot():
            return int(self._connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    # -- roots and folders -------------------------------------------------------------

    def roots(self) -> list[tuple[int, bytes, int]]:
        """Every root as (id, path, device)."""
        with self.snapshot():
            rows = self._connection.execute(
                select(roots.c.id, roots.c.path, roots.c.device).order_by(roots.c.path)
            )
            return [(row.id, row.path, row.device) for row in rows]

    def put_root(self, path: bytes, device: int, keep: Sequence[bytes] = ()) -> None:
        """Remember a root; one that contains others takes their place, but for those to keep."""
        below = _below(roots.c.path, path) & roots.c.path.not_in(keep)
        self._connection.execute(delete(roots).where(below))
        self._connection.execute(
            insert(roots).values(path=path, device=device, added_at=int(time.time()))
        )

    def set_device(self, root_id: int, device: int) -> None:
        """The device a root was seen on in this run."""
        self._connection.execute(update(roots).where(roots.c.id == root_id).values(device=device))

    def folder_id(self, path: bytes) -> int:
        """The id of a folder, made when it is new."""
        known = self._folder_ids.get(path)
        if known is None:
            query = select(folders.c.id).where(folders.c.path == path)
            known = self._connection.execute(query).scalar() or self._insert(folders, path=path)
            self._folder_ids[path] = known
        return known

    def folders_below(self, path: bytes) -> list[bytes]:
        """`path` and every known folder below it, sorted."""
        with self.snapshot():
            rows = self._connection.execute(
                select(folders.c.path).where(_below(folders.c.path, path)).order_by(folders.c.path)
            )
            return list(rows.scalars())

    # -- files -------------------------------------------------------------------------

    def known_files(self, folder: bytes, name: bytes | None = None) -> dict[bytes, Known]:
        """The files of one folder by name, or one of them, those that are gone included."""
        query = (
            select(
                files.c.name, files.c.id, files.c.size, files.c.mtime_ns, files.c.inode,
                files.c.content_id, files.c.reason, files.c.gone_at,
            )
            .join(folders, folders.c.id == files.c.folder_id)
            .where(folders.c.path == folder)
        )  # fmt: skip
        if name is not None:
            query = query.where(files.c.name == name)
        with self.snapshot():
            return {
                name: Known(
                    id,
                    (size, mtime, inode),
                    content,
                    Reason(reason) if reason else None,
                    bool(gone),
                )
                for name, id, size, mtime, inode, content, reason, gone in self._connection.execute(
                    query
                )
            }

    def known_sizes(self, sizes: Sequence[int]) -> set[int]:
        """Those of these sizes that some indexed file has, and so perhaps its content."""
        found: set[int] = set()
        with self.snapshot():
            for chunk in _chunks(sorted(set(sizes))):
                query = select(files.c.size).where(files.c.size.in_(chunk))
                found.update(self._connection.execute(query.distinct()).scalars())
        return found

    def count_below(self, path: bytes) -> int:
        """How many files below a path are indexed and not gone."""
        query = (
            select(func.count())
            .select_from(files.join(folders))
            .where(_at_or_below(path))
            .where(_findable())
        )
        with self.snapshot():
            return int(self._connection.execute(query).scalar_one())

    def paths_of(self, content_id: int) -> list[tuple[int, bytes, bool]]:
        """Files with this content as (file id, path, gone): those that are gone first.

        A few are enough: a thousand copies of one icon need not all be asked where they are.
        """
        query = (
            select(files.c.id, folders.c.path, files.c.name, files.c.gone_at)
            .join(folders)
            .where(files.c.content_id == content_id)
            .order_by(files.c.gone_at.is_(None), files.c.id)
            .limit(8)
        )
        with self.snapshot():
            return [
                (id, os.path.join(folder, name), gone is not None)
                for id, folder, name, gone in self._connection.execute(query)
            ]

    def paths_by_id(self, file_ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """(id, path) of these files."""
        for chunk in _chunks(file_ids):
            query = select(files.c.id, folders.c.path, files.c.name).join(folders)
            with self.snapshot():
                rows = self._connection.execute(query.where(files.c.id.in_(chunk))).all()
            for id, folder, name in rows:
                yield id, os.path.join(folder, name)

    def count_indexed(self, file_ids: Sequence[int]) -> int:
        """How many of these are indexed and not yet gone."""
        total = 0
        with self.snapshot():
            for chunk in _chunks(file_ids):
                query = select(func.count()).where(files.c.id.in_(chunk), _findable())
                total += int(self._connection.execute(query).scalar_one())
        return total

    def some_files_below(self, path: bytes) -> list[tuple[bytes, int]]:
        """A few files that should be below a path, as (path, size)."""
        query = (
            select(folders.c.path, files.c.name, files.c.size)
            .join(folders)
            .where(_at_or_below(path), _findable())
            .limit(32)
        )
        with self.snapshot():
            rows = self._connection.execute(query)
            return [(os.path.join(folder, name), size) for folder, name, size in rows]

    def put_folder_failure(self, path: bytes, message: str) -> None:
        """Name a folder that could not be listed. Its state is one that no file has."""
        self.put_file(path, _FOLDER, reason=Reason.UNREADABLE, message=message)

    def clear_folder_failures(self, path: bytes) -> None:
        """Forget which folders at or below a path could not be listed."""
        here = select(files.c.id).join(folders).where(_at_or_below(path))
        self._connection.execute(
            delete(files).where(
                files.c.id.in_(here),
                files.c.size == _FOLDER[0],
                files.c.mtime_ns == _FOLDER[1],
                files.c.inode == _FOLDER[2],
            )
        )

    def put_file(
        self,
        path: bytes,
        state: tuple[int, int, int],
        *,
        content_id: int | None = None,
        modality: Modality = Modality.IMAGE,
        reason: Reason | None = None,
        message: str | None = None,
    ) -> None:
        """Record what became of a file: its content, or the reason why it has none.

        A file that was known under this path keeps its id; one whose content is the same
        keeps its items.
        """
        folder, name = os.path.split(path)
        folder_id = self.folder_id(folder)
        size, mtime_ns, inode = state
        values: dict[str, Any] = {
            "size": size, "mtime_ns": mtime_ns, "inode": inode, "content_id": content_id,
            "reason": reason, "message": message, "gone_at": None,
        }  # fmt: skip
        old = self._connection.execute(_FILE_AT, {"folder": folder_id, "name": name}).first()
        if old is None:
            file_id = self._insert(
                files, folder_id=folder_id, name=name, added_at=int(time.time()), **values
            )
        else:
            file_id = old.id
            self._connection.execute(update(files).where(files.c.id == file_id).values(values))
            if old.content_id == content_id:
                return
            self._flush()  # an item of this file may be among the new ones
            self._connection.execute(delete(items).where(items.c.file_id == file_id))
            self._loose.add(old.content_id)
        if content_id is not None:
            self._new_items.append({"file_id": file_id, "part": 0, "modality": modality})

    def move_file(self, file_id: int, path: bytes, state: tuple[int, int, int]) -> None:
        """A known file is now under another path: same id, same items, same vectors."""
        folder, name = os.path.split(path)
        folder_id = self.folder_id(folder)
        size, mtime_ns, inode = state
        # whatever was recorded under the new path has been replaced by this file
        there = {"folder": folder_id, "name": name}
        replaced = self._connection.execute(_FILE_AT, there).scalar()
        if replaced is not None:
            self.drop_files([replaced])
        self._connection.execute(
            update(files)
            .where(files.c.id == file_id)
            .values(
                folder_id=folder_id, name=name, size=size, mtime_ns=mtime_ns, inode=inode,
                gone_at=None,
            )
        )  # fmt: skip

    def mark_gone(self, file_ids: Sequence[int]) -> None:
        """Hide these files from answers; what was never indexed is forgotten instead."""
        now = int(time.time())
        for chunk in _chunks(file_ids):
            here = files.c.id.in_(chunk)
            self._connection.execute(delete(files).where(here, files.c.content_id.is_(None)))
            self._connection.execute(update(files).where(here, _findable()).values(gone_at=now))

    def drop_files(self, file_ids: Sequence[int]) -> None:
        """Forget files, their items and every vector that no other file shares."""
        for chunk in _chunks(file_ids):
            here = files.c.id.in_(chunk)
            held = select(files.c.content_id).where(here).distinct()
            content_ids = list(self._connection.execute(held).scalars())
            self._connection.execute(delete(files).where(here))
            self._loose.update(content_ids)

    def files_below(self, path: bytes) -> list[int]:
        """The ids of the file at `path` or of all files below it."""
        query = select(files.c.id).join(folders).where(_at_or_below(path))
        with self.snapshot():
            return list(self._connection.execute(query).scalars())

    def gone_files(self) -> list[int]:
        """The ids of all files that are gone."""
        with self.snapshot():
            query = select(files.c.id).where(files.c.gone_at.is_not(None))
            return list(self._connection.execute(query).scalars())

    def drop_roots_below(self, path: bytes) -> int:
        """Forget the roots at and below a path, and folders without files; how many roots."""
        dropped = self._connection.execute(delete(roots).where(_below(roots.c.path, path)))
        empty = ~exists().where(files.c.folder_id == folders.c.id)
        self._connection.execute(delete(folders).where(empty))
        self._folder_ids.clear()
        return int(dropped.rowcount)

    def problems(self, *, skipped: bool = False) -> list[tuple[bytes, Reason, str]]:
        """Files that failed (or were skipped): (path, reason, message), by path."""
        query = (
            select(folders.c.path, files.c.name, files.c.reason, files.c.message)
            .join(folders)
            .where(files.c.reason.is_not(None), files.c.gone_at.is_(None))
            .order_by(folders.c.path, files.c.name)
        )
        with self.snapshot():
            rows = [
                (os.path.join(folder, name), Reason(reason), message or "")
                for folder, name, reason, message in self._connection.execute(query)
            ]
        return [row for row in rows if row[1].skipped == skipped]

    # -- contents and vectors ----------------------------------------------------------

    def content_ids(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those contents that are known."""
        found: dict[bytes, int] = {}
        with self.snapshot():
            for chunk in _chunks(digests):
                query = select(contents.c.digest, contents.c.id)
                rows = self._connection.execute(query.where(contents.c.digest.in_(chunk)))
                found.update((digest, id) for digest, id in rows)
        return found

    def put_content(self, content: Content, space_id: int, rows: Vectors) -> int:
        """Add a content with its (parts, dim) unit rows; return its id."""
        content_id = self._insert(
            contents,
            digest=content.digest, modality=content.modality, format=content.format,
            width=content.width, height=content.height,
        )  # fmt: skip
        for part, row in enumerate(rows):
            data = row.astype("<f2").tobytes()
            self._new_vectors.append(
                {
                    "space_id": space_id, "content_id": content_id, "part": part, "data": data,
                    "crc": zlib.crc32(data),
                }
            )  # fmt: skip
        return content_id

    def vectors_after(self, space_id: int, last_id: int) -> Iterator[tuple[Ids, Vectors]]:
        """The space's vectors with ids above `last_id`, rising, in blocks of (ids, rows).

        Raises LibraryDamaged when a vector is not what was written.
        """
        while True:
            query = (
                select(vectors.c.id, vectors.c.data, vectors.c.crc)
                .where(vectors.c.space_id == space_id, vectors.c.id > last_id)
                .order_by(vectors.c.id)
                .limit(_CHUNK)
            )
            with self.snapshot():
                rows = self._connection.execute(query).all()
            if not rows:
                return
            yield self._unpack(rows)
            last_id = rows[-1].id

    def vectors_of(self, ids: Sequence[int]) -> tuple[Ids, Vectors]:
        """The vectors with these ids that are still there, by rising id, each checked."""
        rows: list[Any] = []
        with self.snapshot():
            for chunk in _chunks(sorted(ids)):
                query = select(vectors.c.id, vectors.c.data, vectors.c.crc)
                rows += self._connection.execute(
                    query.where(vectors.c.id.in_(chunk)).order_by(vectors.c.id)
                )
        return self._unpack(rows)

    def _unpack(self, rows: Sequence[Any]) -> tuple[Ids, Vectors]:
        if not rows:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        for id, data, crc in rows:
            if zlib.crc32(data) != crc:
                raise LibraryDamaged(
                    f"{self.path} is damaged (vector {id} is not what was written); "
                    "run mmsearch check for the whole list"
                )
        ids = np.array([row[0] for row in rows], np.int64)
        data = np.frombuffer(b"".join(row[1] for row in rows), "<f2")
        return ids, data.reshape(len(rows), -1).astype(np.float32)

    def count_vectors(self, space_id: int, after: int = 0) -> tuple[int, int]:
        """How many vectors of a space have an id above `after`, and the highest id."""
        query = select(func.count(), func.coalesce(func.max(vectors.c.id), 0)).where(
            vectors.c.space_id == space_id, vectors.c.id > after
        )
        with self.snapshot():
            count, highest = self._connection.execute(query).one()
        return int(count), int(highest)

    def vector_ids(
        self, space_id: int, filter: Filter | None = None, modality: Modality | None = None
    ) -> Ids:
        """The space's vectors that stand for an item which the filter lets through, rising."""
        query = (
            _matching(modality, filter)
            .with_only_columns(vectors.c.id)
            .where(vectors.c.space_id == space_id)
            .distinct()
            .order_by(vectors.c.id)
        )
        with self.snapshot():
            return np.fromiter(self._connection.execute(query).scalars(), np.int64)

    def matches(
        self,
        vector_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Match]:
        """The items that these vectors stand for now, as far as the filter lets them through.

        None for a vector that is gone; of several copies of a picture each is judged alone.
        """
        found: list[Match] = []
        asked = _matching(modality, filter)
        with self.snapshot():
            for chunk in _chunks(vector_ids):
                query = asked.where(vectors.c.id.in_(chunk))
                for id, item, folder, name, kind, start, end in self._connection.execute(query):
                    path = os.path.join(folder, name)
                    found.append(Match(id, item, path, Modality(kind), start, end))
        return found

    # -- spaces, caches, settings ------------------------------------------------------

    def spaces(self) -> list[tuple[int, str, str, int]]:
        """Every space as (id, encoder name, fingerprint, dim)."""
        with self.snapshot():
            query = select(spaces.c.id, spaces.c.name, spaces.c.fingerprint, spaces.c.dim)
            return [(row[0], row[1], row[2], row[3]) for row in self._connection.execute(query)]

    def put_space(self, name: str, fingerprint: str, dim: int) -> int:
        """Begin a space."""
        return self._insert(spaces, name=name, fingerprint=fingerprint, dim=dim)

    def cache(self, space_id: int) -> dict[str, Any] | None:
        """The record of the space's matrix file, None when there is none."""
        with self.snapshot():
            row = self._connection.execute(select(caches).where(caches.c.space_id == space_id))
            found = row.mappings().first()
            return dict(found) if found else None

    def put_cache(self, space_id: int, **record: Any) -> None:
        """Make this the space's matrix file; the old record goes."""
        self._connection.execute(delete(caches).where(caches.c.space_id == space_id))
        self._connection.execute(insert(caches).values(space_id=space_id, **record))

    def setting(self, key: str) -> str | None:
        """A stored setting."""
        with self.snapshot():
            query = select(settings.c.value).where(settings.c.key == key)
            return self._connection.execute(query).scalar()

    def put_setting(self, key: str, value: str) -> None:
        """Store a setting."""
        self._connection.execute(delete(settings).where(settings.c.key == key))
        self._connection.execute(insert(settings).values(key=key, value=value))

    # -- health ------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Files indexed, gone, failed and skipped, and items and vectors."""
        reasons = select(files.c.reason, func.count()).group_by(files.c.reason)
        with self.snapshot():
            by_reason = {r: int(n) for r, n in self._connection.execute(reasons.where(
                files.c.reason.is_not(None), files.c.gone_at.is_(None)
            ))}  # fmt: skip

            def count(query: Select[Any]) -> int:
                return int(self._connection.execute(query).scalar_one())

            indexed = select(func.count()).where(files.c.content_id.is_not(None))
            return {
                "files": count(indexed.where(files.c.gone_at.is_(None))),
                "gone": count(indexed.where(files.c.gone_at.is_not(None))),
                "failed": sum(n for r, n in by_reason.items() if not Reason(r).skipped),
                "skipped": sum(n for r, n in by_reason.items() if Reason(r).skipped),
                "items": count(select(func.count()).select_from(items)),
                "vectors": count(select(func.count()).select_from(vectors)),
            }

    def inspect(self) -> list[str]:
        """What SQLite and the tables' own rules find wrong; empty when all is well."""
        found: list[str] = []
        with self.snapshot():
            run = self._connection.exec_driver_sql
            found += [str(row[0]) for row in run("PRAGMA integrity_check") if row[0] != "ok"]
            for row in run("PRAGMA foreign_key_check"):
                found.append(f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is absent")
            bare = (
                select(func.count())
                .select_from(contents)
                .where(~exists().where(vectors.c.content_id == contents.c.id))
            )
            if missing := self._connection.execute(bare).scalar_one():
                found.append(f"{missing} contents have no vector")
            both = (files.c.content_id.is_(None)) == (files.c.reason.is_(None))
            unclear = select(func.count()).select_from(files).where(both)
            if count := self._connection.execute(unclear).scalar_one():
                found.append(f"{count} files are neither indexed nor refused, or both")
            lost = ~exists().where(items.c.file_id == files.c.id)
            bare = select(func.count()).select_from(files).where(files.c.content_id.is_not(None))
            if count := self._connection.execute(bare.where(lost)).scalar_one():
                found.append(f"{count} indexed files have no item")
        return found

    def broken_vectors(self, space_id: int) -> Iterator[tuple[int, str]]:
        """(id, what is wrong) of vectors whose bytes, length or values cannot be right."""
        dims = {row[0]: row[3] for row in self.spaces()}
        query = select(vectors.c.id, vectors.c.data, vectors.c.crc)
        with self.snapshot():
            for id, data, crc in self._connection.execute(
                query.where(vectors.c.space_id == space_id)
            ):
                if zlib.crc32(data) != crc or len(data) != 2 * dims[space_id]:
                    yield id, "is not what was written"
                    continue
                length = float(np.linalg.norm(np.frombuffer(data, "<f2").astype(np.float32)))
                if not abs(length - 1) < 0.01:
                    yield id, f"has length {length:.3f} instead of 1"

    def vacuum(self) -> None:
        """Give freed pages back, so that nothing of what was forgotten stays in the file."""
        with connections.translated(self.path):
            raw = self._connection.connection.driver_connection
            if raw is not None:  # VACUUM runs outside a transaction
                raw.execute("VACUUM")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # -- helpers -----------------------------------------------------------------------

    def _insert(self, table: Table, **values: Any) -> int:
        result = self._connection.execute(_INSERT[table.name], values)
        key = result.inserted_primary_key
        return int(key[0]) if key else 0

    def _flush(self) -> None:
        for table, rows in ((items, self._new_items), (vectors, self._new_vectors)):
            if rows:
                self._connection.execute(_INSERT[table.name], rows)
                rows.clear()

    def _drop_unused(self) -> None:
        """Drop contents that no file has any more; their vectors go with them.

        At the end of a transaction: until then another file may take a content up.
        """
        loose = [content_id for content_id in self._loose if content_id is not None]
        self._loose.clear()
        for chunk in _chunks(loose):
            unused = ~exists().where(files.c.content_id == contents.c.id)
            self._connection.execute(delete(contents).where(contents.c.id.in_(chunk), unused))


def _below(column: Any, path: bytes) -> Any:
    """The path itself or anything below it: a range scan, since "0" follows "/"."""
    stem = path.rstrip(b"/")
    return (column == path) | ((column > stem + b"/") & (column < stem + b"0"))


def _at_or_below(path: bytes) -> Any:
    """Files joined with their folders: the file at `path`, or all files below it."""
    folder, name = os.path.split(path)
    return _below(folders.c.path, path) | ((folders.c.path == folder) & (files.c.name == name))


def _matching(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(
            vectors.c.id, items.c.id, folders.c.path, files.c.name, items.c.modality,
            items.c.start, items.c.end,
        )
        .join(files, files.c.content_id == vectors.c.content_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == vectors.c.part))
        .join(folders, folders.c.id == files.c.folder_id)
        .where(files.c.gone_at.is_(None))
    )  # fmt: skip
    if modality is not None:
        query = query.where(items.c.modality == modality)
    if filter is not None:
        from mmsearch.catalog.filters import expression  # most queries have none

        query = query.join(contents, contents.c.id == files.c.content_id)
        query = query.where(expression(filter))
    return query


def _findable() -> Any:
    return files.c.content_id.is_not(None) & files.c.gone_at.is_(None)


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _VARIABLES):
        yield values[start : start + _VARIABLES]
