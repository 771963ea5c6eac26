"""What an answer tells of its file beside its path: read for the k best alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select

from mmsearch.catalog.connection import damaged
from mmsearch.catalog.session import Session, chunks
from mmsearch.catalog.tables import contents, files, items, parts
from mmsearch.errors import LibraryDamaged

_EPOCH = datetime(1970, 1, 1)

# made once: building a statement costs a warm query more than running it
_DETAILS = (
    select(items.c.id, files.c.content_id, parts.c.text, contents.c.taken, files.c.mtime_ns)
    .join(files, files.c.id == items.c.file_id)
    .join(contents, contents.c.id == files.c.content_id)
    .join(
        parts,
        (parts.c.content_id == files.c.content_id) & (parts.c.part == items.c.part),
        isouter=True,
    )
    .where(items.c.id.in_(bindparam("ids", expanding=True)))
)

# What an answer is called stands in the tables and, once more, in their indexes, on other pages
# of the file: a name that was flipped on one of them is not like the other.
_DOUBTFUL = """
SELECT items.id FROM items JOIN files ON files.id = items.file_id
JOIN folders ON folders.id = files.folder_id
WHERE items.id IN (SELECT value FROM json_each(?)) AND NOT (
    EXISTS (SELECT 1 FROM items AS other INDEXED BY sqlite_autoindex_items_1
        WHERE (other.file_id, other.part, other.id) = (items.file_id, items.part, items.id))
    AND EXISTS (SELECT 1 FROM files AS other INDEXED BY sqlite_autoindex_files_1
        WHERE (other.folder_id, other.name, other.id) = (files.folder_id, files.name, files.id))
    AND EXISTS (SELECT 1 FROM files AS other INDEXED BY files_by_content
        WHERE (other.content_id, other.id) = (files.content_id, files.id))
    AND EXISTS (SELECT 1 FROM folders AS other INDEXED BY sqlite_autoindex_folders_1
        WHERE (other.path, other.id) = (folders.path, folders.id)))
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Detail:
    """An item's content, which copies share; the words of a passage; and a date.

    `taken` is the wall clock when it was taken, else the clock here when the file changed last.
    """

    content_id: int
    text: str | None
    taken: datetime


class Details(Session):
    """Items joined with their files, contents and parts."""

    def details(self, item_ids: Sequence[int]) -> dict[int, Detail]:
        """What there is to tell of these items, by item.

        Raises LibraryDamaged where the name of one is not what was written.
        """
        found: dict[int, Detail] = {}
        with self.snapshot():
            doubtful = self._connection.exec_driver_sql(_DOUBTFUL, (json.dumps(list(item_ids)),))
            if (row := doubtful.first()) is not None:
                what = f"the name of item {row[0]} is not what was written"
                raise LibraryDamaged(damaged(self.path, what))
            for chunk in chunks(item_ids):
                for id, content_id, text, taken, changed in self._connection.execute(
                    _DETAILS, {"ids": chunk}
                ):
                    date = _here(changed) if taken is None else _clock(taken)
                    found[id] = Detail(content_id, text, date)
        return found


def _clock(taken: int) -> datetime:
    return _EPOCH + timedelta(microseconds=taken // 1000)


def _here(moment: int) -> datetime:
    seconds, rest = divmod(moment, 10**9)
    return datetime.fromtimestamp(seconds) + timedelta(microseconds=rest // 1000)
