"""Words of names and passages: found, kept in step, never taken for FTS5's own language."""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.catalog import Catalog, Content, Part
from mmsearch.catalog.keywords import expression
from mmsearch.records import Modality


@pytest.fixture
def catalog(tmp_path):
    """An empty catalog with one space of three dimensions."""
    with Catalog.create(tmp_path / "library.db") as made:
        with made.transaction():
            made.put_space("fake", "fa" * 32, 3)
        yield made


def put(catalog, path, *texts, modality=Modality.IMAGE):
    """A file of its own content; the texts are its passages. Its content's id."""
    parts = tuple(Part(text=text) for text in texts)
    content = Content(os.urandom(32), modality, "any", parts=parts)
    rows = np.ones((len(parts) or 1, 3), np.float32)
    content_id = catalog.put_content(content, 1, rows)
    catalog.put_file(path, (1, 1, 1), content_id=content_id, modality=modality)
    return content_id


def found(catalog, words, unwanted="", k=10, **options):
    """The names of the items that words find, with their parts."""
    asked = expression([words], [unwanted])
    items = catalog.items_by_words(asked, k, **options) if asked else []
    return [(item.path.name, item.part) for item in items]


def test_words_of_names_and_folders(catalog):
    """Split at whatever is no letter or digit; any word suffices, more and rarer ones first."""
    with catalog.transaction():
        put(catalog, b"/photos/2019 Norway/dog_on-grass.JPG")
        put(catalog, b"/photos/2019 Norway/IMG.2041.jpg")
        put(catalog, b"/photos/Cr\xc3\xaape/dogs.jpg")
    assert found(catalog, "norway grass") == [("dog_on-grass.JPG", 0), ("IMG.2041.jpg", 0)]
    assert found(catalog, "2041") == [("IMG.2041.jpg", 0)]
    assert found(catalog, "crepe CAT") == [("dogs.jpg", 0)]
    assert found(catalog, "norway", unwanted="dog") == [("IMG.2041.jpg", 0)]
    assert len(found(catalog, "jpg", k=2)) == 2
    assert found(catalog, "jpg photos", modality=Modality.TEXT) == []
    assert found(catalog, "---") == found(catalog, "") == []


def test_every_chinese_character_is_a_word(catalog):
    """Chinese has no spaces: a part of a name is found, characters in another order are not."""
    with catalog.transaction():
        put(catalog, "/照片/沙滩上的狗.jpg".encode())
    for words in ("狗", "沙滩", "照片", "猫 沙滩上的狗"):
        assert found(catalog, words) == [("沙滩上的狗.jpg", 0)], words
    assert found(catalog, "滩沙") == []


def test_passages_are_found_and_given_back(catalog):
    """Every passage is an item; the file's name finds the first, its own words each."""
    with catalog.transaction():
        put(catalog, b"/n/notes.md", "a red fox\n", "狐狸 and a hare", modality=Modality.TEXT)
        put(catalog, b"/n/fox.png")
    assert found(catalog, "hare") == found(catalog, "狐") == [("notes.md", 1)]
    assert found(catalog, "notes") == [("notes.md", 0)]
    assert sorted(found(catalog, "fox")) == [("fox.png", 0), ("notes.md", 0)]
    all_three = [item.id for item in catalog.items_by_words('"fox" OR "hare"', 10)]
    assert sorted(catalog.passages(all_three).values()) == ["a red fox\n", "狐狸 and a hare"]


def test_a_window_of_sound_says_its_seconds(catalog):
    """An item a window, with start and end; the name finds the first alone."""
    parts = (Part(0.0, 5.0), Part(5.0, 7.5))
    with catalog.transaction():
        content = Content(b"s" * 32, Modality.AUDIO, "WAV", parts=parts)
        id = catalog.put_content(content, 1, np.eye(2, 3, dtype=np.float32))
        catalog.put_file(b"/s/bark.wav", (1, 1, 1), content_id=id, modality=Modality.AUDIO)
        catalog.put_file(b"/s/copy.wav", (1, 1, 2), content_id=id, modality=Modality.AUDIO)
    told = {
        (m.vector_id, m.item.path.name, m.item.part, m.item.start, m.item.end)
        for m in catalog.matches([1, 2])
    }
    assert told == {
        (1, "bark.wav", 0, 0.0, 5.0), (2, "bark.wav", 1, 5.0, 7.5),
        (1, "copy.wav", 0, 0.0, 5.0), (2, "copy.wav", 1, 5.0, 7.5),
    }  # fmt: skip
    assert found(catalog, "bark") == [("bark.wav", 0)]
    assert catalog.modalities() == [Modality.AUDIO]
    assert catalog.vectors_of_kind(1, Modality.AUDIO).tolist() == [1, 2]
    assert catalog.vectors_of_kind(1, Modality.IMAGE).tolist() == []


def test_words_keep_in_step(catalog):
    """Moved, changed, gone, forgotten: what is found is what is there."""
    with catalog.transaction():
        put(catalog, b"/p/old.png")
        put(catalog, b"/p/other.txt", "hello there", modality=Modality.TEXT)
    with catalog.transaction():
        catalog.move_file(1, b"/q/new.png", (1, 1, 1))
        put(catalog, b"/p/other.txt", "good bye", modality=Modality.TEXT)
    assert found(catalog, "old hello") == []
    assert found(catalog, "new") == [("new.png", 0)]
    assert found(catalog, "bye") == found(catalog, "p") == [("other.txt", 0)]
    with catalog.transaction():
        catalog.mark_gone([1])
    assert found(catalog, "new") == []
    with catalog.transaction():
        catalog.move_file(1, b"/r/back.png", (1, 1, 1))
    assert found(catalog, "back") == [("back.png", 0)]
    with catalog.transaction():
        catalog.drop_files([1, 2])
    assert found(catalog, "back bye") == []
    assert catalog.inspect() == []


def test_a_failed_transaction_takes_its_words_along(catalog):
    """Words are written in the transaction of their items, or not at all."""
    with pytest.raises(RuntimeError, match="half way"), catalog.transaction():
        put(catalog, b"/p/a.png")
        catalog.put_file(b"/p/a.png", (2, 2, 2), content_id=put(catalog, b"/p/b.png"))
        raise RuntimeError("half way")
    assert found(catalog, "a b png") == []


def test_inspect_finds_a_file_without_words(catalog):
    """An indexed file whose name finds nothing is told by check."""
    with catalog.transaction():
        put(catalog, b"/p/a.png")
    raw = sqlite3.connect(catalog.path)
    raw.execute("DELETE FROM keywords")
    raw.commit()
    raw.close()
    assert catalog.inspect() == ["1 indexed files cannot be found by their names"]


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3), st.lists(st.text(max_size=30), max_size=2))
def test_row_70_no_words_are_taken_for_a_language(wanted, unwanted):
    """Row 70: whatever is asked, FTS5 understands it as words."""
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE VIRTUAL TABLE keywords USING fts5(names, text)")
    asked = expression(wanted, unwanted)
    if asked is not None:
        raw.execute("SELECT rowid FROM keywords WHERE keywords MATCH ?", [asked]).fetchall()
    raw.close()


@pytest.mark.parametrize(
    "hostile",
    ['"', '""', "names:secret", "NEAR(a b, 1000000)", "a* OR b", "^a", "{names text}: a", "a\0b",
     "NOT", "AND OR NOT", "(", "-", "' OR 1=1 --", "+", "a" * 10_000, "\N{ZERO WIDTH SPACE}"],
)  # fmt: skip
def test_row_70_hostile_words_find_nothing_they_do_not_say(catalog, hostile):
    """Row 70: signs of FTS5's language are neither obeyed nor an error."""
    with catalog.transaction():
        put(catalog, b"/p/secret.png")
    assert found(catalog, hostile) == []
