"""Answers that say the same are folded into the best one, as a slow search would fold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import unit
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.duplicates import SAME, fold, grouped
from mmsearch.records import Hit, Modality

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
ROWS = [unit(1, 0, 0), unit(1, 0.2, 0), unit(1, 0.5, 0), unit(0, 1, 0), unit(0.2, 1, 0)]


def hit(rank, name, kind=IMAGE):
    return Hit(rank, 1 - rank / 100, None, Path("/p") / name, kind, rank)


def test_the_threshold_by_hand():
    """A cosine of 0.95 or more is the same picture; sounds and texts need the same content."""
    near, far = unit(SAME + 0.001, np.sqrt(1 - (SAME + 0.001) ** 2)), unit(1, 0.35)
    assert far @ unit(1, 0) < SAME < near @ unit(1, 0)
    rows = {1: (1, unit(1, 0)), 2: (2, near), 3: (3, far)}
    hits = [hit(1, "a"), hit(2, "b"), hit(3, "c")]
    best, other = fold(hits, rows)
    assert (best.path.name, best.duplicates) == ("a", (Path("/p/b"),))
    assert (other.path.name, other.duplicates) == ("c", ())
    for kind in (AUDIO, TEXT):
        hits = [hit(1, "a", kind), hit(2, "b", kind)]
        assert fold(hits, rows) == hits


def test_parts_and_copies_of_one_content():
    """Windows of one sound are under the best; a copy's windows too, its path named once."""
    hits = [hit(1, "a", AUDIO), hit(2, "b", AUDIO), hit(3, "a", AUDIO), hit(4, "b", AUDIO),
            hit(5, "c", AUDIO)]  # fmt: skip
    known = {n: (1 if n < 5 else 2, unit(n, 1)) for n in range(1, 6)}
    best, other = fold(hits, known)
    assert (best.rank, best.duplicates) == (1, (Path("/p/b"),))
    assert (other.rank, other.duplicates) == (5, ())


def test_what_is_not_known_stays():
    """An answer without a vector here is a group of its own."""
    hits = [hit(1, "a"), hit(2, "b"), hit(3, "c")]
    assert fold(hits, {2: (1, unit(1, 0))}) == hits
    assert fold(hits, {}) == hits
    assert fold([], {}) == []


def slow(hits, known):
    """Each answer against the best of every group before it, and every content in it."""
    groups = []
    for one in hits:
        content, row = known[one.id]
        for group in groups:
            if content in [known[other.id][0] for other in group]:
                group.append(one)
                break
        else:
            for group in groups:
                both = group[0].modality is one.modality is IMAGE
                if both and float(row @ known[group[0].id][1]) >= SAME:
                    group.append(one)
                    break
            else:
                groups.append([one])
    return groups


ANSWER = st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([IMAGE, AUDIO]))


@given(st.lists(ANSWER, max_size=14), st.integers(1, 5))
def test_groups_are_those_of_brute_force(answers, k):
    """Any answers: the same groups; of `grouped` the first k, ranked anew, and no more asked."""
    hits, known = [], {}
    for rank, (row, content, kind) in enumerate(answers, start=1):
        of = (content if kind is IMAGE else 10 + content, row if kind is IMAGE else 0)
        hits.append(hit(rank, f"{content}-{row}-{rank % 2}", kind))
        known[rank] = (10 * of[0] + of[1], ROWS[row])  # one content, one row
    expected = slow(hits, known)
    folded = fold(hits, known)
    assert [one.rank for one in folded] == [group[0].rank for group in expected]
    for one, group in zip(folded, expected, strict=True):
        others = {other.path for other in group} - {one.path}
        assert set(one.duplicates) == others
        assert len(one.duplicates) == len(others)
    asked = []

    def find(count):
        asked.append(count)
        return hits[:count]

    found = grouped(find, lambda ids: {id: known[id] for id in ids}, k)
    assert [one.rank for one in found] == list(range(1, min(k, len(expected)) + 1))
    assert [one.id for one in found] == [group[0].id for group in expected[:k]]
    assert all(count <= max(4 * k, 2 * len(hits)) for count in asked)
