"""Contents, their vectors, and the spaces and caches these belong to."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import (
    LargeBinary,
    Select,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from mmsearch.catalog import keywords
from mmsearch.catalog.session import Session, chunks
from mmsearch.catalog.tables import (
    caches,
    contents,
    files,
    folders,
    items,
    parts,
    settings,
    spaces,
    vectors,
)
from mmsearch.errors import LibraryDamaged
from mmsearch.records import Item, Modality

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Vectors

_CHUNK = 4096  # vectors read at a time: 2 MB at 256 dimensions

# made once: building a statement costs a warm query more than running it
_AMONG = vectors.c.id.in_(bindparam("ids", expanding=True))
_VECTORS = select(vectors.c.id, vectors.c.data, vectors.c.crc).where(_AMONG).order_by(vectors.c.id)
_ITEM = (
    items.c.id, items.c.part, folders.c.path, files.c.name, items.c.modality, items.c.start,
    items.c.end,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """A window of a sound, in seconds, or a passage of a text."""

    start: float | None = None
    end: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, known by the digest of its bytes. A picture has no `parts`."""

    digest: bytes
    modality: Modality
    format: str
    width: int | None = None
    height: int | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """An item that a vector stands for. Copies of a picture are several items of one vector."""

    vector_id: int
    item: Item


class Contents(Session):
    """The tables contents, vectors, spaces, caches and settings."""

    def content_ids(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """The ids of those contents that are known."""
        found: dict[bytes, int] = {}
        with self.snapshot():
            for chunk in chunks(digests):
                query = select(contents.c.digest, contents.c.id)
                rows = self._connection.execute(query.where(contents.c.digest.in_(chunk)))
                found.update((digest, id) for digest, id in rows)
        return found

    def holds(self, content_id: int, digest: bytes) -> bool:
        """Whether a content has this digest, perhaps as an older model's (see `supersede`)."""
        query = select(contents.c.digest).where(contents.c.id == content_id)
        with self.snapshot():
            found: bytes | None = self._connection.execute(query).scalar()
        return found is not None and found[: len(digest)] == digest

    def put_content(self, content: Content, space_id: int, rows: Vectors) -> int:
        """Add a content with its (parts, dim) unit rows, in the order of its parts; its id."""
        content_id = self._insert(
            contents,
            digest=content.digest, modality=content.modality, format=content.format,
            width=content.width, height=content.height,
        )  # fmt: skip
        self._put_parts(content_id, content.parts)
        for part, row in enumerate(rows):
            data = row.astype("<f2").tobytes()
            self._new_vectors.append(
                {
                    "space_id": space_id, "content_id": content_id, "part": part, "data": data,
                    "crc": zlib.crc32(data),
                }
            )  # fmt: skip
        return content_id

    def _put_parts(self, content_id: int, given: Sequence[Part]) -> None:
        if given:
            rows = [
                {"content_id": content_id, "part": number, "start": part.start, "end": part.end,
                 "text": part.text}
                for number, part in enumerate(given)
            ]  # fmt: skip
            self._connection.execute(insert(parts), rows)

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
            for chunk in chunks(sorted(ids)):
                rows += self._connection.execute(_VECTORS, {"ids": chunk})
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
        query = _matching(modality, filter).where(_AMONG)
        with self.snapshot():
            for chunk in chunks(vector_ids):
                for id, *item in self._connection.execute(query, {"ids": chunk}):
                    found.append(Match(id, _item(item)))
        return found

    def items_by_words(
        self,
        expression: str,
        k: int,
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Item]:
        """The k items that fit these keywords best, those that are gone left out.

        `expression` is what keywords.expression makes of words.
        """
        query = (
            _filtered(select(*_ITEM).join(files, files.c.id == items.c.file_id), modality, filter)
            .join(keywords.keywords, keywords.keywords.c.rowid == items.c.id)
            .where(keywords.match(expression))
            .order_by(keywords.keywords.c.rank, items.c.id)
            .limit(k)
        )
        with self.snapshot():
            return [_item(row) for row in self._connection.execute(query)]

    def passages(self, item_ids: Sequence[int]) -> dict[int, str]:
        """The text of those of these items that are passages."""
        query = (
            select(items.c.id, parts.c.text)
            .join(files, files.c.id == items.c.file_id)
            .join(
                parts, (parts.c.content_id == files.c.content_id) & (parts.c.part == items.c.part)
            )
            .where(parts.c.text.is_not(None))
        )
        found: dict[int, str] = {}
        with self.snapshot():
            for chunk in chunks(item_ids):
                rows = self._connection.execute(query.where(items.c.id.in_(chunk)))
                found.update((id, text) for id, text in rows)
        return found

    def modalities(self) -> list[Modality]:
        """Of what kinds the contents are."""
        there = [exists().where(contents.c.modality == kind).label(kind) for kind in Modality]
        with self.snapshot():
            row = self._connection.execute(select(*there)).one()
        return [kind for kind, found in zip(Modality, row, strict=True) if found]

    def vectors_of_kind(self, space_id: int, modality: Modality) -> Ids:
        """The ids of the space's vectors that are of one modality, rising."""
        query = (
            select(vectors.c.id)
            .join(contents, contents.c.id == vectors.c.content_id)
            .where(contents.c.modality == modality, vectors.c.space_id == space_id)
            .order_by(vectors.c.id)
        )
        with self.snapshot():
            return np.fromiter(self._connection.execute(query).scalars(), np.int64)

    def spaces(self) -> list[tuple[int, str, str, int]]:
        """Every space as (id, encoder name, fingerprint, dim)."""
        with self.snapshot():
            query = select(spaces.c.id, spaces.c.name, spaces.c.fingerprint, spaces.c.dim)
            return [(row[0], row[1], row[2], row[3]) for row in self._connection.execute(query)]

    def supersede(self) -> None:
        """Have every file read and encoded anew, for a newer model than the one that was used.

        No digest finds the contents of now any more, and no file has inode 0: each is new
        content under a known path, and takes the place of the old one when it is written.
        What the older model did not take is looked at again, too.
        """
        other = cast(contents.c.digest.op("||")(b"\0"), LargeBinary)
        self._connection.execute(update(contents).values(digest=other))
        self._connection.execute(update(files).values(inode=0))
        self._connection.execute(delete(files).where(files.c.content_id.is_(None)))

    def put_space(self, name: str, fingerprint: str, dim: int) -> int:
        """Begin a space."""
        return self._insert(spaces, name=name, fingerprint=fingerprint, dim=dim)

    def drop_space(self, space_id: int) -> None:
        """Forget a space that has no vectors, and its matrix file."""
        self._connection.execute(delete(caches).where(caches.c.space_id == space_id))
        self._connection.execute(delete(spaces).where(spaces.c.id == space_id))

    def count_waiting(self, space_id: int) -> int:
        """How many files that are not gone have vectors in other spaces than this alone."""
        there = exists().where(
            vectors.c.content_id == files.c.content_id, vectors.c.space_id != space_id
        )
        query = select(func.count()).select_from(files)
        with self.snapshot():
            rows = self._connection.execute(query.where(files.c.gone_at.is_(None), there))
            return int(rows.scalar_one())

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


@functools.lru_cache(maxsize=16)
def _matching(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(vectors.c.id, *_ITEM)
        .join(files, files.c.content_id == vectors.c.content_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == vectors.c.part))
    )
    return _filtered(query, modality, filter)


def _filtered(query: Select[Any], modality: Modality | None, filter: Filter | None) -> Select[Any]:
    """Those of these items that are not gone and that the filter lets through."""
    query = query.join(folders, folders.c.id == files.c.folder_id).where(files.c.gone_at.is_(None))
    if modality is not None:
        query = query.where(items.c.modality == modality)
    if filter is not None:
        from mmsearch.catalog.filters import expression  # most queries have none

        query = query.join(contents, contents.c.id == files.c.content_id)
        query = query.where(expression(filter))
    return query


def _item(row: Sequence[Any]) -> Item:
    id, part, folder, name, kind, start, end = row
    path = Path(os.fsdecode(os.path.join(folder, name)))
    return Item(id, path, Modality(kind), part, start, end)
