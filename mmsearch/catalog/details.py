"""What an answer tells of its file beside its path: read for the k best alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select

from mmsearch.catalog.session import Session, chunks
from mmsearch.catalog.tables import contents, files, items, parts

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
        """What there is to tell of these items, by item."""
        found: dict[int, Detail] = {}
        with self.snapshot():
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
