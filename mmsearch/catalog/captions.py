"""What is said of files: captions, whose words are contents of their own, with vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, insert, select

from mmsearch.catalog.session import Session, chunks
from mmsearch.catalog.tables import CAPTION, captions, contents, items, parts
from mmsearch.records import Caption, Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

Said = tuple[int, str]  # the content that has the words, and the source


# made once: building a statement costs a warm query more than running it
_OF_ITEMS = (
    select(items.c.id, captions.c.source, parts.c.text)
    .join(captions, captions.c.file_id == items.c.file_id)
    .join(parts, parts.c.content_id == captions.c.content_id)
    .where(items.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(captions.c.id)
)


def caption_digest(text: str) -> bytes:
    """What a caption is known by: longer than a file's digest, so that no file can have it."""
    return b"caption" + hashlib.sha256(text.encode()).digest()


class Captions(Session):
    """The table captions."""

    def put_caption(self, text: str, space_id: int, rows: Vectors) -> int:
        """Add the words of a caption with their (1, dim) unit row; the id of the content.

        Without a row, (0, dim), where the model gave no usable one: found as words alone.
        """
        content_id = self._insert(
            contents,
            digest=caption_digest(text), modality=Modality.TEXT, format=CAPTION, described=1,
        )  # fmt: skip
        self._connection.execute(insert(parts).values(content_id=content_id, part=0, text=text))
        self._add_vectors(content_id, space_id, rows)
        self._loose.add(content_id)  # until a file has it
        return content_id

    def put_captions(
        self, file_id: int, beside: Sequence[Said], inside: Sequence[Said] | None = None
    ) -> bool:
        """Have these be what is said of a file, beside it and in it; whether that is news.

        `inside` None: what the file itself says stays. The order is kept.
        """
        query = select(captions.c.content_id, captions.c.source).order_by(captions.c.id)
        rows = self._connection.execute(query.where(captions.c.file_id == file_id))
        old = [(content_id, source) for content_id, source in rows]
        if inside is None:
            inside = [(content_id, source) for content_id, source in old if not _beside(source)]
        new = list(dict.fromkeys([*beside, *inside]))
        if new == old:
            return False
        self._connection.execute(delete(captions).where(captions.c.file_id == file_id))
        self._loose.update(content_id for content_id, _ in old)
        if new:
            self._connection.execute(
                insert(captions),
                [{"file_id": file_id, "content_id": id, "source": source} for id, source in new],
            )
        self._retold.add(file_id)
        return True

    def captions_of(self, item_ids: Sequence[int]) -> dict[int, list[Caption]]:
        """What is said of the files of those of these items that have captions, each thing once."""
        found: dict[int, dict[str, Caption]] = {}
        with self.snapshot():
            for chunk in chunks(item_ids):
                rows = self._connection.execute(_OF_ITEMS, {"ids": chunk})
                for id, source, text in rows:
                    found.setdefault(id, {}).setdefault(text, Caption(source, text))
        return {id: list(said.values()) for id, said in found.items()}


def _beside(source: str) -> bool:
    """True for a sidecar or a list, whose source is its name, False for a file's own words."""
    return source == "sidecar" or "." in source
