"""Items: what vectors and words stand for now, as far as a filter lets it through."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Select, bindparam, select, union

from mmsearch.catalog import keywords
from mmsearch.catalog.session import Session, chunks
from mmsearch.catalog.tables import captions, contents, files, folders, items, parts, vectors
from mmsearch.records import Item, Modality

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Scores

# made once: building a statement costs a warm query more than running it
_AMONG = vectors.c.id.in_(bindparam("ids", expanding=True))
_ITEM = (
    items.c.id, items.c.part, folders.c.path, files.c.name, items.c.modality, items.c.start,
    items.c.end,
)  # fmt: skip
_THESE = items.c.id.in_(bindparam("items", expanding=True))
_OWN = (
    select(items.c.id, vectors.c.id)
    .join(files, files.c.id == items.c.file_id)
    .join(vectors, (vectors.c.content_id == files.c.content_id) & (vectors.c.part == items.c.part))
    .where(vectors.c.space_id == bindparam("space"), _THESE)
)
_CAPTIONS = (
    select(items.c.id, vectors.c.id)
    .join(captions, (captions.c.file_id == items.c.file_id) & (items.c.part == 0))
    .join(vectors, vectors.c.content_id == captions.c.content_id)
    .where(vectors.c.space_id == bindparam("space"), _THESE)
)


@dataclass(frozen=True, slots=True)
class Match:
    """An item that a vector, or a caption's, stands for. Copies are several items of one."""

    vector_id: int
    item: Item


class Items(Session):
    """What is found: items joined with their files, contents, captions and vectors."""

    def vector_ids(
        self, space_id: int, filter: Filter | None = None, modality: Modality | None = None
    ) -> Ids:
        """The space's vectors of items that the filter lets through, and of their captions."""
        query = union(
            *(
                found.with_only_columns(vectors.c.id).where(vectors.c.space_id == space_id)
                for found in (matching(modality, filter), _captioned(modality, filter))
            )
        )
        with self.snapshot():
            return np.sort(np.fromiter(self._connection.execute(query).scalars(), np.int64))

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
        query = matching(modality, filter).where(_AMONG)
        with self.snapshot():
            for chunk in chunks(vector_ids):
                for id, *item in self._connection.execute(query, {"ids": chunk}):
                    found.append(Match(id, _item(item)))
        return found

    def captioned(
        self,
        vector_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Match]:
        """The items whose captions these vectors are: the first of each file, as in `matches`."""
        found: list[Match] = []
        query = _captioned(modality, filter).where(_AMONG)
        with self.snapshot():
            for chunk in chunks(vector_ids):
                for id, *item in self._connection.execute(query, {"ids": chunk}):
                    found.append(Match(id, _item(item)))
        return found

    def vectors_of_items(self, space_id: int, item_ids: Sequence[int]) -> dict[int, int]:
        """By item, the id of its own vector, as far as the space has one."""
        return dict(self._vectors_of(_OWN, space_id, item_ids))

    def captions_of_items(self, space_id: int, item_ids: Sequence[int]) -> list[tuple[int, int]]:
        """(item, id of a caption's vector) for each caption of these items."""
        return self._vectors_of(_CAPTIONS, space_id, item_ids)

    def _vectors_of(
        self, query: Select[Any], space_id: int, item_ids: Sequence[int]
    ) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        with self.snapshot():
            for chunk in chunks(item_ids):
                rows = self._connection.execute(query, {"space": space_id, "items": chunk})
                found += [(item_id, vector_id) for item_id, vector_id in rows]
        return found

    def fits_by_words(self, texts: Sequence[str], *, thorough: bool = False) -> tuple[Ids, Scores]:
        """Which items fit the words of these texts, and how well: see keywords.fits."""
        with self.snapshot():
            return keywords.fits(self._connection, texts, thorough=thorough)

    def items_of(
        self,
        item_ids: Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Item]:
        """Those of these items that are not gone and that the filter lets through."""
        found: list[Item] = []
        query = _these(modality, filter)
        with self.snapshot():
            for chunk in chunks(item_ids):
                rows = self._connection.execute(query, {"items": chunk})
                found += [_item(row) for row in rows]
        return found

    def items_by_words(
        self,
        texts: Sequence[str],
        k: int,
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[tuple[Item, float]]:
        """The k items that fit the words of these texts best, and how well (keywords.fits)."""
        found: list[tuple[Item, float]] = []
        with self.snapshot():
            ids, fits = self.fits_by_words(texts, thorough=True)
            fit_of = dict(zip(ids.tolist(), fits.tolist(), strict=True))
            for chunk in chunks(ids[np.lexsort((ids, -fits))].tolist()):
                there = {item.id: item for item in self.items_of(chunk, modality, filter)}
                found += [(there[id], fit_of[id]) for id in chunk if id in there]
                if len(found) >= k:
                    break
        return found[:k]

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


@functools.lru_cache(maxsize=16)
def matching(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(vectors.c.id, *_ITEM)
        .join(files, files.c.content_id == vectors.c.content_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == vectors.c.part))
    )
    return _filtered(query, modality, filter)


@functools.lru_cache(maxsize=16)
def _these(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = select(*_ITEM).join(files, files.c.id == items.c.file_id).where(_THESE)
    return _filtered(query, modality, filter)


@functools.lru_cache(maxsize=16)
def _captioned(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(vectors.c.id, *_ITEM)
        .join(captions, captions.c.content_id == vectors.c.content_id)
        .join(files, files.c.id == captions.c.file_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == 0))
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
