"""The items that answer a query: by their own vectors, their captions and their words.

Every score is standardised first: how many standard deviations it lies above what this query
scores with unrelated items of that modality. What an item's own vector, its captions and its
words say is fused into one value (mmsearch.ranking); what that is worth to the query as a
whole, mmsearch.fusion says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmsearch.catalog import Catalog, Match
from mmsearch.embedding import Asked
from mmsearch.files import well_formed
from mmsearch.fusion import Fusion, Leaf, leaves, wanted, worth
from mmsearch.language import Query
from mmsearch.ranking import fuse
from mmsearch.records import Kind, Modality
from mmsearch.space import Scored, Space, evenly

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mmsearch.filters import Filter
    from mmsearch.records import Ids, Scores, Vectors
    from mmsearch.relevance import Calibrator

# Candidates of each list (own vectors, captions, words), and how many times k at least. An
# item that is far down in all three cannot come first when they are fused.
_CANDIDATES = 64
_SPARE = 4

# Finalists beyond the k that are asked for: the last bits of a fast score, which depend on
# where a row lies, do not decide which of several equal pictures is among the k.
_FINALISTS = 16

_GROUP = 64  # values of which the highest stands for all when the k highest are looked for

# The deviation of scores with unrelated items where an encoder does not say: about that of CLIP.
_UNKNOWN = 0.05

Found = TypeVar("Found", dict[int, str], list[Match])


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

    @property
    def by_vectors(self) -> bool:
        """Whether vectors are looked at, not words alone."""
        return bool(self.asked) and self.hybrid is not Hybrid.ONLY

    @property
    def whole(self) -> Vectors:
        """(dim,) the renormalised mean of the vectors of what is wanted."""
        mine = wanted(self.query, self.fusion, subtract=self.subtract)
        total = np.sum([self.asked[leaf].vector for leaf in mine], axis=0)
        length = float(np.linalg.norm(total))
        row: Vectors = total / np.float32(length) if len(mine) > 1 and length > 1e-6 else total
        return row

    def worth(self, z: Scores, *, exclude: bool = True) -> Scores:
        """(n,) values from (t, n) standardised scores with the leaves, or from relevances."""
        by_leaf = dict(zip(self.leaves, z, strict=True))
        return worth(self.query, by_leaf, self.fusion, subtract=self.subtract, exclude=exclude)


@dataclass(frozen=True, slots=True)
class Answer:
    """An item with its raw score, None without a vector, and what it is worth in deviations.

    `relevance` is None where nothing is calibrated, `vector_id` where it has no vector.
    """

    item_id: int
    score: float | None
    worth: float
    relevance: float | None = None
    vector_id: int | None = None


def score(space: Space, questions: Sequence[Question]) -> list[Scored | None]:
    """Every vector's scores with the leaves of each question, all in one product; None for one
    that asks for words alone.

    The questions have the same filter, or the first one's counts.
    """
    parts = [[q.asked[leaf].vector for leaf in q.leaves] if q.by_vectors else [] for q in questions]
    if not any(parts):
        return [None] * len(questions)
    first = questions[0]
    rows = np.stack([vector for vectors in parts for vector in vectors])
    scored = space.scores(rows, space.among(first.kept))
    found: list[Scored | None] = []
    start = 0
    for vectors in parts:
        mine = scored.scores[start : start + len(vectors)]
        found.append(replace(scored, scores=mine) if vectors else None)
        start += len(vectors)
    return found


def answer(
    catalog: Catalog,
    space: Space,
    question: Question,
    scored: Scored | None,
    k: int,
    calibrator: Calibrator | None = None,
) -> list[Answer]:
    """The k best items, best first; those that are gone are left out.

    Items of one modality are ordered by what they are worth, then by vector and by item;
    those of several by relevance where it is calibrated. The filter chooses what is scored;
    it never cuts a list of answers.
    """
    candidates = _Candidates(catalog, space, question, scored)
    many = max(_CANDIDATES, _SPARE * k)
    while True:
        complete = candidates.take(many)
        found = candidates.best(k, calibrator)
        if len(found) >= k or complete:
            return found[:k]
        many *= 4  # some stood for files that are gone, or were left out for another's sake


class _Candidates:
    """Items that may be among the best, with what their vectors, captions and words say.

    Arrays are (t, m): t leaves of the query, m items.
    """

    def __init__(
        self, catalog: Catalog, space: Space, question: Question, scored: Scored | None
    ) -> None:
        self._catalog, self._space, self._question = catalog, space, question
        self._leaves, self._scored = question.leaves, scored
        self._items = space.standing(question.kept)
        self._kinds: dict[int, str] = {}  # the modality of each item
        self._own: dict[int, int] = {}  # by item, its own vector
        self._complete = True
        self._words = [self._of_words(leaf) for leaf in self._leaves]
        if scored is not None:
            self._asked = [question.asked[leaf] for leaf in self._leaves]
            only = question.modality
            captions = scored.kinds == Kind.CAPTION
            mine = ~captions if only is None else scored.kinds == Kind[only.name]
            there = np.flatnonzero(np.bincount(scored.kinds[mine | captions])).tolist()
            self._standard = _Standard(self._asked, [Kind(number) for number in there])
            self._z = self._standard.of(scored)
            # a picture asks for pictures: its own copy first, whatever that is called
            self._by_words = np.array([asked.kind is Modality.TEXT for asked in self._asked])
            # where items and captions are among the vectors: what is sought is sought there
            self._mine, self._captions = np.flatnonzero(mine), np.flatnonzero(captions)
            self._worth = question.worth(self._z[:, self._mine])

    def take(self, many: int) -> bool:
        """Take the best of each list; True when there is nothing beyond them."""
        self._complete = True
        self._take_by_words(many)
        if self._scored is not None:
            self._take_by_vectors(self._scored, many)
        return self._complete

    def _of_words(self, leaf: Leaf) -> tuple[Ids, Scores]:
        """(n,) the items that have some of a leaf's words, rising, and (n,) how well they fit."""
        q = self._question
        said = [well_formed(t.value) for t in leaf if isinstance(t.value, str) and t.weight > 0]
        thorough = q.hybrid is Hybrid.ONLY or self._scored is None
        asked = [] if q.hybrid is Hybrid.OFF else said
        return self._catalog.fits_by_words(asked, thorough=thorough)

    def _take_by_words(self, many: int) -> None:
        q = self._question
        for ids, fits in self._words:

            def there(near: Ids, ids: Ids = ids) -> dict[int, str]:
                return self._items.kinds_of(ids[near].tolist(), q.modality, q.kept)

            self._kinds |= self._enough(fits, many, there)

    def _enough(self, values: Scores, many: int, there: Callable[[Ids], Found]) -> Found:
        """What is there of the highest values: `many` of it, however far down, or all there is.

        `there` looks up where the highest are; a filter or a modality may leave little of it.
        """
        size = many
        while True:
            near = highest(values, size)
            found = there(near)
            if len(near) < size:
                return found
            if len(found) >= many:
                self._complete = False
                return found
            size *= 4

    def _take_by_vectors(self, scored: Scored, many: int) -> None:
        """The best by their own vectors for the query as a whole, and by captions for each leaf."""
        q = self._question
        near = highest(self._worth, many)
        ids = scored.ids[self._mine[near]]
        matches = self._items.matches(ids.tolist(), q.modality, q.kept)
        self._own |= {match.item_id: match.vector_id for match in matches}
        # the others stand for files that are gone: what is looked for next has not to meet them
        dead = ~np.isin(ids, [match.vector_id for match in matches])
        self._worth[near[dead]] = -np.inf
        self._space.hide(ids[dead].tolist())
        self._complete &= len(near) < many
        if q.hybrid is Hybrid.AUTO and len(self._captions):
            said = scored.ids[self._captions]

            def there(near: Ids) -> list[Match]:
                return self._items.captioned(said[near].tolist(), q.modality, q.kept)

            for z in self._z[self._by_words]:
                matches += self._enough(z[self._captions], many, there)
        self._kinds |= {match.item_id: match.modality for match in matches}

    # -- the best of them --------------------------------------------------------------

    def best(self, k: int, calibrator: Calibrator | None) -> list[Answer]:
        """The k best of each modality, in one list, scored again from the catalog's own vectors."""
        ids = np.array(sorted(self._kinds), np.int64)
        words = np.full((len(self._leaves), len(ids)), np.nan, np.float32)
        for row, (items, fits) in zip(words, self._words, strict=True):
            _, at, where = np.intersect1d(ids, items, assume_unique=True, return_indices=True)
            row[at] = fits[where]
        own, captions = self._of_vectors(ids)
        _, worth = self._value(own, captions, words)
        kinds = np.array([self._kinds[id] for id in ids.tolist()])
        found: list[Answer] = []
        for kind in Modality:
            mine = highest(np.where(kinds == kind, worth, np.float32(-np.inf)), k + _FINALISTS)
            if not len(mine):
                continue
            evidence = own[:, mine], captions[:, mine], words[:, mine]
            found += self._exactly(kind, ids[mine], *evidence, calibrator)[:k]
        return sorted(found, key=_order)

    def _exactly(
        self,
        kind: Modality,
        ids: Ids,
        own: Scores,
        captions: Scores,
        words: Scores,
        calibrator: Calibrator | None,
    ) -> list[Answer]:
        """Finalists of one modality in their order, from the catalog's own, checked vectors."""
        raw = self._again(ids, own)
        z, worth = self._value(own, captions, words)
        vectors = [self._own.get(id) for id in ids.tolist()]
        order = np.lexsort((ids, np.array([vector or 0 for vector in vectors]), -worth))
        order = order[np.isfinite(worth[order])]
        relevances = self._relevance(kind, ids[order].tolist(), z[:, order], calibrator)
        return [
            Answer(int(ids[at]), raw[at], float(worth[at]), relevance, vectors[at])
            for at, relevance in zip(order.tolist(), relevances, strict=True)
        ]

    def _relevance(
        self, kind: Modality, ids: Sequence[int], z: Scores, calibrator: Calibrator | None
    ) -> Sequence[float | None]:
        """How likely each of these is what was asked for; never rising from one to the next."""
        if calibrator is None or self._scored is None or not ids:
            return [None] * len(ids)
        found = []
        for asked, scores, hits in zip(
            self._asked, self._background(self._scored, Kind[kind.name]), z, strict=True
        ):
            vector = self._own.get(ids[int(hits.argmax())])
            _, rows = self._catalog.vectors_of([vector] if vector else [])
            found.append(
                calibrator.relevance(
                    asked.kind, kind, query=asked.vector, scores=scores, hits=hits,
                    best=rows[0] if len(rows) else asked.vector,
                )
            )  # fmt: skip
        together = self._question.worth(np.stack(found), exclude=False)
        falling: list[float] = np.minimum.accumulate(together).tolist()
        return falling

    def _background(self, scored: Scored, kind: Kind) -> Scores:
        """(t, b) standardised scores of some items of one kind, whatever the filter."""
        if self._question.kept is None:
            return self._z[:, evenly(np.flatnonzero(scored.kinds == kind))]
        queries = np.stack([asked.vector for asked in self._asked])
        return self._standard.of(self._space.background(queries, kind))

    def _value(self, own: Scores, captions: Scores, words: Scores) -> tuple[Scores, Scores]:
        """(t, m) fused evidence, and (m,) what the items are worth; -inf: nothing is known."""
        fused = fuse(own, captions, words)
        fused = np.where(np.isnan(fused), np.float32(-np.inf), fused)
        return fused, self._question.worth(fused)

    def _of_vectors(self, ids: Ids) -> tuple[Scores, Scores]:
        """(t, m) standardised scores of items' own vectors, and the highest of their captions."""
        own = np.full((len(self._leaves), len(ids)), np.nan, np.float32)
        captions = own.copy()
        if self._scored is None:
            return own, captions
        missing = [id for id in ids.tolist() if id not in self._own]
        self._own |= self._items.vectors_of_items(self._space.id, missing)
        pairs = [(id, self._own[id]) for id in ids.tolist() if id in self._own]
        self._fill(own, ids, pairs, self._scored)
        if self._question.hybrid is Hybrid.AUTO and len(self._captions):
            said = self._items.captions_of_items(self._space.id, ids.tolist())
            self._fill(captions, ids, said, self._scored)
            captions[~self._by_words] = np.nan
        return own, captions

    def _fill(
        self, values: Scores, ids: Ids, pairs: Sequence[tuple[int, int]], scored: Scored
    ) -> None:
        """Put the z of (item, vector) pairs where their items are; the highest of several."""
        if not pairs:
            return
        items, vectors = np.array(pairs, np.int64).T
        at = np.searchsorted(scored.ids, vectors).clip(max=len(scored.ids) - 1)
        there = scored.ids[at] == vectors
        columns = np.searchsorted(ids, items[there])
        for row, z in zip(values, self._z, strict=True):
            np.fmax.at(row, columns, z[at[there]])

    def _again(self, ids: Ids, own: Scores) -> list[float | None]:
        """Put exact scores in the place of fast ones; the raw score of each item, if any."""
        if self._scored is None:
            return [None] * len(ids)
        queries = np.stack([*(asked.vector for asked in self._asked), self._question.whole])
        vectors = sorted({self._own[id] for id in ids.tolist() if id in self._own})
        found, scores = self._space.exact(queries, vectors)
        at = np.searchsorted(self._scored.ids, found)
        finalists = Scored(found, scores[:-1], self._scored.kinds[at], self._scored.hubness[at])
        z = self._standard.of(finalists)
        place = {vector: number for number, vector in enumerate(found.tolist())}
        raw: list[float | None] = []
        for column, id in enumerate(ids.tolist()):
            number = place.get(self._own.get(id, -1))
            raw.append(None if number is None else float(scores[-1, number]))
            if number is not None:
                own[:, column] = z[:, number]
        return raw


def _order(one: Answer) -> tuple[float, float, int, int]:
    """By relevance, if there is any, and what is worth more; then by vector and by item."""
    return (-(one.relevance or 0.0), -one.worth, one.vector_id or 0, one.item_id)


class _Standard:
    """What t parts of a query score with unrelated items, by what these are.

    `there` are the kinds that are compared. Where the encoder knows no background for one of
    them, none is used for any, and scores are only brought to about the scale of deviations:
    their order, over all kinds, is that of the scores alone.
    """

    def __init__(self, asked: Sequence[Asked], there: Sequence[Kind]) -> None:
        known = all(kind.modality in part.background for part in asked for kind in there)
        nothing = (0.0, _UNKNOWN)
        figures = [
            [part.background.get(kind.modality, nothing) if known else nothing for kind in Kind]
            for part in asked
        ]
        self._mean, self._deviation = np.moveaxis(np.array(figures, np.float32), 2, 0)
        self._words = np.array([[part.kind is Modality.TEXT] for part in asked], np.float32)

    def of(self, scored: Scored) -> Scores:
        """(t, n) scores as deviations above what unrelated items score.

        Hubness is taken off where words meet pictures, and is 0 for all that are none: there
        it helps, elsewhere it hurts.
        """
        first = scored.kinds[0] if len(scored.kinds) else Kind.IMAGE
        alike = bool((scored.kinds == first).all())  # as in most libraries: figures are few
        kinds = np.array([first]) if alike else scored.kinds
        z: Scores = scored.scores - self._words * scored.hubness
        z -= self._mean.take(kinds, 1)
        z /= self._deviation.take(kinds, 1)
        return z


def highest(values: Scores, k: int) -> NDArray[np.int64]:
    """Where the k highest of (n,) values are, highest first, equal ones from left to right.

    -inf is never among them.
    """
    at = np.arange(len(values))
    if k < len(values):
        # k groups have a highest value of at least that of the k-th: so have k values, and few more
        groups = len(values) // _GROUP
        some = values[: groups * _GROUP].reshape(groups, -1).max(axis=1) if groups >= k else values
        at = np.flatnonzero(values >= np.partition(some, -k)[-k])
    at = at[values[at] > -np.inf]
    order: NDArray[np.int64] = at[np.lexsort((at, -values[at]))][:k]
    return order
