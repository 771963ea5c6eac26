"""PAIRS in every layout, and what is wrong with them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from conftest import paint

from mmsearch.datasets.pairs import Bad, Pair
from mmsearch.datasets.reading import read_pairs
from mmsearch.errors import LoadError, PairsError
from mmsearch.records import Modality, Reason
from mmsearch.training.sources import data_hash, held_out, merged, usable_pairs

DATA = Path(__file__).parents[3] / "shared" / "data"


def told(place, images=None):
    """{name of the file or member: its captions}, and [(name, reason)] of what is bad."""
    pairs, bad = read_pairs([place], images)
    found = {(pair.member or pair.file.name): list(pair.captions) for pair in pairs}
    return found, [(entry.name.rpartition("/")[2], entry.reason) for entry in bad]


def test_a_csv_has_a_row_a_caption(tmp_path):
    """Rows of one file are its captions; quoted commas, spaces and a byte order mark are fine."""
    rows = [["a.jpg", "a red square"], ["a.jpg", "red, on  white"], ["sub/b.png", "a dog"]]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["File", "Caption"], *rows])
    found, bad = told(tmp_path / "pairs.csv")
    assert found == {"a.jpg": ["a red square", "red, on white"], "b.png": ["a dog"]}
    assert bad == []
    pairs, _ = read_pairs([tmp_path / "pairs.csv"])
    assert pairs[1].file == tmp_path / "sub" / "b.png"
    assert pairs[1].modality is Modality.IMAGE


def test_columns_may_have_other_names(tmp_path):
    """image and audio say what a file is, whatever its suffix; others go by the suffix."""
    (tmp_path / "a.tsv").write_text("audio\ttext\nbark.bin\ta dog barks\n")
    (tmp_path / "b.csv").write_text("path,caption\nbark.wav,a dog barks\nnotes.xyz,what\n")
    (pair,), _ = read_pairs([tmp_path / "a.tsv"])
    assert (pair.modality, pair.captions) == (Modality.AUDIO, ("a dog barks",))
    (pair,), bad = read_pairs([tmp_path / "b.csv"])
    assert pair.modality is Modality.AUDIO
    assert bad == [Bad(f"{tmp_path}/notes.xyz", "neither a picture nor a sound by its name")]


def test_bad_rows_are_named_and_the_others_go_on(tmp_path):
    """An empty caption, a comma without quotes, a row without a file."""
    (tmp_path / "pairs.csv").write_text(
        "file,caption\na.jpg,  \nb.jpg,one\nb.jpg,\nc.jpg,a dog, running\n,lost\nd.jpg\n"
    )
    found, bad = told(tmp_path / "pairs.csv")
    assert found == {"b.jpg": ["one"]}
    assert bad == [
        ("a.jpg", "an empty caption"),
        ("b.jpg", "an empty caption"),
        ("pairs.csv, line 5", "more cells than columns: a caption with a comma needs quotes"),
        ("pairs.csv, line 6", "a row without a file: ('lost',)"),
        ("d.jpg", "an empty caption"),
        ("a.jpg", "no caption"),
        ("d.jpg", "no caption"),
    ]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", b"picture,words\n", "needs a column file or .*it has 'picture', 'words'"),
        ("a.csv", b"", "needs a column file or .*it has none"),
        ("a.csv", b'file,caption\na.jpg,"never closed\n', "line [12]: damaged"),
        ("a.csv", b"file,caption\na.jpg,\xff\xfe\n", "a.csv is not UTF-8 text: byte"),
        ("a.jsonl", b'{"file": "a.jpg", "caption": "a"}\n{"file": "b', "line [12]: damaged"),
        ("a.jsonl", b"[1]\n", "line 1: not an object"),
        ("a.jsonl", b"[" * 100_000, "line 1: damaged"),
        ("a.json", b'{"images": []}', "not a file of COCO captions.*KeyError"),
        ("a.json", b"{", "is damaged, or not a file of COCO captions"),
        ("a.txt", b"just some words\n", "line 1: not name.jpg#0<TAB>caption"),
        ("a.tar", b"", "damaged or not a plain tar"),
        ("a.tar", b"\x1f\x8b" + bytes(2000), "damaged or not a plain tar"),
        ("a.zip", b"PK", "none of the lists that are known"),
    ],
)
def test_a_damaged_list_is_one_clear_error(tmp_path, name, content, message):
    """The whole list is refused: what else it should have said nobody knows."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PairsError, match=message):
        read_pairs([tmp_path / name])


def test_a_list_that_is_not_there(tmp_path):
    """It is named."""
    with pytest.raises(PairsError, match=r"gone\.csv: no such file or folder"):
        read_pairs([tmp_path / "gone.csv"])


def test_json_lines(tmp_path):
    """A caption or a list of captions; empty lines count for nothing."""
    rows = [{"file": "a.jpg", "captions": ["one", "two", ""]}, {"path": "b.jpg", "text": "three"}]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (tmp_path / "pairs.jsonl").write_text(lines)
    found, bad = told(tmp_path / "pairs.jsonl")
    assert found == {"a.jpg": ["one", "two"], "b.jpg": ["three"]}
    assert bad == [("a.jpg", "an empty caption")]


def test_a_folder_has_captions_beside_files(tmp_path):
    """A line a caption, in subfolders too, pictures and sounds; what has no text is named."""
    for name in ("x.jpg", "deep/x.jpg", "bark.wav", "lonely.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked at yet")
    (tmp_path / "x.txt").write_text("a red square\n\nred\n")
    (tmp_path / "deep" / "x.txt").write_text("deeper\n")
    (tmp_path / "bark.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "notes.txt").write_text("no file of this name\n")
    pairs, bad = read_pairs([tmp_path])
    assert [(str(pair.file.relative_to(tmp_path)), pair.captions) for pair in pairs] == [
        ("x.jpg", ("a red square", "red")),
        ("deep/x.jpg", ("deeper",)),
    ]
    assert [(Path(b.name).name, b.reason[:27]) for b in bad] == [
        ("bark.txt", "its captions cannot be read"),
        ("lonely.png", "no lonely.txt with captions"),
    ]


@pytest.mark.parametrize("where", [".", "images", "Flicker8k_Dataset"])
def test_flickr8k_finds_its_photos_beside_or_in_a_folder(tmp_path, where):
    """As people unpack it; the Chinese file has a space for the tab."""
    photo = paint(tmp_path / where / "1.jpg", "red")
    (tmp_path / "Flickr8k.token.txt").write_text("1.jpg#0\ta red square\n1.jpg#1\tred\n")
    (tmp_path / "zhc.txt").write_text("1.jpg#zhc#0 红色\n", encoding="utf-8")
    (pair,), _ = read_pairs([tmp_path / "Flickr8k.token.txt"])
    assert (pair.file.resolve(), pair.captions) == (photo, ("a red square", "red"))
    (pair,), _ = read_pairs([tmp_path / "zhc.txt"])
    assert pair.captions == ("红色",)


def test_several_lists_of_one_folder_join(tmp_path):
    """English and Chinese captions of the same photos; `images` says where they are."""
    paint(tmp_path / "elsewhere" / "1.jpg", "red")
    (tmp_path / "en.txt").write_text("1.jpg#0\tred\n")
    (tmp_path / "zh.txt").write_text("1.jpg#0\t红色\n", encoding="utf-8")
    (pair,), _ = read_pairs([tmp_path / "en.txt", tmp_path / "zh.txt"], tmp_path / "elsewhere")
    assert pair.captions == ("red", "红色")
    assert pair.file == tmp_path / "elsewhere" / "1.jpg"


def test_coco(tmp_path):
    """Annotations point to images by id; one that points nowhere is named."""
    photo = paint(tmp_path / "val2017" / "7.jpg", "red")
    (tmp_path / "annotations").mkdir()
    said = [{"image_id": 7, "caption": "red"}, {"image_id": 7, "caption": " a square "}]
    whole = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [*said, {"image_id": 8, "caption": "lost"}],
    }
    place = tmp_path / "annotations" / "captions_val2017.json"
    place.write_text(json.dumps(whole))
    (pair,), bad = read_pairs([place])
    assert (pair.file.resolve(), pair.captions) == (photo, ("red", "a square"))
    assert [entry.reason for entry in bad] == ["a caption of image 8, which is not there"]


def add(archive, name, data, **kind):
    """One member."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in kind.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def shard(path):
    """A webdataset of two pictures, with what an attacker would add to it."""
    with tarfile.open(path, "w") as archive:
        add(archive, "a/0001.jpg", b"first picture")
        add(archive, "a/0001.txt", b"one\ntwo\n")
        add(archive, "0002.json", b'{"caption": "three", "url": "x"}')
        add(archive, "0002.png", b"second picture")
        add(archive, "../../0003.jpg", b"third")
        add(archive, "../../0003.txt", b"up and away")
        add(archive, "0004.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "0004.txt", b"a link")
        add(archive, "0005.txt", b"no picture")
        add(archive, "0006.json", b"{")
        add(archive, "0006.jpg", b"fourth")
    return path


def test_a_webdataset_is_read_where_it_lies(tmp_path):
    """Row 56 of failures.md: members are never extracted, links in them never followed."""
    place = shard(tmp_path / "shard-0.tar")
    before = sorted(tmp_path.rglob("*"))
    pairs, bad = read_pairs([place])
    assert [(pair.member, pair.captions, pair.read()) for pair in pairs] == [
        ("a/0001.jpg", ("one", "two"), b"first picture"),
        ("0002.png", ("three",), b"second picture"),
        ("../../0003.jpg", ("up and away",), b"third"),
    ]
    assert sorted(tmp_path.rglob("*")) == before
    reasons = [entry.reason.partition(":")[0] for entry in bad]
    assert reasons == ["no caption", "no caption"]  # 0006: its JSON, and so the picture
    in_a_folder, _ = read_pairs([tmp_path])
    assert [pair.member for pair in in_a_folder] == [pair.member for pair in pairs]


def test_a_tar_that_is_cut_or_damaged_is_refused(tmp_path):
    """At every block: a part of the pairs would be missing without a word."""
    whole = shard(tmp_path / "whole.tar").read_bytes()
    end = whole.rstrip(b"\0")
    blocks = -(-len(end) // 512)
    for block in range(blocks):
        place = tmp_path / "cut.tar"
        place.write_bytes(whole[: 512 * block])
        with pytest.raises(PairsError, match="damaged"):
            read_pairs([place])
    damaged = bytearray(whole)
    damaged[512 * 4 + 10] ^= 0xFF  # in the header of a later member: its checksum fails
    (tmp_path / "cut.tar").write_bytes(damaged)
    with pytest.raises(PairsError, match="damaged"):
        read_pairs([tmp_path / "cut.tar"])


def test_files_are_read_once_and_the_unreadable_named(tmp_path):
    """A missing file, one that does not decode; the others get their digests, in order."""
    (tmp_path / "a.jpg").write_bytes(b"good")
    (tmp_path / "b.jpg").write_bytes(b"bad")
    names = ["a.jpg", "b.jpg", "gone.jpg"]
    pairs = [Pair(tmp_path / name, Modality.IMAGE, ("x",)) for name in names]

    def decode(pair, data):
        if data == b"bad":
            raise LoadError(Reason.CORRUPT, "cannot decode")

    good, undecodable, missing = usable_pairs(pairs, decode, workers=2)
    assert good.digest == hashlib.sha256(b"good").hexdigest()
    assert undecodable == Bad(f"{tmp_path}/b.jpg", "corrupt: cannot decode")
    assert missing == Bad(f"{tmp_path}/gone.jpg", "unreadable: No such file or directory")


def pair(digest, *captions):
    """A pair that was read."""
    return Pair(Path(f"{digest}.jpg"), Modality.IMAGE, captions, digest=digest)


def test_copies_are_one_pair():
    """The same content under two names has the captions of both."""
    found = merged([pair("a", "x", "y"), pair("b", "z"), pair("a", "y", "w")])
    assert [p.captions for p in found] == [("x", "y", "w"), ("z",)]


def test_the_held_out_files_are_the_same_whatever_their_order():
    """Those with the first digests; the share is met, and neither side is empty."""
    pairs = [pair(hashlib.sha256(bytes([n])).hexdigest(), "x") for n in range(50)]
    rest, kept = held_out(pairs, 0.1)
    assert {p.digest for p in kept} == set(sorted(p.digest for p in pairs)[:5])
    assert {p.digest for p in rest} | {p.digest for p in kept} == {p.digest for p in pairs}
    again = held_out(pairs[::-1], 0.1)[1]
    assert {p.digest for p in again} == {p.digest for p in kept}
    assert [len(part) for part in held_out(pairs, 0.0)] == [50, 0]
    assert [len(part) for part in held_out(pairs[:2], 0.9)] == [1, 1]
    assert [len(part) for part in held_out(pairs[:5], 0.01)] == [4, 1]


def test_the_data_hash_is_of_content_and_captions():
    """A file that moves keeps it; another caption or another byte does not."""
    first = [pair("a", "x"), pair("b", "y")]
    moved = [Pair(Path("elsewhere.png"), Modality.IMAGE, ("x",), digest="a"), first[1]]
    assert data_hash(first) == data_hash(moved)
    assert data_hash(first) != data_hash([pair("a", "x"), pair("b", "z")])
    assert data_hash(first) != data_hash([pair("a", "x"), pair("c", "y")])


@pytest.mark.skipif(not DATA.exists(), reason="shared/data is not in this checkout")
def test_flickr8k_itself():
    """8,092 names; its makers wrote another one wrongly, which is told."""
    pairs, bad = read_pairs([DATA / "flickr8k" / "Flickr8k.token.txt"])
    assert len(pairs) == 8092
    assert {len(pair.captions) for pair in pairs} == {4, 5}  # a few say the same twice
    assert [Path(entry.name).name for entry in bad] == ["2258277193_586949ec62.jpg.1"]
