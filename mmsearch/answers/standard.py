"""Scores as deviations above what unrelated items score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.records import Kind, Modality

if TYPE_CHECKING:
    from mmsearch.embedding import Asked
    from mmsearch.records import Scores

# The deviation of scores with unrelated items where an encoder does not say: about that of CLIP.
_UNKNOWN = 0.05


class Standard:
    """What t parts of a query score with unrelated items, by what these are.

    `there` are the kinds that are compared. Where the encoder knows no background for one of
    them, none is used for any, and scores are only brought to about the scale of deviations:
    their order, over all kinds, is that of the scores alone.
    """

    def __init__(self, asked: Sequence[Asked], there: Iterable[Kind]) -> None:
        known = all(kind.modality in part.background for kind in there for part in asked)
        nothing = (0.0, _UNKNOWN)
        figures = [
            [part.background.get(kind.modality, nothing) if known else nothing for kind in Kind]
            for part in asked
        ]
        self._mean, self._deviation = np.moveaxis(np.array(figures, np.float32), 2, 0)
        # a picture asks for pictures: its own copy first, whatever that is called
        self.by_words = np.array([part.kind is Modality.TEXT for part in asked])
        self._words = self.by_words.astype(np.float32)[:, None]

    def of(self, kind: Kind, scores: Scores, hubness: Scores | float) -> Scores:
        """(t, n) scores with vectors of one kind as deviations above what unrelated ones score.

        Hubness, of each of these vectors, is taken off where words meet pictures, and is 0 for
        all that are none: there it helps, elsewhere it hurts.
        """
        z: Scores = scores - self._words * np.asarray(hubness, np.float32)
        z -= self._mean[:, kind, None]
        z /= self._deviation[:, kind, None]
        return z
