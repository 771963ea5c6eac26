"""What is said of files, beside them and in them, through `index`: by value, and what it costs."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, FakeEncoder, colour_row, inject, items_by_words
from fixtures import make_library
from PIL import Image

from mmsearch.catalog import Catalog
from mmsearch.catalog.captions import caption_digest
from mmsearch.decoding.claims import _metadata
from mmsearch.records import Caption, Metadata


def told(library):
    """{name: [(source, caption)]} of every file that has captions and is not gone."""
    with Catalog.open(library.folder / "library.db") as catalog:
        assert catalog.inspect() == []
        names = rows(library, "SELECT i.id, f.name FROM items i JOIN files f ON f.id = i.file_id "
                              "WHERE f.gone_at IS NULL AND i.part = 0")  # fmt: skip
        said = catalog.captions_of([id for id, _ in names])
    return {
        os.fsdecode(name): [(caption.source, caption.text) for caption in said[id]]
        for id, name in names
        if id in said
    }


def texts(library):
    """The same, without the sources."""
    return {name: [text for _, text in said] for name, said in told(library).items()}


def rows(library, query):
    """Rows straight from the file."""
    connection = sqlite3.connect(library.folder / "library.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def words(library):
    """{caption: its vector, None where it has none} of every caption content."""
    query = (
        "SELECT p.text, v.data FROM contents c JOIN parts p ON p.content_id = c.id "
        "LEFT JOIN vectors v ON v.content_id = c.id WHERE c.format = 'caption'"
    )
    found = rows(library, query)
    return {text: data and np.frombuffer(data, "<f2").tolist() for text, data in found}


def said(report):
    """What a report counts, without the zeros; `failed` is a number here."""
    row = report.as_dict()
    row["failed"] = len(row["failed"])
    return {name: n for name, n in row.items() if n and type(n) is int}


@pytest.fixture
def red(library, photos, encoder):
    """red.png with red.txt beside it, indexed."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("green\na blue square\n")
    assert said(library.index(photos)) == {"added": 1, "encoded": 1, "captioned": 1, "sidecars": 1}
    encoder.pictures = 0
    return library


# -- sidecars ------------------------------------------------------------------------------


def test_a_sidecar_is_captions_and_no_text(red, photos, encoder):
    """Its lines have vectors; it is no item; a second run changes nothing."""
    assert told(red) == {"red.png": [("sidecar", "green"), ("sidecar", "a blue square")]}
    vectors = words(red)
    assert vectors["green"] == colour_row("green").tolist()
    expected = encoder.encode("text", ["a blue square"])[0].astype(np.float16).tolist()
    assert vectors["a blue square"] == expected
    assert rows(red, "SELECT modality FROM items") == [("image",)]
    assert red.errors() == []
    [sidecar] = red.errors(skipped=True)
    assert (sidecar.path.name, sidecar.reason) == ("red.txt", "sidecar")
    assert said(red.index()) == {"unchanged": 1, "sidecars": 1}


def test_a_sidecar_that_changes_or_goes(red, photos, encoder):
    """Noticed by the next run, and no picture is encoded for it; vectors of old words go."""
    (photos / "red.txt").write_text("yellow\ngreen")
    report = red.index()
    assert said(report) == {"unchanged": 1, "sidecars": 1, "captioned": 1}
    assert texts(red) == {"red.png": ["yellow", "green"]}
    assert words(red).keys() == {"yellow", "green"}
    (photos / "red.txt").unlink()
    assert said(red.index()) == {"unchanged": 1, "captioned": 1}
    assert (texts(red), words(red)) == ({}, {})
    (photos / "red.png.txt").write_text("orange")
    assert said(red.index()) == {"unchanged": 1, "sidecars": 1, "captioned": 1}
    assert texts(red) == {"red.png": ["orange"]}
    assert encoder.pictures == 0


def test_a_text_becomes_a_sidecar_and_a_text_again(library, photos, encoder):
    """While its picture is there it is no item; without the picture it is one."""
    (photos / "red.txt").write_text("green")
    assert said(library.index(photos)) == {"added": 1, "encoded": 1}
    photos.paint("red.png", "red")
    assert said(library.index()) == {"added": 1, "encoded": 1, "sidecars": 1, "captioned": 1}
    assert rows(library, "SELECT modality FROM items") == [("image",)]
    (photos / "red.png").unlink()
    assert said(library.index()) == {"added": 1, "encoded": 1, "gone": 1}
    assert texts(library) == {}
    photos.paint("red.png", "red")
    assert said(library.index()) == {"added": 1, "sidecars": 1}
    assert texts(library) == {"red.png": ["green"]}
    assert rows(library, "SELECT modality FROM items") == [("image",)]


def test_the_words_of_captions_find_their_pictures(red, photos):
    """From the run on that read them, and no longer than they are there."""

    def found(*asked):
        with Catalog.open(red.folder / "library.db") as catalog:
            return [item.path.name for item, _ in items_by_words(catalog, list(asked), 5)]

    assert (found("square"), found("rose")) == (["red.png"], [])
    (photos / "red.txt").write_text("a rose")
    red.index()
    assert (found("square"), found("rose")) == ([], ["red.png"])
    (photos / "sub").mkdir()
    (photos / "red.png").rename(photos / "sub" / "rot.png")
    red.index()
    assert (found("rose"), found("rot")) == (["red.txt"], ["rot.png"])


def test_two_pictures_share_the_words_of_a_caption(library, photos):
    """One content, one vector; it stays until the last of them has other words."""
    for name in ("red", "blue"):
        photos.paint(f"{name}.png", name)
        (photos / f"{name}.txt").write_text("green")
    library.index(photos)
    assert texts(library) == {"red.png": ["green"], "blue.png": ["green"]}
    assert len(rows(library, "SELECT id FROM vectors")) == 3
    (photos / "red.txt").unlink()
    library.index()
    assert (texts(library), words(library).keys()) == ({"blue.png": ["green"]}, {"green"})
    library.forget(photos / "blue.png")
    assert words(library) == {}
    assert len(rows(library, "SELECT id FROM vectors")) == 1


def test_a_text_with_the_bytes_of_a_caption_is_another_content(library, photos):
    """Nobody can make a file that is taken for a caption."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("green")
    for name, data in (("a.md", b"green"), ("b.md", b"caption\0green"), ("c.md", b"captiongreen")):
        (photos / name).write_bytes(data)
    library.index(photos)
    assert len(caption_digest("green")) == 39
    assert len(rows(library, "SELECT id FROM contents")) == 5
    assert texts(library) == {"red.png": ["green"]}


def test_sounds_have_sidecars_too(library, photos):
    """A window of sound has its file's captions."""
    import soundfile

    soundfile.write(photos / "low.wav", np.sin(np.arange(24000) * 0.2), 8000)
    (photos / "low.txt").write_text("a low tone")
    library.index(photos)
    assert texts(library) == {"low.wav": ["a low tone"]}
    assert len(rows(library, "SELECT id FROM items")) == 2


def test_files_that_move_take_and_leave_captions(red, photos, encoder):
    """A picture that moves without its sidecar loses these captions; a copy has its own."""
    (photos / "sub").mkdir()
    (photos / "red.png").rename(photos / "sub" / "red.png")
    report = red.index()
    assert said(report) == {"moved": 1, "added": 1, "encoded": 1, "captioned": 1}  # and a text
    assert texts(red) == {}
    (photos / "red.txt").rename(photos / "sub" / "red.txt")
    assert said(red.index()) == {"unchanged": 1, "sidecars": 1, "captioned": 1, "gone": 1}
    assert texts(red) == {"red.png": ["green", "a blue square"]}
    (photos / "sub").rename(photos / "other")
    assert said(red.index()) == {"moved": 1, "sidecars": 1}
    shutil.copy(photos / "other" / "red.png", photos / "copy.png")
    (photos / "copy.txt").write_text("yellow")
    assert said(red.index()) == {"copied": 1, "unchanged": 1, "sidecars": 2, "captioned": 1}
    assert texts(red) == {"red.png": ["green", "a blue square"], "copy.png": ["yellow"]}
    assert encoder.pictures == 0


def test_gone_files_keep_their_captions(red, photos, encoder):
    """Hidden with the picture, back with it, forgotten with it."""
    shutil.move(photos / "red.png", photos.folder.parent / "red.png")
    red.index()
    assert texts(red) == {}
    assert "a blue square" in words(red)
    shutil.move(photos.folder.parent / "red.png", photos / "red.png")
    red.index()
    assert texts(red) == {"red.png": ["green", "a blue square"]}
    (photos / "red.png").unlink()
    red.index()
    red.forget(gone=True)
    assert words(red) == {}


def test_a_picture_that_breaks_loses_its_captions(red, photos):
    """It is no item any more; when it is mended they are back."""
    whole = (photos / "red.png").read_bytes()
    (photos / "red.png").write_bytes(whole[:40])
    red.index()
    assert (texts(red), words(red)) == ({}, {})
    (photos / "red.png").write_bytes(whole)
    red.index()
    assert texts(red) == {"red.png": ["green", "a blue square"]}


def test_a_caption_that_the_model_cannot_place_is_words_alone(library, photos):
    """Black has no direction: no vector, no failure; check finds nothing wrong."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("black\nblue")
    assert said(library.index(photos))["captioned"] == 1
    assert words(library) == {"black": None, "blue": colour_row("blue").tolist()}
    assert library.check() == []


def test_unchanged_sidecars_are_not_opened(red, photos, monkeypatch):
    """Their states are enough; so it is with the lists of a folder."""
    (photos / "captions.csv").write_text("file,caption\nred.png,rose\n")
    red.index()

    def opened(*_):
        raise AssertionError("a sidecar was read")

    monkeypatch.setattr("mmsearch.ingest.Reader.captions", opened)
    monkeypatch.setattr("mmsearch.ingest.Reader.check", opened)
    assert said(red.index()) == {"unchanged": 1, "sidecars": 2}


def test_row_1_a_picture_and_its_captions_are_written_as_one(library, photos, monkeypatch):
    """Row 1: a run that dies between them leaves neither, and the next one both."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("green")
    with monkeypatch.context() as dying:
        dying.setattr(Catalog, "put_captions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            library.index(photos)
    assert rows(library, "SELECT id FROM files") == []
    assert rows(library, "SELECT id FROM contents") == rows(library, "SELECT id FROM vectors") == []
    assert said(library.index(photos)) == {
        "added": 1, "encoded": 1, "sidecars": 1, "captioned": 1,
    }  # fmt: skip
    (photos / "red.txt").write_text("blue")
    with monkeypatch.context() as dying:
        dying.setattr(Catalog, "put_captions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            library.index(photos)
    assert texts(library) == {"red.png": ["green"]}
    assert said(library.index(photos)) == {"unchanged": 1, "sidecars": 1, "captioned": 1}
    assert texts(library) == {"red.png": ["blue"]}


# -- lists ---------------------------------------------------------------------------------


def test_lists_of_all_folders_above_caption_a_file(library, photos):
    """Each of them, whichever folder in between has one of its own."""
    for folder in ("", "a/", "a/b/c/"):
        (photos / folder).mkdir(parents=True, exist_ok=True)
    photos.paint("a/b/c/red.png", "red")
    photos.paint("a/b/green.png", "green")
    (photos / "captions.csv").write_text(
        "file,caption\na/b/c/red.png,from the top\na/b/green.png,the top too\n"
    )
    (photos / "a" / "captions.csv").write_text("file,caption\nb/c/red.png,from below\n")
    library.index(photos)
    assert library.status()["captions"] == 3
    assert library.check() == []


def test_a_list_captions_its_folder_and_below(library, photos, encoder):
    """A row a caption; when the list changes, what it says changes, and nothing is encoded."""
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        photos.paint(name, "red", (8, 8 + len(name) + ord(name[-5])))
    table = photos / "captions.csv"
    table.write_text('file,caption\na.png,blue\nsub/b.png,green\na.png,"round, and red"\n')
    report = library.index(photos)
    assert said(report) == {"added": 3, "encoded": 3, "captioned": 2, "sidecars": 1}
    assert told(library) == {
        "a.png": [("captions.csv", "blue"), ("captions.csv", "round, and red")],
        "b.png": [("captions.csv", "green")],
    }
    encoder.pictures = 0
    table.write_text("file,caption\na.png,blue\nsub/c.png,green\n")
    assert said(library.index()) == {"unchanged": 3, "captioned": 3, "sidecars": 1}
    assert texts(library) == {"a.png": ["blue"], "c.png": ["green"]}
    assert said(library.index()) == {"unchanged": 3, "sidecars": 1}
    table.unlink()
    assert said(library.index()) == {"unchanged": 3, "captioned": 2}
    assert (texts(library), encoder.pictures) == ({}, 0)


def test_a_new_picture_finds_its_row(library, photos):
    """In a folder below, in a run of that folder or of that file alone."""
    photos.paint("a.png", "red")
    (photos / "captions.jsonl").write_text(
        "".join(json.dumps({"file": f"sub/{n}.png", "caption": n}) + "\n" for n in COLOURS)
    )
    library.index(photos)
    photos.paint("sub/green.png", "green")
    library.index(photos / "sub")
    photos.paint("sub/blue.png", "blue")
    (photos / "sub" / "blue.txt").write_text("sky")
    library.index(photos / "sub" / "blue.png")
    assert texts(library) == {"green.png": ["green"], "blue.png": ["sky", "blue"]}
    assert said(library.index()) == {"unchanged": 3, "sidecars": 2}


def test_only_what_was_given_is_looked_at(library, photos):
    """A file, or a folder, that is given alone has no captions from outside of it."""
    photos.paint("sub/red.png", "red")
    (photos / "captions.csv").write_text("file,caption\nsub/red.png,blue\n")
    (photos / "sub" / "red.txt").write_text("green")
    library.index(photos / "sub" / "red.png")
    assert texts(library) == {}
    library.index(photos / "sub")
    assert texts(library) == {"red.png": ["green"]}
    library.index(photos)
    assert texts(library) == {"red.png": ["green", "blue"]}


def test_bad_sidecars_are_named_and_the_others_go_on(library, photos):
    """Once, with a reason; the pictures are indexed; mended ones are read."""
    for name in ("red", "green", "blue"):
        photos.paint(f"{name}.png", name)
    (photos / "red.txt").write_bytes(b"\x89PNG\r\n")
    (photos / "blue.txt").write_text("sky")
    (photos / "captions.csv").write_text('file,caption\ngreen.png,"never closed\n')
    (photos / "captions.jsonl").write_text('{"file": "../../etc/passwd", "caption": "evil"}\n')
    report = library.index(photos)
    assert said(report) == {"added": 3, "encoded": 3, "captioned": 1, "sidecars": 2, "failed": 2}
    assert {(path.name, reason) for path, reason in report.failed} == {
        ("red.txt", "type-mismatch"), ("captions.csv", "corrupt"),
    }  # fmt: skip
    assert {failure.path.name for failure in library.errors()} == {"red.txt", "captions.csv"}
    assert texts(library) == {"blue.png": ["sky"]}
    assert said(library.index()) == {"unchanged": 5, "sidecars": 2}
    (photos / "red.txt").write_text("rose")
    (photos / "captions.csv").write_text("file,caption\ngreen.png,grass\n")
    library.index()
    assert texts(library) == {"red.png": ["rose"], "green.png": ["grass"], "blue.png": ["sky"]}


def test_an_empty_sidecar_says_nothing(library, photos):
    """And is no failure."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("")
    assert said(library.index(photos)) == {"added": 1, "encoded": 1, "sidecars": 1}
    assert texts(library) == {}


# -- in the file ---------------------------------------------------------------------------


def described(path, words, colour="red"):
    """A picture whose EXIF has a description, a camera and a date."""
    exif = Image.Exif()
    exif[0x010E], exif[0x010F], exif[0x0110] = words, "ACME", "One"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    Image.new("RGB", (8, 8), COLOURS[colour]).save(path, exif=exif)


def test_what_a_picture_says_of_itself(library, photos):
    """Its description is a caption, its camera and date are the content's; a copy has them too."""
    described(photos / "a.jpg", "a blue rose")
    library.index(photos)
    assert told(library) == {"a.jpg": [("exif", "a blue rose")]}
    columns = "camera, taken, taken_source, described"
    taken = int(np.datetime64("2024-05-06T07:08:09", "ns").astype(np.int64))
    assert rows(library, f"SELECT {columns} FROM contents WHERE format = 'JPEG'") == [
        ("ACME One", taken, "exif", 1)
    ]
    shutil.copy(photos / "a.jpg", photos / "b.jpg")
    (photos / "b.txt").write_text("green")
    assert said(library.index()) == {"copied": 1, "unchanged": 1, "sidecars": 1, "captioned": 1}
    assert told(library)["b.jpg"] == [("sidecar", "green"), ("exif", "a blue rose")]
    (photos / "b.txt").unlink()
    library.index()
    assert told(library)["b.jpg"] == [("exif", "a blue rose")]
    described(photos / "a.jpg", "a white rose")
    library.index()
    assert texts(library) == {"a.jpg": ["a white rose"], "b.jpg": ["a blue rose"]}


@pytest.mark.parametrize(
    "lie",
    [
        {"iso": 2**63}, {"latitude": float("nan")}, {"duration": "long"}, {"camera": 7},
        {"lens": "x" * 1001}, {"camera": "\ud800"}, {"captions": [["exif"]]}, {"captions": None},
        {"colour": "red"}, {"taken": True},
    ],
    ids=str,
)  # fmt: skip
def test_row_46_a_worker_that_lies_about_a_file_is_not_believed(lie):
    """Row 46: one that a hostile file has taken over brings nothing else into the catalog."""
    honest = {"taken": 1, "camera": "One", "captions": [["exif", "a\0b\n c"], ["xmp", " "]]}
    assert _metadata(dict(honest)) == Metadata(
        taken=1, camera="One", captions=(Caption("exif", "a b c"),)
    )
    least, most = -(2**63), 2**63 - 1
    assert _metadata({"captions": [], "taken": least, "iso": most}) == Metadata(
        taken=least, iso=most
    )
    with pytest.raises((ValueError, TypeError)):
        _metadata(honest | lie)


# -- libraries of before -------------------------------------------------------------------


def test_row_23_an_older_library_is_described_without_encoding(library, photos, encoder):
    """Row 23: of schema 2, with the sidecar as a text: read once more, and no picture encoded."""
    described(photos / "a.jpg", "a blue rose")
    photos.paint("red.png", "red")
    library.index(photos)
    (photos / "red.txt").write_text("green")
    connection = sqlite3.connect(library.folder / "library.db")
    connection.executescript(
        "PRAGMA foreign_keys = ON; DELETE FROM captions;"
        "DELETE FROM contents WHERE format = 'caption';"
        "DROP TABLE captions; DROP TABLE labels; DROP TABLE backgrounds; DROP TABLE substrings;"
        "PRAGMA user_version = 2;"
        "ALTER TABLE files DROP COLUMN sidecars;"
    )
    later = "duration taken taken_source camera lens iso latitude longitude described"
    for column in later.split():
        connection.execute(f"ALTER TABLE contents DROP COLUMN {column}")
    connection.close()
    encoder.pictures = 0
    report = library.index()
    assert said(report) == {"unchanged": 2, "sidecars": 1, "captioned": 2}
    assert encoder.pictures == 0
    assert texts(library) == {"a.jpg": ["a blue rose"], "red.png": ["green"]}
    assert rows(library, "SELECT camera, described FROM contents WHERE format = 'JPEG'") == [
        ("ACME One", 1)
    ]
    assert said(library.index()) == {"unchanged": 2, "sidecars": 1}


@pytest.mark.parametrize("version", [1, 2])
def test_row_23_an_older_schema_knows_that_nobody_looked(tmp_path, version):
    """Row 23: pictures and sounds are to be described, texts have nothing more to say."""
    path = tmp_path / "library.db"
    shutil.copy(Path(make_library.__file__).with_name(f"library-schema-{version}.db"), path)
    with Catalog.open(path, write=True) as catalog:
        known = catalog.known_files(b"/photos")
        assert not known[b"1.png"].described
        assert known[b"bad.png"].described  # there is nothing to describe
        assert known[b"1.png"].mark == 0
        if version == 2:
            assert (known[b"s.wav"].described, known[b"t.md"].described) == (False, True)
        assert catalog.captions_of([1, 2, 3]) == {}


def test_row_22_a_newer_model_encodes_captions_anew(library, photos, encoder, monkeypatch):
    """Row 22: from index on, captions are the new model's, those of gone files excepted."""
    encoder.name = "builtin-1"
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("green")
    described(photos / "a.jpg", "a blue rose")
    library.index(photos)
    library.close()

    class Newer(FakeEncoder):
        """Red is green to it, green blue, and blue red."""

        def encode(self, modality, batch):
            return np.roll(super().encode(modality, batch), 1, axis=1)

    inject(monkeypatch, Newer("builtin-2", "fb" * 32))
    assert library.index().encoded == 2
    assert words(library)["green"] == colour_row("blue").tolist()
    assert texts(library) == {"red.png": ["green"], "a.jpg": ["a blue rose"]}
    assert rows(library, "SELECT name FROM spaces") == [("builtin-2",)]
    assert library.check() == []


# -- the catalog ---------------------------------------------------------------------------


def test_captions_keep_their_order_and_are_told_once(red):
    """By source as they came; the same words of two sources are one caption to a reader."""
    [(item, file, picture)] = rows(red, "SELECT i.id, f.id, f.content_id FROM items i, files f "
                                        "WHERE f.id = i.file_id")  # fmt: skip
    with Catalog.open(red.folder / "library.db", write=True) as catalog:
        keys = caption_digest("green"), caption_digest("a blue square")
        green, square = map(catalog.content_ids(keys).get, keys)
        with catalog.transaction():
            inside = [(green, "exif"), (square, "xmp")]
            assert catalog.put_captions(file, [(square, "sidecar")], inside)
        assert catalog.captions_of([item]) == {
            item: [Caption("sidecar", "a blue square"), Caption("exif", "green")]
        }
        with catalog.transaction():
            assert not catalog.put_captions(file, [(square, "sidecar")])  # in it: as before
        assert catalog.inspect() == []
    connection = sqlite3.connect(red.folder / "library.db")
    connection.execute("UPDATE captions SET content_id = ? WHERE source = 'exif'", [picture])
    connection.commit()
    connection.close()
    assert sorted(red.check()) == [
        "1 captions are said of no file; mmsearch repair mends it",
        "1 captions have no words; mmsearch repair mends it",
        "the words in keywords are not those of the files; mmsearch repair mends it",
        "the words in substrings are not those of the files; mmsearch repair mends it",
    ]
