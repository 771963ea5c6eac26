"""What an answer tells of its file: copies share a content, passages have words, all a date."""

from __future__ import annotations

import os
import shutil
import time
from datetime import datetime

import pytest
from conftest import unit
from PIL import Image

from mmsearch.catalog import Catalog, Content, Part
from mmsearch.records import Metadata, Modality

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT


@pytest.fixture
def berlin(monkeypatch):
    """A clock that is put forward and back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_dates_are_wall_clocks(tmp_path, berlin):
    """What the file says, as it says it; else the clock here when the file last changed."""
    rows, noon = unit(1, 0, 0)[None], 1_714_564_800 * 10**9  # 2024-05-01 12:00 in UTC
    given = {
        b"/p/taken": Metadata(taken=noon + 123_456_789),
        b"/p/before 1970": Metadata(taken=-1),
        b"/p/changed": Metadata(),
    }
    with Catalog.create(tmp_path / "library.db") as catalog:
        with catalog.transaction():
            space = catalog.put_space("fake", "fa" * 32, 3)
            for number, (path, metadata) in enumerate(given.items()):
                content = Content(number.to_bytes(32), IMAGE, "any", metadata=metadata)
                content_id = catalog.put_content(content, space, rows)
                catalog.put_file(path, (1, noon, 1), content_id=content_id, modality=IMAGE)
        ids = list(range(1, 4))
        assert [catalog.details(ids)[id].taken for id in ids] == [
            datetime(2024, 5, 1, 12, 0, 0, 123_456),
            datetime(1969, 12, 31, 23, 59, 59, 999_999),
            datetime(2024, 5, 1, 14),
        ]


def test_copies_and_passages(tmp_path):
    """By item: one content of all copies and parts, and each passage's own words."""
    with Catalog.create(tmp_path / "library.db") as catalog:
        with catalog.transaction():
            space = catalog.put_space("fake", "fa" * 32, 3)
            for digest, kind, parts in (
                (b"1" * 32, IMAGE, ()),
                (b"2" * 32, TEXT, (Part(text="one"), Part(text="two"))),
            ):
                rows = unit(1, 0, 0)[None].repeat(max(len(parts), 1), axis=0)
                content = Content(digest, kind, "any", parts=parts)
                content_id = catalog.put_content(content, space, rows)
                for copy in (b"a", b"b"):
                    path = b"/p/%s-%d" % (copy, content_id)
                    catalog.put_file(path, (1, 1, 1), content_id=content_id, modality=kind)
        found = catalog.details([1, 2, 3, 4, 5, 6, 99])
        assert [(found[id].content_id, found[id].text) for id in sorted(found)] == [
            (1, None), (1, None), (2, "one"), (2, "two"), (2, "one"), (2, "two"),
        ]  # fmt: skip
        assert catalog.details([]) == {}


def test_a_library_knows_them(library, photos):
    """Of real files, found by a query: the date in a photo's EXIF, and a copy's content."""
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2019:08:07 06:05:04"
    Image.new("RGB", (8, 8), "red").save(photos / "red.jpg", exif=exif)
    shutil.copy(photos / "red.jpg", photos / "copy.jpg")
    photos.paint("green.png", "green")
    os.utime(photos / "green.png", (1_600_000_000, 1_600_000_000))
    library.index(photos)
    hits = {hit.path.name: hit for hit in library.query("red")}
    assert hits["red.jpg"].taken == hits["copy.jpg"].taken == datetime(2019, 8, 7, 6, 5, 4)
    assert hits["green.png"].taken == datetime.fromtimestamp(1_600_000_000)
