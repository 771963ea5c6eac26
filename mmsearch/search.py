"""From queries to hits: encoded together, answered one by one, cut, folded and told about."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from mmsearch.answers import Answer, Hybrid, Question, answer
from mmsearch.catalog import Catalog
from mmsearch.embedding import ask
from mmsearch.encoders import Encoder
from mmsearch.errors import UsageError, chosen
from mmsearch.fusion import Fusion, wanted
from mmsearch.hits import Hits, arranged
from mmsearch.language import Query, checked, remarks, terms_of
from mmsearch.records import Hit, Modality, Sort
from mmsearch.relevance import Calibrator
from mmsearch.space import Space

if TYPE_CHECKING:
    from mmsearch.filters import Filter
    from mmsearch.records import Vectors

_AT_ONCE = 256  # terms encoded, and looked for, together
_MOST = 2**31  # answers: more than any library has items


@dataclass(frozen=True, slots=True)
class How:
    """How queries are to be answered; Library.query says what each of these means."""

    k: int = 10
    modality: Modality | None = None
    kept: Filter | None = None
    all: bool = False
    min_relevance: float | None = None
    fusion: Fusion = Fusion.SUM
    subtract: bool = False
    hybrid: Hybrid = Hybrid.AUTO
    sort: Sort = Sort.SCORE
    group_duplicates: bool = False
    explain: bool = False
    exclude: frozenset[str] = field(default_factory=frozenset)  # real paths
    keep: bool = False  # what is asked in words, as vectors

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"k is the number of answers, at least 1, not {self.k}")
        if self.min_relevance is not None and not 0 <= self.min_relevance <= 1:
            raise UsageError(f"min_relevance is from 0 to 1, not {self.min_relevance}")


class Options(TypedDict, total=False):
    """How a query is to be answered, as a user says it; Library.query has what each means."""

    modality: str | None
    where: str | None
    all: bool
    min_relevance: float | None
    fusion: str
    subtract: bool
    hybrid: str
    sort: str
    group_duplicates: bool
    explain: bool
    exclude: Iterable[str | os.PathLike[str]]


def how_to(k: int, given: Options) -> How:
    """These options, read. Raises UsageError for one that is none, or says what is not there."""
    if unknown := given.keys() - Options.__annotations__.keys():
        raise UsageError(f"a query has no option {min(unknown)!r}")
    return How(
        k,
        *fitting(given.get("modality"), given.get("where")),
        all=given.get("all", False),
        min_relevance=given.get("min_relevance"),
        fusion=chosen(Fusion, "fusion", given.get("fusion", Fusion.SUM)),
        subtract=given.get("subtract", False),
        hybrid=chosen(Hybrid, "hybrid", given.get("hybrid", Hybrid.AUTO)),
        sort=chosen(Sort, "sort", given.get("sort", Sort.SCORE)),
        group_duplicates=given.get("group_duplicates", False),
        explain=given.get("explain", False),
        exclude=frozenset(os.path.realpath(os.fsdecode(p)) for p in given.get("exclude", ())),
    )


def fitting(modality: str | None, where: str | None) -> tuple[Modality | None, Filter | None]:
    """What is to be looked at: of one kind, if any, and what a filter lets through."""
    kind = chosen(Modality, "modality", modality) if modality is not None else None
    if where is None:
        return kind, None
    from mmsearch.filters import parse_filter  # most queries have none

    return kind, parse_filter(where)


def by_words(query: Query) -> bool:
    """Whether any of it is said in words."""
    return any(isinstance(term.value, str) for term in terms_of(query))


def told(query: Query, hits: list[Hit], how: How, rated: bool, notes: Sequence[str] = ()) -> Hits:
    """The hits in the order that is wanted, with what there is to say about them."""
    said = [*remarks(query), *notes]
    if not hits and rated and not how.all:
        said.append("nothing in this library fits well enough; --all shows what comes nearest")
    return Hits(arranged(hits, how.sort), said)


def unrated(asked: Iterable[Search], hits: Sequence[Hit], how: How) -> list[str]:
    """A line for a person where hits come in the order of scores that nobody calibrated."""
    names = [s.space.encoder_name for s in asked if s.encoder is not None and not s.rates]
    if not names or not hits or how.hybrid is Hybrid.ONLY:
        return []
    are, their = ("is", "its") if len(names) == 1 else ("are", "their")
    return [
        f"{' and '.join(names)} {are} not calibrated: {their} answers are ranked, not rated, and "
        "the list ends with -k alone"
    ]


class Search:
    """One library's catalog and space, asked. Without an encoder only words are looked for."""

    def __init__(self, catalog: Catalog, space: Space, encoder: Encoder | None, how: How) -> None:
        self.space, self.encoder = space, encoder
        self._catalog, self._space, self._encoder, self._how = catalog, space, encoder, how
        self._calibrator: Calibrator | None = None
        if encoder is not None and how.hybrid is not Hybrid.ONLY:
            self._calibrator = Calibrator.load(encoder.folder, encoder.fingerprint)
        if how.min_relevance is not None and self._calibrator is None:
            raise UsageError(
                f"relevance is not calibrated for {space.encoder_name}: its answers are ranked, "
                "not rated; leave out min_relevance"
            )

    def run(self, queries: Sequence[Query]) -> Iterator[Hits]:
        """The answers to each query, in order. Raises UsageError, LoadError, LibraryDamaged."""
        for query in queries:
            checked(query)
        for questions in self._encoded(queries):
            with self._catalog.snapshot():
                found = self._hits(questions)
            for question, hits in zip(questions, found, strict=True):
                why = self.explained(question, hits)
                notes = unrated([self], hits, self._how)
                yield told(question.query, why, self._how, self.rates, notes)

    def _encoded(self, queries: Sequence[Query]) -> Iterator[list[Question]]:
        """The questions in batches; what is asked next is encoded meanwhile."""
        first, *others = batched(queries) or [[]]
        questions = self.questions(first)
        if others:
            with ThreadPoolExecutor(1) as beside:
                for batch in others:
                    coming = beside.submit(self.questions, batch)
                    yield questions
                    questions = coming.result()
        yield questions

    @property
    def rates(self) -> bool:
        """Whether answers have a relevance."""
        return self._calibrator is not None

    def questions(self, queries: Sequence[Query]) -> list[Question]:
        """These queries as they are to be answered, encoded together. Raises as `run` does."""
        how = self._how
        questions = [
            Question(query, {}, how.fusion, how.subtract, how.hybrid, how.modality, how.kept)
            for query in queries
        ]
        for question in questions:
            if how.hybrid is Hybrid.ONLY and not by_words(question.query):
                raise UsageError("pictures and sounds have no words to look for: ask in words")
        if self._encoder is not None and how.hybrid is not Hybrid.ONLY:
            leaves = [leaf for question in questions for leaf in question.leaves]
            asked = iter(ask(leaves, self._encoder))
            for question in questions:
                question.asked.update((leaf, next(asked)) for leaf in question.leaves)
            if how.keep:
                self._space.asked.keep(_said(questions))
        return questions

    def _hits(self, questions: Sequence[Question]) -> list[list[Hit]]:
        """The k best hits of each, those of one thing folded together where that is wanted."""
        how = self._how
        if not how.group_duplicates:
            return self.found(questions, how.k)
        from mmsearch.duplicates import grouped

        def hits(question: Question) -> list[Hit]:
            return grouped(lambda n: self.found([question], n)[0], self.rows, how.k)

        return [hits(question) for question in questions]

    def found(self, questions: Sequence[Question], count: int) -> list[list[Hit]]:
        """The `count` best hits of each question."""
        how = self._how
        many = min(count, _MOST) + len(how.exclude)
        answers = answer(self._catalog, self._space, questions, many, self._calibrator)
        ids = sorted({one.item_id for found in answers for one in found})
        items = {item.id: item for item in self._catalog.items_of(ids)}
        kept = [
            self._cut([one for one in found if str(items[one.item_id].path) not in how.exclude])[
                :count
            ]
            for found in answers
        ]
        ids = sorted({one.item_id for found in kept for one in found})
        details, captions = self._catalog.details(ids), self._catalog.captions_of(ids)

        def hit(rank: int, one: Answer) -> Hit:
            item, detail = items[one.item_id], details[one.item_id]
            said = tuple(caption.text for caption in captions.get(item.id, ()))
            return Hit(
                rank, one.score, one.relevance, item.path, item.modality, item.id, item.start,
                item.end, detail.text, said, detail.taken,
            )  # fmt: skip

        return [[hit(rank, one) for rank, one in enumerate(found, start=1)] for found in kept]

    def _cut(self, found: list[Answer]) -> list[Answer]:
        """Without what is not relevant enough; what has no relevance is always kept."""
        how = self._how
        if self._calibrator is None or (how.all and how.min_relevance is None):
            return found
        least = how.min_relevance if how.min_relevance is not None else self._calibrator.least
        return [one for one in found if one.relevance is None or one.relevance >= least]

    def explained(self, question: Question, hits: list[Hit]) -> list[Hit]:
        """The same hits, each with what carried it, if that is wanted."""
        how = self._how
        if not how.explain or self._encoder is None or not question.asked:
            return hits
        from mmsearch.explaining import explain

        parts = wanted(question.query, how.fusion, subtract=how.subtract)
        vectors = np.stack([question.asked[leaf].vector for leaf in parts])
        rows = {id: row for id, (_, row) in self.rows([hit.id for hit in hits]).items()}
        return explain(question.query, vectors, hits, rows, self._encoder)

    def rows(self, item_ids: Sequence[int]) -> dict[int, tuple[int, Vectors]]:
        """By item, its content and its (dim,) unit row, as far as it has one."""
        details = self._catalog.details(item_ids)
        items, own = self._catalog.vectors_of_items(self._space.id, item_ids)
        ids, rows = self._catalog.vectors_of(sorted(set(own.tolist())))
        row_of = dict(zip(ids.tolist(), rows, strict=True))
        return {
            item: (details[item].content_id, row_of[vector])
            for item, vector in zip(items.tolist(), own.tolist(), strict=True)
            if vector in row_of
        }


def _said(questions: Sequence[Question]) -> list[Vectors]:
    """What is looked for in words, a (dim,) unit row each."""
    wanted = (question.asked[leaf] for question in questions for leaf in question.wanted)
    return [asked.vector for asked in wanted if asked.kind is Modality.TEXT]


def batched(queries: Sequence[Query]) -> list[list[Query]]:
    """These in order, as many together as have _AT_ONCE terms."""
    batches: list[list[Query]] = []
    terms = _AT_ONCE
    for query in queries:
        count = len(terms_of(query))
        if terms + count > _AT_ONCE:
            batches.append([])
            terms = 0
        batches[-1].append(query)
        terms += count
    return batches
