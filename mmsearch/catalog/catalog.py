"""One open library.db: what is asked of it and what is written to it, and no SQL elsewhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Select, exists, func, select

from mmsearch.catalog import connection as connections
from mmsearch.catalog import keywords
from mmsearch.catalog.captions import Captions
from mmsearch.catalog.contents import Contents
from mmsearch.catalog.details import Details
from mmsearch.catalog.files import Files
from mmsearch.catalog.hubness import Hubness
from mmsearch.catalog.items import Items
from mmsearch.catalog.labels import Labels
from mmsearch.catalog.spaces import Spaces
from mmsearch.catalog.tables import CAPTION, captions, contents, files, items, vectors
from mmsearch.records import Reason

_UNNAMED = select(func.count()).where(
    items.c.part == 0, ~exists().where(keywords.keywords.c.rowid == items.c.id)
)


class Catalog(Files, Contents, Spaces, Captions, Labels, Items, Details, Hubness):
    """A catalog, open for reading or, under the library's lock, for writing.

    Every method raises the LibraryError its file deserves. After one, the connection is
    closed and of no further use: nothing is retried on it.
    """

    def counts(self) -> dict[str, int]:
        """Files indexed, gone, failed and skipped, and items, captions and vectors."""
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
                "skipped": sum(
                    n for r, n in by_reason.items() if Reason(r).skipped and r != Reason.SIDECAR
                ),
                "items": count(select(func.count()).select_from(items)),
                "captions": count(select(func.count()).select_from(captions)),
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
                .where(contents.c.format != CAPTION)  # its words are found all the same
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
        with self.transaction():
            keywords.merge(self._connection)
        with connections.translated(self.path):
            raw = self._connection.connection.driver_connection
            if raw is not None:  # VACUUM runs outside a transaction
                raw.execute("VACUUM")
                raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
