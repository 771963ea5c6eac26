"""A library that an older built-in model made: words meanwhile, then the new model's alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEncoder, colour_row, inject, items_by_words, unit
from fixtures import make_library
from typer.testing import CliRunner

import mmsearch
from mmsearch.catalog import Catalog
from mmsearch.cli import app
from mmsearch.errors import EncoderMismatch, SchemaMismatch
from mmsearch.locking import WriterLock
from mmsearch.records import Modality


class Newer(FakeEncoder):
    """The next built-in model: red is green to it, green blue, and blue red.

    A vector of the older one in its answers would be seen at once.
    """

    def __init__(self) -> None:
        super().__init__("builtin-2", "fb" * 32)
        self.left = 10**6  # what may be encoded before the power goes

    def encode(self, modality, batch):
        self.left -= len(batch) if modality is not Modality.TEXT else 0
        if self.left < 0:
            raise KeyboardInterrupt
        return np.roll(super().encode(modality, batch), 1, axis=1)


@pytest.fixture
def older(library, photos, encoder):
    """Three pictures and a file of another kind, indexed with builtin-1."""
    encoder.name = "builtin-1"
    for colour in ("red", "green", "blue"):
        photos.paint(f"{colour}.png", colour)
    (photos / "notes.csv").write_text("words")
    assert library.index(photos).encoded == 3
    library.close()
    return library


@pytest.fixture
def newer(older, monkeypatch):
    """builtin-2, in the place of every encoder."""
    model = Newer()
    inject(monkeypatch, model)
    return model


def answers(library, words, **options):
    """{name: score} of what is found."""
    return {hit.path.name: hit.score for hit in library.query(words, 100, **options)}


def vectors(library):
    """{space's model: how many vectors it has}."""
    with Catalog.open(library.folder / "library.db") as catalog:
        return {row[1]: catalog.count_vectors(row[0])[0] for row in catalog.spaces()}


def test_row_22_names_answer_before_index(older, newer, photos):
    """Row 22: the words of names and folders find files; nothing has a score; nothing changes."""
    before = (older.folder / "library.db").read_bytes()
    assert answers(older, "a red picture") == {"red.png": None}
    assert answers(older, "photos") == dict.fromkeys(["red.png", "green.png", "blue.png"])
    assert answers(older, mmsearch.text("photos") - mmsearch.text("red")).keys() == {
        "green.png", "blue.png"
    }  # fmt: skip
    assert answers(older, "photos", where='name != "red.png"').keys() == {"green.png", "blue.png"}
    assert answers(older, "photos", modality="audio") == {}
    assert len(older.query("photos", k=2)) == 2
    assert older.waiting() == ("builtin-1", 3)
    assert older.check() == []
    status = older.status()
    assert (status["model"], status["waiting"]) == ("builtin-1", 3)
    assert (older.folder / "library.db").read_bytes() == before


def test_row_22_a_picture_cannot_ask_in_words(older, newer, photos):
    """Row 22: a query without words is refused, and both models are named."""
    with pytest.raises(EncoderMismatch, match=r"made by builtin-1.*builtin-2; run mmsearch index"):
        older.query(mmsearch.image(photos / "red.png"))


def test_row_22_index_encodes_everything_anew(older, newer, photos):
    """Row 22: said first, with the number; then every vector is the new model's."""
    said = []
    report = older.index(note=said.append)
    assert said == ["this library was made by builtin-1: 3 files are encoded anew with builtin-2"]
    assert (report.encoded, report.unchanged, report.changed, report.skipped) == (3, 3, 0, 1)
    assert vectors(older) == {"builtin-2": 3}
    assert answers(older, "green") == pytest.approx({"green.png": 1, "red.png": 0, "blue.png": 0})
    assert older.waiting() is None
    assert older.check() == []
    assert [path.name for path in (older.folder / "cache").iterdir()] == ["space-2-1.matrix"]
    again = older.index(note=said.append)
    assert (again.encoded, again.unchanged, len(said)) == (0, 3, 1)


def test_row_22_a_dry_run_tells_and_changes_nothing(older, newer):
    """Row 22: how many would be encoded; the library is still the older model's."""
    said = []
    older.index(dry_run=True, note=said.append)
    assert said[0].startswith("this library was made by builtin-1: 3 files")
    assert vectors(older) == {"builtin-1": 3}


@pytest.mark.parametrize("done", [0, 1, 2])
def test_row_22_interrupted_between_two_files(older, newer, photos, done):
    """Row 22: what is encoded anew answers with scores, the rest by names, and none by both."""
    newer.left = done
    older.settings = mmsearch.open_library(older.folder, workers=1, batch=1).settings
    with pytest.raises(KeyboardInterrupt):
        older.index()
    older.close()
    newer.left = 10**6
    assert vectors(older) == {"builtin-1": 3 - done, "builtin-2": done}
    assert older.waiting() == ("builtin-1", 3 - done)
    found = older.query("photos red", modality="image")
    scores = {hit.path.stem: hit.score for hit in found if hit.score is not None}
    asked = unit(255 + 6, 6, 6)  # "photos" is a grey of six to the fake model
    assert len(scores) == done
    assert scores == pytest.approx({n: colour_row(n) @ asked for n in scores}, abs=1e-3)
    assert {hit.path.name for hit in found} == {"red.png", "green.png", "blue.png"}
    assert older.check() == []
    assert older.index().encoded == 3 - done
    assert vectors(older) == {"builtin-2": 3}
    assert older.waiting() is None


def test_row_22_gone_and_offline_files_wait(older, newer, photos, tmp_path):
    """Row 22: what cannot be read now keeps its old vector, and is encoded when it is back."""
    (photos / "red.png").rename(tmp_path / "red.png")
    older.index()
    assert vectors(older) == {"builtin-1": 1, "builtin-2": 2}
    assert older.waiting() is None
    assert answers(older, "red").keys() == {"green.png", "blue.png"}
    (tmp_path / "red.png").rename(photos / "red.png")
    assert older.index().encoded == 1
    assert vectors(older) == {"builtin-2": 3}
    assert answers(older, "red")["red.png"] == pytest.approx(1)


def test_row_22_copies_share_the_new_vector(older, newer, photos):
    """Row 22: a picture that was there twice is encoded once."""
    shutil.copy(photos / "red.png", photos / "copy.png")
    report = older.index()
    assert (report.encoded, vectors(older)) == (3, {"builtin-2": 3})
    assert answers(older, "red")["copy.png"] == pytest.approx(1)


def test_row_22_what_the_older_model_skipped_is_looked_at_again(older, newer, photos):
    """Row 22: an unchanged file that was of no use to the older model may be to the new one."""
    with Catalog.open(older.folder / "library.db", write=True) as catalog, catalog.transaction():
        catalog.supersede()
        assert catalog.known_files(bytes(photos.folder)).keys() == {
            b"red.png", b"green.png", b"blue.png"
        }  # fmt: skip


def test_row_22_a_reader_that_stays_open_goes_over(older, newer):
    """Row 22: an open library answers with the new vectors once another process wrote them."""
    assert answers(older, "red") == {"red.png": None}
    with mmsearch.open_library(older.folder, workers=1) as other:
        other.index()
    assert answers(older, "red")["red.png"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["builtin-0", "builtin-1", "builtin", "fake", "builtin-x"])
def test_row_22_only_an_older_builtin_gives_way(older, monkeypatch, name):
    """Row 22: any other model's library is refused, and stays as it is."""
    inject(monkeypatch, FakeEncoder(name, "fc" * 32))
    for call in (lambda: older.query("red"), older.index):
        with pytest.raises(EncoderMismatch, match=f"was built with builtin-1 .*you have {name} "):
            call()
    assert vectors(older) == {"builtin-1": 3}


def test_row_22_the_command_line_says_it(older, newer, photos):
    """Row 22: the note goes to stderr, the answers to stdout; then index, then no note."""
    run, index = CliRunner(), ["--index", str(older.folder)]
    asked = run.invoke(app, ["query", "red", *index])
    assert asked.stderr.startswith("this library was made by builtin-1; run mmsearch index")
    assert asked.stdout.split() == ["1", str(photos / "red.png")]
    assert "3 wait to be encoded anew" in run.invoke(app, ["status", *index]).stdout
    assert "3 files are encoded anew with builtin-2" in run.invoke(app, ["index", *index]).stderr
    asked = run.invoke(app, ["query", "red", *index])
    assert asked.stderr.startswith("builtin-2 is not calibrated")
    assert asked.stdout.split()[1] == "1.000"


def test_row_23_a_reader_brings_an_older_schema_up_to_date(tmp_path, monkeypatch):
    """Row 23: a query meets a library of the first schema: it answers, and a backup is there."""
    old = Path(make_library.__file__).with_name("library-schema-1.db")
    shutil.copy(old, tmp_path / "library.db")
    inject(monkeypatch, FakeEncoder(fingerprint=make_library.FINGERPRINT))
    with mmsearch.open_library(tmp_path) as library:
        assert next(iter(library.query("red"))).path == Path("/photos/1.png")
    assert (tmp_path / "library.db.schema-1").exists()
    with Catalog.open(tmp_path / "library.db") as catalog:
        assert [item.path.name for item, _ in items_by_words(catalog, ["2"], 5)] == ["2.png"]


def test_row_23_an_older_schema_beside_a_writer_is_left_alone(tmp_path, monkeypatch):
    """Row 23: while another process holds the lock, a query says what is to be done."""
    shutil.copy(
        Path(make_library.__file__).with_name("library-schema-1.db"), tmp_path / "library.db"
    )
    inject(monkeypatch, FakeEncoder(fingerprint=make_library.FINGERPRINT))
    with (
        WriterLock(tmp_path / "LOCK"),
        mmsearch.open_library(tmp_path) as library,
        pytest.raises(SchemaMismatch, match=r"older mmsearch .* run mmsearch index"),
    ):
        library.query("red")
