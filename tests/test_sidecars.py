"""Captions beside files: which file captions which, and what is read of them, hostile or not."""

from __future__ import annotations

import csv
import json
import os

import pytest

from mmsearch.errors import LoadError
from mmsearch.files import Stat
from mmsearch.records import Caption, Reason
from mmsearch.sidecars import (
    LARGEST,
    LONGEST,
    MOST,
    Reader,
    Sidecars,
    Surroundings,
    clean,
)

PICTURES = frozenset([b".jpg", b".png"])


def around(names, lists=(), sizes=()):
    """The surroundings of files of these names in /p, each of 5 bytes."""
    sizes = dict(sizes)
    files = [(name, Stat(sizes.get(name, 5), 1, n)) for n, name in enumerate(names, 1)]
    return Surroundings(b"/p", files, lists, PICTURES)


# -- which captions which ------------------------------------------------------------------


def test_a_text_of_the_same_name_captions_a_picture():
    """x.txt and x.jpg.txt are x.jpg's; other texts are nobody's, and sidecars have none."""
    here = around([b"x.jpg", b"x.txt", b"x.jpg.txt", b"y.txt", b"z.png", b"notes.md", b"notes.jpg"])
    assert here.of(b"x.jpg").paths == (b"/p/x.txt", b"/p/x.jpg.txt")
    assert [here.of(name) for name in (b"z.png", b"y.txt", b"notes.jpg", b"x.txt")] == (
        [Sidecars()] * 4
    )
    told = [
        name for name in (b"x.txt", b"x.jpg.txt", b"y.txt", b"notes.md") if here.is_sidecar(name)
    ]
    assert told == [b"x.txt", b"x.jpg.txt"]


def test_one_text_may_caption_several_files():
    """x.jpg and x.png have the same x.txt; suffixes in any letters."""
    here = around([b"x.JPG", b"x.png", b"x.TXT"])
    assert here.of(b"x.JPG").paths == here.of(b"x.png").paths == (b"/p/x.TXT",)


def test_a_long_text_beside_a_picture_is_a_text():
    """A book beside the picture of its cover is no caption."""
    here = around([b"x.jpg", b"x.txt"], sizes=[(b"x.txt", LARGEST + 1)])
    assert here.of(b"x.jpg") == Sidecars()
    assert not here.is_sidecar(b"x.txt")


def test_lists_caption_every_picture_of_their_folder_and_below():
    """Nearest first; a list is a sidecar even where it captions nothing."""
    above = ((b"/captions.jsonl", Stat(1, 1, 1)),)
    here = around([b"x.jpg", b"captions.csv", b"notes.txt"], above)
    assert here.of(b"x.jpg").paths == (b"/p/captions.csv", b"/captions.jsonl")
    assert here.of(b"notes.txt") == Sidecars()
    assert here.is_sidecar(b"captions.csv")
    assert [path for path, _ in here.lists] == [b"/p/captions.csv", b"/captions.jsonl"]


def test_the_mark_changes_with_every_sidecar():
    """One that comes, goes, grows, or is replaced; other files change nothing. 0 is for none."""

    def mark(names, **sizes):
        return around(names, sizes=[(b"x.txt", sizes.get("size", 5))]).of(b"x.jpg").mark

    marks = [
        mark([b"x.jpg"]), mark([b"x.jpg", b"x.txt"]), mark([b"x.jpg", b"x.txt"], size=6),
        mark([b"x.jpg", b"x.txt", b"x.jpg.txt"]), mark([b"x.jpg", b"other.jpg", b"x.txt"]),
    ]  # fmt: skip
    assert marks[0] == 0
    assert len(set(marks)) == 5
    assert mark([b"x.jpg", b"x.txt", b"later.jpg"]) == marks[1]
    assert all(-(2**63) <= one < 2**63 for one in marks)


# -- what they say -------------------------------------------------------------------------


def said(path, *sidecars):
    """[(source, text)] of a file."""
    found = Reader().captions(os.fsencode(path), [os.fsencode(one) for one in sidecars])
    return [(caption.source, caption.text) for caption in found]


def test_a_text_has_a_caption_a_line(tmp_path):
    """Empty lines count for nothing; the same words count once; UTF-8, or UTF-16 as it says."""
    (tmp_path / "x.txt").write_text("a red  square\n\n red\na red square\r\n红色\n", "utf-8-sig")
    (tmp_path / "x.jpg.txt").write_text("red\nround", "utf-16")
    assert said(tmp_path / "x.jpg", tmp_path / "x.txt", tmp_path / "x.jpg.txt") == [
        ("sidecar", "a red square"), ("sidecar", "red"), ("sidecar", "红色"), ("sidecar", "round"),
    ]  # fmt: skip


def test_a_table_has_several_rows_a_file(tmp_path):
    """Files of the folder and below, by their paths from there, or whole ones."""
    rows = [
        ("a.jpg", "red, and so on"), ("sub/b.jpg", "green"), ("a.jpg", "round"), ("./a.jpg", "re"),
        (str(tmp_path / "sub" / "b.jpg"), "grass"),
    ]  # fmt: skip
    with open(tmp_path / "captions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("File", "Caption"), *rows])
    source = tmp_path / "captions.csv"
    found = [text for _, text in said(tmp_path / "a.jpg", source)]
    assert found == ["red, and so on", "round", "re"]
    assert said(tmp_path / "sub" / "b.jpg", source) == [
        ("captions.csv", "green"), ("captions.csv", "grass"),
    ]  # fmt: skip
    assert said(tmp_path / "c.jpg", source) == []
    assert Reader().check(os.fsencode(source)) == "captions of 2 files"


def test_a_list_may_leave_out_the_folder_of_photos(tmp_path):
    """images/a.jpg is meant by a.jpg, unless there is an a.jpg beside the list."""
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "a.jpg", "captions": ["red", "round"]}\n{"path": "b.jpg", "text": "blue"}\n'
    )
    (tmp_path / "b.jpg").touch()
    source = tmp_path / "captions.jsonl"
    found = [text for _, text in said(tmp_path / "images" / "a.jpg", source)]
    assert found == ["red", "round"]
    assert said(tmp_path / "images" / "b.jpg", source) == []
    assert said(tmp_path / "elsewhere" / "a.jpg", source) == []


def test_a_list_is_read_again_when_it_changes(tmp_path):
    """A reader keeps lists as they are as long as they are so."""
    source = tmp_path / "captions.csv"
    source.write_text("file,caption\na.jpg,red\n")
    reader, path = Reader(), os.fsencode(tmp_path / "a.jpg")
    assert reader.captions(path, [os.fsencode(source)]) == [Caption("captions.csv", "red")]
    source.write_text("file,caption\na.jpg,green\n")
    assert reader.captions(path, [os.fsencode(source)]) == [Caption("captions.csv", "green")]


# -- hostile ones --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "/etc/passwd", "sub/../../a.jpg", "", ".", "a\0.jpg", "\ud800.jpg", 7, None],
)
def test_rows_that_name_nothing_below_the_list_are_counted(tmp_path, name):
    """Names with .., whole paths elsewhere, no names: the other rows go on."""
    source = tmp_path / "p" / "captions.jsonl"
    source.parent.mkdir()
    rows = [{"file": name, "caption": "evil"}, {"file": "a.jpg", "caption": "red"}]
    source.write_text("\n".join(map(json.dumps, rows)))
    reader = Reader()
    assert reader.check(os.fsencode(source)).startswith(
        "captions of 1 files; rows of no use: 1, the first is line 1: a "
    )
    assert [
        c.text for c in reader.captions(os.fsencode(source.parent / "a.jpg"), [os.fsencode(source)])
    ] == ["red"]
    for path in (b"/etc/passwd", os.fsencode(tmp_path / "a.jpg")):
        assert reader.captions(path, [os.fsencode(source)]) == []


@pytest.mark.parametrize(
    "name, content, reason, message",
    [
        ("x.txt", b"\x89PNG\r\n\x1a\n", Reason.TYPE_MISMATCH, "not UTF-8 text: byte 0"),
        ("x.txt", b"words " * LARGEST, Reason.TOO_LARGE, "over the limit"),
        ("captions.csv", b"\xff\xd8\xff", Reason.TYPE_MISMATCH, "not UTF-8 text"),
        ("captions.csv", b'file,caption\na.jpg,"never closed\n', Reason.CORRUPT, "line [12]: dam"),
        ("captions.csv", b"file,caption\na.jpg," + b"x" * 200_000, Reason.CORRUPT, "field limit"),
        ("captions.csv", b"picture,words\n", Reason.CORRUPT, "it needs a column file or"),
        ("captions.csv", b"", Reason.CORRUPT, "it has none"),
        ("captions.jsonl", b"[" * 100_000, Reason.CORRUPT, "line 1: damaged"),
        ("captions.jsonl", b'{"file": "a.jpg"}\n', Reason.CORRUPT, "it needs a column caption or"),
        ("captions.jsonl", b"[1]\n", Reason.CORRUPT, "line 1: not an object"),
        ("captions.jsonl", b"9" * 5000, Reason.CORRUPT, "line 1: damaged"),
    ],
)  # fmt: skip
def test_a_damaged_sidecar_is_named_and_says_nothing(tmp_path, name, content, reason, message):
    """Binary, huge, of another encoding, not closed, too deep: one error each, no captions."""
    (tmp_path / name).write_bytes(content)
    source = os.fsencode(tmp_path / name)
    with pytest.raises(LoadError, match=message) as caught:
        Reader().check(source)
    assert caught.value.reason is reason
    assert Reader().captions(os.fsencode(tmp_path / "a.jpg"), [source]) == []


def test_a_sparse_list_is_refused_by_its_size(tmp_path):
    """Row 38: a terabyte of nothing is not read."""
    source = tmp_path / "captions.csv"
    with open(source, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(LoadError, match="over the limit of 64 MB"):
        Reader().check(os.fsencode(source))


def test_a_fifo_and_a_link_are_no_sidecars(tmp_path):
    """Row 30: neither is opened, nor followed out of the folder."""
    os.mkfifo(tmp_path / "x.txt")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "x.jpg.txt").symlink_to(tmp_path / "secret")
    assert said(tmp_path / "x.jpg", tmp_path / "x.txt", tmp_path / "x.jpg.txt") == []
    assert said(tmp_path / "x.jpg", tmp_path / "captions.csv") == []


def test_captions_are_bounded(tmp_path):
    """So many of a file, so many characters of each, no control characters."""
    (tmp_path / "x.txt").write_text("\n".join(f"word {n}" for n in range(MOST + 100)))
    assert len(said(tmp_path / "x.jpg", tmp_path / "x.txt")) == MOST
    assert len(clean("x" * 10**6)) == LONGEST
    assert clean("a\0b\x1b[31m\tc\n\u2028d\x85") == "a b [31m c d"
    assert clean("\ud800 half") == "? half"
    assert clean(" \0\n") == ""
    assert clean("👩\u200d🚀 im Weltraum") == "👩\u200d🚀 im Weltraum"
