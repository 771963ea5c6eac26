"""Relevance: trees against a walk by hand, laws of the whole, and files that are not there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmsearch.encoders import open_encoder
from mmsearch.records import Modality
from mmsearch.relevance import FILE, SENTENCES, Calibrator, Trees, features

TEXT, IMAGE = Modality.TEXT, Modality.IMAGE


def two_trees() -> Trees:
    """x0 <= 1 ? (x1 <= 0 ? 1 : 2) : 4, and x1 <= 5 ? 10 : 20."""
    return Trees(
        feature=np.array([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]]),
        threshold=np.array([[1.0, 0, 0, 0, 0], [5.0, 0, 0, 0, 0]]),
        left=np.array([[1, 3, 2, 3, 4], [1, 1, 2, 0, 0]]),
        right=np.array([[2, 4, 2, 3, 4], [2, 1, 2, 0, 0]]),
        value=np.array([[0, 0, 4.0, 1.0, 2.0], [0, 10.0, 20.0, 0, 0]]),
        depth=2,
    )


@pytest.mark.parametrize(
    ("row", "sum"), [((1, 0), 11), ((1, 0.1), 12), ((1.1, 0), 14), ((0, 6), 22), ((2, 5), 14)]
)
def test_trees_sum_the_leaves_that_a_row_comes_to(row, sum):
    """At most the threshold goes left; a shallow tree waits for a deep one."""
    assert two_trees()(np.array(row, float)) == sum


def calibrator(**changes) -> Calibrator:
    """One line, one fall, and a tree of a single leaf worth nothing."""
    leaf = np.zeros((1, 1), np.int64)
    given = {
        "sentences": np.eye(4, dtype=np.float32)[:2],
        "lines": {("text", "image"): (-1.0, 0.5)},
        "trees": Trees(leaf, leaf + 0.0, leaf, leaf, leaf + 0.0, 0),
        "base": 0.2, "share": 0.25, "slope": 2.0, "offset": 0.1,
        "falls": {("text", "image"): (0.0, 1.0, 0.0)}, "least": 0.3,
    }  # fmt: skip
    return Calibrator(**(given | changes))


def ask(one: Calibrator, scores, hits) -> np.ndarray:
    row = np.full(4, 0.5, np.float32)
    return one.relevance(
        TEXT, IMAGE, query=row, best=row, scores=np.array(scores, float), hits=np.array(hits, float)
    )


def test_relevance_by_hand():
    """The mixture of line and trees for the first; the others as likely as they are beside it."""
    mixed = 0.25 * (-1.0 + 0.5 * 3) + 0.75 * 0.2
    first = 1 / (1 + np.exp(-(0.1 + 2 * mixed)))
    second = first * (1 / (1 + np.exp(-1.0))) / (1 / (1 + np.exp(-3.0)))
    found = ask(calibrator(), [0, 1, 3], [1, 3])
    assert found == pytest.approx([second, first])


def test_features_by_hand():
    """Moments, quantiles and gaps of scores that can be added up in one's head."""
    sentences = np.eye(4, dtype=np.float32)[:2]
    query, best = np.array([1, 0, 0, 0], np.float32), np.array([0.6, 0.8, 0, 0], np.float32)
    found = features(
        TEXT, IMAGE, query, best, np.array([0.0, 0, 2, 2]), np.array([2.0, 0]), sentences
    )
    kinds = [float(kind is TEXT) for kind in Modality] + [float(kind is IMAGE) for kind in Modality]
    tail = np.quantile([0, 0, 2, 2], (0.5, 0.9, 0.99))
    expected = [*kinds, 1, 1, *tail, 0, 1, 2, 2, 2, 2 - tail[2], 1, 0.5, 0.5, 0.5, 0.7, 0.1]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "hits"),
    [([0.3], [0.3]), ([], [1.0]), ([2.0] * 7, [2.0] * 7), ([1, 2], [2, -np.inf]), ([0], [-np.inf])],
)
def test_tiny_libraries_have_finite_relevance(scores, hits):
    """One item, equal items, a hit of which nothing is known."""
    found = ask(calibrator(), scores, hits)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_no_hits_no_relevance():
    """Nothing is relevant among nothing."""
    assert ask(calibrator(), [1, 2], []).shape == (0,)


@pytest.fixture
def shipped() -> Calibrator:
    """The built-in model's."""
    encoder = open_encoder("builtin")
    found = Calibrator.load(encoder.folder, encoder.fingerprint)
    assert found, "the shipped calibrator was fitted to other weights: run recipe/relevance.py"
    return found


@pytest.mark.parametrize("asked", list(Modality))
@pytest.mark.parametrize("found", list(Modality))
def test_the_shipped_relevance_never_rises_as_scores_fall(shipped, asked, found):
    """For every pair of modalities, the same twice, between 0 and 1."""
    generator = np.random.default_rng(3)
    query, best = generator.normal(size=(2, shipped.sentences.shape[1])).astype(np.float32)
    scores = generator.normal(size=500)
    hits = np.sort(scores)[::-1][:60]

    def once() -> np.ndarray:
        return shipped.relevance(
            asked, found, query=query / 16, best=best / 16, scores=scores, hits=hits
        )

    assert (np.diff(once()) <= 0).all()
    assert ((once() >= 0) & (once() <= 1)).all()
    assert np.array_equal(once(), once())


def test_other_weights_have_no_calibrator(tmp_path):
    """A calibrator says nothing of weights that it was not fitted to, nor is one needed."""
    encoder = open_encoder("builtin")
    assert Calibrator.load(None, "any") is None
    assert Calibrator.load(tmp_path / "nowhere", encoder.fingerprint) is None
    for name in (FILE, SENTENCES):
        (tmp_path / name).write_bytes((encoder.folder / name).read_bytes())
    assert Calibrator.load(tmp_path, "of others") is None
    fingerprint = json.loads((tmp_path / FILE).read_text())["fingerprint"]
    assert Calibrator.load(tmp_path, fingerprint) is not None
