"""What is kept of the catalog in memory, against the catalog itself."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from mmsearch.catalog.standing import Standing
from mmsearch.records import Kind, Modality


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


def rows(columns):
    """What stands beside one another in arrays, in order."""
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("modality", [None, *Modality])
def test_memory_says_what_the_catalog_says(mixed, modality):
    """Every way of asking, for every vector and item there is, and for some that are not."""
    with mixed._access.reading() as (catalog, spaces):
        [space] = spaces.every
        standing = catalog.standing(space.id)
        vectors = [*range(1, 40)]
        items = [*range(1, 40)]
        for name in ("matches", "captioned"):
            found, expected = (
                rows(getattr(where, name)(vectors, modality)) for where in (standing, catalog)
            )
            assert found == expected
            assert modality is not None or found
        assert rows(standing.kinds_of(items, modality)) == rows(catalog.kinds_of(items, modality))
        there = set(catalog.kinds_of(items)[0].tolist())
        for name in ("vectors_of_items", "captions_of_items"):
            found, expected = (
                rows(getattr(where, name)(space.id, items)) for where in (standing, catalog)
            )
            assert found == [row for row in expected if row[0] in there]
            assert found


def test_an_item_without_a_vector_is_there_all_the_same():
    """Its number for one, 0, is nobody's."""
    own = np.array([[5, 1, Kind.IMAGE], [0, 2, Kind.IMAGE], [7, 3, Kind.TEXT]], np.int64)
    standing = Standing(own, np.array([[9, 2]], np.int64))
    assert [standing.vectors_of(kind).tolist() for kind in Kind] == [[5], [], [7], [9]]
    assert rows(standing.kinds_of([1, 2, 3])) == [(1, 0), (2, 0), (3, 2)]
    assert rows(standing.vectors_of_items(1, [1, 2, 3])) == [(1, 5), (3, 7)]
    assert rows(standing.captions_of_items(1, [1, 2, 3])) == [(2, 9)]
    assert len(standing.matches([0]).items) == 0


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
    with library._access.reading() as (catalog, spaces):
        standing = catalog.standing(spaces.every[0].id)
    assert rows(standing.matches([1, 2])) == rows(standing.captioned([1])) == []
    assert rows(standing.kinds_of(np.arange(3))) == []
