"""The labels of contents: what the words of a vocabulary made of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Select, delete, func, insert, select

from mmsearch.catalog import keywords
from mmsearch.catalog.session import Session, chunks, member
from mmsearch.catalog.tables import contents, files, folders, items, labels, vectors
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Ids

Labelled = Mapping[int, Sequence[tuple[str, float]]]  # by content: label, relevance


class Labels(Session):
    """The table labels. Copies of a file share their content, and so their labels."""

    def owners(
        self, space_id: int, modality: Modality, filter: Filter | None = None
    ) -> tuple[Ids, Ids]:
        """(n,) ids of the vectors of files that a filter lets through, and (n,) ids of the
        contents that these belong to; by content.
        """
        query = (
            _found(modality, filter)
            .join(vectors, vectors.c.content_id == contents.c.id)
            .where(vectors.c.space_id == space_id)
            .with_only_columns(vectors.c.id, contents.c.id)
            .distinct()
            .order_by(contents.c.id, vectors.c.id)
        )
        with self.snapshot():
            rows = np.array(self._connection.execute(query).all(), np.int64).reshape(-1, 2)
        return rows[:, 0], rows[:, 1]

    def put_labels(self, given: Labelled) -> None:
        """Give these contents these labels, in the place of those that they had."""
        rows = [
            {"content_id": content_id, "label": label, "relevance": relevance}
            for content_id, found in given.items()
            for label, relevance in found
        ]
        for chunk in chunks(list(given)):
            self._connection.execute(delete(labels).where(labels.c.content_id.in_(chunk)))
        if rows:
            self._connection.execute(insert(labels), rows)
        for chunk in chunks(list(given)):
            theirs = select(files.c.id).where(files.c.content_id.in_(chunk))
            keywords.refresh(self._connection, self._connection.execute(theirs).scalars().all())

    def labels(self) -> Labelled:
        """The labels of every content that has any, the most relevant first."""
        query = select(labels.c.content_id, labels.c.label, labels.c.relevance).order_by(
            labels.c.content_id, labels.c.relevance.desc(), labels.c.label
        )
        found: dict[int, list[tuple[str, float]]] = {}
        with self.snapshot():
            for content_id, label, relevance in self._connection.execute(query):
                found.setdefault(content_id, []).append((label, relevance))
        return found

    def count_labelled(self) -> int:
        """How many files that are not gone have a label."""
        theirs = files.c.content_id.in_(select(labels.c.content_id))
        query = select(func.count()).select_from(files).where(files.c.gone_at.is_(None), theirs)
        with self.snapshot():
            return int(self._connection.execute(query).scalar_one())

    def files_with_contents(
        self, modality: Modality | None = None, filter: Filter | None = None
    ) -> Iterator[tuple[int, Modality, Path]]:
        """(content, modality, path) of the files that a filter lets through, by path."""
        query = _found(modality, filter).order_by(folders.c.path, files.c.name)
        with self.snapshot():
            for content_id, kind, folder, name in self._connection.execute(query):
                yield (
                    content_id,
                    member(Modality, kind),
                    Path(os.fsdecode(os.path.join(folder, name))),
                )


def _found(modality: Modality | None, filter: Filter | None) -> Select[Any]:
    """Files that are not gone and that a filter lets through, each once: its first item."""
    query = (
        select(contents.c.id, contents.c.modality, folders.c.path, files.c.name)
        .select_from(contents)
        .join(files, files.c.content_id == contents.c.id)
        .join(folders, folders.c.id == files.c.folder_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == 0))
        .where(files.c.gone_at.is_(None))
    )
    if modality is not None:
        query = query.where(contents.c.modality == modality)
    if filter is not None:
        from mmsearch.catalog.filters import expression  # most have none

        query = query.where(expression(filter))
    return query
