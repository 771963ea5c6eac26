"""How sure an answer is: a calibrated 0-1, from where a score stands among those of the library.

A score says little by itself. What an answer is worth shows against its background: what the same
query scores with everything else in this library, and what query and answer score with sentences
that could be said of anything. `mmsearch/training/recipe/relevance.py` fits two models to that on
libraries with and without what is asked for, and what they say is mixed here: a line through the
highest score for each pair of modalities (Platt 1999), which is dull but nowhere wrong, and
boosted trees on all of the background (Friedman 2001).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.records import Modality

if TYPE_CHECKING:
    from mmsearch.records import Vectors

Floats = npt.NDArray[np.floating[Any]]

FILE = "relevance.json"  # in a model's folder
SENTENCES = "queries.npy"  # rows of the sentences, which hubness takes for queries too
_TOP = 10  # how many of the best hits are looked at together
_MOMENTS = slice(2 * len(Modality), 2 * len(Modality) + 2)  # of the scores, among the features
_SPECIFIC = 8  # of the sentences, those that the query is nearest to


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees of t trees of at most n nodes, root first: all arrays are (t, n).

    A node sends a row left where its feature is at most the threshold; a leaf sends it to itself.
    """

    feature: npt.NDArray[np.int64]
    threshold: Floats
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: Floats
    depth: int

    def __call__(self, row: Floats) -> float:
        """The sum of the values of the leaves that a row of features (f,) comes to."""
        trees = np.arange(len(self.feature))
        at = np.zeros(len(trees), np.int64)
        for _ in range(self.depth):
            left = row[self.feature[trees, at]] <= self.threshold[trees, at]
            at = np.where(left, self.left[trees, at], self.right[trees, at])
        return float(self.value[trees, at].sum())


@dataclass(frozen=True)
class Calibrator:
    """What was fitted to one encoder's weights.

    `lines` has an intercept and a slope for each pair of modalities, the query's and the item's.
    `share` is what the lines have of the mixture, `base` what the trees start from, `slope` and
    `offset` make a probability of the mixture. `falls` has for each pair what tells hits of what
    was asked for from others, where it is there: an intercept and two slopes. A hit of at least
    the relevance `least` is an answer.
    """

    sentences: Vectors  # (s, dim) unit rows
    lines: dict[tuple[str, str], tuple[float, float]]
    trees: Trees
    base: float
    share: float
    slope: float
    offset: float
    falls: dict[tuple[str, str], tuple[float, float, float]]
    least: float

    @staticmethod
    def load(folder: Path | None, fingerprint: str) -> Calibrator | None:
        """The calibrator in a model's folder; None where none was fitted to these weights."""
        return _load(folder, fingerprint) if folder else None

    def relevance(
        self,
        asked: Modality,
        found: Modality,
        *,
        query: Vectors,
        best: Vectors,
        scores: Floats,
        hits: Floats,
    ) -> Floats:
        """How relevant hits of one modality are: (h,) from 0 to 1, never rising as `hits` falls.

        asked: the modality of the query, found: of the hits. query: (dim,), best: (dim,) the row
        of the best hit. scores: (n,) standardised scores of all items of this modality, or of an
        even sample of them. hits: (h,) standardised scores of the hits, the best ten among them,
        with whatever else speaks for them.

        The first hit's relevance is how likely it is that what is asked for is there at all. The
        others have it in the measure that they are as likely to be of it as the first.
        """
        if not len(hits):
            return np.empty(0)
        hits = np.where(np.isfinite(hits), hits, -1e3).astype(np.float64)
        row = features(asked, found, query, best, scores, hits, self.sentences)
        intercept, slope = self.lines[asked, found]
        line = intercept + slope * hits.max()
        mixed = self.share * line + (1 - self.share) * (self.base + self.trees(row))
        there = _logistic(self.offset + self.slope * mixed)
        start, by_score, by_spread = self.falls[asked, found]
        mean, deviation = row[_MOMENTS]
        likely = _logistic(start + by_score * hits + by_spread * (hits - mean) / deviation)
        relevance: Floats = there * likely / likely.max()
        return relevance


def features(
    asked: Modality,
    found: Modality,
    query: Vectors,
    best: Vectors,
    scores: Floats,
    hits: Floats,
    sentences: Vectors,
) -> Floats:
    """What the trees look at; see `Calibrator.relevance`. (f,) float64, always finite."""
    scores = np.sort(np.asarray(scores, np.float64))
    top = -np.sort(-np.asarray(hits, np.float64))[:_TOP]
    mean, deviation = _moments(scores)
    spread = (scores - mean) / deviation if len(scores) else np.zeros(1)
    square = spread * spread
    half, most, tail = _quantiles(scores if len(scores) else top[::-1])
    said = np.sort(sentences @ query)
    fits = sentences @ best
    return np.array(
        [
            *(asked is kind for kind in Modality),
            *(found is kind for kind in Modality),
            mean, deviation, half, most, tail, (square * spread).mean(), (square * square).mean(),
            top[0], top[0] - top[min(1, len(top) - 1)], top[0] - top[-1],
            top[0] - tail, (top[0] - mean) / deviation,
            said.mean(), said.std(), said[-_SPECIFIC:].mean(),
            fits.mean(), fits.std(),
        ],
        np.float64,
    )  # fmt: skip


def _quantiles(rising: Floats) -> Floats:
    """The median, the ninth tenth and the last hundredth's begin of (n,) rising scores."""
    at = np.array((0.5, 0.9, 0.99)) * (len(rising) - 1)
    low = at.astype(np.int64)
    beside = np.minimum(low + 1, len(rising) - 1)
    quantiles: Floats = rising[low] + (rising[beside] - rising[low]) * (at - low)
    return quantiles


def _moments(scores: Floats) -> tuple[float, float]:
    """Mean and deviation; equal scores, or none, are taken to scatter a little."""
    if not len(scores):
        return 0.0, 1.0
    return float(scores.mean()), max(float(scores.std()), 0.05)


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


@functools.lru_cache(maxsize=4)
def _load(folder: Path, fingerprint: str) -> Calibrator | None:
    try:
        card = json.loads((folder / FILE).read_text(encoding="utf-8"))
        sentences = np.load(folder / SENTENCES).astype(np.float32)
    except (OSError, ValueError):
        return None
    if card["fingerprint"] != fingerprint:  # fitted to other weights: it knows nothing of these
        return None
    forest = card["trees"]
    nodes = {name: np.array(forest[name], np.int64) for name in ("feature", "left", "right")}
    return Calibrator(
        sentences,
        {_pair(name): tuple(line) for name, line in card["lines"].items()},
        Trees(
            threshold=np.array(forest["threshold"], np.float64),
            value=np.array(forest["value"], np.float64),
            depth=forest["depth"],
            **nodes,
        ),
        card["base"], card["share"], card["slope"], card["offset"],
        {_pair(name): tuple(falls) for name, falls in card["falls"].items()},
        card["least"],
    )  # fmt: skip


def _pair(name: str) -> tuple[str, str]:
    """("text", "image") of "text-image"."""
    asked, found = name.split("-")
    return asked, found
