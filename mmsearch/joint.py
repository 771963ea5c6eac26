"""Several spaces asked at once, and their lists of hits made into one.

A space speaks for the items that it has a vector of. Lists are joined by rank, whose sums are
divided by how many of the spaces know an item: what one encoder alone can read, such as a sound
beside pictures, would be buried otherwise below what several can. Where every list has a relevance,
which compares across models, they are joined by that. A hit has the score that it has in the space
that ranks it highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mmsearch.answers import Hybrid, Question
from mmsearch.bridging import in_words, neighbours
from mmsearch.catalog import Catalog
from mmsearch.embedding import kind_of
from mmsearch.encoders import Encoder
from mmsearch.errors import UsageError
from mmsearch.hits import Hits
from mmsearch.language import Query, Term, checked, terms_of
from mmsearch.ranking import reciprocal_rank_fusion
from mmsearch.records import Hit, Modality
from mmsearch.search import How, Search, batched, told, unrated

if TYPE_CHECKING:
    from mmsearch.records import Vectors

K = 5  # of the ranks: a low one lets the first places of each list decide (see ranking)
_DEPTH = 64  # hits of each space that are looked at, at least

_Found = TypeVar("_Found")

_MANY = {Modality.IMAGE: "pictures", Modality.AUDIO: "sounds", Modality.TEXT: "texts"}


@dataclass(frozen=True, slots=True)
class _Part:
    """What one space is asked of a query, and for which kinds of items."""

    search: Search
    query: Query
    kinds: frozenset[Modality]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A part of a query, encoded."""

    search: Search
    question: Question


class Joint:
    """One library's catalog and several of its spaces, asked together; see `Search`."""

    def __init__(self, catalog: Catalog, searches: Sequence[Search], how: How) -> None:
        self._catalog, self._searches, self._how = catalog, searches, how

    def run(self, queries: Sequence[Query]) -> Iterator[Hits]:
        """The answers to each query, in order. Raises UsageError, LoadError, LibraryDamaged."""
        for query in queries:
            checked(query)
        for block in batched(queries):
            yield from self._block(block)

    def _block(self, queries: Sequence[Query]) -> Iterator[Hits]:
        plans = [self._plan(query) for query in queries]
        by_space: list[dict[int, _Asked]] = [{} for _ in plans]
        for search in self._searches:
            mine = [
                (number, part)
                for number, (parts, _) in enumerate(plans)
                for part in parts
                if part.search is search
            ]
            questions = search.questions([part.query for _, part in mine])
            for (number, part), question in zip(mine, questions, strict=True):
                found = _Asked(search, replace(question, kinds=part.kinds))
                by_space[number][search.space.id] = found
        # in the plan's order: of equal ranks the first counts
        asked = [_ordered(parts, some) for (parts, _), some in zip(plans, by_space, strict=True)]
        with self._catalog.snapshot():
            answers = self._hits(asked)
        for query, parts, hits, (_, notes) in zip(queries, asked, answers, plans, strict=True):
            rated = any(part.search.rates for part in parts)
            said = [*notes, *unrated([part.search for part in parts], hits, self._how)]
            yield told(query, _explained(parts, hits), self._how, rated, said)

    # -- who is asked what -------------------------------------------------------------

    def _plan(self, query: Query) -> tuple[list[_Part], list[str]]:
        """Every space that reads all of a query; after them, for what these have no vectors of,
        those that can be asked in words.
        """
        if self._how.hybrid is Hybrid.ONLY:  # words are the catalog's, whatever the space
            return [_Part(self._searches[0], query, frozenset(Modality))], []
        kinds = {term: kind_of(term) for term in terms_of(query)}
        reading = [s for s in self._searches if set(kinds.values()) <= _reads(s)]
        parts = [_Part(search, query, _reads(search)) for search in reading]
        covered = frozenset().union(*(part.kinds for part in parts))
        wanted = frozenset(Modality) if self._how.modality is None else {self._how.modality}
        notes: list[str] = []
        for search in self._searches:
            left = (_reads(search) & wanted) - covered
            if search in reading or not left or Modality.TEXT not in _reads(search):
                continue
            foreign = [term for term, kind in kinds.items() if kind not in _reads(search)]
            said = {term: self._said(term, kinds[term]) for term in foreign}
            what = " and ".join(_MANY[kind] for kind in sorted(left))
            if not all(said.values()):
                notes.append(
                    f"no {what} were looked for with {_name(search)}, which does not read such a "
                    "query: no caption or text here says what it shows"
                )
                continue
            parts.append(_Part(search, in_words(query, said), left))
            words = "; ".join(f'"{text}"' for texts in said.values() for text in texts)
            notes.append(
                f"{what} were looked for with {_name(search)} by the words nearest to it: {words}"
            )
        if not parts:
            asked = " and ".join(_MANY[kind] for kind in sorted(set(kinds.values())))
            raise UsageError(
                f"no model of this library reads all of this query ({asked}), nor can it be put "
                "into words that are here; ask for one thing at a time"
            )
        return parts, notes

    def _said(self, term: Term, kind: Modality) -> list[str]:
        """What a picture or a sound is in words, to the first space that reads both."""
        for search in self._searches:
            if {kind, Modality.TEXT} <= _reads(search):
                return neighbours(self._catalog, search.space, _encoder(search), term)
        return []

    # -- one list of several -----------------------------------------------------------

    def _hits(self, asked: Sequence[Sequence[_Asked]]) -> list[list[Hit]]:
        """The k best hits of each query, those of one thing folded together if that is wanted."""
        if not self._how.group_duplicates:
            return self._found(asked, self._how.k)
        from mmsearch.duplicates import grouped

        return [grouped(partial(self._of_one, parts), self._rows, self._how.k) for parts in asked]

    def _of_one(self, parts: Sequence[_Asked], count: int) -> list[Hit]:
        [hits] = self._found([parts], count)
        return hits

    def _found(self, asked: Sequence[Sequence[_Asked]], count: int) -> list[list[Hit]]:
        """The best hits of each query; each space is asked for all of its questions together."""
        lists: list[dict[int, list[Hit]]] = [{} for _ in asked]  # by space
        for search in self._searches:
            mine = [
                (number, part.question)
                for number, parts in enumerate(asked)
                for part in parts
                if part.search is search
            ]
            found = search.found([question for _, question in mine], max(count, _DEPTH))
            for (number, _), hits in zip(mine, found, strict=True):
                lists[number][search.space.id] = [_of(search, hit) for hit in hits]
        ordered = [_ordered(parts, some) for parts, some in zip(asked, lists, strict=True)]
        return [
            (some[0] if len(some) == 1 else join(some, self._known(parts, some)))[:count]
            for parts, some in zip(asked, ordered, strict=True)
        ]

    def _known(self, parts: Sequence[_Asked], lists: Sequence[Sequence[Hit]]) -> Counter[int]:
        """By item, how many of the spaces that were asked have a vector of it."""
        ids = sorted({hit.id for hits in lists for hit in hits})
        known = Counter[int]()
        for part in parts:
            known.update(self._catalog.vectors_of_items(part.search.space.id, ids)[0].tolist())
        return known

    def _rows(self, item_ids: Sequence[int]) -> dict[int, tuple[int, Vectors | None]]:
        """By item its content, and the row of a picture in the first space that reads these."""
        rows: dict[int, tuple[int, Vectors]] = {}
        for search in self._searches:
            if Modality.IMAGE in _reads(search):
                rows = search.rows(item_ids)
                break
        details = self._catalog.details(item_ids)
        bare = {id: (detail.content_id, None) for id, detail in details.items()}
        return {**bare, **rows}


def _ordered(parts: Sequence[_Part | _Asked], by_space: Mapping[int, _Found]) -> list[_Found]:
    """What was found in each space, in the order of the parts."""
    return [by_space[part.search.space.id] for part in parts]


def _explained(parts: Sequence[_Asked], hits: list[Hit]) -> list[Hit]:
    """Each hit explained by the space that its score is of."""
    for part in parts:
        mine = [hit for hit in hits if hit.space == _name(part.search)]
        why = {hit.id: hit for hit in part.search.explained(part.question, mine)}
        hits = [why.get(hit.id, hit) for hit in hits]
    return hits


def join(lists: Sequence[Sequence[Hit]], known: Counter[int]) -> list[Hit]:
    """One list of the hits of several spaces, each item once, ranked anew.

    `known` has by item how many of the spaces have a vector of it. A hit without a score, which
    words alone found, counts where no space knows the item, and in the first list that has it.
    """
    met: set[int] = set()
    counted: list[list[Hit]] = []
    for hits in lists:
        mine = [
            hit for hit in hits if hit.score is not None or not (known[hit.id] or hit.id in met)
        ]
        met |= {hit.id for hit in mine if hit.score is None}
        counted.append(mine)
    order = reciprocal_rank_fusion([[hit.id for hit in hits] for hits in counted], K, known=known)
    best: dict[int, Hit] = {}
    highest: dict[int, int] = {}
    relevances: dict[int, list[float | None]] = {}
    for hits in counted:
        for rank, hit in enumerate(hits):
            relevances.setdefault(hit.id, []).append(hit.relevance)
            if rank < highest.get(hit.id, len(hits) + rank + 1):
                best[hit.id], highest[hit.id] = hit, rank
    sure = {id: _highest(values) for id, values in relevances.items()}
    scored = [hit for hits in counted for hit in hits if hit.score is not None]
    if scored and all(hit.relevance is not None for hit in scored):
        order.sort(key=lambda id: -(sure[id] or 0.0))
    return [
        replace(best[id], rank=rank, relevance=sure[id]) for rank, id in enumerate(order, start=1)
    ]


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _of(search: Search, hit: Hit) -> Hit:
    return hit if hit.score is None else replace(hit, space=_name(search))


def _name(search: Search) -> str:
    return search.space.encoder_name


def _encoder(search: Search) -> Encoder:
    assert search.encoder is not None  # a space without one is not joined with others
    return search.encoder


def _reads(search: Search) -> frozenset[Modality]:
    return _encoder(search).modalities
