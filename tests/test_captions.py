"""Photos with captions, in each layout, and what is said of a folder that is none of them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from conftest import paint

from mmsearch.datasets.captions import data_hash, read_captions
from mmsearch.errors import UsageError
from mmsearch.records import Modality


def flickr8k(folder):
    """Two photos, of which one is in the test split; captions in two languages."""
    for name in ("a.jpg", "b.jpg"):
        paint(folder / "images" / name, "red")
    (folder / "Flickr_8k.testImages.txt").write_text("b.jpg\n")
    (folder / "Flickr8k.token.txt").write_text(
        "a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tThe sea .\nb.jpg#1\tA blue sea .\n"
    )
    (folder / "Flickr8k-CN.zhc.txt").write_text("b.jpg#zhc#0 一片海。\nb.jpg#zhc#1 大海 和天\n")
    return folder


def jsonl(folder):
    """The same photo as JSON lines."""
    paint(folder / "b.jpg", "red")
    line = {"file": "b.jpg", "captions": ["The sea .", "A blue sea ."]}
    (folder / "captions.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def karpathy(folder):
    """The same as Karpathy and Fei-Fei split it, beside a photo of another split."""
    paint(folder / "images" / "val2014" / "b.jpg", "red")
    said = [{"raw": "The sea ."}, {"raw": "A blue sea ."}]
    image = {"filename": "b.jpg", "filepath": "val2014", "split": "test", "sentences": said}
    other = image | {"filename": "a.jpg", "split": "train"}
    (folder / "dataset_coco.json").write_text(json.dumps({"images": [other, image]}))
    return folder


def coco(folder):
    """The same as COCO has it: the split is in the names."""
    paint(folder / "test2017" / "b.jpg", "red")
    data = {
        "images": [{"id": 7, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 7, "caption": "The sea ."},
            {"image_id": 7, "caption": "A blue sea ."},
        ],
    }
    (folder / "captions_test2017.json").write_text(json.dumps(data))
    return folder


def coco_below(folder):
    """The same with its lists in a folder of their own, as COCO is unpacked."""
    coco(folder)
    (folder / "annotations").mkdir()
    listed = folder / "captions_test2017.json"
    listed.rename(folder / "annotations" / listed.name)
    return folder


def flickr30k(folder):
    """The same as Flickr30k has it: no suffix but .token, names of a split without .jpg."""
    paint(folder / "flickr30k-images" / "b.jpg", "red")
    (folder / "test.txt").write_text("b\n")
    (folder / "results.token").write_text(
        "a.jpg#0\tA dog .\nb.jpg#0\tThe sea .\nb.jpg#1\tA blue sea .\n"
    )
    return folder


def table(folder):
    """The same as rows of CSV, each of a split."""
    paint(folder / "b.jpg", "red")
    rows = "b.jpg,The sea .,test\nb.jpg,A blue sea .,test\na.jpg,A dog .,train\n"
    (folder / "captions.csv").write_text(f"file,caption,split\n{rows}")
    return folder


def clotho(folder):
    """The same in Clotho's columns; the folder, called as its split, is in no name."""
    paint(folder / "test" / "b.jpg", "red")
    (folder / "clotho_captions_test.csv").write_text(
        "file_name,caption_1,caption_2\nb.jpg,The sea .,A blue sea .\n"
    )
    return folder


def kaggle_flickr30k(folder):
    """The same as Kaggle has Flickr30k: bars, quotes that mean nothing, photos two folders down."""
    paint(folder / "flickr30k_images" / "flickr30k_images" / "b.jpg", "red")
    (folder / "results.csv").write_text(
        "image_name| comment_number| comment\nb.jpg| 0| The sea .\nb.jpg   1   A blue sea .\n\n"
    )
    return folder


def kaggle_flickr8k(folder):
    """The same as Kaggle has Flickr8k: a table that is called .txt, photos in Images."""
    paint(folder / "Images" / "b.jpg", "red")
    (folder / "captions.txt").write_text("image,caption\nb.jpg,The sea .\nb.jpg,A blue sea .\n")
    return folder


def open_clip(folder):
    """The same in the columns that open_clip's training reads, parted by tabs."""
    paint(folder / "b.jpg", "red")
    rows = "".join(f"{folder / 'b.jpg'}\t{said}\n" for said in ("The sea .", "A blue sea ."))
    (folder / "captions.tsv").write_text(f"filepath\ttitle\n{rows}")
    return folder


def beside(folder):
    """The same as a text beside the photo, in a folder that is called by its split."""
    paint(folder / "test" / "b.jpg", "red")
    (folder / "test" / "b.txt").write_text("The sea .\nA blue sea .\n")
    return folder


LAYOUTS = [
    flickr8k, flickr30k, kaggle_flickr8k, kaggle_flickr30k, jsonl, table, open_clip, karpathy,
    coco, coco_below, clotho, beside,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_photos_of_the_split(layout, tmp_path):
    """The photo of the split and its captions, in their order; the data are the same data."""
    [photo] = read_captions(layout(tmp_path), "test")
    assert photo.path.is_file()
    assert photo.path.name == "b.jpg"
    assert photo.captions == ("The sea .", "A blue sea .")
    [same] = read_captions(jsonl(tmp_path / "again"), "test")
    assert data_hash([photo]) == data_hash([same])


def test_tars_are_unpacked_where_it_is_said(tmp_path):
    """Shards of the split only, and not without a place to put their members."""
    photo = paint(tmp_path / "b.jpg", "red").read_bytes()
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in ("test-0.tar", "test-1.tar", "train-0.tar"):
        with tarfile.open(folder / shard, "w") as archive:
            for name, data in (("k.jpg", photo), ("k.txt", f"Of {shard}\nAgain".encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    with pytest.raises(UsageError, match="unpack it first"):
        read_captions(folder, "test")
    found = read_captions(folder, "test", into=tmp_path)
    assert [one.captions for one in found] == [
        ("Of test-0.tar", "Again"),
        ("Of test-1.tar", "Again"),
    ]
    assert all(one.path.read_bytes() == photo and one.path.parent == tmp_path for one in found)


@pytest.mark.parametrize("name", ["{}.wav", "Y{}.flac", "{}_30.wav"])
def test_audiocaps_names_sounds_by_their_youtube_ids(name, tmp_path):
    """However the clip was saved; one that was never to be had is refused, or told."""
    place = tmp_path / "audio" / "test" / name.format("0-abcdefghi")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    rows = "1,0-abcdefghi,30,A dog barks\n2,0-abcdefghi,30,Barking\n3,gone-567890,0,Rain\n"
    (tmp_path / "test.csv").write_text(f"audiocap_id,youtube_id,start_time,caption\n{rows}")
    missing = []
    [clip] = read_captions(tmp_path, "test", missing=missing)
    assert (clip.path, clip.modality) == (place, Modality.AUDIO)
    assert clip.captions == ("A dog barks", "Barking")
    assert missing == [f"{tmp_path / 'gone-567890.wav'} is not there"]
    with pytest.raises(UsageError, match=r"gone-567890\.wav is not there: a set that is measured"):
        read_captions(tmp_path, "test")


def test_bars_part_cells_and_quotes_do_not(tmp_path):
    """A caption keeps its quotes and bars; a row that ends too early is named by its line."""
    folder = kaggle_flickr30k(tmp_path)
    with (folder / "results.csv").open("a") as file:
        file.write('b.jpg| 2| A "sea | lion" , asleep .\nb.jpg| 3\n')
    missing = []
    [photo] = read_captions(folder, "test", missing=missing)
    assert photo.captions[2:] == ('A "sea | lion" , asleep .',)
    assert missing == [f"{folder / 'results.csv'}, line 6: 2 cells for 3 columns"]


def test_other_captions_of_the_same_photos(tmp_path):
    """`file` is looked for in the folder; Flickr8k-CN parts name and caption with a space."""
    [photo] = read_captions(flickr8k(tmp_path), "test", Path("Flickr8k-CN.zhc.txt"))
    assert photo.captions == ("一片海。", "大海 和天")


def test_lines_of_another_split_are_left_out(tmp_path):
    """A line that names its split belongs to that alone."""
    for name in ("b.jpg", "c.jpg"):
        paint(tmp_path / name, "red")
    lines = [{"file": "b.jpg", "captions": ["x"], "split": "train"}]
    lines += [{"file": "c.jpg", "captions": ["y"], "split": "test"}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [photo.captions for photo in read_captions(tmp_path, "test")] == [("y",)]


def test_the_hash_knows_pixels_and_words(tmp_path):
    """Another picture or another caption is other data; another name is not."""
    [photo] = read_captions(jsonl(tmp_path), "test")
    before = data_hash([photo])
    paint(photo.path, "blue")
    assert data_hash([photo]) != before
    paint(photo.path, "red")
    assert data_hash([photo]) == before
    (tmp_path / "captions.jsonl").write_text('{"file": "b.jpg", "captions": ["The sea"]}')
    assert data_hash(read_captions(tmp_path, "test")) != before


def test_what_is_wrong_is_named(tmp_path):
    """A user learns what was looked for, and where."""
    with pytest.raises(UsageError, match="no such folder"):
        read_captions(tmp_path / "nowhere", "test")
    with pytest.raises(UsageError, match=r"none of captions\.jsonl, .*, \*\.token\.txt"):
        read_captions(tmp_path, "test")
    flickr8k(tmp_path)
    with pytest.raises(UsageError, match="no list of the split 'val'"):
        read_captions(tmp_path, "val")
    with pytest.raises(UsageError, match="no such file of captions"):
        read_captions(tmp_path, "test", Path("german.txt"))
    (tmp_path / "images" / "b.jpg").unlink()
    with pytest.raises(UsageError, match=r"b\.jpg is not there"):
        read_captions(tmp_path, "test")
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\n")
    with pytest.raises(UsageError, match=r"b\.jpg lacks a caption"):
        read_captions(tmp_path, "test")


@pytest.mark.parametrize("line", ["{", "[]", '{"file": "b.jpg"}', '{"captions": ["x"]}', "3"])
def test_a_broken_file_of_captions_is_named(line, tmp_path):
    """No traceback for a file that is not what its name says."""
    (tmp_path / "captions.jsonl").write_text(line)
    with pytest.raises(UsageError, match=r"captions\.jsonl: (line 1|it needs a column)"):
        read_captions(tmp_path, "test")
