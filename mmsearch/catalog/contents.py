"""Contents, their vectors, and the caches of these."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import bindparam, delete, func, insert, select, update

from mmsearch.catalog.session import Session, chunks, member
from mmsearch.catalog.tables import (
    CAPTION,
    backgrounds,
    caches,
    contents,
    parts,
    settings,
    vectors,
)
from mmsearch.errors import LibraryDamaged
from mmsearch.records import Kind, Metadata, Modality, Rows

if TYPE_CHECKING:
    from mmsearch.records import Ids, Vectors

_CHUNK = 4096  # vectors read at a time: 2 MB at 256 dimensions

# made once: building a statement costs a warm query more than running it
_AMONG = vectors.c.id.in_(bindparam("ids", expanding=True))
_VECTORS = select(vectors.c.id, vectors.c.data, vectors.c.crc).where(_AMONG).order_by(vectors.c.id)


@dataclass(frozen=True, slots=True)
class Part:
    """A window of a sound, in seconds, or a passage of a text."""

    start: float | None = None
    end: float | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds, known by the digest of its bytes. A picture has no `parts`.

    The captions among its metadata belong to the files that hold it: see Captions.
    """

    digest: bytes
    modality: Modality
    format: str
    width: int | None = None
    height: int | None = None
    parts: tuple[Part, ...] = ()
    metadata: Metadata = field(default_factory=Metadata)


class Contents(Session):
    """The tables contents, vectors, caches and settings."""

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
            width=content.width, height=content.height, **_described(content.metadata),
        )  # fmt: skip
        self._put_parts(content_id, content.parts)
        self._add_vectors(content_id, space_id, rows)
        return content_id

    def describe(self, content_id: int, metadata: Metadata) -> None:
        """Note what a content says of itself, unless that is known."""
        here = update(contents).where(contents.c.id == content_id, contents.c.described == 0)
        self._connection.execute(here.values(_described(metadata)))

    def _put_parts(self, content_id: int, given: Sequence[Part]) -> None:
        if given:
            rows = [
                {"content_id": content_id, "part": number, "start": part.start, "end": part.end,
                 "text": part.text}
                for number, part in enumerate(given)
            ]  # fmt: skip
            self._connection.execute(insert(parts), rows)

    def vectors_after(
        self, space_id: int, last_id: int, kind: Kind | None = None
    ) -> Iterator[Rows]:
        """The space's vectors with ids above `last_id`, rising, in blocks; of one kind, or all.

        Raises LibraryDamaged when a vector is not what was written.
        """
        query = (
            select(
                vectors.c.id, vectors.c.data, vectors.c.crc, contents.c.modality,
                contents.c.format, func.coalesce(backgrounds.c.hubness, 0.0),
            )
            .join(contents, contents.c.id == vectors.c.content_id)
            .outerjoin(backgrounds, backgrounds.c.vector_id == vectors.c.id)
            .where(vectors.c.space_id == space_id)
            .order_by(vectors.c.id)
            .limit(_CHUNK)
        )  # fmt: skip
        if kind is Kind.CAPTION:
            query = query.where(contents.c.format == CAPTION)
        elif kind is not None:
            query = query.where(contents.c.modality == kind.modality, contents.c.format != CAPTION)
        while True:
            with self.snapshot():
                rows = self._connection.execute(query.where(vectors.c.id > last_id)).all()
            if not rows:
                return
            ids, found = self._unpack([row[:3] for row in rows])
            kinds = [_kind(modality, format) for _, _, _, modality, format, _ in rows]
            hubness = np.array([row[5] for row in rows], np.float32)
            yield Rows(ids, found, np.array(kinds, np.uint8), hubness)
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
            if not isinstance(data, bytes) or zlib.crc32(data) != crc:
                raise LibraryDamaged(
                    f"{self.path} is damaged (vector {id} is not what was written); "
                    "mmsearch check has the whole list, mmsearch repair mends it"
                )
        ids = np.array([row[0] for row in rows], np.int64)
        data = np.frombuffer(b"".join(row[1] for row in rows), "<f2")
        return ids, data.reshape(len(rows), -1).astype(np.float32)

    def kinds_of_vectors(self, space_id: int) -> dict[Kind, int]:
        """How many vectors of each kind a space has, of those there are, in their order."""
        said = contents.c.format == CAPTION
        query = select(contents.c.modality, said, func.count()).group_by(contents.c.modality, said)
        query = query.join(vectors, vectors.c.content_id == contents.c.id)
        with self.snapshot():
            rows = self._connection.execute(query.where(vectors.c.space_id == space_id)).all()
        return dict(sorted((_kind(kind, CAPTION if said else ""), n) for kind, said, n in rows))

    def count_vectors(self, space_id: int, after: int = 0) -> tuple[int, int]:
        """How many vectors of a space have an id above `after`, and the highest id."""
        query = select(func.count(), func.coalesce(func.max(vectors.c.id), 0)).where(
            vectors.c.space_id == space_id, vectors.c.id > after
        )
        with self.snapshot():
            count, highest = self._connection.execute(query).one()
        return int(count), int(highest)

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

    def outdate_cache(self, space_id: int) -> None:
        """Note that what the space's matrix file says, or one in the making, is no longer so."""
        here = update(caches).where(caches.c.space_id == space_id)
        self._connection.execute(here.values(sha256="", generation=caches.c.generation + 1))

    def setting(self, key: str) -> str | None:
        """A stored setting."""
        with self.snapshot():
            query = select(settings.c.value).where(settings.c.key == key)
            return self._connection.execute(query).scalar()

    def put_setting(self, key: str, value: str) -> None:
        """Store a setting."""
        self._connection.execute(delete(settings).where(settings.c.key == key))
        self._connection.execute(insert(settings).values(key=key, value=value))


def _described(metadata: Metadata) -> dict[str, Any]:
    names = [column.name for column in fields(metadata) if column.name != "captions"]
    return {name: getattr(metadata, name) for name in names} | {"described": 1}


def _kind(modality: str, format: str) -> Kind:
    return Kind.CAPTION if format == CAPTION else Kind[member(Modality, modality).name]
