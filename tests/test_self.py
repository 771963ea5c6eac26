"""A library tested by itself: what is found, what is the same, and what is noticed."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import COLOURS, FakeEncoder, inject
from typer.testing import CliRunner

import mmsearch
from mmsearch.cli import app
from mmsearch.errors import LibraryMissing
from mmsearch.evaluation import self_test as module
from mmsearch.evaluation.self_test import self_test
from mmsearch.hits import Hits
from mmsearch.records import Modality

NAMES = [name for name in COLOURS if name not in ("black", "white")]


@pytest.fixture
def shelf(photos, library):
    """Pictures of seven colours, called otherwise, with the colour's name beside them; a copy of
    the first, a sound, a text.
    """
    for number, name in enumerate(NAMES):
        photos.paint(f"picture_{number}.png", name, (40, 30))
        (photos / f"picture_{number}.txt").write_text(name)
    (photos / "again.png").write_bytes((photos / "picture_0.png").read_bytes())
    time = np.arange(12000) / 8000
    low, middle = (np.sin(2 * np.pi * hertz * time) for hertz in (200, 1000))
    soundfile.write(photos / "tone.wav", 0.6 * low + 0.2 * middle, 8000)  # no picture's colour
    (photos / "words.md").write_text("a meadow")
    report = library.index(photos)
    assert (report.added, report.copied, report.sidecars) == (9, 1, 7)
    return library


def digests(folder):
    """What a library's folder holds, but for what SQLite keeps beside an open database."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_sound_library_passes(shelf):
    """Every caption, name and altered copy finds its file: colours are all there is to tell."""
    before = digests(shelf.folder)
    found = self_test(shelf)
    assert found["problems"] == []
    assert (found["files"], found["sample"]) == (10, 10)
    known = found["known_item"]
    assert known["captions"] == "no captions"
    sidecars = known["sidecars"]
    assert sidecars["count"] == 7
    assert sidecars["library"] == sidecars["vectors"] == {"recall@1": 1.0, "recall@10": 1.0}
    assert known["names"]["count"] == 10
    assert known["names"]["library"]["recall@10"] == 1.0  # all grey to the fake encoder
    for shares in found["altered"]["image"].values():
        assert shares == {"count": 8, "recall@1": 1.0, "recall@10": 1.0}
    assert found["altered"]["audio"]["vorbis"]["recall@1"] == 1.0
    same = found["determinism"]
    assert same["encoded_twice"] == same["as_stored"] == {"count": 10, "same": 10}
    assert same["asked_twice"]["same"] == same["opened_anew"]["same"] == 10
    assert same["least_cosine"] > 0.9999
    # seven captions, ten names, six sentences, of which at most a hundred are asked
    assert found["approximate"]["text_to_image"] == {"count": 23, "recall@10": 1.0}
    assert found["approximate"]["image_to_image"] == {"count": 8, "recall@10": 1.0}
    assert digests(shelf.folder) == before


def test_the_sample_is_the_seeds(shelf):
    """The same seed, the same files, the same answer."""
    first, again = (self_test(shelf, count=3, seed=5) for _ in range(2))
    assert first == again
    assert first["sample"] == 3
    assert first["known_item"]["sidecars"]["count"] == 3


def test_an_engine_that_misses_is_seen(shelf, monkeypatch):
    """One that leaves the best of every list out has lost one of eight pictures."""
    whole = type(shelf).query_many

    def missing(self, queries, k=10, **how):
        found = whole(self, queries, k, **how)
        return [Hits(hits[1:], hits.notes) for hits in found] if how.get("modality") else found

    monkeypatch.setattr(type(shelf), "query_many", missing)
    found = self_test(shelf)
    assert found["approximate"]["text_to_image"]["recall@10"] == pytest.approx(7 / 8)
    assert found["altered"]["image"]["crop"]["recall@1"] < 1


def test_answers_that_are_worth_less_do_not_count(monkeypatch):
    """The best two of three: all, half or none of them; a constant of hubness moves the best."""
    monkeypatch.setattr(module, "_K", 2)
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)

    def share(answered, hubness):
        hits = [SimpleNamespace(id=id) for id in answered]
        library = SimpleNamespace(query_many=lambda *_, **how: [hits])
        constants = np.array(hubness, np.float32)
        return module._recall(
            library, Modality.IMAGE, [None], rows[:1], [10, 11, 12], rows, constants
        )

    assert share((10, 11), (0, 0, 0)) == 1.0
    assert share((10, 12), (0, 0, 0)) == 0.5
    assert share((12, 12), (0, 0, 0)) == 0.0
    assert share((10, 11), (2, 0, 0)) == 0.5
    assert share((11, 12), (2, 0, 0)) == 1.0


class Restless(FakeEncoder):
    """Gives every picture a slightly other row each time."""

    def encode(self, modality, batch):
        rows = super().encode(modality, batch)
        if modality is Modality.IMAGE:
            rows = rows + 0.1 * np.random.default_rng(self.pictures).random(rows.shape)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_restless_model_is_a_problem(shelf, monkeypatch):
    """The same file has to be the same vector; what is stored is another by now."""
    inject(monkeypatch, Restless())
    with mmsearch.open_library(shelf.folder) as library:
        found = self_test(library)
    said = " ".join(found["problems"])
    assert "8 files have another vector when they are encoded a second time" in said
    assert "another vector than is stored: run mmsearch index --rehash" in said


def test_files_that_are_gone_are_told(shelf, photos):
    """What cannot be read is a problem, and not counted as not found."""
    (photos / "picture_3.png").unlink()
    found = self_test(shelf)
    assert found["problems"] == [
        "1 of 8 image files could not be read: they are gone, offline or damaged; "
        "mmsearch index says which"
    ]
    assert found["altered"]["image"]["crop"] == {"count": 7, "recall@1": 1.0, "recall@10": 1.0}


def test_an_empty_library_cannot_be_tested(library, photos):
    """Nothing is made up."""
    with pytest.raises(LibraryMissing, match="nothing is indexed"):
        self_test(library)
    photos.paint("black.png", "black")  # has no vector
    library.index(photos)
    with pytest.raises(LibraryMissing, match="has no vector of fake"):
        self_test(library)


def test_the_command_says_what_each_line_means(shelf, photos):
    """A table of sentences, or JSON; exit code 1 with a problem."""
    arguments = ["bench", "self", "--index", str(shelf.folder), "--sample", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = "100%    100%  of 5 captions beside files find their file, by vectors alone"
    assert told in done.output
    assert "5 of 5 files have the same vector when encoded twice" in done.output
    for path in photos.folder.glob("*.png"):
        path.unlink()
    done = CliRunner().invoke(app, [*arguments, "--sample", "50", "--json"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["altered"]["image"] == "no image could be read"
    assert len(found["problems"]) == 1
