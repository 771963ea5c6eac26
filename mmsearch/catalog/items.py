"""Items: what vectors and words stand for now, as far as a filter lets it through."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Row, Select, bindparam, case, func, select

from mmsearch.catalog import keywords
from mmsearch.catalog.session import Session, member
from mmsearch.catalog.standing import KINDS, Matches, Standing
from mmsearch.catalog.tables import captions, contents, files, folders, items, vectors
from mmsearch.records import Item, Modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Kinds, Scores


def _any_of(column: Any, name: str) -> Any:
    """`column` is one of a JSON list: one parameter, whose statement is compiled but once."""
    return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))


# made once: building a statement costs a warm query more than running it
_AMONG = _any_of(vectors.c.id, "ids")
_THESE = _any_of(items.c.id, "items")
_ITEM = (
    items.c.id, items.c.part, folders.c.path, files.c.name, items.c.modality, items.c.start,
    items.c.end,
)  # fmt: skip
_NUMBER = case({str(kind): int(number) for kind, number in KINDS.items()}, value=items.c.modality)
_FOUND = (vectors.c.id, items.c.id, _NUMBER)
_OWN = (
    select(items.c.id, vectors.c.id)
    .join(files, files.c.id == items.c.file_id)
    .join(vectors, (vectors.c.content_id == files.c.content_id) & (vectors.c.part == items.c.part))
    .where(vectors.c.space_id == bindparam("space"), _THESE)
    .order_by(items.c.id)
)
_CAPTIONS = (
    select(items.c.id, vectors.c.id)
    .join(captions, (captions.c.file_id == items.c.file_id) & (items.c.part == 0))
    .join(vectors, vectors.c.content_id == captions.c.content_id)
    .where(vectors.c.space_id == bindparam("space"), _THESE)
)


class Items(Session):
    """What is found: items joined with their files, contents, captions and vectors.

    Where a filter or a modality is given, what it does not let through is left out, and what
    is gone always is; of several copies of a picture each is judged alone.
    """

    def matches(
        self,
        vector_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> Matches:
        """The items that these vectors stand for now."""
        return self._found(_matching(modality, filter).where(_AMONG), vector_ids)

    def captioned(
        self,
        vector_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> Matches:
        """The items whose captions these vectors are: the first of each file."""
        return self._found(_captioned(modality, filter).where(_AMONG), vector_ids)

    def _found(self, query: Select[Any], vector_ids: Ids | Sequence[int]) -> Matches:
        found = self._rows(query, {"ids": _listed(vector_ids)}, 3)
        return Matches(found[:, 0], found[:, 1], found[:, 2].astype(np.uint8))

    def vectors_of_items(self, space_id: int, item_ids: Ids | Sequence[int]) -> tuple[Ids, Ids]:
        """Items, rising, and their own vectors, as far as the space has any: (n,) each."""
        return self._vectors_of(_OWN, space_id, item_ids)

    def captions_of_items(self, space_id: int, item_ids: Ids | Sequence[int]) -> tuple[Ids, Ids]:
        """An item and a caption's vector for each caption of these items: (n,) each."""
        return self._vectors_of(_CAPTIONS, space_id, item_ids)

    def _vectors_of(
        self, query: Select[Any], space_id: int, item_ids: Ids | Sequence[int]
    ) -> tuple[Ids, Ids]:
        found = self._rows(query, {"space": space_id, "items": _listed(item_ids)}, 2)
        return found[:, 0], found[:, 1]

    def _rows(self, query: Select[Any], bound: dict[str, Any], columns: int) -> NDArray[np.int64]:
        with self.snapshot():
            rows = [tuple(row) for row in self._connection.execute(query, bound)]
        return np.array(rows, np.int64).reshape(-1, columns)

    def standing(self, space_id: int, filter: Filter | None = None) -> Standing:
        """What the filter lets through of all of this, in memory: some 40 bytes an item."""
        own = (
            select(func.coalesce(vectors.c.id, 0), items.c.id, _NUMBER)
            .join(files, files.c.id == items.c.file_id)
            .outerjoin(
                vectors,
                (vectors.c.content_id == files.c.content_id)
                & (vectors.c.part == items.c.part)
                & (vectors.c.space_id == space_id),
            )
        )
        said = _captioned(None, filter).where(vectors.c.space_id == space_id)
        said = said.with_only_columns(vectors.c.id, items.c.id)
        with self.snapshot():
            queries = (_filtered(own, None, filter), said)
            found = [self._connection.execute(query).all() for query in queries]
        return Standing(
            np.array(found[0], np.int64).reshape(-1, 3), np.array(found[1], np.int64).reshape(-1, 2)
        )

    def fits_by_words(self, texts: Sequence[str], *, thorough: bool = False) -> tuple[Ids, Scores]:
        """Which items fit the words of these texts, and how well: see keywords.fits."""
        return self.all_that_fit([texts], thorough=thorough)[0]

    def all_that_fit(
        self,
        questions: Sequence[Sequence[str]],
        *,
        thorough: bool = False,
        known: keywords.Phrases | None = None,
    ) -> list[tuple[Ids, Scores]]:
        """Of each question, some texts, which items fit its words, and how well."""
        with self.snapshot():
            return keywords.fits(self._connection, questions, thorough=thorough, known=known)

    def kinds_of(
        self,
        item_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> tuple[Ids, Kinds]:
        """Those of these items that are there, and their kinds: (n,) each."""
        found = [(row.id, KINDS[row.modality]) for row in self._items(item_ids, modality, filter)]
        items, kinds = np.array(found, np.int64).reshape(-1, 2).T
        return items, kinds.astype(np.uint8)

    def items_of(
        self,
        item_ids: Ids | Sequence[int],
        modality: Modality | None = None,
        filter: Filter | None = None,
    ) -> list[Item]:
        """Those of these items that are there."""
        return [_item(row) for row in self._items(item_ids, modality, filter)]

    def _items(
        self, item_ids: Ids | Sequence[int], modality: Modality | None, filter: Filter | None
    ) -> Sequence[Row[Any]]:
        with self.snapshot():
            bound = {"items": _listed(item_ids)}
            return self._connection.execute(_these(modality, filter), bound).all()


@functools.lru_cache(maxsize=16)
def _matching(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(*_FOUND)
        .join(files, files.c.content_id == vectors.c.content_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == vectors.c.part))
    )
    return _filtered(query, modality, filter)


@functools.lru_cache(maxsize=16)
def _these(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = select(*_ITEM).join(files, files.c.id == items.c.file_id).where(_THESE)
    if filter is None:  # else it is joined for the filter
        query = query.join(folders, folders.c.id == files.c.folder_id)
    return _filtered(query, modality, filter)


@functools.lru_cache(maxsize=16)
def _captioned(modality: Modality | None, filter: Filter | None = None) -> Select[Any]:
    query = (
        select(*_FOUND)
        .join(captions, captions.c.content_id == vectors.c.content_id)
        .join(files, files.c.id == captions.c.file_id)
        .join(items, (items.c.file_id == files.c.id) & (items.c.part == 0))
    )
    return _filtered(query, modality, filter)


def _filtered(query: Select[Any], modality: Modality | None, filter: Filter | None) -> Select[Any]:
    """Those of these items that are not gone and that the filter lets through."""
    query = query.where(files.c.gone_at.is_(None))
    if modality is not None:
        query = query.where(items.c.modality == modality)
    if filter is not None:
        from mmsearch.catalog.filters import expression  # most queries have none

        query = query.join(contents, contents.c.id == files.c.content_id)
        query = query.join(folders, folders.c.id == files.c.folder_id).where(expression(filter))
    return query


def _listed(ids: Ids | Sequence[int]) -> str:
    return json.dumps(np.asarray(ids, np.int64).tolist())


def _item(row: Sequence[Any]) -> Item:
    id, part, folder, name, kind, start, end = row
    path = Path(os.fsdecode(os.path.join(folder, name)))
    return Item(id, path, member(Modality, kind), part, start, end)
