"""A question that is ready to be answered, and an answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.files import well_formed
from mmsearch.fusion import Fusion, Leaf, leaves, wanted, worth
from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.embedding import Asked
    from mmsearch.filters import Filter
    from mmsearch.language import Query
    from mmsearch.records import Scores, Vectors


class Hybrid(StrEnum):
    """AUTO: vectors, captions and words; OFF: the items' own vectors; ONLY: words."""

    AUTO = "auto"
    OFF = "off"
    ONLY = "only"


@dataclass(frozen=True)
class Question:
    """A query as it is to be answered. `asked` has its leaves in vectors, where there are any."""

    query: Query
    asked: dict[Leaf, Asked]
    fusion: Fusion = Fusion.SUM
    subtract: bool = False
    hybrid: Hybrid = Hybrid.AUTO
    modality: Modality | None = None
    kept: Filter | None = None
    kinds: frozenset[Modality] = frozenset(Modality)  # of items that are to be among the answers

    @cached_property
    def leaves(self) -> list[Leaf]:
        """What is scored, in the order of the rows of every array here."""
        return leaves(self.query, self.fusion, subtract=self.subtract)

    @cached_property
    def wanted(self) -> list[Leaf]:
        """Those of the leaves that say what is looked for, each once."""
        return list(dict.fromkeys(wanted(self.query, self.fusion, subtract=self.subtract)))

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

    def words(self, leaf: Leaf) -> list[str]:
        """What a leaf says in words that are looked up, if any are."""
        if self.hybrid is Hybrid.OFF:
            return []
        return [well_formed(t.value) for t in leaf if isinstance(t.value, str) and t.weight > 0]

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
