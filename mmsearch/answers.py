"""The items that answer a query: by their own vectors, their captions and their words.

Every score is standardised first: how many standard deviations it lies above what this query
scores with unrelated items of that modality. What an item's own vector, its captions and its
words say is fused into one value (mmsearch.ranking); what that is worth to the query as a
whole, mmsearch.fusion says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.catalog import Catalog
from mmsearch.catalog.keywords import expression
from mmsearch.embedding import Asked
from mmsearch.files import well_formed
from mmsearch.fusion import Fusion, Leaf, leaves, wanted, worth
from mmsearch.language import Query
from mmsearch.ranking import fuse
from mmsearch.records import Item, Kind, Modality
from mmsearch.space import Scored, Space

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Kinds, Scores, Vectors

# Candidates of each list (own vectors, captions, words), and how many times k at least. An
# item that is far down in all three cannot come first when they are fused.
_CANDIDATES = 200
_SPARE = 4

# Finalists beyond the k that are asked for: the last bits of a fast score, which depend on
# where a row lies, do not decide which of several equal pictures is among the k.
_FINALISTS = 16


class Hybrid(StrEnum):
    """AUTO: vectors, captions and words; OFF: the items' own vectors; ONLY: words."""

    AUTO = "auto"
    OFF = "off"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Question:
    """A query as it is to be answered. `asked` has its leaves in vectors, where there are any."""

    query: Query
    asked: dict[Leaf, Asked]
    fusion: Fusion = Fusion.SUM
    subtract: bool = False
    hybrid: Hybrid = Hybrid.AUTO
    modality: Modality | None = None
    kept: Filter | None = None

    @property
    def leaves(self) -> list[Leaf]:
        """What is scored, in the order of the rows of every array here."""
        return leaves(self.query, self.fusion, subtract=self.subtract)

    def worth(self, z: Scores) -> Scores:
        """(n,) values from (t, n) standardised scores with the leaves."""
        by_leaf = dict(zip(self.leaves, z, strict=True))
        return worth(self.query, by_leaf, self.fusion, subtract=self.subtract)


@dataclass(frozen=True, slots=True)
class Answer:
    """An item with its raw score, None without a vector, and its worth in deviations."""

    item: Item
    score: float | None
    worth: float


def answer(catalog: Catalog, space: Space, question: Question, k: int) -> list[Answer]:
    """The k best items, best first, then by vector and by item; those that are gone are left out.

    The filter chooses what is scored; it never cuts a list of answers.
    """
    many = max(_CANDIDATES, _SPARE * k)
    while True:
        candidates = _Candidates(catalog, space, question, many)
        found = candidates.best(k)
        if len(found) >= k or candidates.complete:
            return found
        many *= 4  # some stood for files that are gone, or were left out for another's sake


class _Candidates:
    """Items that may be among the best, with what their vectors, captions and words say."""

    def __init__(self, catalog: Catalog, space: Space, question: Question, many: int) -> None:
        self._catalog, self._space, self._question = catalog, space, question
        self._leaves = question.leaves
        self._many = many
        self._items: dict[int, Item] = {}
        self._own: dict[int, int] = {}  # by item, its own vector
        self._scored: Scored | None = None
        self._words: list[dict[int, float]] = [{} for _ in self._leaves]  # by leaf, by item
        self.complete = True  # whether there is nothing beyond these candidates
        if question.hybrid is not Hybrid.OFF:
            self._take_by_words()
        if question.asked and question.hybrid is not Hybrid.ONLY:
            self._take_by_vectors()

    def _take_by_words(self) -> None:
        q = self._question
        for leaf, fits in zip(self._leaves, self._words, strict=True):
            said = [well_formed(t.value) for t in leaf if isinstance(t.value, str) and t.weight > 0]
            if said and (asked := expression(said)):
                rows = self._catalog.items_by_words(asked, self._many, q.modality, q.kept)
                self.complete &= len(rows) < self._many
                for item, fit in rows:
                    self._items[item.id] = item
                    fits[item.id] = fit

    def _take_by_vectors(self) -> None:
        """The best by their own vectors for the query as a whole, and by captions for each leaf."""
        q, space = self._question, self._space
        self._asked = [q.asked[leaf] for leaf in self._leaves]
        queries = np.stack([asked.vector for asked in self._asked])
        scored = self._scored = space.scores(queries, space.among(q.kept, q.modality))
        self._z = standardised(scored.scores, scored.kinds, scored.hubness, self._asked)
        captions = scored.kinds == Kind.CAPTION
        own = ~captions if q.modality is None else scored.kinds == Kind[q.modality.name]
        near = self._nearest(np.where(own, q.worth(self._z), -np.inf))
        matches = self._catalog.matches(near, q.modality, q.kept)
        self._own = {match.item.id: match.vector_id for match in matches}
        # the others stand for files that are gone: what is looked for next has not to meet them
        space.hide(sorted(set(near) - set(self._own.values())))
        if q.hybrid is Hybrid.AUTO and captions.any():
            for z in self._z:
                near = self._nearest(np.where(captions, z, -np.inf))
                matches += self._catalog.captioned(near, q.modality, q.kept)
        self._items |= {match.item.id: match.item for match in matches}

    def _nearest(self, values: Scores) -> list[int]:
        """The ids of the vectors with the highest values, excluded ones left out."""
        assert self._scored is not None
        at = highest(values, self._many)
        self.complete &= len(at) < self._many
        near: list[int] = self._scored.ids[at].tolist()
        return near

    # -- the best of them --------------------------------------------------------------

    def best(self, k: int) -> list[Answer]:
        """The k best; the finalists are scored again from the catalog's own vectors."""
        ids = np.array(sorted(self._items), np.int64)
        words = np.full((len(self._leaves), len(ids)), np.nan, np.float32)
        for row, fits in zip(words, self._words, strict=True):
            row[np.searchsorted(ids, list(fits))] = list(fits.values())
        own, captions = self._of_vectors(ids)
        at = highest(self._value(own, captions, words), k + _FINALISTS)
        ids, own, captions, words = ids[at], own[:, at], captions[:, at], words[:, at]
        raw = self._again(ids, own)
        worths = self._value(own, captions, words)
        ranked = sorted(
            (-float(value), self._own.get(id, 0), id, score)
            for id, value, score in zip(ids.tolist(), worths, raw, strict=True)
            if np.isfinite(value)
        )
        return [Answer(self._items[id], score, -value) for value, _, id, score in ranked[:k]]

    def _value(self, own: Scores, captions: Scores, words: Scores) -> Scores:
        """(m,) what the items are worth; -inf for one of which nothing is known."""
        fused = fuse(own, captions, words)
        return self._question.worth(np.where(np.isnan(fused), np.float32(-np.inf), fused))

    def _of_vectors(self, ids: Ids) -> tuple[Scores, Scores]:
        """(t, m) standardised scores of items' own vectors, and the highest of their captions."""
        own = np.full((len(self._leaves), len(ids)), np.nan, np.float32)
        captions = own.copy()
        if (scored := self._scored) is None:
            return own, captions
        missing = [id for id in ids.tolist() if id not in self._own]
        self._own |= self._catalog.vectors_of_items(self._space.id, missing)
        pairs = [(id, self._own[id]) for id in ids.tolist() if id in self._own]
        self._fill(own, ids, pairs)
        if self._question.hybrid is Hybrid.AUTO and (scored.kinds == Kind.CAPTION).any():
            said = self._catalog.captions_of_items(self._space.id, ids.tolist())
            self._fill(captions, ids, said)
        return own, captions

    def _fill(self, values: Scores, ids: Ids, pairs: Sequence[tuple[int, int]]) -> None:
        """Put the z of (item, vector) pairs where their items are; the highest of several."""
        assert self._scored is not None
        if not pairs:
            return
        items, vectors = np.array(pairs, np.int64).T
        at = np.searchsorted(self._scored.ids, vectors).clip(max=len(self._scored.ids) - 1)
        there = self._scored.ids[at] == vectors
        columns = np.searchsorted(ids, items[there])
        for row, z in zip(values, self._z, strict=True):
            np.fmax.at(row, columns, z[at[there]])

    def _again(self, ids: Ids, own: Scores) -> list[float | None]:
        """Put exact scores in the place of fast ones; the raw score of each item, if any."""
        if self._scored is None:
            return [None] * len(ids)
        whole = wanted_row(self._question)
        queries = np.stack([*(asked.vector for asked in self._asked), whole])
        vectors = sorted({self._own[id] for id in ids.tolist() if id in self._own})
        found, scores = self._space.exact(queries, vectors)
        at = np.searchsorted(self._scored.ids, found)
        kinds, hubness = self._scored.kinds[at], self._scored.hubness[at]
        z = standardised(scores[:-1], kinds, hubness, self._asked)
        place = {vector: number for number, vector in enumerate(found.tolist())}
        raw: list[float | None] = []
        for column, id in enumerate(ids.tolist()):
            number = place.get(self._own.get(id, -1))
            raw.append(None if number is None else float(scores[-1, number]))
            if number is not None:
                own[:, column] = z[:, number]
        return raw


def standardised(scores: Scores, kinds: Kinds, hubness: Scores, asked: Sequence[Asked]) -> Scores:
    """(t, n) scores as deviations above what each of t parts scores with unrelated items.

    Hubness is taken off where words meet pictures: there it helps, elsewhere it hurts. Where
    the encoder knows no background for something that is there, scores stay as they are.
    """
    there = [Kind(int(number)) for number in np.flatnonzero(np.bincount(kinds))]
    if not all(kind.modality in part.background for part in asked for kind in there):
        return scores
    figures = np.array(
        [[part.background.get(kind.modality, (0, 1)) for kind in Kind] for part in asked],
        np.float32,
    )
    words = np.array([[part.kinds == {Modality.TEXT}] for part in asked], np.float32)
    if len(there) == 1:  # as in most libraries: no need to look up each row's figures
        mean, deviation = figures[:, there[0], 0, None], figures[:, there[0], 1, None]
    else:
        mean, deviation = figures[:, kinds, 0], figures[:, kinds, 1]
    z: Scores = (scores - words * hubness - mean) / deviation
    return z


def highest(values: Scores, k: int) -> NDArray[np.int64]:
    """Where the k highest of (n,) values are, highest first, equal ones from left to right.

    -inf is never among them.
    """
    at = np.arange(len(values))
    if k < len(values):
        at = np.flatnonzero(values >= np.partition(values, -k)[-k])
    at = at[values[at] > -np.inf]
    order: NDArray[np.int64] = at[np.lexsort((at, -values[at]))][:k]
    return order


def wanted_row(question: Question) -> Vectors:
    """(dim,) the renormalised mean of the vectors of what is wanted."""
    mine = wanted(question.query, question.fusion, subtract=question.subtract)
    total = np.sum([question.asked[leaf].vector for leaf in mine], axis=0)
    length = float(np.linalg.norm(total))
    row: Vectors = total / np.float32(length) if len(mine) > 1 and length > 1e-6 else total
    return row
