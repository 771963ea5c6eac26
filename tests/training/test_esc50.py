"""ESC-50 and the pictures that go with its sounds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mmsearch.training import esc50, pairs

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="the training data is not beside the repository"
)
TABLE = Path(esc50.__file__).with_name("esc50_to_imagenet.tsv")


@needs_data
def test_clips_are_those_of_four_folds():
    """Eight clips of each class in each fold; every file is there."""
    found = esc50.clips(DATA)
    assert set(Counter((clip.fold, clip.category) for clip in found).values()) == {8}
    assert len(found) == 4 * 50 * 8
    assert all(clip.path.is_file() for clip in found)


@needs_data
def test_the_table_names_classes_of_both_sets():
    """Every wnid stands for the name written beside it, and has photos that are held out."""
    names = pairs.class_names(DATA)
    held_out = {photo.label for photo in pairs.tiny_imagenet(DATA, held_out=True)}
    categories = {clip.category for clip in esc50.clips(DATA)}
    pictured = esc50.pictured(DATA)
    lines = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()]
    assert [line[0] for line in lines] == sorted(pictured)
    for category, _, written in lines:
        assert category in categories
        assert [names[row][0] for row in pictured[category]] == written.split(", ")
        assert held_out.issuperset(pictured[category])


def test_spoken_is_how_people_write_it():
    """Underscores are for files."""
    assert esc50.spoken("door_wood_knock") == "door wood knock"
