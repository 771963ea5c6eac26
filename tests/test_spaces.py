"""Several encoders in one library: filled, asked together, joined into one list."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import FakeEncoder, WarmPools
from typer.testing import CliRunner

import mmsearch
from mmsearch.catalog import Catalog
from mmsearch.cli import app
from mmsearch.errors import EncoderMismatch, ModelError, UsageError
from mmsearch.records import AudioInput, ImageInput, Modality

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


class Seeing(FakeEncoder):
    """Pictures and words, as the fake encoder has them."""

    modalities = frozenset({IMAGE, TEXT})
    audio_input = None


class Hearing(FakeEncoder):
    """Sounds and words, with the colours moved on by one: none of its scores is another's."""

    modalities = frozenset({AUDIO, TEXT})
    image_input = ImageInput(size=2)
    audio_input = AudioInput(rate=8000, window=1.0)

    def encode(self, modality, batch):
        return np.roll(super().encode(modality, batch), 1, axis=1)


class Models(dict[str, FakeEncoder]):
    """The models that there are, by name."""

    def __call__(self, name: str) -> FakeEncoder:
        """Stands for open_encoder."""
        if name not in self:
            raise ModelError(f"no model is called {name!r}")
        return self[name]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, warm_pools: WarmPools) -> Models:
    """see: pictures and words; hear: sounds and words; both: all three."""
    found = Models(
        see=Seeing("see", "5e" * 32), hear=Hearing("hear", "4e" * 32), both=FakeEncoder("both"),
    )  # fmt: skip
    for module in ("encoders", "library", "spaces", "embedding"):
        monkeypatch.setattr(f"mmsearch.{module}.open_encoder", found)
    for module in ("ingest", "filling"):
        monkeypatch.setattr(f"mmsearch.{module}.DecoderPool", warm_pools)
    return found


def sound(path: Path, *hertz: float, seconds: float = 1.0, rate: int = 8000) -> Path:
    """A tone after the other, each of some seconds."""
    path.parent.mkdir(exist_ok=True)
    at = np.arange(round(seconds * rate)) / rate
    tones = [0.3 * np.sin(2 * np.pi * one * at, dtype=np.float64) for one in hertz]
    soundfile.write(path, np.concatenate(tones), rate)
    return path


@pytest.fixture
def files(photos):
    """Three pictures, a low and a high tone, and two texts."""
    for colour in ("red", "green", "blue"):
        photos.paint(f"{colour}.png", colour)
    sound(photos / "low.wav", 200)
    sound(photos / "high.wav", 3000)
    (photos / "warm.txt").write_text("red red green")
    (photos / "cold.txt").write_text("blue green")
    return photos


def opened(tmp_path, *names, **settings):
    """The library with these models, or its own."""
    return mmsearch.open_library(tmp_path / "index", model=list(names), workers=1, **settings)


@pytest.fixture
def library(tmp_path, models, files) -> Iterator[mmsearch.Library]:
    """Everything indexed with see and hear."""
    with opened(tmp_path, "see", "hear") as library:
        library.index(files)
    with opened(tmp_path) as library:
        yield library


def vectors(folder: Path) -> dict[str, int]:
    """By model, how many vectors there are."""
    with Catalog.open(folder / "library.db") as catalog:
        return {row[1]: catalog.count_vectors(row[0])[0] for row in catalog.spaces()}


def names(hits) -> list[str]:
    return [hit.path.name for hit in hits]


# -- filling -----------------------------------------------------------------------------------


def test_two_models_share_the_work(library, models):
    """Each encodes what it reads: pictures one, sounds the other, texts both."""
    assert vectors(library.folder) == {"see": 5, "hear": 4}
    assert (models["see"].pictures, models["hear"].windows) == (3, 2)
    assert library.check() == []
    assert library.index().unchanged == 7


def test_a_model_added_later(tmp_path, models, files):
    """It says what it will encode, reads nothing else anew, and the others stay as they were."""
    with opened(tmp_path, "see") as library:
        first = library.index(files)
        assert (first.added, first.skipped) == (5, 2)
    said = []
    with opened(tmp_path, "hear") as library:
        dry = library.index(dry_run=True, note=said.append)
        assert (dry.filled, vectors(library.folder)) == (0, {"see": 5})
        report = library.index(note=said.append)
    assert said[0] == said[1] == "hear has yet to encode what is known: 2 texts"
    assert (report.added, report.unchanged, report.filled) == (2, 5, 2)
    assert models["see"].pictures == 3  # once, before
    assert vectors(tmp_path / "index") == {"see": 5, "hear": 4}


def test_the_library_remembers_its_models(library, files):
    """A run and a query without a model are all models'; a new file gets a vector of each."""
    files.paint("cyan.png", "cyan")
    sound(files / "middle.wav", 1000)
    assert library.index().added == 2
    assert vectors(library.folder) == {"see": 6, "hear": 5}
    found = {hit.path.suffix: hit.space for hit in library.query("red", 20)}
    assert (found[".png"], found[".wav"]) == ("see", "hear")


def test_what_is_known_is_encoded_from_its_file_and_once(tmp_path, models, files):
    """A further model for pictures and sounds: copies once, windows as they were cut before."""
    (files / "copy.png").write_bytes((files / "red.png").read_bytes())
    sound(files / "long.wav", 200, 1000, 3000)
    with opened(tmp_path, "hear") as library:
        library.index(files)
    with opened(tmp_path, "both") as library:
        report = library.index()
        assert (report.added, report.copied) == (3, 1)  # pictures, which nobody read before
        assert report.filled == 5  # three sounds, two texts
        with Catalog.open(library.folder / "library.db") as catalog:
            lacking = [catalog.count_missing(id, set(Modality)) for id, *_ in catalog.spaces()]
        assert lacking == [{IMAGE: 3}, {}]
        # three windows of a second, although "both" would have cut one of two seconds
        spans = {
            (hit.start, hit.end): round(hit.score, 2)
            for hit in library.query("red", 50, modality="audio", all=True)
            if hit.path.name == "long.wav"
        }
    assert spans == {(0, 1): 1.0, (1, 2): 0.0, (2, 3): 0.0}


def test_a_longer_window_is_the_mean_of_its_parts(tmp_path, models, files):
    """A window of four seconds, to a model that takes two at most: both halves count alike."""
    sound(files / "four.wav", 200, 200, 3000, 3000)
    models["both"].audio_input = AudioInput(rate=8000, window=4.0)
    with opened(tmp_path, "both") as library:
        library.index(files)
    with opened(tmp_path, "hear") as library:
        library.index()
        [hit] = [hit for hit in library.query("red", 50) if hit.path.name == "four.wav"]
        [why] = [h.why for h in library.query("red", 50, explain=True) if h.id == hit.id]
    assert [piece.what for piece in why.pieces] == ["0–1 s", "1–2 s", "2–3 s", "3–4 s"]
    assert (hit.start, hit.end) == (0, 4)
    assert hit.score == pytest.approx(math.sqrt(0.5), abs=0.02)


def test_filling_goes_on_after_an_interruption(tmp_path, models, files, monkeypatch):
    """Row 1: what was committed stays, the rest is found missing; meanwhile the old one answers."""
    with opened(tmp_path, "see") as library:
        library.index(files)
    left = 2
    whole = models["both"].encode

    def encode(modality, batch):
        nonlocal left
        left -= len(batch) if modality is not TEXT else 0
        if left < 0 and modality is not TEXT:
            raise KeyboardInterrupt
        return whole(modality, batch)

    monkeypatch.setattr(models["both"], "encode", encode)
    with opened(tmp_path, "both", batch=1) as library, pytest.raises(KeyboardInterrupt):
        library.index()
    assert vectors(tmp_path / "index")["see"] == 5
    with opened(tmp_path) as library:
        assert set(names(library.query("red", 50))) >= {"red.png", "green.png", "blue.png"}
        assert library.check() == []
    left = 100
    with opened(tmp_path) as library:
        library.index()
        assert library.check() == []
    assert vectors(tmp_path / "index") == {"see": 5, "both": 7}


def test_what_cannot_be_encoded_now_is_told(tmp_path, models, files):
    """A file that went is missing still, one that the model fails on is named; nobody waits."""
    with opened(tmp_path, "see") as library:
        library.index(files)
    (files / "red.png").unlink()
    models["both"].spoilt = {(0, 255, 0): (math.nan, 0, 0)}
    with opened(tmp_path, "both") as library:
        report = library.index(files / "blue.png")  # the others are not looked at
    assert (report.filled, report.failures) == (3, [])
    assert sorted(report.notes) == [
        "1 not encoded with both: the file is not there now",
        "1 not encoded with both: the model gave no usable vector for it",
    ]


def test_a_file_that_changed_is_not_taken_for_what_it_was(tmp_path, models, files):
    """A vector of other bytes than were indexed is never written."""
    with opened(tmp_path, "see") as library:
        library.index(files)
    files.paint("red.png", "white")
    with opened(tmp_path, "both") as library:
        report = library.index(files / "blue.png")
    assert report.notes == ["1 not encoded with both: the file is another one now"]


def test_captions_are_known_to_every_model(tmp_path, models, files):
    """What is said of a picture is words to all."""
    (files / "red.txt").write_text("blue blue")
    with opened(tmp_path, "see", "hear") as library:
        library.index(files)
    assert vectors(tmp_path / "index") == {"see": 6, "hear": 5}


def test_forgetting_takes_the_vectors_of_every_space(library, files):
    """No space keeps what was forgotten, in its cache neither."""
    library.forget(files / "warm.txt")
    assert vectors(library.folder) == {"see": 4, "hear": 3}
    assert library.check() == []
    assert [space["cache"]["rows"] for space in library.status()["spaces"]] == [4, 3]


# -- which are asked ---------------------------------------------------------------------------


def test_a_query_may_name_its_model(library, tmp_path):
    """Then that space alone answers, as a library of it alone would."""
    with opened(tmp_path, "see") as only:
        hits = only.query("red", 50)
    assert {hit.space for hit in hits} == {None}
    assert {hit.path.suffix for hit in hits if hit.score is not None} == {".png", ".txt"}


def test_row_22_a_model_without_a_space(library, tmp_path):
    """Row 22: a query names all that there are and the one that there is not."""
    match = r"built with see \(5e5e5e5e\) and hear \(4e4e4e4e\), you have both \(fafafafa\)"
    with opened(tmp_path, "both") as other, pytest.raises(EncoderMismatch, match=match):
        other.query("red")


def test_row_22_other_weights_under_a_name(library, models, tmp_path):
    """Row 22: a model that changed gets no second space under its name, and mixes nothing."""
    models["see"] = Seeing("see", "00" * 32)
    with opened(tmp_path, "see") as other, pytest.raises(EncoderMismatch, match="you have see"):
        other.index()
    assert vectors(library.folder) == {"see": 5, "hear": 4}


def test_the_settings_model_is_for_new_libraries(library, tmp_path, monkeypatch):
    """What the environment names is not asked of a library that has its own."""
    monkeypatch.setenv("MMSEARCH_MODEL", "both")
    with opened(tmp_path) as same:
        same.index()
        assert {hit.space for hit in same.query("red")} >= {"see", "hear"}
    with mmsearch.open_library(tmp_path / "new", workers=1) as new:
        new.index(tmp_path / "photos")
        assert new.status()["model"] == "both"


def test_a_model_that_cannot_be_opened(library, models, files):
    """The others answer and are filled, with a note; what only it reads is taken up later."""
    away = models.pop("see")
    library.close()
    hits = library.query("red", 50)
    assert hits.notes[-1] == "see was not asked: no model is called 'see'"
    assert "low.wav" in names(hits)
    assert library.check() == ["see cannot be opened: no model is called 'see'"]
    files.paint("white.png", "white")
    sound(files / "middle.wav", 1000)
    report = library.index()
    assert (report.added, report.skipped) == (1, 1)
    assert report.notes == ["see has encoded nothing in this run: no model is called 'see'"]
    assert vectors(library.folder) == {"see": 5, "hear": 5}
    models["see"] = away
    library.close()
    assert library.index().added == 1
    assert vectors(library.folder) == {"see": 6, "hear": 5}


def test_no_model_can_be_opened(library, models):
    """Then it is said which, and why."""
    models.clear()
    library.close()
    with pytest.raises(ModelError, match="built with see, which cannot be opened: no model"):
        library.query("red")


def test_status_lists_the_spaces(library, files, models, tmp_path):
    """Each with its model, what that reads, its vectors and what is missing."""
    with opened(tmp_path, "see") as other:
        files.paint("cyan.png", "cyan")
        other.index(files / "cyan.png")
    told = library.status()["spaces"]
    assert [(s["model"], s["modalities"], s["vectors"], s["missing"]) for s in told] == [
        ("see", ["image", "text"], 6, 0), ("hear", ["audio", "text"], 4, 0)
    ]  # fmt: skip
    shown = CliRunner().invoke(app, ["status", "--index", str(library.folder)]).stdout
    models_shown = [line for line in shown.splitlines() if line.startswith("model ")]
    assert [line[:32] for line in models_shown] == [
        "model     see, 3 dimensions, 6 v", "model     hear, 3 dimensions, 4 "
    ]  # fmt: skip
    assert "\ncache     10 vectors, 0 newer, 0 dead\n" in shown


def test_a_builtin_among_several_is_superseded_alone(tmp_path, models, files, monkeypatch):
    """Row 22: its vectors go as the newer one's come; the other space is not touched."""
    models["builtin-1"] = models["builtin"] = Seeing("builtin-1", "b1" * 32)
    with opened(tmp_path, "hear", "builtin") as library:
        library.index(files)
    assert vectors(tmp_path / "index") == {"hear": 4, "builtin-1": 5}
    del models["builtin-1"]
    models["builtin"] = Seeing("builtin-2", "b2" * 32)
    heard = models["hear"].windows
    with opened(tmp_path) as library:
        assert library.waiting() == ("builtin-1", 5)
        assert {hit.space for hit in library.query("red")} <= {"hear", None}
        said = []
        report = library.index(note=said.append)
        assert said[0] == (
            "this library was made by builtin-1: 5 files are encoded anew with builtin-2"
        )
        assert (report.filled, report.unchanged, library.waiting()) == (5, 7, None)
        assert library.check() == []
    assert vectors(tmp_path / "index") == {"hear": 4, "builtin-2": 5}
    assert models["hear"].windows == heard


# -- joined ------------------------------------------------------------------------------------


def test_two_spaces_answer_as_two_libraries_joined(library, models, tmp_path, files):
    """The oracle: the lists of a library of each model alone, joined by hand."""
    for number in range(1, 12):
        files.paint(f"{number}.png", (20 * number, 255 - 20 * number, 9 * number))
        (files / f"note{number}.txt").write_text("red " * number + "blue " * (12 - number))
    library.index()
    alone = {}
    for name in ("see", "hear"):
        with mmsearch.open_library(tmp_path / name, model=name, workers=1) as one:
            one.index(files)
            hits = one.query("red green", 64, all=True, hybrid="off")
            alone[name] = [(hit.path, hit.start) for hit in hits]
            scores = {(hit.path, hit.start): hit.score for hit in hits}
            alone[name, "scores"] = scores
    worth: dict[tuple[Path, float | None], float] = {}
    for name in ("see", "hear"):
        for rank, key in enumerate(alone[name], start=1):
            several = 2 if key[0].suffix == ".txt" else 1
            worth[key] = worth.get(key, 0.0) + 1 / (5 + rank) / several
    expected = sorted(worth, key=lambda key: -worth[key])
    hits = library.query("red green", 64, all=True, hybrid="off")
    assert [(hit.path, hit.start) for hit in hits] == expected
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    for hit in hits:
        key = (hit.path, hit.start)
        assert hit.score == alone[hit.space, "scores"][key]
        ranks = {name: alone[name].index(key) for name in ("see", "hear") if key in alone[name]}
        assert ranks[hit.space] == min(ranks.values())


def test_a_picture_reaches_sounds_by_words(library, files):
    """The captions nearest to it are what the other model hears of it, and it is told so."""
    (files / "red.txt").write_text("red")  # of red.png
    library.index()
    hits = library.query(mmsearch.image(files / "red.png"), 50)
    assert hits[0].path.name == "red.png"
    note, unrated = hits.notes
    assert note.startswith('sounds were looked for with hear by the words nearest to it: "red"; ')
    assert unrated == (
        "see and hear are not calibrated: their answers are ranked, not rated, and the list ends "
        "with -k alone"
    )
    heard = [hit for hit in hits if hit.modality is AUDIO]
    assert [hit.path.name for hit in heard] == ["low.wav", "high.wav"]
    assert {hit.space for hit in heard} == {"hear"}


def test_no_words_no_bridge(tmp_path, models, photos):
    """Without a text or a caption it is said that sounds were not looked for."""
    photos.paint("red.png", "red")
    sound(photos / "low.wav", 200)
    with opened(tmp_path, "see", "hear") as library:
        library.index(photos)
        hits = library.query(mmsearch.image(photos / "red.png"), hybrid="off")
        assert names(hits) == ["red.png"]
        assert hits.notes[0].startswith("no sounds were looked for with hear")
        with pytest.raises(UsageError, match="reads all of this query"):
            library.query(mmsearch.image(photos / "red.png") + mmsearch.audio(photos / "low.wav"))


def test_a_picture_and_a_sound_in_one_query(library, files):
    """No model reads both: each is put into words for the other, and both answer."""
    query = mmsearch.image(files / "blue.png") + mmsearch.audio(files / "low.wav")
    hits = library.query(query, 50)
    assert {hit.space for hit in hits if hit.score is not None} == {"see", "hear"}
    words = '"red red green"; "blue green"'
    assert hits.notes[0].endswith(f"with see by the words nearest to it: {words}")
    assert ["with hear by the words" in hits.notes[1], "not rated" in hits.notes[2]] == [True] * 2
    assert len(hits.notes) == 3


def test_duplicates_and_reasons_with_several_spaces(library, files):
    """Pictures that look the same are folded, and each answer is explained by its own model."""
    files.paint("red2.png", "red", size=(16, 16))
    library.index()
    hits = library.query("red", 50, group_duplicates=True, explain=True)
    [red] = [hit for hit in hits if hit.path.name in ("red.png", "red2.png")]
    assert len(red.duplicates) == 1
    for name, space in (("red.png", "see"), ("low.wav", "hear")):
        [hit] = [hit for hit in hits if name in (hit.path.name, *(p.name for p in hit.duplicates))]
        assert (hit.space, hit.why.words[0].what) == (space, "red")
        assert hit.why.words[0].carried == pytest.approx(hit.score, abs=1e-3)


def test_words_alone_are_asked_once(library):
    """Names know no model: every file once, without a score."""
    hits = library.query("red.png", 50, hybrid="only")
    assert names(hits) == ["red.png"]
    assert (hits[0].score, hits[0].space) == (None, None)


def test_labels_come_from_the_model_that_reads_a_file(library):
    """Pictures and texts by the first model that compares them with words, sounds by the other."""
    found = {one.path.name: one.label for one in library.label(["red", "green", "blue"])}
    assert found["red.png"] == found["low.wav"] == "red"
    assert found["high.wav"] == found["blue.png"] == "blue"
    assert found["warm.txt"] == "red"


def test_many_queries_are_as_each_alone(library, files):
    """Words, a picture and conditions together: each as if it came alone."""
    queries = ["red", mmsearch.image(files / "blue.png"), "green AND NOT blue", "low"]
    together = library.query_many(queries, 20)
    assert together == [library.query(query, 20) for query in queries]
    assert [hits.notes for hits in together] == [library.query(q, 20).notes for q in queries]


def test_the_command_line_takes_several(tmp_path, models, files):
    """--model is given more than once; JSON says whose score it is."""
    index = ["--index", str(tmp_path / "index")]
    run, two = CliRunner(), ["--model", "see", "--model", "hear"]
    done = run.invoke(app, ["index", str(files.folder), *two, *index])
    assert done.exit_code == 0, done.output
    assert done.stdout == "7 added, 2 encoded for another model\n"
    assert "pictures" in done.stderr and "was the limit" in done.stderr
    found = run.invoke(app, ["query", "red", "--json", *index]).stdout
    assert '"space": "hear"' in found and '"space": "see"' in found
    refused = run.invoke(app, ["query", "red", "--model", "both", *index])
    assert refused.exit_code == 1
