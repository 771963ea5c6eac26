"""One open library.db: what is asked of it and what is written to it, and no SQL elsewhere."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select

from mmsearch.catalog import connection as connections
from mmsearch.catalog import keywords
from mmsearch.catalog.captions import Captions
from mmsearch.catalog.contents import Contents
from mmsearch.catalog.details import Details
from mmsearch.catalog.files import Files
from mmsearch.catalog.hubness import Hubness
from mmsearch.catalog.inspection import Inspection
from mmsearch.catalog.items import Items
from mmsearch.catalog.labels import Labels
from mmsearch.catalog.salvage import Salvage
from mmsearch.catalog.session import member
from mmsearch.catalog.spaces import Spaces
from mmsearch.catalog.tables import captions, files, items, vectors
from mmsearch.records import Reason


class Catalog(
    Inspection, Salvage, Files, Contents, Spaces, Captions, Labels, Items, Details, Hubness
):
    """A catalog, open for reading or, under the library's lock, for writing.

    Every method raises the LibraryError its file deserves. After one, the connection is
    closed and of no further use: nothing is retried on it.
    """

    def counts(self) -> dict[str, int]:
        """Files indexed, gone, failed and skipped, and items, captions and vectors."""
        reasons = select(files.c.reason, func.count()).group_by(files.c.reason)
        with self.snapshot():
            reasons = reasons.where(files.c.reason.is_not(None), files.c.gone_at.is_(None))
            counted = self._connection.execute(reasons)
            by_reason = {member(Reason, reason): int(count) for reason, count in counted}

            def count(query: Select[Any]) -> int:
                return int(self._connection.execute(query).scalar_one())

            indexed = select(func.count()).where(files.c.content_id.is_not(None))
            return {
                "files": count(indexed.where(files.c.gone_at.is_(None))),
                "gone": count(indexed.where(files.c.gone_at.is_not(None))),
                "failed": sum(n for r, n in by_reason.items() if not r.skipped),
                "skipped": sum(
                    n for r, n in by_reason.items() if r.skipped and r != Reason.SIDECAR
                ),
                "items": count(select(func.count()).select_from(items)),
                "captions": count(select(func.count()).select_from(captions)),
                "vectors": count(select(func.count()).select_from(vectors)),
            }

    def vacuum(self) -> None:
        """Give freed pages back, so that nothing of what was forgotten stays in the file."""
        with self.transaction():
            keywords.merge(self._connection)
        with connections.translated(self.path):
            raw: Any = self._connection.connection.driver_connection
            raw.execute("VACUUM")  # which runs outside a transaction
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
