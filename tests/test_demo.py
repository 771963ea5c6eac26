"""What `make demo` shows has to be true: each photo is found first by its words."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import mmsearch
from mmsearch.demo import QUERIES, photographs

pytest.importorskip("skimage", reason="the demo's photographs come with scikit-image")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """scikit-image's photographs, indexed with the built-in model."""
    library = mmsearch.open_library(tmp_path_factory.mktemp("demo") / "index")
    library.index(photographs())
    return library


@pytest.mark.parametrize(("words", "photo"), QUERIES.items())
def test_photo_is_first(library, words, photo):
    """The words of the demo put their photograph first."""
    assert library.query(words, k=1, all=True)[0].path.name == photo


def test_a_picture_finds_itself(library):
    """A picture as the query has itself as the nearest, with a score of 1."""
    path = photographs() / "coffee.png"
    first = library.query(mmsearch.image(path), k=1, all=True)[0]
    assert first.path.name == "coffee.png"
    assert first.score == pytest.approx(1.0, abs=1e-3)


def test_demo_command_prints_ranked_answers(tmp_path):
    """`mmsearch demo` indexes the photographs and prints each query with its ranked answers."""
    done = subprocess.run(
        [sys.executable, "-m", "mmsearch", "demo", "--index", tmp_path / "demo"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    blocks = done.stdout.split("\n\n")[1:]
    assert len(blocks) == len(QUERIES)
    for block, (words, photo) in zip(blocks, QUERIES.items(), strict=True):
        command, first, *_ = block.splitlines()
        assert command.startswith(f'$ mmsearch query "{words}"')
        assert first.split()[0] == "1"
        assert first.endswith(photo)
