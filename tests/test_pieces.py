"""A file may be many items: windows of a sound, passages of a text, all of them or none."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, inject
from hostile import encoded_sound

import mmsearch
from mmsearch.decoding import DecoderPool, Job, Limits, Outcome, Piece, Wants
from mmsearch.files import Stat
from mmsearch.parcels import Parcels
from mmsearch.records import AudioInput, Modality, Reason

HERTZ = {"red": 200, "green": 1000, "blue": 3000}  # what the fake encoder hears as colours


def sing(path: Path, *colours: str, seconds: float = 2.0, last: float = 0.25) -> Path:
    """A sound of one tone after the other; `last` is its last sample."""
    at = np.arange(round(8000 * seconds)) / 8000
    tones = [0.4 * np.sin(2 * np.pi * HERTZ[colour] * at) for colour in colours]
    samples = np.append(np.concatenate(tones)[:-1], last).astype(np.float32)
    path.write_bytes(encoded_sound(samples, 8000, "WAV", "FLOAT"))
    return path


def found(library, colour: str, k: int = 1, **options) -> list[tuple[str, float, float]]:
    """The nearest items as (name, start, end)."""
    hits = library.query(colour, k, all=True, **options)
    return [(hit.path.name, hit.start, hit.end) for hit in hits]


def figures(library) -> dict[str, int]:
    status = library.status()
    return {name: status[name] for name in ("files", "gone", "items", "vectors")}


@pytest.fixture
def song(library, photos):
    """A library of one sound: two seconds of red, two of green, one of blue."""
    sing(photos / "song.wav", "red", "red", "green", "green", "blue", seconds=1)
    library.index(photos)
    return library


def test_a_sound_is_found_by_its_windows(library, photos, encoder):
    """Five seconds in windows of two: three items, each under its own seconds."""
    sing(photos / "song.wav", "red", "red", "green", "green", "blue", seconds=1)
    report = library.index(photos)
    assert (report.added, report.encoded, report.failed, encoder.windows) == (1, 3, [], 3)
    assert figures(library) == {"files": 1, "gone": 0, "items": 3, "vectors": 3}
    assert found(library, "red") == [("song.wav", 0, 2)]
    assert found(library, "green") == [("song.wav", 2, 4)]
    assert found(library, "blue") == [("song.wav", 4, 5)]
    [hit] = library.query("green", 1, all=True)
    assert (hit.modality, hit.score) == (Modality.AUDIO, pytest.approx(1, abs=1e-3))
    assert library.check() == []
    assert library.index(photos).unchanged == 1


def test_a_text_is_found_by_its_passages(library, photos):
    """Two paragraphs too long for one passage: two items without seconds."""
    (photos / "notes.md").write_text("# red\n\n" + "red " * 60 + "\n\n" + "green " * 60)
    report = library.index(photos)
    assert (report.added, report.encoded) == (1, 2)
    hits = library.query("green", 2, all=True, modality="text")
    assert [round(hit.score, 2) for hit in hits] == [1.0, 0.0]
    assert {(hit.path.name, hit.start, hit.end) for hit in hits} == {("notes.md", None, None)}
    assert len({hit.id for hit in hits}) == 2


def test_moved_copied_changed_gone_and_forgotten(song, photos, encoder):
    """What holds for a picture holds for all items of a sound."""
    ids = {hit.id for hit in song.query("red", 9, all=True)}
    os.rename(photos / "song.wav", photos / "moved.wav")
    assert song.index(photos).moved == 1
    assert {hit.id for hit in song.query("red", 9, all=True)} == ids
    assert found(song, "blue") == [("moved.wav", 4, 5)]
    shutil.copy(photos / "moved.wav", photos / "copy.wav")
    assert song.index(photos).copied == 1
    assert encoder.windows == 3
    assert figures(song) == {"files": 2, "gone": 0, "items": 6, "vectors": 3}
    assert sorted(found(song, "green", 2)) == [("copy.wav", 2, 4), ("moved.wav", 2, 4)]
    sing(photos / "copy.wav", "blue")
    assert song.index(photos).changed == 1
    assert figures(song) == {"files": 2, "gone": 0, "items": 4, "vectors": 4}
    os.remove(photos / "moved.wav")
    assert song.index(photos).gone == 1
    assert [name for name, _, _ in found(song, "red", 9)] == ["copy.wav"]
    song.forget(gone=True)
    assert figures(song) == {"files": 1, "gone": 0, "items": 1, "vectors": 1}
    assert song.check() == []


def test_two_sounds_that_change_places(song, photos):
    """In one transaction each takes up what the other lets go of, with all its windows."""
    sing(photos / "other.wav", "blue", "blue")
    song.index(photos)
    os.rename(photos / "song.wav", photos / "x")
    os.rename(photos / "other.wav", photos / "song.wav")
    os.rename(photos / "x", photos / "other.wav")
    song.index(photos)
    assert found(song, "red") == [("other.wav", 0, 2)]
    assert figures(song) == {"files": 2, "gone": 0, "items": 5, "vectors": 5}
    assert song.check() == []


def test_copies_in_one_run_are_encoded_once(library, photos, encoder):
    """Whichever is read first; all are found."""
    sing(photos / "a.wav", "red", "green", "blue")
    for name in ("b.wav", "c.wav"):
        shutil.copy(photos / "a.wav", photos / name)
    report = library.index(photos)
    assert (report.added, report.copied, report.encoded) == (1, 2, 3)
    assert figures(library) == {"files": 3, "gone": 0, "items": 9, "vectors": 3}


def test_nothing_is_kept_of_half_a_sound(library, photos):
    """Row 51: what goes wrong in the last second undoes all that came before it."""
    sing(photos / "bad.wav", "red", "green", "blue", last=np.nan)
    whole = sing(photos / "cut.wav", "blue", "red", "green").read_bytes()
    (photos / "cut.wav").write_bytes(whole[:-8])
    silent = encoded_sound(np.zeros(8000), 8000, "WAV", "PCM_16")
    (photos / "silent.wav").write_bytes(silent)
    sing(photos / "good.wav", "red")
    report = library.index(photos)
    assert {path.name: reason for path, reason in report.failed} == {
        "bad.wav": "nonfinite", "cut.wav": "truncated", "silent.wav": "silent",
    }  # fmt: skip
    assert figures(library) == {"files": 1, "gone": 0, "items": 1, "vectors": 1}
    again = library.index(photos)
    assert (again.failed, again.encoded) == ([], 0)


@pytest.mark.parametrize("row", [(np.nan, 0, 0), (0, 0, 0)], ids=["nan", "zero"])
def test_row_21_one_unusable_vector_refuses_the_file(library, photos, encoder, row, monkeypatch):
    """Row 21: a sound of which one window has no vector is named, and nothing of it returned."""
    sing(photos / "a.wav", "red", "green")
    hear = encoder._sound
    monkeypatch.setattr(encoder, "_sound", lambda s: np.array(row) if hear(s)[1] > 0.9 else hear(s))
    report = library.index(photos)
    assert report.failed == [(photos / "a.wav", "nonfinite")]
    assert figures(library) == {"files": 0, "gone": 0, "items": 0, "vectors": 0}


def test_what_the_model_has_no_tower_for_is_skipped(tmp_path, photos, monkeypatch, warm_pools):
    """A model of pictures alone leaves sounds and texts, whatever state they are in."""
    encoder = FakeEncoder()
    encoder.modalities, encoder.audio_input = frozenset({Modality.IMAGE}), None
    inject(monkeypatch, encoder)
    monkeypatch.setattr("mmsearch.ingest.DecoderPool", warm_pools)
    sing(photos / "a.wav", "red")
    (photos / "empty.mp3").write_bytes(b"")
    (photos / "notes.txt").write_text("red")
    photos.paint("red.png", "red")
    with mmsearch.open_library(tmp_path / "index") as library:
        report = library.index(photos)
        assert (report.added, report.skipped, report.failed) == (1, 3, [])
        messages = {failure.message for failure in library.errors(skipped=True)}
    assert messages == {"the model has no tower for audio", "the model has no tower for text"}


def test_names_and_contents_that_disagree(library, photos):
    """Rows 35 and 52: content decides; a page or a playlist named like a sound is refused."""
    sing(photos / "sound.dat", "red")
    (photos / "page.wav").write_text("<html>")
    (photos / "list.mp3").write_text("#EXTM3U\nfile:///etc/passwd\nhttp://127.0.0.1/x.ts\n")
    (photos / "empty.ogg").write_bytes(b"")
    (photos / "binary.txt").write_bytes(bytes(500))
    (photos / "blank.md").write_text("\n")
    photos.paint("picture.png", "green").rename(photos / "picture.wav")
    report = library.index(photos)
    assert report.added == 2
    assert {path.name: reason for path, reason in report.failed} == {
        "page.wav": "type-mismatch", "list.mp3": "type-mismatch", "empty.ogg": "empty",
        "binary.txt": "type-mismatch", "blank.md": "empty",
    }  # fmt: skip


def test_a_run_that_is_stopped_waits_for_no_long_sound(library, photos, encoder, monkeypatch):
    """Row 9: it ends after the window at hand; nothing is kept, and the next run has it all."""
    sing(photos / "long.wav", *["red", "green", "blue"] * 60)
    heard = encoder.encode
    asked: list[bool] = []
    monkeypatch.setattr(encoder, "encode", lambda *given: asked.append(True) or heard(*given))
    report = library.index(photos, stop=lambda: bool(asked))
    assert report.interrupted
    assert 0 < report.encoded < 180
    assert figures(library) == {"files": 0, "gone": 0, "items": 0, "vectors": 0}
    report = library.index(photos)
    assert (report.interrupted, report.added, report.encoded) == (False, 1, 180)


_DIES_ONCE = """
import os, signal
from mmsearch.loaders import sounds
honest = sounds.windows

def windows(*args, **kwargs):
    for number, window in enumerate(honest(*args, **kwargs)):
        if number == 2 and (EVERY or not os.path.exists(os.environ["DIED"])):
            open(os.environ["DIED"], "a").close()
            os.kill(os.getpid(), signal.SIGSEGV)
        yield window

sounds.windows = windows
"""


@pytest.mark.parametrize("every", [False, True], ids=["once", "always"])
def test_row_46_a_decoder_that_dies_in_the_middle_of_a_sound(tmp_path, monkeypatch, every):
    """Row 46: it is begun again from its first window; the second death names the file."""
    (tmp_path / "sitecustomize.py").write_text(_DIES_ONCE.replace("EVERY", str(every)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DIED", str(tmp_path / "died"))
    path = sing(tmp_path / "a.wav", "red", "green", "blue")
    pool = DecoderPool(1, Wants(audio=AudioInput(8000, 2.0)), Limits(60, 64, 100))
    try:
        pool.submit(Job(os.fsencode(path)))
        answers = []
        while pool.waiting:
            answers.append(pool.next())
    finally:
        pool.close()
    *pieces, outcome = answers
    assert all(isinstance(piece, Piece) for piece in pieces)
    numbers = [piece.number for piece in pieces]
    if every:
        assert (numbers, outcome.reason) == ([0, 1, 0, 1], Reason.CRASHED)
    else:
        assert (numbers, outcome.reason, outcome.parts) == ([0, 1, 0, 1, 2], None, 3)
        assert np.array_equal(pieces[0].data, pieces[2].data)


class Scripted:
    """Stands for DecoderPool: answers come as a test has written them down, by file name."""

    window = 64

    def __init__(self, first: list[tuple[str, int | str]]) -> None:
        self._script, self._queue = first, []
        self.jobs: list[str] = []
        self.waiting = 0

    def __call__(self, *_: object) -> Scripted:
        return self

    def submit(self, job: Job) -> None:
        name = Path(os.fsdecode(job.path)).name
        again = name in self.jobs
        self.jobs.append(name)
        self.waiting += 1
        if again:  # what is asked for once more comes whole
            self._queue += [self._answer(name, what) for what in (0, 1, "whole")]
        elif self.waiting == 2:
            self._folder = os.path.dirname(job.path)
            self._queue += [self._answer(*line) for line in self._script]

    def _answer(self, name: str, what: int | str) -> Piece | Outcome:
        job = Job(os.path.join(self._folder, name.encode()))
        state = Stat.of(os.lstat(job.path)).figures
        if isinstance(what, int):
            samples = np.sin(np.arange(16_000) * (0.1 if what == 0 else 1)).astype(np.float32)
            start = 2.0 * what
            return Piece(job, b"d" * 32, Modality.AUDIO, what, samples, start, start + 2)
        if what == "whole":
            return Outcome(job, state, b"d" * 32, Modality.AUDIO, "WAV", parts=2)
        return Outcome(job, state, reason=Reason(what), message="it failed")

    def next(self) -> Piece | Outcome:
        answer = self._queue.pop(0)
        self.waiting -= isinstance(answer, Outcome)
        return answer

    def give_up(self) -> None:
        """Nothing to give up."""

    def close(self) -> None:
        """Nothing to close."""


def test_a_copy_that_fails_half_way_spoils_no_other(library, photos, encoder, monkeypatch):
    """Rows 34 and 46: windows read from a file that failed are kept for none of its copies."""
    for name in ("a.wav", "b.wav"):
        (photos / name).write_bytes(b"the same")
    pool = Scripted(
        [("a.wav", 0), ("b.wav", 0), ("a.wav", 1), ("b.wav", 1), ("b.wav", "whole"),
         ("a.wav", "crashed")]
    )  # fmt: skip
    monkeypatch.setattr("mmsearch.ingest.DecoderPool", pool)
    report = library.index(photos)
    assert [(path.name, reason) for path, reason in report.failed] == [("a.wav", "crashed")]
    assert (report.added, report.encoded) == (1, 2)
    assert figures(library) == {"files": 1, "gone": 0, "items": 2, "vectors": 2}
    assert pool.jobs == ["a.wav", "b.wav", "b.wav"]  # read again: a was ahead


class Rewritten(Scripted):
    """The first part has other bytes than all that comes after it."""

    answers = 0

    def _answer(self, name: str, what: int | str) -> Piece | Outcome:
        self.answers += 1
        answer = super()._answer(name, what)
        later = self.answers > 1 and answer.digest is not None
        return replace(answer, digest=b"e" * 32) if later else answer


def test_row_34_a_sound_that_is_rewritten_before_it_is_begun_again(library, photos, monkeypatch):
    """Row 34: its decoder died, and the next one reads others: what came before is forgotten."""
    for name in ("a.wav", "b.wav"):
        (photos / name).write_bytes(b"the same")
    pool = Rewritten(
        [("a.wav", 0), ("a.wav", 0), ("a.wav", 1), ("a.wav", "whole"), ("b.wav", "too-large")]
    )
    monkeypatch.setattr("mmsearch.ingest.DecoderPool", pool)
    report = library.index(photos)
    assert (report.added, report.encoded) == (1, 2)
    assert figures(library) == {"files": 1, "gone": 0, "items": 2, "vectors": 2}
    with closing(sqlite3.connect(library.folder / "library.db")) as database:
        assert database.execute("select digest from contents").fetchall() == [(b"e" * 32,)]


def test_rows_of_files_that_more_comes_of_are_kept_when_others_are_written():
    """Those of others would fill the memory; a sound that is under way would be encoded anew."""
    parcels = Parcels({}, None, 8)
    parcels._owners = {b"whole": b"/a.wav", b"begun": b"/b.wav"}
    parcels._begun = {b"/b.wav": b"begun"}
    parcels.rows = {b"whole": [], b"begun": []}
    parcels._sent.update({b"whole": 1, b"begun": 2})
    try:
        parcels.forget()
        assert parcels._owners == {b"begun": b"/b.wav"}
        assert parcels.rows == {b"begun": []}
        assert parcels._sent == {b"begun": 2}
    finally:
        parcels.close()
