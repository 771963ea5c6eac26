"""The spaces of a library: one an encoder, and what each has no vectors of yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import LargeBinary, cast, delete, exists, func, or_, select, update

from mmsearch.catalog.session import Session, chunks, member, sound
from mmsearch.catalog.tables import (
    CAPTION,
    caches,
    contents,
    files,
    parts,
    spaces,
    vectors,
)
from mmsearch.records import Modality, Reason

if TYPE_CHECKING:
    from mmsearch.records import Vectors

_PAGE = 256  # contents asked for at a time
_MARKED = (33, 40)  # bytes of a file's digest and of a caption's with a zero byte behind


class Missing(NamedTuple):
    """A content that a space has no vectors of. `spans` has the seconds of a sound's windows, and
    `texts` the words of a text's passages, in the order of its parts.
    """

    content_id: int
    digest: bytes
    modality: Modality
    spans: tuple[tuple[float, float], ...] = ()
    texts: tuple[str, ...] = ()


class Spaces(Session):
    """The table spaces, and what is read of contents for one of them."""

    def spaces(self) -> list[tuple[int, str, str, int]]:
        """Every space as (id, encoder name, fingerprint, dim), as they were begun."""
        query = select(spaces.c.id, spaces.c.name, spaces.c.fingerprint, spaces.c.dim)
        with self.snapshot():
            rows = self._connection.execute(query.order_by(spaces.c.id))
            return [(row[0], row[1], row[2], row[3]) for row in sound(spaces, rows)]

    def models(self) -> dict[int, tuple[str, frozenset[Modality]]]:
        """By space, what opens its encoder and what that reads; empty where nobody noted it."""
        query = select(spaces.c.id, spaces.c.model, spaces.c.modalities)
        with self.snapshot():
            return {
                id: (model, frozenset(member(Modality, kind) for kind in kinds.split()))
                for id, model, kinds in sound(spaces, self._connection.execute(query))
            }

    def put_space(
        self,
        name: str,
        fingerprint: str,
        dim: int,
        *,
        model: str = "",
        modalities: Collection[Modality] = (),
    ) -> int:
        """Begin a space."""
        return self._insert(
            spaces, name=name, fingerprint=fingerprint, dim=dim, model=model,
            modalities=" ".join(sorted(modalities)),
        )  # fmt: skip

    def put_model(self, space_id: int, model: str, modalities: Collection[Modality]) -> None:
        """Note what opens a space's encoder, and what that reads."""
        here = update(spaces).where(spaces.c.id == space_id)
        values = {"model": model, "modalities": " ".join(sorted(modalities))}
        self._connection.execute(here.values(values))

    def drop_space(self, space_id: int) -> None:
        """Forget a space that has no vectors, and its matrix file."""
        self._connection.execute(delete(caches).where(caches.c.space_id == space_id))
        self._connection.execute(delete(spaces).where(spaces.c.id == space_id))

    # -- one encoder after another -----------------------------------------------------

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

    def forget_unsupported(self) -> None:
        """Have files of no supported type looked at again: an encoder came that may read them."""
        refused = files.c.reason.in_([Reason.UNSUPPORTED, Reason.NO_MODEL])
        self._connection.execute(delete(files).where(refused))

    def count_waiting(self, older: Sequence[int]) -> int:
        """How many files that are not gone have vectors in these spaces of older models."""
        there = exists().where(
            vectors.c.content_id == files.c.content_id, vectors.c.space_id.in_(older)
        )
        query = select(func.count()).select_from(files)
        with self.snapshot():
            rows = self._connection.execute(query.where(files.c.gone_at.is_(None), there))
            return int(rows.scalar_one())

    # -- one encoder beside another ----------------------------------------------------

    def count_missing(self, space_id: int, modalities: Collection[Modality]) -> dict[Modality, int]:
        """How many vectors a space lacks of what its encoder reads, by modality."""
        query = (
            select(contents.c.modality, func.count())
            .outerjoin(parts, parts.c.content_id == contents.c.id)
            .where(*_lacking(space_id, modalities))
            .group_by(contents.c.modality)
        )
        with self.snapshot():
            rows = self._connection.execute(query).all()
        return {member(Modality, kind): count for kind, count in rows}

    def missing(self, space_id: int, modalities: Collection[Modality], after: int) -> list[Missing]:
        """Some of the contents with ids above `after` that a space lacks, rising; none: the end."""
        query = (
            select(contents.c.id, contents.c.digest, contents.c.modality)
            .where(contents.c.id > after, *_lacking(space_id, modalities))
            .order_by(contents.c.id)
            .limit(_PAGE)
        )
        of_parts = select(parts.c.content_id, parts.c.start, parts.c.end, parts.c.text)
        of_parts = of_parts.order_by(parts.c.content_id, parts.c.part)
        found: dict[int, list[Any]] = {}
        with self.snapshot():
            rows = self._connection.execute(query).all()
            for chunk in chunks([row.id for row in rows]):
                there = of_parts.where(parts.c.content_id.in_(chunk))
                for content_id, *part in self._connection.execute(there):
                    found.setdefault(content_id, []).append(part)
        return [
            Missing(
                id, digest, member(Modality, kind),
                tuple((start, end) for start, end, _ in found.get(id, ()) if start is not None),
                tuple(text for *_, text in found.get(id, ()) if text is not None),
            )
            for id, digest, kind in rows
        ]  # fmt: skip

    def put_vectors(
        self, content_id: int, space_id: int, rows: Vectors, instead: Collection[int] = ()
    ) -> bool:
        """Give a known content its (parts, dim) unit rows in another space; its vectors in the
        spaces that this one takes the place of go. False when the content went meanwhile.
        """
        there = select(contents.c.id).where(contents.c.id == content_id)
        if self._connection.execute(there).scalar() is None:
            return False
        self._add_vectors(content_id, space_id, rows)
        if instead:
            here = (vectors.c.content_id == content_id) & vectors.c.space_id.in_(instead)
            self._connection.execute(delete(vectors).where(here))
        return True

    def texts_of_vectors(self, vector_ids: Sequence[int]) -> dict[int, str]:
        """The words that vectors stand for: of captions and of passages, by vector."""
        query = select(vectors.c.id, parts.c.text).join(
            parts,
            (parts.c.content_id == vectors.c.content_id) & (parts.c.part == vectors.c.part),
        )
        found: dict[int, str] = {}
        with self.snapshot():
            for chunk in chunks(vector_ids):
                rows = self._connection.execute(query.where(vectors.c.id.in_(chunk)))
                found.update((id, text) for id, text in rows if text is not None)
        return found


def _lacking(space_id: int, modalities: Collection[Modality]) -> tuple[Any, ...]:
    """Contents of these kinds without a vector in a space, of files that are there or captions.

    Without those that `supersede` has marked: they are to be read anew, as new contents.
    """
    there = exists().where(files.c.content_id == contents.c.id, files.c.gone_at.is_(None))
    return (
        contents.c.modality.in_(sorted(modalities)),
        ~_in_space(space_id),
        or_(contents.c.format == CAPTION, there),
        func.length(contents.c.digest).not_in(_MARKED),
    )


def _in_space(space_id: int) -> Any:
    return exists().where(vectors.c.content_id == contents.c.id, vectors.c.space_id == space_id)
