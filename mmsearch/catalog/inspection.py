"""Whether a catalog is sound: SQLite's own rules, ours, every vector, and every word."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    Integer,
    LargeBinary,
    exists,
    func,
    or_,
    select,
)

from mmsearch.catalog import keywords
from mmsearch.catalog.contents import Contents
from mmsearch.catalog.session import member
from mmsearch.catalog.spaces import Spaces
from mmsearch.catalog.tables import (
    CAPTION,
    captions,
    contents,
    files,
    folders,
    items,
    metadata,
    vectors,
)
from mmsearch.records import Modality, Reason

if TYPE_CHECKING:
    from mmsearch.records import Vectors

_STORED = {Integer: ["integer"], Float: ["real", "integer"], LargeBinary: ["blob"]}
_UNNAMED = select(func.count()).where(
    items.c.part == 0, ~exists().where(keywords.keywords.c.rowid == items.c.id)
)


class Indexed(NamedTuple):
    """A file as it was when it was read: (size, mtime_ns, inode), and what it held."""

    path: bytes
    state: tuple[int, ...]
    content_id: int
    modality: Modality
    digest: bytes


class Inspection(Contents, Spaces):
    """What can be said of a catalog by reading it."""

    def inspect(self, *, quick: bool = False) -> list[str]:
        """What SQLite and the tables' own rules find wrong; empty when all is well."""
        found: list[str] = []
        with self.snapshot():
            run = self._connection.exec_driver_sql
            pragma = "PRAGMA quick_check" if quick else "PRAGMA integrity_check"
            found += [str(row[0]) for row in run(pragma) if row[0] != "ok"]
            for row in run("PRAGMA foreign_key_check"):
                found.append(f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is absent")
            for table in () if quick else metadata.sorted_tables:
                odd = select(func.count()).where(or_(*map(_of_another_kind, table.columns)))
                if count := self._connection.execute(odd).scalar_one():
                    found.append(f"{count} rows of {table.name} have values of another kind")
            bare = (
                select(func.count())
                .select_from(contents)
                .where(~exists().where(vectors.c.content_id == contents.c.id))
                .where(contents.c.format != CAPTION)  # its words are found all the same
            )
            if missing := self._connection.execute(bare).scalar_one():
                found.append(f"{missing} contents have no vector")
            both = (files.c.content_id.is_(None)) == (files.c.reason.is_(None))
            unclear = select(func.count()).select_from(files).where(both)
            if count := self._connection.execute(unclear).scalar_one():
                found.append(f"{count} files are neither indexed nor refused, or both")
            for column, kind in ((files.c.reason, Reason), (contents.c.modality, Modality)):
                odd = select(func.count()).where(column.is_not(None), column.not_in(list(kind)))
                if count := self._connection.execute(odd).scalar_one():
                    found.append(f"{count} {column.table.name} have a {column.name} that is none")
            lost = ~exists().where(items.c.file_id == files.c.id)
            bare = select(func.count()).select_from(files).where(files.c.content_id.is_not(None))
            if count := self._connection.execute(bare.where(lost)).scalar_one():
                found.append(f"{count} indexed files have no item")
            is_caption = contents.c.format == CAPTION
            spare = select(func.count()).select_from(contents).where(is_caption)
            spare = spare.where(~exists().where(captions.c.content_id == contents.c.id))
            if count := self._connection.execute(spare).scalar_one():
                found.append(f"{count} captions are said of no file")
            other = select(func.count()).select_from(captions.join(contents)).where(~is_caption)
            if count := self._connection.execute(other).scalar_one():
                found.append(f"{count} captions have no words")
            if count := self._connection.execute(_UNNAMED).scalar_one():
                found.append(f"{count} indexed files cannot be found by their names")
        return found

    def broken_keywords(self) -> list[str]:
        """Names of the tables of words that do not say what their items do."""
        with self.snapshot():
            return keywords.differences(self._connection)

    def indexed(self) -> list[Indexed]:
        """Every file that is indexed and not gone, by path."""
        query = (
            select(
                folders.c.path, files.c.name, files.c.size, files.c.mtime_ns, files.c.inode,
                contents.c.id, contents.c.modality, contents.c.digest,
            )
            .select_from(files.join(folders).join(contents))
            .where(files.c.gone_at.is_(None))
            .order_by(folders.c.path, files.c.name)
        )  # fmt: skip
        with self.snapshot():
            return [
                Indexed(
                    os.path.join(folder, name), tuple(state), id, member(Modality, kind), digest
                )
                for folder, name, *state, id, kind, digest in self._connection.execute(query)
            ]

    def rows_of(self, content_id: int, space_id: int) -> Vectors:
        """(parts, dim) rows of a content in a space, by part; (0, 0) where it has none."""
        query = select(vectors.c.id).where(
            vectors.c.content_id == content_id, vectors.c.space_id == space_id
        )
        with self.snapshot():
            ids = self._connection.execute(query.order_by(vectors.c.part)).scalars().all()
            found, rows = self.vectors_of(ids)
        return rows[np.searchsorted(found, ids)]

    def broken_vectors(self, space_id: int) -> Iterator[tuple[int, str]]:
        """(id, what is wrong) of vectors whose bytes, length or values cannot be right."""
        dims = {row[0]: row[3] for row in self.spaces()}
        query = select(vectors.c.id, vectors.c.data, vectors.c.crc)
        with self.snapshot():
            for id, data, crc in self._connection.execute(
                query.where(vectors.c.space_id == space_id)
            ):
                whole = isinstance(data, bytes) and len(data) == 2 * dims[space_id]
                if not whole or zlib.crc32(data) != crc:
                    yield id, "is not what was written"
                    continue
                length = float(np.linalg.norm(np.frombuffer(data, "<f2").astype(np.float32)))
                if not abs(length - 1) < 0.01:
                    yield id, f"has length {length:.3f} instead of 1"


def _of_another_kind(column: Column[Any]) -> ColumnElement[bool]:
    """True for values that SQLite holds in a column whose type is another."""
    kinds = next((k for kind, k in _STORED.items() if isinstance(column.type, kind)), ["text"])
    return func.typeof(column).not_in([*kinds, *(["null"] if column.nullable else [])])
