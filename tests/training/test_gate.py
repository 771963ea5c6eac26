"""The gate: recall against loops, and the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmsearch import metrics
from mmsearch.datasets.pairs import Pair
from mmsearch.records import Modality
from mmsearch.training import gate
from mmsearch.training.drawn import KINDS
from mmsearch.training.pairs import glosses


def pair(number, *captions, kind=Modality.IMAGE):
    """A pair that was read."""
    return Pair(Path(f"{number}.jpg"), kind, captions, digest=str(number))


def table(rows):
    """An `embed` that looks inputs up."""
    return lambda kind, inputs: np.array([rows[item] for item in inputs], np.float32)


def test_held_out_recall_by_hand():
    """Three pictures, four captions; the caption that two share is right for both."""
    pairs = [pair(0, "red", "warm"), pair(1, "blue"), pair(2, "warm")]
    rows = {
        "p0": (1, 0), "p1": (0, 1), "p2": (0.6, 0.8),
        "red": (0.8, 0.6), "warm": (0, 1), "blue": (-1, 0),
    }  # fmt: skip
    found = gate.held_out_recall(table(rows), pairs, ["p0", "p1", "p2"])
    # red: p2 0.96 before p0 0.8, rank 2; warm: p1 1.0 before p2 0.8, rank 2; blue: p1 0.0, rank 1
    assert found["text_to_image"] == {"recall@1": round(1 / 3, 6), "recall@5": 1, "recall@10": 1}
    # p0: red 0.8 first; p1: warm 1.0, red 0.6, blue 0: rank 3; p2: red 0.96, warm 0.8: rank 2
    assert found["image_to_text"] == {"recall@1": round(1 / 3, 6), "recall@5": 1, "recall@10": 1}


def test_sounds_are_measured_apart_from_pictures():
    """Directions of a modality that is not there are not there."""
    pairs = [pair(0, "x"), pair(1, "bark", kind=Modality.AUDIO)]
    rows = {"p": (1, 0), "s": (0, 1), "x": (1, 0), "bark": (0, 1)}
    found = gate.held_out_recall(table(rows), pairs, ["p", "s"])
    assert list(found) == ["text_to_image", "image_to_text", "text_to_audio", "audio_to_text"]
    assert gate.held_out_recall(table(rows), [], []) == {}


def test_the_general_check_knows_what_is_right():
    """A model that is told the answers has them all; one that says the same of all has none."""
    lines = [line.split(": ", 1) for line in glosses()]
    kinds = {text: number for number, texts in enumerate(KINDS.values()) for text in texts}
    names = sorted({term for term, _ in lines})
    eye = np.eye(len(names) + len(KINDS), dtype=np.float32)

    def knows(kind, inputs):
        if kind is Modality.IMAGE:
            return eye[len(names) + np.arange(len(inputs)) // gate._DRAWINGS]
        return np.array([row(text) for text in inputs])

    def row(text):
        if text in kinds:
            return eye[len(names) + kinds[text]]
        terms = [term for term, look in lines if text in (term, look)]  # a look may fit two
        return eye[[names.index(term) for term in terms]].max(0)

    found = gate.general_recall(knows, 8)
    assert list(found) == ["word_to_gloss", "text_to_drawing", "drawing_to_text"]
    assert found["text_to_drawing"]["recall@1"] == found["drawing_to_text"]["recall@1"] == 1
    assert found["word_to_gloss"]["recall@1"] > 0.95  # some words name a drawing, too
    same = gate.general_recall(lambda kind, inputs: np.ones((len(inputs), 2), np.float32), None)
    assert same == {"word_to_gloss": {"recall@1": 0, "recall@5": 0, "recall@10": 0}}


def of(value):
    """A recall that is the same everywhere."""
    return {"text_to_image": {f"recall@{k}": value for k in metrics.CUTS}}


@pytest.mark.parametrize(
    "before, after, reasons",
    [
        ((0.5, 0.5), (0.6, 0.5), []),
        ((0.5, 0.5), (0.5, 0.49), []),  # within what cannot be told from nothing
        ((0.5, 0.5), (0.49, 0.6), ["held-out recall fell from 0.500 to 0.490"]),
        ((0.5, 0.5), (0.9, 0.4), ["general recall fell from 0.500 to 0.400"]),
        ((0.5, 0.5), (0.4, 0.4), ["held-out recall fell", "general recall fell"]),
    ],
)
def test_a_run_that_lowers_recall_is_marked(before, after, reasons):
    """With the numbers."""
    names = ("held_out", "general")
    found = gate.verdict(
        dict(zip(names, map(of, before), strict=True)),
        dict(zip(names, map(of, after), strict=True)),
    )
    assert len(found) == len(reasons)
    assert all(said.startswith(reason) for said, reason in zip(found, reasons, strict=True))


def test_a_run_that_nothing_was_held_out_of_is_marked():
    """Nobody knows whether it is better."""
    told = {"held_out": {}, "general": of(0.5)}
    assert gate.verdict(told, told) == ["nothing measured its held-out recall"]
