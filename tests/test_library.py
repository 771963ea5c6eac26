"""The library: what is found after files come, change, move, go and return."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, FakeEncoder, WarmPools, clean_environment, colour_row, inject, unit
from hostile import HAS_HEIF, HEIC

import mmsearch
from mmsearch.catalog import Catalog
from mmsearch.decoding import Outcome
from mmsearch.errors import (
    EncoderMismatch,
    LibraryDamaged,
    LibraryLocked,
    LibraryMissing,
    LibraryReadOnly,
    LoadError,
    ModelError,
    UsageError,
)
from mmsearch.locking import WriterLock
from mmsearch.records import Hit, Modality, Reason


def half(row):
    """A row as the catalog keeps it."""
    return np.asarray(row, np.float32).astype(np.float16).astype(np.float32)


def names(hits):
    return [hit.path.name for hit in hits]


def found(library, words, k=100, **how):
    """{name: score} of all answers."""
    return {hit.path.name: hit.score for hit in library.query(words, k, **how)}


def counts(report):
    """What a report counts, without the zeros; `failed` is a number here."""
    row = report.as_dict()
    row["failed"] = len(row["failed"])
    return {name: n for name, n in row.items() if n and type(n) is int}


def ids(library, words="white"):
    """{name: item id} of everything that can be found."""
    return {hit.path.name: hit.id for hit in library.query(words, 1000)}


def contents(folder):
    """Every file below a folder: bytes, mode and date.

    Without what SQLite's readers share, which holds nothing, and the lock's note of who had it.
    """
    files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return {
        path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in files
        if not (path.name.endswith("-shm") or path.name == "LOCK")
        and not (path.name.endswith("-wal") and path.stat().st_size == 0)
    }


def set_date(path, seconds):
    os.utime(path, ns=(seconds * 10**9, seconds * 10**9))


@pytest.fixture
def three(library, photos, encoder):
    """red.png, green.png and blue.png, indexed."""
    for colour in ("red", "green", "blue"):
        photos.paint(f"{colour}.png", colour)
    assert counts(library.index(photos)) == {"added": 3, "encoded": 3}
    encoder.pictures = 0
    return library


# -- answers -------------------------------------------------------------------------------


def test_answers_are_the_nearest_by_value(library, photos):
    """Every picture, best first, with the inner product of unit rows as its score."""
    for name in ("red", "green", "blue", "yellow", "white"):
        photos.paint(f"{name}.png", name)
    library.index(photos)
    hits = library.query("red")
    assert names(hits) == ["red.png", "yellow.png", "white.png", "blue.png", "green.png"]
    expected = [1, 2**-0.5, 3**-0.5, 0, 0]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-3)
    kept = [half(colour_row(hit.path.stem)) @ colour_row("red") for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(kept, abs=1e-6)


def test_what_a_hit_tells(three, photos):
    """Rank from 1, score, path, modality, id; no relevance and no seconds yet."""
    [hit] = three.query("green", k=1)
    assert hit == Hit(
        1, hit.score, None, photos / "green.png", Modality.IMAGE, hit.id, taken=hit.taken
    )  # fmt: skip
    assert hit.taken.timestamp() == pytest.approx((photos / "green.png").stat().st_mtime, abs=1e-3)
    assert type(hit.score) is float
    assert type(hit.id) is int
    assert hit.score == pytest.approx(1.0, abs=1e-3)
    assert [hit.rank for hit in three.query("green")] == [1, 2, 3]


def test_k_cuts_and_may_exceed_the_library(three):
    """The k best; more than there are gives all there are."""
    assert names(three.query("blue", k=1)) == ["blue.png"]
    assert len(three.query("blue", k=2)) == 2
    assert len(three.query("blue", k=10**9)) == 3
    for k in (0, -1):
        with pytest.raises(UsageError, match=f"at least 1, not {k}"):
            three.query("blue", k=k)


def test_ties_come_in_one_order_whatever_k(library, photos):
    """Equal scores: earlier indexed first, and the k best begin the k + 1 best."""
    for number in range(6):
        photos.paint(f"{number}.png", "red", (8, 8 + number))
        library.index(photos)
    photos.paint("0.png", "green")  # its item is new: a later one than all others
    photos.paint("6.png", "red", (8, 8))
    library.index(photos)
    shutil.copy(photos / "3.png", photos / "9.png")
    library.index(photos)
    whole = names(library.query("red", 100))
    assert sorted(whole) == [f"{n}.png" for n in (0, 1, 2, 3, 4, 5, 6, 9)]
    assert whole[-1] == "0.png"
    for k in range(1, len(whole) + 1):
        assert names(library.query("red", k)) == whole[:k]


def test_modality_keeps_one_kind(three):
    """There are pictures only; another kind is no error, an unknown one is."""
    assert len(three.query("red", modality="image")) == 3
    assert len(three.query("red", modality=Modality.IMAGE)) == 3
    assert three.query("red", modality="text") == []
    with pytest.raises(UsageError, match="modality is one of image, audio, text, not 'video'"):
        three.query("red", modality="video")


def test_relevance_needs_a_calibrator(three):
    """Without a calibrator `min_relevance` is refused, and nothing is cut."""
    with pytest.raises(UsageError, match="relevance is not calibrated for fake"):
        three.query("red", min_relevance=0.5)
    assert three.query("red", all=True) == three.query("red")


def test_the_algebra_of_queries_by_hand(three, photos, tmp_path):
    """text + 0.5 * image - text as a renormalised weighted sum of unit rows."""
    asked = mmsearch.text("red") + 0.5 * mmsearch.image(photos / "green.png")
    asked = asked - mmsearch.text("blue")
    length = (1 + 0.25 + 1) ** 0.5
    expected = {"red.png": 1 / length, "green.png": 0.5 / length, "blue.png": -1 / length}
    assert found(three, asked, subtract=True) == pytest.approx(expected, abs=1e-6)
    doubled = mmsearch.text("red") * 2 - 2 * mmsearch.text("green")
    root = 2**-0.5
    expected = {"red.png": root, "blue.png": 0, "green.png": -root}
    assert found(three, doubled, subtract=True) == pytest.approx(expected, abs=1e-6)
    assert names(three.query(doubled, subtract=True)) == ["red.png", "blue.png", "green.png"]


def test_a_picture_as_the_query(three, photos):
    """By path, by string, or as a PIL image: the picture itself comes first."""
    from PIL import Image

    path = photos / "blue.png"
    with Image.open(path) as picture:
        for source in (path, str(path), os.fsencode(path), picture):
            [hit] = three.query(mmsearch.image(source), k=1)
            assert (hit.path, hit.score) == (path, pytest.approx(1.0, abs=1e-6))


def test_a_query_that_cancels_out_is_wrong_usage(three):
    """Red less red asks for nothing."""
    with pytest.raises(UsageError, match="cancel each other out"):
        three.query(mmsearch.text("red") - mmsearch.text("red"), subtract=True)
    with pytest.raises(UsageError, match="nothing to look for"):
        three.query("  ")


def test_a_bad_query_picture_is_named(three, photos):
    """Missing, or no picture: one error with the path in it."""
    with pytest.raises(LoadError, match=r"none\.png: No such file"):
        three.query(mmsearch.image(photos / "none.png"))
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(LoadError, match=r"broken\.png: "):
        three.query(mmsearch.image(photos / "broken.png"))


def test_nothing_indexed_yet(library, tmp_path):
    """Reading needs a library; nothing is created by asking."""
    for read in (
        lambda: library.query("red"), library.status, library.errors, library.check,
        lambda: library.forget(gone=True),
    ):  # fmt: skip
        with pytest.raises(LibraryMissing, match="nothing is indexed in"):
            read()
    with pytest.raises(UsageError, match=r"nothing is indexed in .* yet: name a folder"):
        library.index()
    with pytest.raises(UsageError, match=r"no such file or folder: .*nowhere"):
        library.index(tmp_path / "nowhere")
    assert not (tmp_path / "index").exists()


# -- incremental ---------------------------------------------------------------------------


def test_an_unchanged_folder_is_not_read_again(three, photos, encoder):
    """A second run decodes nothing and encodes nothing."""
    assert counts(three.index(photos)) == {"unchanged": 3}
    assert encoder.pictures == 0


def test_a_new_file_is_found(three, photos, encoder):
    """An added file alone is encoded."""
    photos.paint("white.png", "white")
    assert counts(three.index(photos)) == {"added": 1, "unchanged": 3, "encoded": 1}
    assert found(three, "white")["white.png"] == pytest.approx(1, abs=1e-3)
    assert encoder.pictures == 1


def test_a_changed_file_is_found_as_what_it_is_now(three, photos, encoder):
    """New content under a known path: the old vector is gone for good."""
    photos.paint("red.png", "white")
    assert counts(three.index(photos)) == {"changed": 1, "unchanged": 2, "encoded": 1}
    scores = found(three, "red")
    assert scores["red.png"] == pytest.approx(3**-0.5, abs=1e-3)
    assert len(scores) == 3
    assert three.status()["vectors"] == 3


def test_a_moved_file_keeps_its_vector(three, photos, encoder):
    """Moved within a root, into a new folder: the same item, nothing encoded."""
    before = ids(three)
    (photos / "below").mkdir()
    os.rename(photos / "red.png", photos / "below" / "scarlet.png")
    assert counts(three.index(photos)) == {"moved": 1, "unchanged": 2}
    assert encoder.pictures == 0
    after = ids(three)
    assert after["scarlet.png"] == before["red.png"]
    assert "red.png" not in after
    assert three.query("red", 1)[0].path == photos / "below" / "scarlet.png"
    assert counts(three.index(photos)) == {"unchanged": 3}


def test_a_moved_folder_keeps_its_vectors(three, photos, encoder, tmp_path):
    """A folder moved to another root is moved, not added and gone."""
    before = ids(three)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("red.png", "green.png"):
        os.rename(photos / name, other / name)
    assert counts(three.index([photos, other])) == {"moved": 2, "unchanged": 1}
    assert encoder.pictures == 0
    assert ids(three) == before


def test_a_copied_file_shares_the_vector(three, photos, encoder):
    """Both paths answer, one vector is kept, nothing is encoded."""
    shutil.copy(photos / "red.png", photos / "rot.png")
    os.link(photos / "red.png", photos / "rouge.png")
    assert counts(three.index(photos)) == {"copied": 2, "unchanged": 3}
    assert encoder.pictures == 0
    assert sorted(names(three.query("red", 3))) == ["red.png", "rot.png", "rouge.png"]
    status = three.status()
    assert (status["vectors"], status["items"], status["files"]) == (3, 5, 5)
    os.unlink(photos / "red.png")
    assert counts(three.index(photos)) == {"gone": 1, "unchanged": 4}
    assert sorted(names(three.query("red", 2))) == ["rot.png", "rouge.png"]


def test_copies_that_are_new_together_are_encoded_once(library, photos, encoder):
    """A hundred copies cost one encoding."""
    for number in range(100):
        photos.paint(f"{number}.png", "red")
    assert counts(library.index(photos)) == {"added": 1, "copied": 99, "encoded": 1}
    assert encoder.pictures == 1
    assert len(library.query("red", 200)) == 100


def test_a_gone_file_is_hidden_kept_and_returns_for_nothing(three, photos, encoder, tmp_path):
    """Deleted: no answer. Restored: the same item again, without encoding."""
    before = ids(three)
    os.rename(photos / "red.png", tmp_path / "kept.png")
    assert counts(three.index(photos)) == {"gone": 1, "unchanged": 2}
    assert sorted(ids(three)) == ["blue.png", "green.png"]
    assert (three.status()["gone"], three.status()["files"]) == (1, 2)
    assert counts(three.index(photos)) == {"unchanged": 2}
    os.rename(tmp_path / "kept.png", photos / "red.png")
    assert counts(three.index(photos)) == {"added": 1, "unchanged": 2}
    assert encoder.pictures == 0
    assert ids(three) == before
    assert three.check() == []


def test_a_gone_file_that_returns_elsewhere_is_moved(three, photos, encoder, tmp_path):
    """The same content under a new name, one run later."""
    before = ids(three)["red.png"]
    os.rename(photos / "red.png", tmp_path / "kept.png")
    three.index(photos)
    os.rename(tmp_path / "kept.png", photos / "later.png")
    assert counts(three.index(photos)) == {"moved": 1, "unchanged": 2}
    assert ids(three)["later.png"] == before
    assert (encoder.pictures, three.status()["gone"]) == (0, 0)


def test_gone_is_said_only_below_the_paths_of_a_run(three, photos, tmp_path):
    """A run over one folder says nothing about another."""
    other = tmp_path / "other"
    other.mkdir()
    os.unlink(photos / "red.png")
    assert counts(three.index(other)) == {}
    assert "red.png" in ids(three)
    assert counts(three.index()) == {"gone": 1, "unchanged": 2}
    assert "red.png" not in ids(three)


def test_names_exchanged(three, photos, encoder):
    """Two files swap their contents: both are changed, neither is encoded again."""
    os.rename(photos / "red.png", photos / "x")
    os.rename(photos / "green.png", photos / "red.png")
    os.rename(photos / "x", photos / "green.png")
    assert counts(three.index(photos)) == {"changed": 2, "unchanged": 1}
    assert encoder.pictures == 0
    assert names(three.query("red", 1)) == ["green.png"]
    assert names(three.query("green", 1)) == ["red.png"]
    assert three.check() == []


def test_an_original_put_aside(three, photos, encoder):
    """red.png is kept as original.png and edited: one encoding, both found as they are."""
    os.rename(photos / "red.png", photos / "original.png")
    photos.paint("red.png", "white")
    report = counts(three.index(photos))
    assert report == {"changed": 1, "copied": 1, "unchanged": 2, "encoded": 1}
    assert names(three.query("red", 1)) == ["original.png"]
    assert names(three.query("white", 1)) == ["red.png"]
    assert three.check() == []


def test_small_batches_change_nothing(tmp_path, photos, encoder):
    """Committing after every file gives the answers of one commit for all."""
    for number, colour in enumerate([*COLOURS, *COLOURS]):
        photos.paint(f"{number}.png", colour, (8, 8 + number))
    one = mmsearch.open_library(tmp_path / "one", workers=1)
    many = mmsearch.open_library(tmp_path / "many", workers=1, batch=1)
    assert counts(one.index(photos)) == counts(many.index(photos))
    assert found(one, "orange") == found(many, "orange")
    assert many.check() == one.check() == []


def test_after_an_unreadable_file_every_vector_belongs_to_its_own(library, photos):
    """Bad files among good ones: each good one is found as what it is."""
    for number, colour in enumerate(["red", "green", "blue", "yellow", "cyan", "magenta"]):
        (photos / f"{number}a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(number))
        photos.paint(f"{number}b-{colour}.png", colour)
    report = library.index(photos)
    assert counts(report) == {"added": 6, "encoded": 6, "failed": 6}
    assert {path.name for path, _ in report.failed} == {f"{n}a.png" for n in range(6)}
    assert {reason for _, reason in report.failed} <= {"truncated", "corrupt"}
    for colour in ("red", "green", "blue", "yellow", "cyan", "magenta"):
        [hit] = library.query(colour, 1)
        assert hit.path.stem.endswith(f"b-{colour}")
        assert hit.score == pytest.approx(1, abs=1e-3)


def test_a_failed_file_is_tried_again_only_when_it_changes(library, photos):
    """Named in the run that tried it and in errors; healed, it is added."""
    path = photos / "a.png"
    path.write_bytes(b"")
    assert library.index(photos).failed == [(path, "empty")]
    report = library.index(photos)
    assert (report.failed, report.unchanged) == ([], 1)
    [failure] = library.errors()
    assert (failure.path, failure.reason) == (path, Reason.EMPTY)
    photos.paint("a.png", "red")
    assert counts(library.index(photos)) == {"added": 1, "encoded": 1}
    assert library.errors() == []
    path.write_bytes(b"")
    assert library.index(photos).failed == [(path, "empty")]
    assert library.query("red") == []
    assert library.status()["vectors"] == 0


def test_a_failed_file_that_is_deleted_is_forgotten(library, photos):
    """What was never indexed is not gone: there is nothing to bring back."""
    (photos / "a.png").write_bytes(b"")
    library.index(photos)
    os.unlink(photos / "a.png")
    assert counts(library.index(photos)) == {}
    assert library.errors() == []


def test_other_files_are_skipped(library, photos, tmp_path):
    """Not a supported type: counted, in this run and the next, and no fault."""
    photos.paint("red.png", "red")
    (photos / "notes.csv").write_text("words")
    (photos / "empty.csv").write_text("")
    os.symlink(photos / "red.png", photos / "link.png")
    os.mkfifo(photos / "pipe.png")
    assert counts(library.index(photos)) == {"added": 1, "encoded": 1, "skipped": 4}
    assert counts(library.index(photos)) == {"unchanged": 1, "skipped": 4}
    listed = {failure.path.name for failure in library.errors(skipped=True)}
    assert listed == {"notes.csv", "empty.csv"}
    assert library.errors() == []


def test_a_file_skipped_for_want_of_an_extra_is_retried_with_it(library, photos, monkeypatch):
    """needs-extra is no judgement for ever: with the extra there, the file is read again."""
    path = photos.paint("really.png", "red")
    photos.paint("green.png", "green")
    library.index(photos / "green.png")
    with Catalog.open(library.folder / "library.db", write=True) as catalog, catalog.transaction():
        status = os.stat(path)
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        why = "HEIC needs an extra"
        catalog.put_file(os.fsencode(path), state, reason=Reason.NEEDS_EXTRA, message=why)
    monkeypatch.setattr("mmsearch.ingest.find_spec", lambda name: None)
    assert counts(library.index(photos)) == {"unchanged": 1, "skipped": 1}
    monkeypatch.setattr("mmsearch.ingest.find_spec", lambda name: object())
    assert counts(library.index(photos)) == {"added": 1, "unchanged": 1, "encoded": 1}


@pytest.mark.skipif(HAS_HEIF, reason="pi-heif is installed: HEIC needs nothing")
def test_a_missing_extra_is_noted_once(library, photos):
    """Skipped HEIC files come with the pip line, however many they are."""
    for number in range(3):
        (photos / f"{number}.heic").write_bytes(HEIC + bytes(number))
    report = library.index(photos)
    assert counts(report) == {"skipped": 3}
    assert any('pip install "mmsearch[heif]"' in note for note in report.notes)


def test_more_megapixels_than_before_retries_what_was_over_budget(tmp_path, photos, encoder):
    """A raised limit reads the refused file again."""
    photos.paint("large.png", "red", (700, 700))
    tight = mmsearch.open_library(tmp_path / "index", workers=1, max_megapixels=0.25)
    assert tight.index(photos).failed == [(photos / "large.png", "over-budget")]
    wide = mmsearch.open_library(tmp_path / "index", workers=1, max_megapixels=100)
    assert counts(wide.index(photos)) == {"added": 1, "encoded": 1}


# -- rows 21, 27 and 34 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [(np.nan, 0, 1), (np.inf, 0, 0), (0, 0, 0), (2, 0, 0), (1e-30, 0, 0), (np.nan,) * 3],
    ids=["nan", "inf", "zero", "long", "short", "all-nan"],
)
def test_row_21_an_unusable_vector_is_refused(library, photos, encoder, row):
    """Row 21: the file is named "nonfinite" and never returned; others are as before."""
    encoder.spoilt[(1, 2, 3)] = row
    photos.paint("bad.png", (1, 2, 3))
    photos.paint("also-bad.png", (1, 2, 3))
    photos.paint("good.png", "red")
    report = library.index(photos)
    assert counts(report) == {"added": 1, "encoded": 1, "failed": 2}
    assert {reason for _, reason in report.failed} == {"nonfinite"}
    assert names(library.query("red")) == ["good.png"]
    assert {str(failure.reason) for failure in library.errors()} == {"nonfinite"}
    assert library.check() == []


def test_row_21_a_changed_file_without_a_vector_loses_its_old_one(three, photos, encoder):
    """Row 21: the old vector of a file does not stand for its new content."""
    photos.paint("red.png", "black")
    assert three.index(photos).failed == [(photos / "red.png", "nonfinite")]
    assert sorted(names(three.query("red"))) == ["blue.png", "green.png"]


def test_row_27_rehash_sees_what_size_and_date_hide(library, photos):
    """Row 27: same size, same date, same inode, other content: found by --rehash."""
    path = photos.paint("a.bmp", "red")
    set_date(path, 10**9)
    library.index(photos)
    other = photos.paint("b.bmp", "green").read_bytes()
    os.unlink(photos / "b.bmp")
    with path.open("r+b") as file:
        file.write(other)
    set_date(path, 10**9)
    assert counts(library.index(photos)) == {"unchanged": 1}
    assert counts(library.index(photos, rehash=True)) == {"changed": 1, "encoded": 1}
    assert library.query("green", 1)[0].score == pytest.approx(1, abs=1e-3)
    assert counts(library.index(photos, rehash=True)) == {"unchanged": 1}


@pytest.mark.parametrize("seconds", [0, -1, -(2**31), 2**33, 10**9])
def test_row_27_odd_dates(library, photos, seconds):
    """Row 27: dates before 1970 and far ahead are dates like any other."""
    path = photos.paint("a.png", "red")
    try:
        set_date(path, seconds)
    except OSError:
        pytest.skip("the file system does not keep such a date")
    assert counts(library.index(photos)) == {"added": 1, "encoded": 1}
    assert counts(library.index(photos)) == {"unchanged": 1}


def test_a_touched_file_is_read_but_not_encoded(three, photos, encoder):
    """A new date with the old content is no change; the date is remembered."""
    set_date(photos / "red.png", 10**9)
    before = ids(three)
    assert counts(three.index(photos)) == {"unchanged": 3}
    assert (encoder.pictures, ids(three)) == (0, before)


class Meddler:
    """Stands for DecoderPool; `meddle(path)` runs after each file was read."""

    def __init__(self, pools, meddle):
        self.pools, self.meddle = pools, meddle

    def __call__(self, *arguments):
        lease = self.pools(*arguments)
        take = lease.next

        def following():
            answer = take()
            if isinstance(answer, Outcome):  # its last word: the worker has let go of the file
                self.meddle(Path(os.fsdecode(answer.job.path)))
            return answer

        lease.next = following
        return lease


@pytest.fixture
def meddle(monkeypatch, warm_pools: WarmPools, encoder):
    """Set what happens to a file between its decoding and its commit."""

    def hook(function):
        monkeypatch.setattr("mmsearch.ingest.DecoderPool", Meddler(warm_pools, function))

    return hook


def test_row_34_changed_between_decode_and_commit(library, photos, meddle, encoder):
    """Row 34: the file is read again; what is indexed is what it holds at the commit."""
    photos.paint("a.png", "red")
    photos.paint("b.png", "blue")
    left = ["green"]

    def change(path):
        if path.name == "a.png" and left:
            photos.paint("a.png", left.pop(), (8, 9))

    meddle(change)
    assert counts(library.index(photos)) == {"added": 2, "encoded": 3}
    assert names(library.query("green", 1)) == ["a.png"]
    assert found(library, "red") == pytest.approx({"a.png": 0, "b.png": 0}, abs=1e-6)
    assert library.status()["vectors"] == 2


def test_row_34_deleted_between_decode_and_commit(library, photos, meddle):
    """Row 34: dropped without a word; nobody can find what is not there."""
    photos.paint("a.png", "red")
    photos.paint("b.png", "blue")
    meddle(lambda path: path.name == "a.png" and path.unlink(missing_ok=True))
    report = library.index(photos)
    assert (report.added, report.failed) == (1, [])
    assert names(library.query("red")) == ["b.png"]
    assert library.check() == []


def test_row_34_a_file_that_keeps_changing(library, photos, meddle):
    """Row 34: two tries, then it is named; the next run tries again."""
    photos.paint("a.png", "red")
    size = iter(range(9, 100))
    meddle(lambda path: photos.paint("a.png", "red", (8, next(size))))
    assert library.index(photos).failed == [(photos / "a.png", "changed")]
    assert library.query("red") == []
    meddle(lambda path: None)
    assert counts(library.index(photos)) == {"added": 1, "encoded": 1}


def test_row_34_replaced_by_a_copy_of_another(library, photos, meddle):
    """Row 34: the file now holds what another holds: one vector, both found."""
    photos.paint("a.png", "red")
    photos.paint("b.png", "blue")

    def replace(path):
        if path.name == "a.png":
            shutil.copy(photos / "b.png", photos / "a.png")
            set_date(photos / "a.png", 10**9)

    meddle(replace)
    library.index(photos)
    meddle(lambda path: None)
    library.index(photos)
    assert sorted(names(library.query("blue", 2))) == ["a.png", "b.png"]
    assert library.status()["vectors"] == 1
    assert library.check() == []


# -- roots ---------------------------------------------------------------------------------


def test_index_without_paths_goes_over_all_roots(library, photos, tmp_path):
    """Every root that was ever given, in one run."""
    photos.paint("red.png", "red")
    (tmp_path / "more").mkdir()
    library.index([photos, tmp_path / "more"])
    photos.paint("green.png", "green")
    shutil.copy(photos.paint("blue.png", "blue"), tmp_path / "more" / "bleu.png")
    report = counts(library.index())
    assert report == {"added": 2, "copied": 1, "unchanged": 1, "encoded": 2}
    assert library.status()["roots"] == sorted([str(photos.folder), str(tmp_path / "more")])


def test_a_single_file_as_a_root(library, photos):
    """One file is taken in without its neighbours, also a hidden one."""
    path = photos.paint(".red.png", "red")
    photos.paint("green.png", "green")
    assert counts(library.index(path)) == {"added": 1, "encoded": 1}
    assert names(library.query("red")) == [".red.png"]
    assert counts(library.index(path)) == {"unchanged": 1}
    assert library.status()["roots"] == [str(path)]
    photos.paint(".red.png", "blue")
    assert counts(library.index()) == {"changed": 1, "encoded": 1}


def test_a_root_inside_another(library, photos, encoder):
    """The folder within is covered: it is no root of its own, nothing is read twice."""
    photos.paint("red.png", "red")
    photos.paint("below/green.png", "green")
    library.index(photos)
    assert counts(library.index(photos / "below")) == {"unchanged": 1}
    assert library.status()["roots"] == [str(photos.folder)]
    photos.paint("below/blue.png", "blue")
    os.unlink(photos / "red.png")
    assert counts(library.index(photos / "below")) == {"added": 1, "unchanged": 1, "encoded": 1}
    assert "red.png" in ids(library)


def test_a_root_around_another(library, photos, encoder):
    """The wider folder takes the place of the narrower; known files are not read again."""
    photos.paint("red.png", "red")
    photos.paint("below/green.png", "green")
    library.index(photos / "below")
    before = ids(library)["green.png"]
    assert counts(library.index(photos)) == {"added": 1, "unchanged": 1, "encoded": 1}
    assert library.status()["roots"] == [str(photos.folder)]
    assert ids(library)["green.png"] == before
    report = library.index([photos, photos / "below", photos / "below" / "green.png"])
    assert counts(report) == {"unchanged": 2}


def test_a_sibling_with_the_same_beginning_is_another_root(library, photos, tmp_path):
    """/photos does not contain /photos2."""
    photos.paint("red.png", "red")
    second = tmp_path / "photos2"
    second.mkdir()
    shutil.copy(photos.paint("x.png", "green"), second / "green.png")
    os.unlink(photos / "x.png")
    library.index([photos, second])
    assert len(library.status()["roots"]) == 2
    assert library.forget(photos.folder) == 1
    assert names(library.query("green")) == ["green.png"]


def test_a_folder_below_a_root_that_is_gone(library, photos):
    """Asking for a folder that was deleted marks its files gone; it is no wrong usage."""
    photos.paint("below/red.png", "red")
    photos.paint("green.png", "green")
    library.index(photos)
    shutil.rmtree(photos / "below")
    assert counts(library.index(photos / "below")) == {"gone": 1}
    assert names(library.query("red")) == ["green.png"]


def test_a_symlinked_root_is_followed(library, photos, tmp_path):
    """A link that the user names is resolved; links met on the way are not followed."""
    photos.paint("red.png", "red")
    os.symlink(photos.folder, tmp_path / "link")
    os.symlink(photos.folder, photos / "loop")
    assert counts(library.index(tmp_path / "link")) == {"added": 1, "encoded": 1, "skipped": 1}
    assert library.query("red", 1)[0].path == photos / "red.png"
    assert counts(library.index(photos)) == {"unchanged": 1, "skipped": 1}
    assert len(library.status()["roots"]) == 1
    assert library.forget(tmp_path / "link") == 2 - 1


def test_hidden_and_machine_folders_are_passed_over(library, photos):
    """Hidden names on request only; @eaDir, node_modules and .git never."""
    for name in ("a.png", ".b.png", ".c/d.png", "@eaDir/e.png", "node_modules/f.png", ".git/g.png"):
        photos.paint(name, "red", (8, 8 + len(name)))
    assert counts(library.index(photos))["added"] == 1
    assert names(library.query("red")) == ["a.png"]
    assert counts(library.index(photos, include_hidden=True))["added"] == 2
    assert sorted(names(library.query("red"))) == [".b.png", "a.png", "d.png"]


def test_excluded_names_and_paths(library, photos):
    """Globs on names or on paths below the root; what was indexed before stays."""
    for name in ("a.png", "a-thumb.png", "raw/b.png", "cooked/raw/c.png", "cooked/d.png"):
        photos.paint(name, "red", (8, 8 + len(name)))
    library.index(photos, exclude=["*-thumb.*", "raw"])
    assert sorted(names(library.query("red"))) == ["a.png", "d.png"]
    library.index(photos, exclude=["*-thumb.*", "cooked/raw"])
    assert sorted(names(library.query("red"))) == ["a.png", "b.png", "d.png"]
    assert counts(library.index(photos, exclude=["a.png", "raw", "a-*"])) == {"unchanged": 1}
    assert sorted(names(library.query("red"))) == ["a.png", "b.png", "d.png"]


def test_a_library_inside_the_photos_is_not_indexed(photos, encoder):
    """The library's own folder is left out, wherever it lies."""
    photos.paint("red.png", "red")
    with mmsearch.open_library(photos / "index", workers=1) as library:
        assert counts(library.index(photos)) == {"added": 1, "encoded": 1}
        assert counts(library.index(photos)) == {"unchanged": 1}


def test_names_that_are_not_utf8(library, photos):
    """Bytes come back as they are: newline, escape, right-to-left mark, no UTF-8."""
    odd = [b"caf\xe9.png", b"new\nline.png", b"esc\x1b[31m.png", "rtl\u202e.png".encode(), b" .png"]
    red = photos.paint("red.png", "red").read_bytes()
    for number, name in enumerate(odd):
        with open(os.path.join(os.fsencode(photos), name), "wb") as file:
            file.write(red + bytes(number))  # behind the end of the picture
    library.index(photos)
    hits = library.query("red", 20)
    assert {os.fsencode(hit.path.name) for hit in hits} == {*odd, b"red.png"}
    assert all(hit.path.exists() for hit in hits)


# -- offline -------------------------------------------------------------------------------


def hide_root(photos, tmp_path, how):
    """Take a disk away: nothing is there, or its empty mount point."""
    os.rename(photos.folder, tmp_path / "elsewhere")
    if how == "empty":
        photos.folder.mkdir()


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_an_offline_root_keeps_its_files(three, photos, encoder, tmp_path, how):
    """Missing, or empty where it had files: nothing is gone, and nothing encoded on return."""
    before = ids(three)
    hide_root(photos, tmp_path, how)
    for paths in ([], [photos.folder]):
        report = three.index(paths)
        assert counts(report) == {"offline": 3}
        [note] = report.notes
        assert f"{photos.folder} is offline" in note
        assert ids(three) == before
    if how == "empty":
        photos.folder.rmdir()
    os.rename(tmp_path / "elsewhere", photos.folder)
    assert counts(three.index()) == {"unchanged": 3}
    assert (encoder.pictures, ids(three)) == (0, before)


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_an_offline_root_below_a_wider_path_keeps_its_files(three, photos, tmp_path, how):
    """A disk mounted below the folder that is indexed now: it stays a root, and nothing is gone."""
    hide_root(photos, tmp_path, how)
    (tmp_path / "beside.png").write_bytes((tmp_path / "elsewhere" / "red.png").read_bytes())
    report = three.index([tmp_path], exclude=["elsewhere"])
    assert counts(report) == {"copied": 1, "offline": 3}
    assert set(three.status()["roots"]) == {str(tmp_path), str(photos.folder)}
    if how == "empty":
        photos.folder.rmdir()
    os.rename(tmp_path / "elsewhere", photos.folder)
    assert counts(three.index()) == {"unchanged": 4}


def test_a_stranger_in_the_place_of_a_root_is_offline(three, photos, tmp_path):
    """Another device with other files under the same path: the disk is not the one."""
    os.rename(photos.folder, tmp_path / "elsewhere")
    photos.folder.mkdir()
    photos.paint("other.png", "white")
    with Catalog.open(three.folder / "library.db", write=True) as catalog, catalog.transaction():
        [(root, _, device)] = catalog.roots()
        catalog.set_device(root, device + 1)
    assert counts(three.index(photos)) == {"offline": 3}
    assert sorted(ids(three)) == ["blue.png", "green.png", "red.png"]


def test_a_device_with_a_new_number_is_the_same_when_its_files_are_there(three, photos):
    """Devices are numbered anew at a boot: the files tell."""

    def device(new=None):
        with Catalog.open(three.folder / "library.db", write=True) as catalog:
            [(root, _, device)] = catalog.roots()
            if new is not None:
                with catalog.transaction():
                    catalog.set_device(root, new)
            return device

    right = device()
    device(right + 1)
    os.unlink(photos / "red.png")
    assert counts(three.index()) == {"gone": 1, "unchanged": 2}
    assert device() == right


def test_a_copy_of_an_offline_file_is_a_copy(three, photos, encoder, tmp_path):
    """A file on a disk that is away is not taken to have moved."""
    shutil.copy(photos / "red.png", tmp_path / "red-copy.png")
    hide_root(photos, tmp_path, "missing")
    (tmp_path / "here").mkdir()
    os.rename(tmp_path / "red-copy.png", tmp_path / "here" / "red-copy.png")
    assert counts(three.index([photos.folder, tmp_path / "here"])) == {"copied": 1, "offline": 3}
    assert encoder.pictures == 0
    assert {"red.png", "red-copy.png"} <= set(ids(three))


# -- forgetting ----------------------------------------------------------------------------


def test_forget_a_file_a_folder_a_root(library, photos):
    """What is named is dropped with its vectors; a forgotten root is no root any more."""
    for name in ("a.png", "b.png", "one/c.png", "one/two/d.png", "one2/e.png"):
        photos.paint(name, "red", (8, 8 + len(name)))
    library.index(photos)
    before = contents(photos)
    assert library.forget(photos / "a.png") == 1
    assert library.forget([str(photos / "one")]) == 2
    assert sorted(names(library.query("red"))) == ["b.png", "e.png"]
    assert library.status()["vectors"] == 2
    assert library.forget(photos.folder) == 2
    assert library.query("red") == []
    status = library.status()
    assert (status["roots"], status["files"], status["vectors"]) == ([], 0, 0)
    assert contents(photos) == before
    assert library.check() == []


def test_forget_what_is_gone(three, photos):
    """--gone drops what index found to be missing, and only that."""
    os.unlink(photos / "red.png")
    three.index(photos)
    os.unlink(photos / "green.png")  # not yet found to be missing
    assert three.forget(gone=True) == 1
    assert (three.status()["gone"], three.status()["vectors"]) == (0, 2)
    assert three.forget(gone=True) == 0
    assert sorted(ids(three)) == ["blue.png", "green.png"]


def test_forget_a_path_that_is_no_longer_on_the_disk(three, photos):
    """The library knows it still, and that is what counts."""
    shutil.rmtree(photos.folder)
    assert three.forget(photos / "red.png") == 1
    assert three.forget(photos.folder) == 2
    assert three.query("red") == []


def test_forget_needs_a_path_that_is_known(three, photos, tmp_path):
    """Nothing named, or something unknown: wrong usage, and nothing is dropped."""
    with pytest.raises(UsageError, match="name what to forget"):
        three.forget()
    with pytest.raises(UsageError, match="is not in the library"):
        three.forget([photos / "red.png", tmp_path / "unknown"])
    with pytest.raises(UsageError, match="is not in the library"):
        three.forget(str(photos.folder)[:-1])
    assert len(ids(three)) == 3


def test_a_forgotten_copy_leaves_the_other(three, photos):
    """A vector stays as long as one file has it."""
    shutil.copy(photos / "red.png", photos / "rot.png")
    three.index(photos)
    assert three.forget(photos / "red.png") == 1
    assert names(three.query("red", 1)) == ["rot.png"]
    assert three.forget(photos / "rot.png") == 1
    assert three.status()["vectors"] == 2


def test_forgotten_names_and_vectors_are_not_in_the_files_any_more(library, photos):
    """The bytes themselves are gone from every file of the library."""
    secret = (13, 57, 201)
    photos.paint("secret-name.png", secret)
    photos.paint("secret-folder/other.png", "red")
    photos.paint("green.png", "green")
    library.index(photos)
    rows = [unit(*secret).astype("<f2").tobytes(), unit(*secret).astype("<f2").astype("<f4")]
    traces = [b"secret-name", b"secret-folder", rows[0], rows[1].tobytes()]

    def everything():
        return b"".join(data for data, _, _ in contents(library.folder).values())

    assert all(trace in everything() for trace in traces)
    library.forget([photos / "secret-name.png", photos / "secret-folder"])
    left = everything()
    assert not [trace for trace in traces if trace in left]
    assert b"green.png" in left
    assert names(library.query("green")) == ["green.png"]


# -- dry runs ------------------------------------------------------------------------------


def same_outcome(dry, real):
    """All that a report counts, but for the work that only a real run does."""
    left, right = dry.as_dict(), real.as_dict()
    for row in (left, right):
        for work in ("encoded", "limit", "per_second"):
            row.pop(work)
        row["failed"] = sorted((one["path"], one["reason"]) for one in row["failed"])
    assert (left.pop("dry_run"), right.pop("dry_run")) == (True, False)
    assert left == right


def test_a_dry_run_without_a_library(library, photos, encoder, tmp_path):
    """It tells what the first run then does, and leaves no trace."""
    for name, colour in (("a.png", "red"), ("b.png", "red"), ("c.bmp", "blue"), ("d.bmp", "green")):
        photos.paint(name, colour)
    (photos / "notes.csv").write_text("words")
    (photos / "empty.png").write_bytes(b"")
    (photos / "false.png").write_bytes(b"words")
    before = contents(tmp_path)
    dry = library.index(photos, dry_run=True)
    assert contents(tmp_path) == before
    assert not library.folder.exists()
    assert encoder.pictures == 0
    real = library.index(photos)
    assert counts(real) == {"added": 3, "copied": 1, "skipped": 1, "failed": 2, "encoded": 3}
    same_outcome(dry, real)


def test_a_dry_run_tells_what_the_run_then_does(library, photos, encoder, tmp_path):
    """Added, changed, moved, copied, gone, returned, offline: all as it then happens."""
    for name in ("stays", "changes", "moves", "goes", "copied", "swap1", "swap2", "returns"):
        photos.paint(f"{name}.png", "red", (8, 8 + len(name) + ord(name[-1])))
    (tmp_path / "disk").mkdir()
    shutil.copy(photos / "stays.png", tmp_path / "disk" / "away.png")
    library.index([photos, tmp_path / "disk"])
    os.rename(photos / "returns.png", tmp_path / "kept.png")
    library.index(photos)
    os.rename(tmp_path / "kept.png", photos / "returns.png")
    os.rename(tmp_path / "disk", tmp_path / "unplugged")
    photos.paint("changes.png", "blue")
    photos.paint("new.png", "cyan")
    photos.paint("new-copy.png", "cyan")
    os.rename(photos / "moves.png", photos / "moved.png")
    os.rename(photos / "swap1.png", photos / "x.png")
    os.rename(photos / "swap2.png", photos / "swap1.png")
    os.rename(photos / "x.png", photos / "swap2.png")
    os.unlink(photos / "goes.png")
    shutil.copy(photos / "copied.png", photos / "copy.png")
    (photos / "empty.png").write_bytes(b"")
    encoder.pictures = 0
    before = contents(tmp_path)
    dry = library.index(dry_run=True)
    assert contents(tmp_path) == before
    assert encoder.pictures == 0
    real = library.index()
    assert counts(real) == {
        "added": 2, "changed": 3, "moved": 1, "copied": 2, "gone": 1, "offline": 1,
        "unchanged": 2, "failed": 1, "encoded": 2,
    }  # fmt: skip
    same_outcome(dry, real)


# -- stopping and watching -----------------------------------------------------------------


def test_progress_reaches_its_end(library, photos):
    """The last step says that everything is done; committed never runs ahead of done."""
    for number in range(5):
        photos.paint(f"{number}.png", "red", (8, 8 + number))
    (photos / "bad.png").write_bytes(b"")
    steps = []
    library.index(photos, progress=steps.append)
    last = steps[-1]
    assert (last.done, last.total, last.committed, last.failed) == (6, 6, 5, 1)
    assert all(step.committed <= step.done <= step.total for step in steps)


def test_status_counts_what_was_skipped_and_what_failed(library, photos):
    """A sidecar is neither."""
    photos.paint("red.png", "red")
    (photos / "red.txt").write_text("a red square")
    (photos / "table.csv").write_text("1, 2")
    (photos / "other.csv").write_text("3, 4")
    (photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    library.index(photos)
    status = library.status()
    assert (status["files"], status["skipped"], status["failed"]) == (1, 2, 1)


def test_a_filter_is_asked_of_what_is_there_now(library, photos):
    """What it kept before is not remembered once the library has changed."""
    photos.paint("red.png", "red", (8, 8))
    library.index(photos)
    wide = "width = 8"
    assert {hit.path.name for hit in library.query("red", where=wide)} == {"red.png"}
    photos.paint("crimson.png", (240, 0, 0), (8, 8))
    with mmsearch.open_library(library.folder, workers=1) as writer:
        writer.index(photos)
    assert {hit.path.name for hit in library.query("red", where=wide)} == {"red.png", "crimson.png"}


def test_a_stopped_run_keeps_what_it_committed(tmp_path, photos, encoder):
    """Interrupted: no file is gone, what was committed is found, the next run does the rest."""
    for number in range(60):
        photos.paint(f"{number:02}.png", "red", (8, 8 + number))
    library = mmsearch.open_library(tmp_path / "index", workers=1, batch=4)
    committed = []
    report = library.index(
        photos,
        progress=lambda step: committed.append(step.committed),
        stop=lambda: bool(committed) and committed[-1] >= 4,
    )
    assert report.interrupted
    assert 4 <= report.added < 60
    assert len(library.query("red", 100)) == report.added
    assert counts(library.index()) == {
        "added": 60 - report.added, "unchanged": report.added, "encoded": 60 - report.added,
    }  # fmt: skip
    assert library.check() == []


def test_one_writer_at_a_time(three, photos):
    """A second one is refused at once and told who holds the library; reading goes on."""
    with WriterLock(three.folder / "LOCK"):
        with pytest.raises(LibraryLocked, match=rf"is locked by pid {os.getpid()} since 2"):
            three.index(photos)
        with pytest.raises(LibraryLocked, match="wait for it or stop it"):
            three.forget(photos.folder)
        assert len(three.query("red")) == 3
        assert counts(three.index(photos, dry_run=True)) == {"unchanged": 3}
    assert counts(three.index(photos)) == {"unchanged": 3}


def test_another_object_sees_what_one_wrote(three, photos):
    """Two libraries over one folder: the reader answers from the newest commit."""
    with mmsearch.open_library(three.folder) as reader:
        assert len(reader.query("red")) == 3
        photos.paint("white.png", "white")
        three.index(photos)
        assert names(reader.query("white", 1)) == ["white.png"]
        os.unlink(photos / "white.png")
        three.index(photos)
        assert len(reader.query("white")) == 3
        photos.paint("white.png", "white")
        three.index(photos)
        assert names(reader.query("white", 1)) == ["white.png"]
        three.forget(photos / "red.png")
        assert sorted(ids(reader)) == ["blue.png", "green.png", "white.png"]


def test_a_reader_meets_a_library_made_anew(three, photos):
    """The folder was deleted and indexed again: the same object answers from the new one."""
    with mmsearch.open_library(three.folder, workers=1) as reader:
        assert len(reader.query("red")) == 3
        shutil.rmtree(three.folder)
        with pytest.raises(LibraryMissing):
            reader.query("red")
        os.unlink(photos / "red.png")
        three.index(photos)
        assert sorted(ids(reader)) == ["blue.png", "green.png"]


def test_threads_share_one_library(three, photos):
    """Many threads ask while another object writes: every answer is right."""
    wrong = []
    done = threading.Event()

    def ask(colour):
        while True:
            last = done.is_set()
            [hit] = three.query(colour, 1)
            if (hit.path.stem, round(hit.score, 2)) != (colour, 1):
                wrong.append(hit)
            if last:
                return

    threads = [threading.Thread(target=ask, args=[c]) for c in ("red", "green", "blue")]
    for thread in threads:
        thread.start()
    try:
        with mmsearch.open_library(three.folder, workers=1) as writer:
            for number in range(4):
                photos.paint("extra.png", "white", (8, 8 + number))
                writer.index(photos)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_closed_library_may_be_used_again(three, photos):
    """close lets go of the files; the next question opens them again."""
    three.close()
    three.close()
    assert len(three.query("red")) == 3
    with three as same:
        assert same.status()["files"] == 3
    assert counts(three.index(photos)) == {"unchanged": 3}


def test_status_beside_a_writer_whose_log_goes(three, monkeypatch):
    """A file that is gone between the listing and the look at its size counts nothing."""
    listed = list(three.folder.rglob("*"))
    ghost = three.folder / "library.db-journal"
    monkeypatch.setattr("pathlib.Path.rglob", lambda *_: [*listed, ghost])
    files = [path for path in listed if path.is_file()]
    assert three.status()["bytes"] >= sum(path.stat().st_size for path in files) > 0


def test_files_are_private(three):
    """The folder is 0700, the files 0600: what someone photographs is their own business."""
    assert stat.S_IMODE(three.folder.stat().st_mode) == 0o700
    for path in three.folder.rglob("*"):
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path.name


# -- rows 18, 19 and the lagging cache ---------------------------------------------------------


def the_cache(library):
    [path] = (library.folder / "cache").glob("*.matrix")
    return path


def flip(data, at):
    changed = bytearray(data)
    changed[at] ^= 0x40
    return bytes(changed)


def test_row_1_a_cache_that_was_replaced_does_not_stay(three, photos):
    """Row 1: killed between recording a new cache and removing the old one: the next run does."""
    current = the_cache(three)
    old, other = current.with_name("space-1-0.matrix"), current.with_name("space-12-1.matrix")
    for path in (old, other):
        path.write_bytes(b"of another generation, and of another space")
    assert three.index(photos).unchanged == 3
    assert {path.name for path in current.parent.iterdir()} == {current.name, other.name}


def earlier_generation(library, path, data):
    return data.replace(b"\x01\0\0\0\0\0\0\0", b"\x07\0\0\0\0\0\0\0", 1)


DAMAGE = {
    "deleted": lambda path, data: path.unlink(),
    "empty": lambda path, data: path.write_bytes(b""),
    "cut in the header": lambda path, data: path.write_bytes(data[:50]),
    "cut in the rows": lambda path, data: path.write_bytes(data[:-5]),
    "flipped in the magic": lambda path, data: path.write_bytes(flip(data, 3)),
    "flipped in the sizes": lambda path, data: path.write_bytes(flip(data, 17)),
    "flipped in the mark": lambda path, data: path.write_bytes(flip(data, 60)),
    "flipped in the ids": lambda path, data: path.write_bytes(flip(data, 4096)),
    "flipped in the rows": lambda path, data: path.write_bytes(flip(data, -3)),
    "zeroed rows": lambda path, data: path.write_bytes(data[:4160] + bytes(len(data) - 4160)),
    "all zeros": lambda path, data: path.write_bytes(bytes(len(data))),
    "longer": lambda path, data: path.write_bytes(data + b"\0"),
    "a folder": lambda path, data: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_row_18_a_damaged_cache_is_never_searched(three, photos, encoder, damage):
    """Row 18: answers equal brute force, status and check say why, the next run rewrites."""
    right = found(three, "yellow")
    path = the_cache(three)
    DAMAGE[damage](path, path.read_bytes())
    with mmsearch.open_library(three.folder, workers=1) as library:
        assert found(library, "yellow") == right
        assert path.name in library.status()["cache"]["problem"]
        [problem] = library.check()
        assert path.name in problem
        assert "it is not used, the next mmsearch index writes it anew" in problem
        if damage == "a folder":
            path.rmdir()
        assert counts(library.index()) == {"unchanged": 3}
        assert encoder.pictures == 0
        assert library.check() == []
        assert library.status()["cache"] == {"rows": 3, "fresh": 0, "dead": 0, "problem": None}
        assert found(library, "yellow") == right


def put_back(three, old, name):
    """An old cache under the name of the one that counts."""
    the_cache(three).unlink()
    (three.folder / "cache" / name).write_bytes(old)


def test_row_18_an_older_generation_is_not_searched(three, photos):
    """Row 18: last week's cache in the place of today's does not fit the record."""
    old = the_cache(three).read_bytes()
    photos.paint("red.png", "white")
    photos.paint("cyan.png", "cyan")
    three.index(photos)
    right = found(three, "red")
    put_back(three, old, the_cache(three).name)
    with mmsearch.open_library(three.folder, workers=1) as library:
        assert found(library, "red") == right
        assert library.status()["cache"]["problem"]
        library.index()
        assert library.check() == []


def test_row_19_a_cache_with_shuffled_ids_and_a_right_hash(three, photos, monkeypatch):
    """Row 19: even a cache that the record vouches for is compared with the catalog by check."""
    from mmsearch import engines, space

    path = the_cache(three)
    data = path.read_bytes()
    rows = np.frombuffer(data[4160:], "<f4").reshape(3, 3)
    path.write_bytes(data[:4160] + rows[[1, 2, 0]].tobytes())
    with Catalog.open(three.folder / "library.db", write=True) as catalog, catalog.transaction():
        record = catalog.cache(1)
        sha256 = space.hash_file(str(path))
        catalog.put_cache(**(record | engines.figures(str(path)) | {"sha256": sha256}))
    with mmsearch.open_library(three.folder, workers=1) as library:
        [problem] = library.check()
        assert "has other vectors than the catalog" in problem
        # scores are the catalog's own, whatever the cache says
        assert library.query("red", 3)[0].score == pytest.approx(1, abs=1e-3)


def test_an_index_that_faiss_does_not_know_is_refused_at_once(tmp_path, photos, encoder):
    """A mistake in --faiss costs no run: nothing is encoded."""
    pytest.importorskip("faiss", reason="FAISS is not installed")
    photos.paint("red.png", "red")
    with mmsearch.open_library(tmp_path / "index", workers=1, faiss="IVQ12,Nonsense") as library:
        with pytest.raises(UsageError, match="does not know an index 'IVQ12,Nonsense' of 3 dim"):
            library.index(photos)
        assert encoder.pictures == 0


@pytest.mark.parametrize("field, value", [("rows", 2), ("last_id", 99), ("generation", 9)])
def test_row_19_a_record_of_another_state_is_refused(three, field, value):
    """Row 19: rows, last id and generation of the header are those of the record."""
    right = found(three, "yellow")
    with Catalog.open(three.folder / "library.db", write=True) as catalog, catalog.transaction():
        catalog.put_cache(**(catalog.cache(1) | {field: value}))
    with mmsearch.open_library(three.folder, workers=1) as library:
        assert found(library, "yellow") == right
        assert "belongs to another state" in library.status()["cache"]["problem"]


def test_row_18_a_cache_of_another_model(three, tmp_path, photos, monkeypatch):
    """Row 18: a cache made with another encoder is not searched, even with a right hash."""
    from mmsearch import engines, space

    inject(monkeypatch, FakeEncoder("other", "cd" * 32))
    with mmsearch.open_library(tmp_path / "second", workers=1) as second:
        second.index(photos)
        foreign = the_cache(second).read_bytes()
    inject(monkeypatch, FakeEncoder())
    path = the_cache(three)
    path.write_bytes(foreign)
    with Catalog.open(three.folder / "library.db", write=True) as catalog, catalog.transaction():
        sha256 = space.hash_file(str(path))
        record = catalog.cache(1) | engines.figures(str(path)) | {"sha256": sha256}
        catalog.put_cache(**record)
    with mmsearch.open_library(three.folder, workers=1) as library:
        assert "belongs to another state" in library.status()["cache"]["problem"]
        assert names(library.query("red", 1)) == ["red.png"]


def test_a_cache_copied_with_its_library_is_used(three, tmp_path):
    """`cp -r` of a library at rest: another inode and date, the same hash, still searched."""
    shutil.copytree(three.folder, tmp_path / "copied")
    with mmsearch.open_library(tmp_path / "copied", workers=1) as library:
        assert found(library, "red") == found(three, "red")
        assert library.status()["cache"]["problem"] is None
        assert library.check() == []


def test_a_lagging_cache_is_slow_but_never_wrong(library, photos):
    """Newer rows are searched beside it, deleted ones are passed over, status counts both."""
    for number in range(45):
        photos.paint(f"{number}.png", (255, number, 0))
    library.index(photos)
    generation = the_cache(library).name
    photos.paint("0.png", "blue")  # one row dead, one fresh
    library.index(photos)
    assert the_cache(library).name == generation
    assert library.status()["cache"] == {"rows": 45, "fresh": 1, "dead": 1, "problem": None}
    expected = {f"{n}.png": float(half(unit(255, n, 0)) @ colour_row("red")) for n in range(45)}
    expected["0.png"] = 0.0
    for fresh in (library, mmsearch.open_library(library.folder)):
        assert found(fresh, "red") == pytest.approx(expected, abs=1e-6)
        assert names(fresh.query("blue", 1)) == ["0.png"]
    assert library.check() == []
    for number in range(1, 5):
        photos.paint(f"{number}.png", "green", (8, 8 + number))
    library.index(photos)
    assert the_cache(library).name != generation
    assert library.status()["cache"] == {"rows": 45, "fresh": 0, "dead": 0, "problem": None}


def test_gone_files_do_not_crowd_out_the_rest(library, photos):
    """The nearest hundred are gone: the k nearest that are left are found all the same."""
    for number in range(120):
        photos.paint(f"red{number}.png", (255, number % 5, number))
    photos.paint("a.png", "yellow")
    photos.paint("b.png", "white")
    library.index(photos)
    for path in photos.folder.glob("red*"):
        path.unlink()
    assert counts(library.index(photos))["gone"] == 120
    for _ in range(2):
        assert names(library.query("red", 2)) == ["a.png", "b.png"]
        assert names(library.query("red", 1)) == ["a.png"]


# -- rows 16, 22 and 24 ------------------------------------------------------------------------


def test_row_22_another_encoder_is_refused_with_both_names(three, photos, tmp_path, monkeypatch):
    """Row 22: query and index say what the library was built with, and mix nothing."""
    before = contents(three.folder)
    inject(monkeypatch, FakeEncoder("other", "cd" * 32))
    with mmsearch.open_library(three.folder, workers=1) as library:
        message = r"was built with fake \(fafafafa\), you have other \(cdcdcdcd\)"
        photos.paint("new.png", "white")
        for use in (
            lambda: library.query("red"), lambda: library.index(photos), library.status,
            library.check, lambda: library.index(photos, dry_run=True),
        ):  # fmt: skip
            with pytest.raises(EncoderMismatch, match=message):
                use()
    assert contents(three.folder) == before
    inject(monkeypatch, FakeEncoder())
    assert len(three.query("red")) == 3


def test_row_22_same_name_other_weights(three, photos, monkeypatch):
    """Row 22: the fingerprint decides, whatever the model is called."""
    inject(monkeypatch, FakeEncoder("fake", "0b" * 32))
    with (
        mmsearch.open_library(three.folder) as library,
        pytest.raises(EncoderMismatch, match=r"built with fake \(fafafafa\), you have fake \(0b0b"),
    ):
        library.query("red")


def test_a_library_at_rest_may_be_forgotten_without_its_encoder(three, photos, monkeypatch):
    """`forget` compares nothing, so it needs no encoder."""
    inject(monkeypatch, FakeEncoder("other", "cd" * 32))
    assert three.forget(photos / "red.png") == 1


def test_altered_model_files_are_named_by_check(three, encoder):
    """check also reads the model's own files."""
    encoder.files_altered = ["image.onnx"]
    assert three.check() == ["fake: image.onnx was altered; install the model again"]


def test_row_16_a_damaged_vector_is_reported_not_searched(three):
    """Row 16: a vector whose checksum fails raises, and check lists it."""
    import sqlite3

    with sqlite3.connect(three.folder / "library.db") as raw:
        raw.execute("UPDATE vectors SET data = x'000000000000' WHERE id = 2")
    raw.close()
    with mmsearch.open_library(three.folder) as library:
        with pytest.raises(LibraryDamaged, match="vector 2 is not what was written"):
            library.query("red")
        assert library.check() == ["vector 2 is not what was written; mmsearch repair mends it"]


def leave_a_log(library, target):
    """A copy of a library whose last commit stands in the write-ahead log alone."""
    with Catalog.open(library.folder / "library.db", write=True) as catalog:
        with catalog.transaction():
            catalog.put_setting("written", "late")
        shutil.copytree(library.folder, target)
    (target / "library.db-shm").unlink()
    assert (target / "library.db-wal").stat().st_size > 0


@pytest.mark.parametrize("log", [False, True], ids=["no log", "log"])
def test_row_24_a_library_that_cannot_be_written_is_searched(three, tmp_path, monkeypatch, log):
    """Row 24: search works, nothing is written, a log beside it counts (os.access says no)."""
    folder = three.folder
    if log:
        folder = tmp_path / "with-log"
        leave_a_log(three, folder)
    three.close()
    before, names_before = contents(folder), os.listdir(folder)
    really = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode, **more: mode != os.W_OK and really(path, mode, **more)
    )
    with mmsearch.open_library(folder) as library:
        assert names(library.query("red", 1)) == ["red.png"]
        assert library.status()["files"] == 3
        assert library.check() == []
        assert contents(folder) == before
    if log:
        with Catalog.open(folder / "library.db") as catalog:
            assert catalog.setting("written") == "late"
    assert contents(folder) == before
    assert os.listdir(folder) == names_before


def read_only_mount(folder, script, home):
    """Run a script in a mount namespace where a folder is read-only; skip where none can be."""
    unshare = shutil.which("unshare")
    if unshare is None or not sys.platform.startswith("linux"):
        pytest.skip("no unshare to make a read-only mount with")
    mount = f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'"
    options = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = [unshare, *options, "--mount", "sh", "-c"]
    if subprocess.run([*command, mount], capture_output=True, check=False).returncode:
        pytest.skip("no read-only mount may be made here")
    return subprocess.run(
        [*command, f"{mount} && {script}"], capture_output=True, text=True, check=False,
        env=clean_environment(home),
    )  # fmt: skip


@pytest.mark.parametrize("log", [False, True], ids=["no log", "log"])
def test_row_24_a_read_only_mount(tmp_path, photos, log):
    """Row 24: on a mount that is really read-only query answers and index says why it cannot."""
    photos.paint("red.png", "red")
    made = mmsearch.open_library(tmp_path / "made", workers=1)
    made.index(photos)
    made.close()
    folder = made.folder
    if log:
        folder = tmp_path / "with-log"
        leave_a_log(made, folder)
    before = contents(folder)
    run = f"'{sys.executable}' -m mmsearch"
    done = read_only_mount(
        folder, f"{run} query words --all --format paths --index '{folder}'", tmp_path / "home"
    )
    assert (done.returncode, done.stdout) == (0, f"{photos / 'red.png'}\n"), done.stderr
    done = read_only_mount(
        folder, f"{run} index '{photos.folder}' --index '{folder}'", tmp_path / "home"
    )
    assert done.returncode == 1
    assert "searching works, indexing needs a place that can be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder) == before


def test_row_24_indexing_into_a_folder_that_cannot_be_made(tmp_path, photos, encoder):
    """Row 24: the library's folder would lie below a file: one clear error."""
    photos.paint("red.png", "red")
    (tmp_path / "file").write_text("")
    library = mmsearch.open_library(tmp_path / "file" / "index", workers=1)
    with pytest.raises(mmsearch.MmsearchError, match="file"):
        library.index(photos)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_row_24_indexing_where_nothing_may_be_written(three, photos):
    """Row 24: LibraryReadOnly, and searching still works."""
    three.close()
    three.folder.chmod(0o500)
    (three.folder / "LOCK").chmod(0o400)
    try:
        with pytest.raises(LibraryReadOnly, match="searching works"):
            three.index(photos)
        assert len(three.query("red")) == 3
    finally:
        three.folder.chmod(0o700)


# -- embed ---------------------------------------------------------------------------------


def test_embed_by_value(encoder, photos):
    """One unit row an input, in their order; texts, paths and PIL images."""
    from PIL import Image

    rows = mmsearch.embed(["red", "red green", "white"], modality="text")
    expected = [[1, 0, 0], [2**-0.5, 2**-0.5, 0], [3**-0.5] * 3]
    assert rows == pytest.approx(np.array(expected), abs=1e-6)
    assert (rows.dtype, rows.shape) == (np.float32, (3, 3))
    path = photos.paint("cyan.png", "cyan")
    rows = mmsearch.embed([path, str(path), Image.new("RGB", (9, 9), "red")], modality="image")
    assert rows == pytest.approx(np.stack([colour_row(c) for c in ("cyan", "cyan", "red")]))


def test_embed_of_many_keeps_the_order(encoder):
    """More than one batch: every row is its own input's."""
    texts = [["red", "green", "blue"][n % 3] for n in range(200)]
    rows = mmsearch.embed(iter(texts), modality=Modality.TEXT)
    assert np.array_equal(rows, np.stack([colour_row(text) for text in texts]))


def test_embed_of_nothing(encoder):
    """No inputs, no rows."""
    assert mmsearch.embed([], modality="text").shape == (0, 3)


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        ("a dog", {"modality": "text"}, r"takes a list of inputs, such as \['a dog'\]"),
        (["x"], {"modality": "video"}, "modality is one of image, audio, text, not 'video'"),
        ([3], {"modality": "text"}, "a text is a string, or the Path of a text file, not int"),
        ([3], {"modality": "image"}, "a picture is a path or a PIL image, not int"),
        (["x"], {"modality": "text", "precision": "int8"}, 'precision is "auto" or "fp32"'),
    ],
)
def test_embed_refuses_what_it_cannot_mean(encoder, inputs, options, message):
    """Wrong usage is said as such."""
    with pytest.raises(UsageError, match=message):
        mmsearch.embed(inputs, **options)


def test_embed_names_the_first_bad_input(encoder, photos):
    """The first bad file raises, with its name and reason."""
    good = photos.paint("good.png", "red")
    (photos / "bad.png").write_bytes(b"")
    with pytest.raises(LoadError, match=r"bad\.png") as caught:
        mmsearch.embed([good, photos / "bad.png", photos / "worse.png"], modality="image")
    assert isinstance(caught.value.reason, Reason)


def test_an_unknown_model_is_named():
    """The message says which models there are."""
    with pytest.raises(ModelError, match="no model is called 'nonesuch'; there is: builtin"):
        mmsearch.embed(["a dog"], modality="text", model="nonesuch")
