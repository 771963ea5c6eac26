"""Vectors that no model made, in any number: clusters, a falling spectrum and a modality gap.

A picture is the unit row of  gap_p + centre + own,  a text that of  gap_t + some picture's content
+ own.  There are 20,000 centres, as likely as 1 / rank; they and what is a picture's own fall off
over the directions as rank ** -0.5, as embeddings of real pictures do; what is a text's own goes in
all directions alike. The two gaps are the same direction for all, at right angles: texts lie far
from all pictures, and nearest to pictures of their content. Everything follows from SEED.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SEED = 6
BLOCK = 65_536  # rows, each block from a seed of its own
CENTRES = 20_000
# Lengths of what a picture is made of, and a text. Cosines come to about 0.56 between two
# pictures, 0.85 to the nearest ten, 0.0 between a picture and a text, and 0.2 where they fit best.
GAP, CENTRE, OWN = 0.74, 0.55, 0.38
TEXT_GAP, CONTENT, TEXT_OWN = 0.74, 0.40, 0.54


class Synthetic:
    """Pictures, block by block, and texts about them."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        random = np.random.default_rng([SEED, dim])
        spread = np.arange(1, dim + 1) ** -0.5
        self._spread = (spread / np.linalg.norm(spread)).astype(np.float32)
        self._turn = np.linalg.qr(random.normal(size=(dim, dim)))[0].astype(np.float32)
        gaps = np.linalg.qr(random.normal(size=(dim, 2)))[0].astype(np.float32).T
        self._gap, self._text_gap = gaps
        self._centres = random.standard_normal((CENTRES, dim), np.float32) * self._spread
        weights = 1 / np.arange(1, CENTRES + 1)
        self._likely = np.cumsum(weights / weights.sum())

    def pictures(self, count: int) -> Iterator[NDArray[np.float32]]:
        """(n, dim) unit rows, a block at a time."""
        for number, start in enumerate(range(0, count, BLOCK)):
            content = self._content(np.random.default_rng([SEED, 1, number]), BLOCK)
            yield _unit(GAP * self._gap + content @ self._turn)[: count - start]

    def texts(self, count: int) -> NDArray[np.float32]:
        """(n, dim) unit rows of queries in words."""
        random = np.random.default_rng([SEED, 2])
        content = _unit(self._content(random, count)) @ self._turn
        own = random.standard_normal((count, self.dim), np.float32) / np.sqrt(self.dim)
        return _unit(TEXT_GAP * self._text_gap + CONTENT * content + np.float32(TEXT_OWN) * own)

    def fresh(self, count: int) -> NDArray[np.float32]:
        """(n, dim) unit rows of pictures that are not among the others: queries by picture."""
        content = self._content(np.random.default_rng([SEED, 3]), count)
        return _unit(GAP * self._gap + content @ self._turn)

    def _content(self, random: np.random.Generator, count: int) -> NDArray[np.float32]:
        centres = self._centres[np.searchsorted(self._likely, random.random(count) * 0.999999)]
        own = random.standard_normal((count, self.dim), np.float32) * self._spread
        return np.float32(CENTRE) * centres + np.float32(OWN) * own


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
