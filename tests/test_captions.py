"""Photos with captions, in each layout, and what is said of a folder that is none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import paint

from mmsearch.captions import data_hash, read_captions
from mmsearch.errors import UsageError


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


@pytest.mark.parametrize("layout", [flickr8k, jsonl, karpathy, coco])
def test_every_layout_gives_the_photos_of_the_split(layout, tmp_path):
    """The photo of the split and its captions, in their order; the data are the same data."""
    [photo] = read_captions(layout(tmp_path), "test")
    assert photo.path.is_file()
    assert photo.path.name == "b.jpg"
    assert photo.captions == ("The sea .", "A blue sea .")
    [same] = read_captions(jsonl(tmp_path / "again"), "test")
    assert data_hash([photo]) == data_hash([same])


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
    with pytest.raises(UsageError, match=r"none of captions\.jsonl, \*\.token\.txt"):
        read_captions(tmp_path, "test")
    flickr8k(tmp_path)
    with pytest.raises(UsageError, match="no list of the split 'val'"):
        read_captions(tmp_path, "val")
    with pytest.raises(UsageError, match="no such file of captions"):
        read_captions(tmp_path, "test", Path("german.txt"))
    (tmp_path / "images" / "b.jpg").unlink()
    with pytest.raises(UsageError, match=r"names b\.jpg, which is not in"):
        read_captions(tmp_path, "test")
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA dog .\n")
    with pytest.raises(UsageError, match=r"b\.jpg lacks a caption"):
        read_captions(tmp_path, "test")


@pytest.mark.parametrize("line", ["{", "[]", '{"file": "b.jpg"}', '{"captions": ["x"]}', "3"])
def test_a_broken_file_of_captions_is_named(line, tmp_path):
    """No traceback for a file that is not what its name says."""
    (tmp_path / "captions.jsonl").write_text(line)
    with pytest.raises(UsageError, match=r"captions\.jsonl: not captions as mmsearch knows"):
        read_captions(tmp_path, "test")
