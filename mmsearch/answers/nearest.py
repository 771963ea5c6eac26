"""The vectors that are worth most to a question, found without scoring all of them.

A vector that is among the m nearest of no leaf scores at most as much, with each leaf, as the
m-th nearest of that. What it is worth never falls when a score rises, so nothing that was not
met is worth more than those scores together. What was met and is worth more than that is
certain; until there is enough of it, more is looked at (the threshold algorithm of Fagin,
Lotem and Naor, Optimal aggregation algorithms for middleware, 2003).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.answers.standard import Standard
from mmsearch.groups import Group, Scored
from mmsearch.vectors.exact import highest

if TYPE_CHECKING:
    from mmsearch.answers.question import Question
    from mmsearch.records import Ids, Kind, Kinds, Scores, Vectors

_WIDE = 8  # vectors met at first, times what is wanted: hubness changes their order a little
_WHOLE = 16  # from this share of a kind on, to score all of it costs less
_AT_ONCE = 1 << 24  # scores in memory: 64 MB


class Reach:
    """How far vectors of one kind were looked at: those nearest to each of (t, dim) unit rows.

    `size` of them were asked for, and `among` those to look at; where that comes near to all,
    all have been scored.
    """

    def __init__(self, group: Group, rows: Vectors, size: int, among: Ids | None) -> None:
        self.group, self.size, self._rows, self._among = group, size, rows, among
        there = len(group) if among is None else len(among)
        self._every = size * _WHOLE >= there
        self._all: Scored | None = None
        if not self._every:
            self._scores, self._ids = group.nearest(rows, size, among)
        elif len(rows) * there <= _AT_ONCE:
            self._all = group.all(rows, among)

    def nearest(self, line: int, size: int) -> Ids:
        """The ids of the `size` nearest to one row, nearest first; `size` as at most asked for."""
        if not self._every:
            return self._ids[line, :size]
        scored = self._whole(slice(line, line + 1))
        return scored.ids[highest(scored.scores[0], size)]

    def _whole(self, lines: slice) -> Scored:
        """The scores of everything with some of the rows."""
        if self._all is None:
            return self.group.all(self._rows[lines], self._among)
        return self._all._replace(scores=self._all.scores[lines])

    def met(self, lines: slice, wanted: Sequence[int]) -> tuple[Scored, Scores | None]:
        """What was met for some of the rows, those of one question; and the (t,) scores that
        nothing else exceeds, None where there is nothing else.

        `wanted` are the rows, counted from the first of these, that are looked for.
        """
        if self._every:
            return self._whole(lines), None
        rows = self._rows[lines]
        near = [self._ids[lines.start + line] for line in wanted]
        if len(rows) == 1:  # its scores are there
            scores = self._scores[lines]
            scored = Scored(near[0], scores, self.group.hubness_of(near[0]))
        else:
            scored = self.group.some(rows, near[0] if len(near) == 1 else np.unique(near))
        if self._ids.shape[1] < self.size:
            return scored, None
        most = np.zeros(len(rows), np.float32)
        most[wanted] = [self._scores[lines.start + line, -1] for line in wanted]
        return scored, most


def worthiest(
    question: Question,
    standard: Standard,
    reaches: Mapping[Kind, Reach],
    lines: slice,
    among: Mapping[Kind, Ids | None],
    many: int,
) -> tuple[Ids, Kinds, bool]:
    """The `many` vectors that are worth most by themselves: (m,) ids, best first, their (m,)
    kinds, and whether these are all there are.

    `reaches` has what was met already; `lines` are the question's rows of it.
    """
    leaves = question.leaves
    wanted = [leaves.index(leaf) for leaf in question.wanted]
    rows = np.stack([question.asked[leaf].vector for leaf in leaves])
    while True:
        ids, kinds, values, beyond = [], [], [], -np.inf
        for kind, reach in reaches.items():
            met, most = reach.met(lines, wanted)
            ids.append(met.ids)
            kinds.append(np.full(len(met.ids), kind, np.uint8))
            values.append(question.worth(standard.of(kind, met.scores, met.hubness)))
            if most is not None:
                bound = standard.of(kind, most[:, None], reach.group.least_hubness)
                beyond = max(beyond, float(question.worth(bound, exclude=False)[0]))
        if not ids:
            return np.empty(0, np.int64), np.empty(0, np.uint8), True
        every = np.concatenate(values)
        near = highest(every, many)
        if beyond == -np.inf or (len(near) == many and every[near[-1]] > beyond):
            found = np.concatenate(ids)[near], np.concatenate(kinds)[near]
            return *found, len(near) < many
        reaches = {
            kind: Reach(reach.group, rows, 4 * reach.size, among[kind])
            for kind, reach in reaches.items()
        }
        lines = slice(0, len(rows))


def first_reach(many: int) -> int:
    """How many vectors are looked at, at first, where `many` are wanted."""
    return _WIDE * many
