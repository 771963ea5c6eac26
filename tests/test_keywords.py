"""Words of names, passages, captions and labels: found, weighed, kept in step, and never taken
for FTS5's own language.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3

import numpy as np
import pytest
from conftest import items_by_words, matched
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from mmsearch.catalog import Catalog, Content, Part, keywords
from mmsearch.catalog.phrases import parts_of_words, phrases
from mmsearch.records import Modality


@pytest.fixture
def catalog(tmp_path):
    """An empty catalog with one space of three dimensions."""
    with Catalog.create(tmp_path / "library.db") as made:
        with made.transaction():
            made.put_space("fake", "fa" * 32, 3)
        yield made


def put(catalog, path, *texts, modality=Modality.IMAGE):
    """A file of its own content; the texts are its passages. Its id."""
    parts = tuple(Part(text=text) for text in texts)
    content = Content(os.urandom(32), modality, "any", parts=parts)
    rows = np.ones((len(parts) or 1, 3), np.float32)
    content_id = catalog.put_content(content, 1, rows)
    return catalog.put_file(path, (1, 1, 1), content_id=content_id, modality=modality)


def say(catalog, file_id, *captions):
    """Have these be a file's captions."""
    rows = np.eye(1, 3, dtype=np.float32)
    ids = [catalog.put_caption(text, 1, rows) for text in captions]
    catalog.put_captions(file_id, [(id, "sidecar") for id in ids])


def found(catalog, *texts, k=10, **options):
    """The names of the items that words find, with their parts."""
    items = items_by_words(catalog, texts, k, **options)
    return [(item.path.name, item.part) for item, _ in items]


def consistent(catalog):
    """True where both indexes hold the words of the rows that there are, and no others."""
    raw = sqlite3.connect(catalog.path)
    raw.execute("INSERT INTO keywords (keywords, rank) VALUES ('integrity-check', 1)")
    raw.execute("INSERT INTO substrings (substrings) VALUES ('integrity-check')")
    rows = raw.execute("SELECT rowid, names, captions FROM keywords WHERE names NOT NULL")
    told = {id: f"{names or ''}\n{captions or ''}".casefold() for id, names, captions in rows}
    threes = {text[at : at + 3] for text in told.values() for at in range(len(text) - 2)}
    right = True
    for three in threes:
        mine = {id for id, text in told.items() if three in text}
        query = "SELECT rowid FROM substrings WHERE substrings MATCH ?"
        asked = '"' + three.replace('"', '""') + '"'
        right &= "\n" in three or {id for (id,) in raw.execute(query, [asked])} == mine
    count = raw.execute("SELECT count(*) FROM substrings_docsize").fetchone()[0]
    raw.close()
    return right and count == len(told)


DIFFERENT = {
    "nothing": ("SELECT 1", []),
    "a word": ("UPDATE keywords_content SET c0 = 'other'", ["keywords", "substrings"]),
    "a row": ("DELETE FROM keywords_content WHERE id = 2", ["keywords", "substrings"]),
    "an index": ("UPDATE keywords_data SET block = zeroblob(9) WHERE id > 10", ["keywords"]),
    "parts of words": ("DELETE FROM substrings_data WHERE id > 10", ["substrings"]),
    "their table": ("DROP TABLE substrings_idx", ["substrings"]),
}


@pytest.mark.parametrize("change, named", DIFFERENT.values(), ids=DIFFERENT)
def test_tables_that_differ_are_named(catalog, change, named):
    """By what they would be were they made today; and nothing of that is left."""
    with catalog.transaction():
        put(catalog, b"/p/red fox.png")
        put(catalog, b"/p/a.md", "a passage", "another", modality=Modality.TEXT)
    raw = sqlite3.connect(catalog.path)
    raw.execute(change)
    raw.commit()
    raw.close()
    with Catalog.open(catalog.path) as reader:
        assert reader.broken_keywords() == named
        run = reader._connection.exec_driver_sql
        assert run("SELECT count(*) FROM temp.sqlite_schema").scalar() == 0
        assert run("PRAGMA query_only").scalar() == 1


def test_a_disk_that_fails_is_no_different_table(catalog):
    """An error that says nothing of the tables is raised."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR | 1 << 8

    class Failing:
        def exec_driver_sql(self, query):
            raise OperationalError(query, (), error)

    with pytest.raises(OperationalError, match="disk I/O error"):
        keywords._alike(Failing(), "SELECT 1", "SELECT 1")


def test_words_of_names_and_folders(catalog):
    """Split at whatever is no letter or digit; any word suffices, more and rarer ones first."""
    with catalog.transaction():
        put(catalog, b"/photos/2019 Norway/dog_on-grass.JPG")
        put(catalog, b"/photos/2019 Norway/IMG.2041.jpg")
        put(catalog, b"/photos/Cr\xc3\xaape/dogs.jpg")
    assert found(catalog, "norway grass") == [("dog_on-grass.JPG", 0), ("IMG.2041.jpg", 0)]
    assert found(catalog, "2041") == [("IMG.2041.jpg", 0)]
    assert found(catalog, "crepe CAT") == [("dogs.jpg", 0)]
    assert len(found(catalog, "jpg", k=2)) == 2
    assert found(catalog, "jpg photos", modality=Modality.TEXT) == []
    assert found(catalog, "---") == found(catalog, "") == []


def test_every_chinese_character_is_a_word(catalog):
    """Chinese has no spaces: a part of a name is found, characters in another order are not."""
    with catalog.transaction():
        put(catalog, "/照片/沙滩上的狗.jpg".encode())
    for words in ("狗", "沙滩", "照片", "猫 沙滩上的狗", "沙滩上的猫", "沙滩photo"):
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
    all_three = [item.id for item, _ in items_by_words(catalog, ["fox hare"], 10)]
    texts = {detail.text for detail in catalog.details(all_three).values()}
    assert texts == {"a red fox\n", "狐狸 and a hare", None}


def test_a_window_of_sound_says_its_seconds(catalog):
    """An item a window, with start and end; the name finds the first alone."""
    parts = (Part(0.0, 5.0), Part(5.0, 7.5))
    with catalog.transaction():
        content = Content(b"s" * 32, Modality.AUDIO, "WAV", parts=parts)
        id = catalog.put_content(content, 1, np.eye(2, 3, dtype=np.float32))
        catalog.put_file(b"/s/bark.wav", (1, 1, 1), content_id=id, modality=Modality.AUDIO)
        catalog.put_file(b"/s/copy.wav", (1, 1, 2), content_id=id, modality=Modality.AUDIO)
    told = {
        (vector_id, item.path.name, item.part, item.start, item.end)
        for vector_id, item in matched(catalog, [1, 2])
    }
    assert told == {
        (1, "bark.wav", 0, 0.0, 5.0), (2, "bark.wav", 1, 5.0, 7.5),
        (1, "copy.wav", 0, 0.0, 5.0), (2, "copy.wav", 1, 5.0, 7.5),
    }  # fmt: skip
    assert found(catalog, "bark") == [("bark.wav", 0)]


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
    assert consistent(catalog)


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


def test_captions_and_labels_are_words_of_the_first_item(catalog):
    """What is said of a file finds it; other captions and labels take the place of the old."""
    with catalog.transaction():
        bark = Content(b"s" * 32, Modality.AUDIO, "WAV", parts=(Part(0.0, 5.0), Part(5.0, 9.0)))
        content = catalog.put_content(bark, 1, np.eye(2, 3, dtype=np.float32))
        sound = catalog.put_file(
            b"/p/1.wav", (1, 1, 1), content_id=content, modality=Modality.AUDIO
        )
        picture = put(catalog, b"/p/2.png")
        say(catalog, sound, "Rex barks", "at the postman")
        say(catalog, picture, "邮递员和狗")
        catalog.put_labels({content: [("animal", 0.9), ("street", 0.5)]})
    assert found(catalog, "barks") == found(catalog, "postman") == [("1.wav", 0)]
    assert found(catalog, "animal") == found(catalog, "street") == [("1.wav", 0)]
    assert found(catalog, "一个邮递员") == [("2.png", 0)]
    with catalog.transaction():
        say(catalog, sound, "silence")
        catalog.put_labels({content: [("night", 0.9)]})
    assert found(catalog, "barks postman animal street") == []
    assert found(catalog, "silence night") == found(catalog, "sil") == [("1.wav", 0)]
    assert catalog.inspect() == []
    assert consistent(catalog)


def test_parts_of_words(catalog):
    """Where no word is found, names and captions that have all of three characters or more."""
    with catalog.transaction():
        put(catalog, b"/p/IMG_2024.jpg")
        put(catalog, b"/p/IMG_1999.jpg")
        say(catalog, put(catalog, b"/p/a.png"), "our holidays in Norway")
    assert found(catalog, "IMG_20") == [("IMG_2024.jpg", 0)]
    assert found(catalog, "G_199") == [("IMG_1999.jpg", 0)]
    assert found(catalog, "holi orwa") == found(catalog, "the OLID") == [("a.png", 0)]
    assert found(catalog, "holi swede") == found(catalog, "ho") == []
    assert found(catalog, "holi norway") == [("a.png", 0)]  # norway is a word


def test_fits_are_what_words_tell(catalog):
    """log((N - df + 1/2) / (df + 1/2)) nats a word, the sum squared over that of the question."""
    with catalog.transaction():
        ids = [put(catalog, b"/p/%s.png" % name) for name in (b"red", b"red fox", b"hare")]
    red, fox, cat = (math.log((1000 - df + 0.5) / (df + 0.5)) for df in (2, 1, 0))
    items, fits = catalog.fits_by_words(["a red fox, and the cat"])
    assert items.tolist() == ids[:2]
    whole = red + fox + cat
    assert fits.tolist() == pytest.approx([red**2 / whole, (red + fox) ** 2 / whole], rel=1e-5)
    assert catalog.fits_by_words(["fox"])[1].tolist() == pytest.approx([fox], rel=1e-5)
    assert catalog.fits_by_words(["fox Fox FOX"])[1].tolist() == pytest.approx([fox], rel=1e-5)


def test_fits_agree_with_a_slow_count(catalog):
    """The same as from the definition, over made-up names of a few words."""
    random = np.random.default_rng(8)
    words = ["red", "fox", "hare", "sea", "img_1", "dog"]
    names = [" ".join(random.choice(words, 3)) for _ in range(60)]
    with catalog.transaction():
        for number, name in enumerate(names):
            put(catalog, b"/p/%d %s.png" % (number, name.encode()))
    for asked in ("red", "red fox", "img_1 sea cow", "dog hare fox sea"):
        nats = {}
        for word in asked.split():
            df = sum(word in name.split() for name in names)
            nats[word] = math.log((1000 - df + 0.5) / (df + 0.5))
        sums = [sum(nats[word] for word in set(name.split()) & nats.keys()) for name in names]
        right = {id: s * s / sum(nats.values()) for id, s in enumerate(sums, start=1) if s}
        ids, fits = catalog.fits_by_words([asked])
        assert dict(zip(ids.tolist(), fits.tolist(), strict=True)) == pytest.approx(right, rel=1e-5)


def test_words_that_most_items_have_are_passed_over(catalog, monkeypatch):
    """They tell little and would take long; they count where a search is to be thorough."""
    monkeypatch.setattr(keywords, "COMMON", 3)
    with catalog.transaction():
        for name in (b"red 1", b"red 2", b"red 3", b"blue 4"):
            put(catalog, b"/p/%s.png" % name)
    assert catalog.fits_by_words(["red"])[0].tolist() == []
    assert catalog.fits_by_words(["red"], thorough=True)[0].tolist() == [1, 2, 3]
    alone = catalog.fits_by_words(["3"])[1]
    assert catalog.fits_by_words(["red 3"])[1].tolist() == alone.tolist()
    assert found(catalog, "red png", k=3) == [(f"red {n}.png", 0) for n in (1, 2, 3)]


def test_a_word_that_half_of_all_have_tells_next_to_nothing(catalog, monkeypatch):
    """A millionth of a nat, not less than none: it never speaks against an item."""
    monkeypatch.setattr(keywords, "_FEWEST", 0)
    with catalog.transaction():
        for name in (b"red 1", b"red 2", b"red 3", b"blue 4"):
            put(catalog, b"/p/%s.png" % name)
    items, fits = catalog.fits_by_words(["red blue"], thorough=True)
    blue = math.log((4 - 1 + 0.5) / (1 + 0.5))
    assert items.tolist() == [1, 2, 3, 4]
    assert fits.tolist() == pytest.approx([1e-12 / (blue + 1e-6)] * 3 + [blue], rel=1e-5)


def test_quoted_words_are_a_phrase(catalog):
    """Words in double quotes stand one after the other; a lone quote is no word."""
    with catalog.transaction():
        put(catalog, b"/p/red car.png")
        put(catalog, b"/p/car red.png")
    assert (
        found(catalog, '"red car"') == found(catalog, 'a "red-car" parked') == [("red car.png", 0)]
    )
    assert len(found(catalog, 'red" car')) == 2


def test_empty_words_count_only_alone():
    """Articles and the like are left out, unless they are all there is."""
    assert phrases(["A dog on the Grass"]) == ['"dog"', '"Grass"']
    assert phrases(["to be of it"]) == ['"be"']
    assert phrases(["the of"]) == ['"the"', '"of"']
    assert phrases(["- -- _ ,"]) == phrases([""]) == phrases([]) == []
    assert phrases(["'soccer,' soccer"]) == ['"soccer"']
    assert phrases(["两只狗 run"]) == ['" 两 只 "', '" 只 狗 "', '"run"']


def test_a_long_question_is_cut():
    """At most so many phrases are looked up, whatever is asked."""
    assert len(phrases([" ".join(map(str, range(10_000)))])) == 64
    assert len(parts_of_words([" ".join(map(str, range(10_000)))])) == 64


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3))
def test_row_70_no_words_are_taken_for_a_language(texts):
    """Row 70: whatever is asked, FTS5 understands it as words."""
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE VIRTUAL TABLE keywords USING fts5(names, text)")
    raw.execute("CREATE VIRTUAL TABLE parts USING fts5(names, detail = none, tokenize = trigram)")
    for asked in phrases(texts):
        raw.execute("SELECT rowid FROM keywords WHERE keywords MATCH ?", [asked]).fetchall()
    if threes := parts_of_words(texts):
        asked = " AND ".join(threes)
        raw.execute("SELECT rowid FROM parts WHERE parts MATCH ?", [asked]).fetchall()
    raw.close()


@settings(deadline=None, max_examples=50)
@given(st.from_regex(re.compile(r"[a-z]{1,6}([ _.-][a-z0-9]{1,6}){0,3}"), fullmatch=True))
def test_what_a_name_is_called_finds_it(name):
    """A file is found by its whole name, with all that this tells: nothing is left out."""
    raw = sqlite3.connect(":memory:")
    raw.execute("CREATE VIRTUAL TABLE keywords USING fts5(names)")
    raw.execute("INSERT INTO keywords VALUES (?)", [name])
    for asked in phrases([name]):
        query = "SELECT count(*) FROM keywords WHERE keywords MATCH ?"
        assert raw.execute(query, [asked]).fetchone() == (1,), asked
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
