"""What is kept of the catalog in memory, against the catalog itself."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mmsearch.records import Modality


@pytest.fixture
def mixed(library, photos):
    """Pictures, copies, captions said twice, a text of several passages, and what is gone."""
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        photos.paint(f"{number}.png", colour)
    shutil.copy(photos / "0.png", photos / "copy.png")
    for name in ("0.txt", "2.txt"):
        (photos / name).write_text("a cyan thing\nanother\n")
    (photos / "words.md").write_text("red " * 200 + "\n\n" + "blue " * 200)
    photos.paint("gone.png", "white")
    library.index(photos)
    (photos / "gone.png").unlink()
    library.index(photos)
    return library


@pytest.mark.parametrize("modality", [None, *Modality])
def test_memory_says_what_the_catalog_says(mixed, modality):
    """Every way of asking, for every vector and item there is, and for some that are not."""
    with mixed._reading() as (catalog, space):
        standing = catalog.standing(space.id)
        vectors = [*range(1, 40)]
        items = [*range(1, 40)]
        for name in ("matches", "captioned"):
            found, expected = (
                sorted(getattr(where, name)(vectors, modality)) for where in (standing, catalog)
            )
            assert found == expected
            assert modality is not None or found
        assert standing.kinds_of(items, modality) == catalog.kinds_of(items, modality)
        assert standing.vectors_of_items(space.id, items) == {
            item: vector
            for item, vector in catalog.vectors_of_items(space.id, items).items()
            if item in catalog.kinds_of(items)
        }
        there = set(catalog.kinds_of(items))
        said = [pair for pair in catalog.captions_of_items(space.id, items) if pair[0] in there]
        assert sorted(standing.captions_of_items(space.id, items)) == sorted(said)


def test_a_second_query_answers_as_the_first(mixed, photos):
    """From the catalog, from memory, and after the library has changed."""
    first, second, third = (mixed.query("red blue", 9) for _ in range(3))
    assert [hit.id for hit in first] == [hit.id for hit in second] == [hit.id for hit in third]
    photos.paint("new.png", "magenta")
    mixed.index(photos)
    assert mixed.query("magenta", 1)[0].path == photos / "new.png"
    assert mixed.query("magenta", 1)[0].path == photos / "new.png"


def test_an_empty_library_stands_for_nothing(library, photos):
    """No items, no captions: nothing is found of any id."""
    photos.paint("only.png", "red")
    library.index(photos)
    library.forget(photos.folder)
    with library._reading() as (catalog, space):
        standing = catalog.standing(space.id)
    assert standing.matches([1, 2]) == standing.captioned([1]) == []
    assert standing.kinds_of(np.arange(3).tolist()) == {}
