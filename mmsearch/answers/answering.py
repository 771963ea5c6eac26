"""Candidates of every list, what speaks for them, and the best of them in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmsearch.answers.nearest import Reach, first_reach, worthiest
from mmsearch.answers.question import Answer, Hybrid, Question
from mmsearch.answers.standard import Standard
from mmsearch.catalog import Catalog, Matches, Standing
from mmsearch.groups import Scored
from mmsearch.ranking import fuse
from mmsearch.records import Kind, Modality
from mmsearch.space import Space, products
from mmsearch.vectors.exact import highest

if TYPE_CHECKING:
    from mmsearch.groups import Group
    from mmsearch.records import Ids, Kinds, Scores, Vectors
    from mmsearch.relevance import Calibrator

# Candidates of each list (own vectors, captions, words), and how many times k at least. An
# item that is far down in all three cannot come first when they are fused.
_CANDIDATES = 64
_SPARE = 4

# Finalists beyond the k that are asked for: the last bits of a fast score, which depend on
# where a row lies, do not decide which of several equal pictures is among the k.
_FINALISTS = 16

_AT_ONCE = 1 << 24  # scores in memory: 64 MB

Found = TypeVar("Found", Matches, "tuple[Ids, Kinds]")
Among = Mapping[Kind, "Ids | None"]


def answer(
    catalog: Catalog,
    space: Space,
    questions: Sequence[Question],
    k: int,
    calibrator: Calibrator | None = None,
) -> list[list[Answer]]:
    """The k best items of each question, best first; those that are gone are left out.

    Items of one modality are ordered by what they are worth, then by vector and by item;
    those of several by relevance where it is calibrated. The filter chooses what is scored;
    it never cuts a list of answers. The questions have filter, modality and way of being answered
    in common; they are looked up together.
    """
    if not questions:
        return []
    candidates = _begin(catalog, space, questions)
    if calibrator is not None:
        _background(candidates)
    found: dict[int, list[Answer]] = {}
    many = max(_CANDIDATES, _SPARE * k)
    waiting = list(range(len(questions)))
    while waiting:
        mine = [candidates[number] for number in waiting]
        _reach(mine, many)
        complete = [one.take(many) for one in mine]
        _score(mine)
        finalists = [one.finalists(k) for one in mine]
        wanted = {int(id) for one in finalists for _, _, own, *_ in one for id in own if id}
        ids, rows = catalog.vectors_of(sorted(wanted))
        for number, one, final, whole in zip(waiting, mine, finalists, complete, strict=True):
            best = one.best(final, k, ids, rows, calibrator)
            # else some stood for files that are gone, or were left out for another's sake
            if len(best) >= k or whole:
                found[number] = best[:k]
        waiting = [number for number in waiting if number not in found]
        many *= 4
    return [found[number] for number in range(len(questions))]


def _begin(catalog: Catalog, space: Space, questions: Sequence[Question]) -> list[_Candidates]:
    """What is known of each question before vectors are searched: words are looked up at once."""
    first = questions[0]
    groups = space.groups()
    standing = space.standing(first.kept, len(questions))
    among: dict[Kind, Ids | None] = dict.fromkeys(groups)
    if first.kept is not None and isinstance(standing, Standing):
        among = {kind: standing.vectors_of(kind) for kind in groups}
    only = {Kind.CAPTION, *(Kind if first.modality is None else [Kind[first.modality.name]])}
    empty = {kind for kind, ids in among.items() if ids is not None and not len(ids)}
    there = [kind for kind in groups if kind in only - empty]
    asked = [(question, leaf) for question in questions for leaf in question.leaves]
    thorough = first.hybrid is Hybrid.ONLY or not first.by_vectors
    said = [question.words(leaf) for question, leaf in asked]
    fits = iter(catalog.all_that_fit(said, thorough=thorough, known=space.phrases))
    return [
        _Candidates(
            space.id, question, standing, {kind: groups[kind] for kind in there}, among,
            [next(fits) for _ in question.leaves],
        )
        for question in questions
    ]  # fmt: skip


def _background(candidates: Sequence[_Candidates]) -> None:
    """Score some of each kind with all questions together, for their answers' relevance."""
    mine = [one for one in candidates if one.question.by_vectors]
    if not mine:
        return
    rows = np.concatenate([one.rows for one in mine])
    ends = np.cumsum([len(one.rows) for one in mine])[:-1]
    for kind, group in mine[0].groups.items():
        if kind is not Kind.CAPTION:
            some = group.background(rows)
            for one, scores in zip(mine, np.split(some.scores, ends), strict=True):
                one.background[kind] = Scored(some.ids, scores, some.hubness)


def _reach(candidates: Sequence[_Candidates], many: int) -> None:
    """Search for all questions together: their own rows, and those of words among captions."""
    mine = [one for one in candidates if one.question.by_vectors]
    if not mine:
        return
    rows = np.concatenate([one.rows for one in mine])
    size = first_reach(many)
    reaches = {
        kind: Reach(group, rows, many if kind is Kind.CAPTION else size, mine[0].among[kind])
        for kind, group in mine[0].groups.items()
        if kind is not Kind.CAPTION or mine[0].captioned
    }
    start = 0
    for one in mine:
        one.reaches, one.lines = reaches, slice(start, start + len(one.rows))
        start += len(one.rows)


def _score(candidates: Sequence[_Candidates]) -> None:
    """Score what was taken, of each kind with many questions together."""
    found: dict[Kind, list[tuple[_Candidates, Scores, Ids, Ids]]] = {}
    for one in candidates:
        for kind, values, columns, vectors in one.known():
            found.setdefault(kind, []).append((one, values, columns, vectors))
    for kind, parts in found.items():
        group, start = candidates[0].groups[kind], 0
        while start < len(parts):
            ids, rows, end = 0, 0, start
            while end == start or (end < len(parts) and ids * rows <= _AT_ONCE):
                ids, rows = ids + len(parts[end][3]), rows + len(parts[end][0].rows)
                end += 1
            _fill(group, kind, parts[start:end])
            start = end


def _fill(group: Group, kind: Kind, parts: Sequence[tuple[_Candidates, Scores, Ids, Ids]]) -> None:
    """Have each question put the z of its vectors into columns; the highest of several."""
    union = np.unique(np.concatenate([vectors for *_, vectors in parts]))
    scored = group.some(np.concatenate([one.rows for one, *_ in parts]), union)
    line = 0
    for one, values, columns, vectors in parts:
        at, lines = np.searchsorted(union, vectors), slice(line, line + len(one.rows))
        z = one.standard.of(kind, scored.scores[lines, at], scored.hubness[at])
        for row, mine in zip(values, z, strict=True):
            np.fmax.at(row, columns, mine)
        line = lines.stop


class _Candidates:
    """Items that may be among the best, with what their vectors, captions and words say.

    Arrays are (t, m): t leaves of the query, m items.
    """

    def __init__(
        self,
        space_id: int,
        question: Question,
        standing: Catalog | Standing,
        groups: Mapping[Kind, Group],
        among: Among,
        words: Sequence[tuple[Ids, Scores]],
    ) -> None:
        self.question, self.groups, self.among = question, groups, among
        self.reaches: Mapping[Kind, Reach] = {}
        self.lines = slice(0)
        self.background: dict[Kind, Scored] = {}
        self._space_id, self._items, self._words = space_id, standing, words
        self._complete = True
        if question.by_vectors:
            self._asked = [question.asked[leaf] for leaf in question.leaves]
            self.rows: Vectors = np.stack([asked.vector for asked in self._asked])
            self.standard = Standard(self._asked, groups)

    @property
    def captioned(self) -> bool:
        """Whether captions are looked at."""
        return self.question.hybrid is Hybrid.AUTO and Kind.CAPTION in self.groups

    def take(self, many: int) -> bool:
        """Take the best of each list; True when there is nothing beyond them."""
        self._complete = True
        found = [(np.empty(0, np.int64), np.empty(0, np.uint8))]
        found += [self._by_words(ids, fits, many) for ids, fits in self._words]
        if self.question.by_vectors:
            found.append(self._by_vectors(many))
            if self.captioned:
                found += [
                    self._by_captions(self.lines.start + line, many)
                    for line in np.flatnonzero(self.standard.by_words).tolist()
                ]
        ids, kinds = map(np.concatenate, zip(*found, strict=True))
        self._ids, first = np.unique(ids, return_index=True)
        self._kinds = kinds[first]
        return self._complete

    def _by_words(self, ids: Ids, fits: Scores, many: int) -> tuple[Ids, Kinds]:
        q = self.question
        return self._enough(
            lambda size: ids[highest(fits, size)],
            many,
            lambda near: self._items.kinds_of(near, q.modality, q.kept),
        )

    def _by_captions(self, line: int, many: int) -> tuple[Ids, Kinds]:
        q = self.question

        def nearest(size: int) -> Ids:
            reach = self.reaches[Kind.CAPTION]
            if size > reach.size:
                row = self.rows[line - self.lines.start]
                reach = Reach(reach.group, row[None], size, self.among[Kind.CAPTION])
                return reach.nearest(0, size)
            return reach.nearest(line, size)

        found = self._enough(
            nearest, many, lambda near: self._items.captioned(near, q.modality, q.kept)
        )
        return found.items, found.kinds

    def _enough(
        self, nearest: Callable[[int], Ids], many: int, there: Callable[[Ids], Found]
    ) -> Found:
        """What is there of the nearest: `many` of it, however far down, or all there is.

        `there` looks up what the nearest are; a filter or a modality may leave little of it.
        """
        size = many
        while True:
            near = nearest(size)
            found = there(near)
            if len(near) < size:
                return found
            if len(found[0]) >= many:
                self._complete = False
                return found
            size *= 4

    def _by_vectors(self, many: int) -> tuple[Ids, Kinds]:
        """The best by their own vectors, for the query as a whole."""
        q = self.question
        own: dict[Kind, Reach] = {
            kind: reach for kind, reach in self.reaches.items() if kind != Kind.CAPTION
        }
        near = worthiest(q, self.standard, own, self.lines, self.among, many)
        ids, kinds, self._complete = near[0], near[1], self._complete and near[2]
        matches = self._items.matches(ids, q.modality, q.kept)
        # the others stand for files that are gone: no search has to meet them again
        if np.array_equal(ids, matches.vectors):
            return matches.items, matches.kinds
        dead = ~np.isin(ids, matches.vectors)
        for kind in map(Kind, np.unique(kinds[dead]).tolist()):
            self.groups[kind].store.remove(np.sort(ids[dead & (kinds == kind)]))
        return matches.items, matches.kinds

    # -- the best of them --------------------------------------------------------------

    def known(self) -> Iterator[tuple[Kind, Scores, Ids, Ids]]:
        """Look up the items' own vectors, (m,), and those of their captions: of each kind where
        their standardised scores belong, (t, m), in which columns of it, and the vectors.
        """
        self._vectors = np.zeros(len(self._ids), np.int64)
        self._own = np.full((len(self._words), len(self._ids)), np.nan, np.float32)
        self._captions = self._own.copy()
        if not self.question.by_vectors:
            return
        items, found = self._items.vectors_of_items(self._space_id, self._ids)
        _put(self._vectors, self._ids, items, found)
        for kind in set(self.groups) - {Kind.CAPTION}:
            mine = np.flatnonzero((self._kinds == kind) & (self._vectors > 0))
            yield from self._held(kind, self._own, mine, self._vectors[mine])
        if self.captioned:
            items, said = self._items.captions_of_items(self._space_id, self._ids)
            columns = np.searchsorted(self._ids, items)
            yield from self._held(Kind.CAPTION, self._captions, columns, said)

    def _held(
        self, kind: Kind, values: Scores, columns: Ids, vectors: Ids
    ) -> Iterator[tuple[Kind, Scores, Ids, Ids]]:
        here = self.groups[kind].holds(vectors)
        if here.any():
            yield kind, values, columns[here], vectors[here]

    def finalists(self, k: int) -> list[tuple[Modality, Ids, Ids, Scores, Scores, Scores]]:
        """Of each modality the k best and some more: items, their own vectors (0 for none), and
        (t, m) what these, their captions and their words say.
        """
        ids = self._ids
        words = np.full((len(self._words), len(ids)), np.nan, np.float32)
        for row, (items, fits) in zip(words, self._words, strict=True):
            _put(row, ids, items, fits)
        vectors, own, captions = self._vectors, self._own, self._captions
        if self.question.by_vectors:
            captions[~self.standard.by_words] = np.nan
        _, worth = self._value(own, captions, words)
        found = []
        for kind in sorted(self.question.kinds):
            of_kind = self._kinds == Kind[kind.name]
            mine = highest(np.where(of_kind, worth, np.float32(-np.inf)), k + _FINALISTS)
            if len(mine):
                evidence = own[:, mine], captions[:, mine], words[:, mine]
                found.append((kind, ids[mine], vectors[mine], *evidence))
        return found

    def best(
        self,
        finalists: Sequence[tuple[Modality, Ids, Ids, Scores, Scores, Scores]],
        k: int,
        ids: Ids,
        rows: Vectors,
        calibrator: Calibrator | None,
    ) -> list[Answer]:
        """The k best of each modality, in one list, scored again from the catalog's own vectors:
        (n,) ids, rising, and (n, dim) rows.
        """
        found: list[Answer] = []
        for kind, items, vectors, own, captions, words in finalists:
            at = np.searchsorted(ids, vectors).clip(max=max(len(ids) - 1, 0))
            there = (ids[at] == vectors) if len(ids) else np.zeros(len(items), bool)
            raw = np.full(len(items), np.nan)
            if there.any():
                queries = np.concatenate([self.rows, self.question.whole[None]])
                scores = products(queries, rows[at[there]])
                raw[there] = scores[-1]
                hubness = self.groups[Kind[kind.name]].hubness_of(vectors[there])
                own[:, there] = self.standard.of(Kind[kind.name], scores[:-1], hubness)
            z, worth = self._value(own, captions, words)
            order = np.lexsort((items, vectors, -worth))
            order = order[np.isfinite(worth[order])]
            best = [rows[at[one]] if there[one] else None for one in order.tolist()]
            relevances = self._relevance(kind, z[:, order], best, calibrator)
            found += [
                Answer(
                    int(items[one]), float(raw[one]) if there[one] else None, float(worth[one]),
                    relevance, int(vectors[one]) or None,
                )
                for one, relevance in zip(order[:k].tolist(), relevances, strict=False)
            ]  # fmt: skip
        return sorted(found, key=_order)

    def _relevance(
        self,
        kind: Modality,
        z: Scores,
        rows: Sequence[Vectors | None],
        calibrator: Calibrator | None,
    ) -> Sequence[float | None]:
        """How likely each of these is what was asked for; never rising from one to the next."""
        if calibrator is None or not self.question.by_vectors or not rows:
            return [None] * len(rows)
        found = []
        background = np.empty((len(self.rows), 0), np.float32)
        if (some := self.background.get(Kind[kind.name])) is not None:
            background = self.standard.of(Kind[kind.name], some.scores, some.hubness)
        for asked, scores, hits in zip(self._asked, background, z, strict=True):
            best = rows[int(hits.argmax())]
            found.append(
                calibrator.relevance(
                    asked.kind, kind, query=asked.vector, scores=scores, hits=hits,
                    best=asked.vector if best is None else best,
                )
            )  # fmt: skip
        together = self.question.worth(np.stack(found), exclude=False)
        falling: list[float] = np.minimum.accumulate(together).tolist()
        return falling

    def _value(self, own: Scores, captions: Scores, words: Scores) -> tuple[Scores, Scores]:
        """(t, m) fused evidence, and (m,) what the items are worth; -inf: nothing is known."""
        fused = fuse(own, captions, words)
        fused = np.where(np.isnan(fused), np.float32(-np.inf), fused)
        return fused, self.question.worth(fused)


def _put(values: np.ndarray, ids: Ids, some: Ids, theirs: np.ndarray) -> None:
    """Put what belongs to some items where these stand among (m,) rising ids, if they do."""
    if not len(some) or not len(ids):
        return
    at = np.searchsorted(some, ids).clip(max=len(some) - 1)
    there = some[at] == ids
    values[there] = theirs[at[there]]


def _order(one: Answer) -> tuple[float, float, int, int]:
    """By relevance, if there is any, and what is worth more; then by vector and by item."""
    return (-(one.relevance or 0.0), -one.worth, one.vector_id or 0, one.item_id)
