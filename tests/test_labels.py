"""Zero-shot labels against slow loops over colours, and as files and on the command line."""

from __future__ import annotations

import csv
import json
import math
import os
import wave

import numpy as np
import pytest
from conftest import COLOURS, colour_row, inject, paint, unit
from typer.testing import CliRunner

import mmsearch
from mmsearch import labels
from mmsearch.cli import app
from mmsearch.errors import EncoderMismatch, LibraryLocked, LibraryMissing, UsageError
from mmsearch.locking import WriterLock
from mmsearch.records import Label, Modality

NAMES = ["red", "green", "blue"]


def softmax(values):
    """As it is defined, one number at a time."""
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def tone(path, *hertz):
    """A sound of two seconds at each of these frequencies."""
    time = np.arange(16000) / 8000
    sound = np.concatenate([np.sin(2 * np.pi * each * time) for each in hertz])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((sound * 20000).astype("<i2").tobytes())


@pytest.fixture
def plain(monkeypatch):
    """The label itself as the only prompt, so that a row is a colour."""
    monkeypatch.setattr(labels, "TEMPLATES", dict.fromkeys(Modality, ("{}",)))


# -- vocabularies and prompts ------------------------------------------------------------------


def test_a_vocabulary_is_words_a_list_a_mapping_or_a_file(tmp_path):
    """White space does not count, a label said twice is one, and a line may have its prompt."""
    file = tmp_path / "words.txt"
    file.write_text(
        "\ufeffcat\n\n# animals\n polar  bear \ncrane = a tall bird\ncrane=a bird in the water\n"
    )
    expected = {"cat": [], "polar bear": [], "crane": ["a tall bird", "a bird in the water"]}
    assert labels.read_vocabulary(file) == labels.read_vocabulary(str(file)) == expected
    assert labels.read_vocabulary("cat, dog,,cat ,a=b") == {"cat": [], "dog": [], "a=b": []}
    assert labels.read_vocabulary(["cat", "dog, wet"]) == {"cat": [], "dog, wet": []}
    assert labels.read_vocabulary(expected) == expected


def test_a_file_is_taken_for_one_when_it_is_there_or_looks_like_one(tmp_path, monkeypatch):
    """A comma makes words of anything; ./ makes a file of anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "animals").write_text("cat\ndog\n")
    assert labels.read_vocabulary("animals") == {"cat": [], "dog": []}
    assert labels.read_vocabulary("animals,plants") == {"animals": [], "plants": []}
    with pytest.raises(UsageError, match="missing is no list of labels"):
        labels.read_vocabulary("./missing")


@pytest.mark.parametrize("given", ["", "cat", "cat,cat, ", [], {"cat": ["a cat"]}])
def test_one_label_is_no_choice(given):
    """With one label every file would have it, whatever it shows."""
    with pytest.raises(UsageError, match="at least two labels"):
        labels.read_vocabulary(given)


def test_a_file_that_is_not_text_is_named(tmp_path):
    """A picture for a vocabulary."""
    path = paint(tmp_path / "red.png", "red")
    with pytest.raises(UsageError, match=r"red\.png is no list of labels"):
        labels.read_vocabulary(path)


def test_a_label_is_the_renormalised_mean_of_its_prompts(encoder):
    """By hand: "red" and "red green" are (1, 0, 0) and (1, 1, 0) / sqrt 2, made one."""
    vocabulary = {"first": ["red", "red green"], "green": []}
    rows = labels.class_rows(encoder, vocabulary, Modality.IMAGE, ["{}", "{} blue"])
    first = np.array([1 + math.sqrt(0.5), math.sqrt(0.5), 0])
    second = np.array([0, 1 + math.sqrt(0.5), math.sqrt(0.5)])
    assert rows[0] == pytest.approx(first / np.linalg.norm(first), abs=1e-6)
    assert rows[1] == pytest.approx(second / np.linalg.norm(second), abs=1e-6)
    assert rows.shape == (2, 3)


def test_each_modality_has_its_own_prompts(encoder, monkeypatch):
    """A sound is not a photo of anything; what is Chinese stands alone."""
    asked = []
    monkeypatch.setattr(
        encoder, "encode", lambda kind, batch: asked.append(batch) or np.ones((len(batch), 3))
    )
    labels.class_rows(encoder, {"apple": [], "狗": []}, Modality.IMAGE)
    labels.class_rows(encoder, {"apple": [], "狗": []}, Modality.AUDIO)
    image, audio = asked
    assert image[0] == "a photo of an apple"
    assert "the sound of apple" in audio
    assert image[-1] == audio[-1] == "狗"
    assert not set(image[:-1]) & set(audio[:-1])


@pytest.mark.parametrize(
    "template, label, expected",
    [
        ("a photo of a {}", "apple", "a photo of an apple"),
        ("a photo of a {}", "pear", "a photo of a pear"),
        ("A {} on a table", "Apple", "an Apple on a table"),
        ("pizza {}", "apple", "pizza apple"),
        ("a {}s", "apple", "a apples"),
        ("{}", "a {} b", "a {} b"),
    ],
)
def test_the_article_fits_the_label(template, label, expected):
    """Only the one before the label, and only where the label stands alone."""
    assert labels._filled(template, label) == expected


@pytest.mark.parametrize("template", ["", "a photo", "{} {}", "{label}", "{0}"])
def test_a_template_has_one_place(template):
    """Anything else in braces is text."""
    with pytest.raises(UsageError, match="is no template"):
        labels.check_templates([template])


def test_the_most_likely_labels_are_those_of_a_slow_loop():
    """Softmax by its definition, the best first, equal ones in the vocabulary's order."""
    logits = np.random.default_rng(0).normal(0, 9, (50, 7)).astype(np.float32)
    logits[3] = 1.5
    logits[4, :3] = logits[4].max() + 800  # no overflow
    columns, found = labels.most_likely(labels.softmax(logits), 3)
    for row, several, sure in zip(logits, columns, found, strict=True):
        shares = softmax([float(value) for value in row])
        order = sorted(range(7), key=lambda one: (-shares[one], one))[:3]
        assert several.tolist() == order
        assert sure == pytest.approx([shares[one] for one in order])
    assert labels.most_likely(labels.softmax(logits), 99)[0].shape == (50, 7)


# -- in a library ------------------------------------------------------------------------------


@pytest.fixture
def coloured(library, photos, plain):
    """Pictures, sounds and a text: of every colour that the vocabulary has, and a copy."""
    photos.paint("red.png", "red")
    photos.paint("copy.png", "red")
    photos.paint("orange.png", "orange")
    photos.paint("wide.png", "blue", (16, 8))
    tone(photos / "low.wav", 200)
    tone(photos / "mixed.wav", 200, 1000, 1000)
    (photos / "words.txt").write_text("green green blue")
    library.index(photos)
    return library


def expected(rows, kind):
    """By hand: the mean over parts of the softmax of their scores with the colours."""
    scores = [[float(np.dot(row, colour_row(name))) for name in NAMES] for row in rows]
    shares = [softmax([labels.SCALES[kind] * score for score in several]) for several in scores]
    means = [sum(column) / len(rows) for column in zip(*shares, strict=True)]
    return sorted(zip(NAMES, means, strict=True), key=lambda pair: -pair[1])


def as_dict(found):
    """Labels by file name."""
    rows = {}
    for one in found:
        rows.setdefault(one.path.name, []).append((one.label, one.relevance))
    return rows


def test_every_file_gets_the_labels_that_fit_it_best(coloured):
    """Against the softmax of cosines by hand; of a sound of three windows, the mean."""
    found = as_dict(coloured.label(NAMES, top=2))
    low, middle = unit(1, 0, 0), unit(0, 1, 0)
    rows = {
        "red.png": ([unit(1, 0, 0)], Modality.IMAGE),
        "copy.png": ([unit(1, 0, 0)], Modality.IMAGE),
        "orange.png": ([unit(255, 128, 0)], Modality.IMAGE),
        "wide.png": ([unit(0, 0, 1)], Modality.IMAGE),
        "low.wav": ([low], Modality.AUDIO),
        "mixed.wav": ([low, middle, middle], Modality.AUDIO),
        "words.txt": ([unit(0, 2, 1)], Modality.TEXT),
    }
    assert found.keys() == rows.keys()
    for name, (parts, kind) in rows.items():
        wanted = expected(parts, kind)[:2]
        assert found[name][0][0] == wanted[0][0], name
        shares = [share for _, share in found[name]]
        assert shares == pytest.approx([share for _, share in wanted], abs=1e-3), name
    assert found["mixed.wav"] == [("green", pytest.approx(2 / 3)), ("red", pytest.approx(1 / 3))]
    assert [one.path.name for one in coloured.label(NAMES)] == sorted(rows)


@pytest.mark.parametrize("shares", [1, 6, 9, 2**22])
def test_blocks_of_any_size_give_the_same(coloured, monkeypatch, shares):
    """One vector at a time, two, three: windows of one sound in several blocks are added up."""
    whole = coloured.label(NAMES, top=3, store=False)
    monkeypatch.setattr(labels, "_SHARES", shares)
    again = coloured.label(NAMES, top=3, store=False)
    assert [(one.path, one.label) for one in again] == [(one.path, one.label) for one in whole]
    for one, other in zip(again, whole, strict=True):
        assert one.relevance == pytest.approx(other.relevance, abs=1e-6)


class Calibrated:
    """In the place of a calibrator: the logistic function of the standardised score."""

    def __init__(self):
        self.asked = []

    def relevance(self, asked, found, *, query, best, scores, hits):
        """What it was given is kept."""
        self.asked.append((asked, found, query, best, scores))
        return 1 / (1 + np.exp(-hits.astype(np.float64)))


@pytest.mark.parametrize("shares", [1, 2**22])
def test_relevance_is_calibrated_where_it_can_be(coloured, encoder, monkeypatch, shares):
    """The file's best part against the label as a query of all files of its kind, by hand."""
    background = {kind: {Modality.TEXT: (0.5, 0.5)} for kind in Modality}
    background[Modality.TEXT] = {Modality.IMAGE: (0.5, 0.25), Modality.AUDIO: (0.2, 0.4)}
    monkeypatch.setattr(encoder, "backgrounds", background)
    fake = Calibrated()
    monkeypatch.setattr(labels.Calibrator, "load", lambda folder, fingerprint: fake)
    monkeypatch.setattr(labels, "_SHARES", shares)
    found = as_dict(coloured.label(NAMES, top=2, where="name != 'orange.png'"))

    def sure(score, mean, deviation):
        return pytest.approx(1 / (1 + math.exp((mean - score) / deviation)), abs=1e-3)

    assert found["red.png"] == [("red", sure(1, 0.5, 0.25)), ("green", sure(0, 0.5, 0.25))]
    assert found["mixed.wav"] == [("green", sure(1, 0.2, 0.4)), ("red", sure(1, 0.2, 0.4))]
    assert found["low.wav"][0] == ("red", sure(1, 0.2, 0.4))
    texts = [one for _, one in found["words.txt"]]  # no background is known: the softmax stays
    assert texts == pytest.approx(
        [one for _, one in expected([unit(0, 2, 1)], "text")[:2]], abs=1e-3
    )
    [(asked, _, query, best, scores)] = [
        one for one in fake.asked if one[1] is Modality.IMAGE and one[2][0] > 0.9
    ]
    assert asked is Modality.TEXT
    assert query == pytest.approx(best, abs=1e-3)
    whole = [(score - 0.5) / 0.25 for score in (1, unit(255, 128, 0)[0], 0)]  # orange, too
    assert sorted(scores, reverse=True) == pytest.approx(whole, abs=1e-2)


def test_what_is_stored_can_be_read_and_replaced(coloured):
    """Labelling again replaces; a filter replaces only what it lets through."""
    first = coloured.label(NAMES)
    assert coloured.labels() == first
    assert coloured.status()["labelled"] == 7
    coloured.label(["magenta", "yellow"], where="width > height")
    stored = as_dict(coloured.labels())
    assert {name: label for name, [(label, _)] in stored.items()} == {
        "red.png": "red", "copy.png": "red", "orange.png": "red", "wide.png": "magenta",
        "low.wav": "red", "mixed.wav": "green", "words.txt": "green",
    }  # fmt: skip
    coloured.label(NAMES, modality="audio", min_relevance=0.9)  # one is as sure as that
    assert {"low.wav", "mixed.wav"} & as_dict(coloured.labels()).keys() == {"low.wav"}


def test_labels_can_be_removed(coloured):
    """Those of a filter, then all; what is gone is not in the count."""
    coloured.label(NAMES)
    assert coloured.clear_labels(where="name like '*.wav'") == 2
    assert {one.path.suffix for one in coloured.labels()} == {".png", ".txt"}
    assert coloured.clear_labels() == 5
    assert coloured.labels() == []
    assert coloured.clear_labels() == 0
    assert coloured.status()["labelled"] == 0


def test_labels_are_words_to_be_found_by(coloured, photos):
    """A word that is in no name and no text finds what has it as its label."""
    assert not keyworded(coloured, "scarlet")
    coloured.label({"scarlet": ["red"], "azure": ["blue"]}, modality="image")
    assert keyworded(coloured, "scarlet") == {"red.png", "copy.png", "orange.png"}
    assert keyworded(coloured, "azure") == {"wide.png"}
    coloured.clear_labels(where="name = 'red.png'")  # its copy has the same content
    assert keyworded(coloured, "scarlet") == {"orange.png"}


def keyworded(library, word):
    """The names of the files that SQLite's full-text search finds."""
    import sqlite3
    from contextlib import closing

    query = (
        "SELECT name FROM keywords JOIN items ON items.id = keywords.rowid "
        "JOIN files ON files.id = items.file_id WHERE keywords MATCH ?"
    )
    with closing(sqlite3.connect(library.folder / "library.db")) as connection:
        return {os.fsdecode(name) for (name,) in connection.execute(query, (f'"{word}"',))}


def test_without_store_the_library_stays_as_it_is(coloured):
    """A table for a file is no write: it needs no lock."""
    with WriterLock(coloured.folder / "LOCK"):
        found = coloured.label(NAMES, store=False)
        assert len(found) == 7
        assert coloured.labels() == []
        with pytest.raises(LibraryLocked):
            coloured.label(NAMES)


def test_a_file_that_goes_takes_its_labels_along(coloured, photos):
    """Gone: hidden. Forgotten: dropped. A copy that stays keeps them."""
    coloured.label(NAMES)
    (photos / "red.png").unlink()
    (photos / "low.wav").unlink()
    coloured.index(photos)
    assert as_dict(coloured.labels()).keys() == {
        "copy.png", "orange.png", "wide.png", "mixed.wav", "words.txt"
    }  # fmt: skip
    coloured.forget(gone=True)
    assert coloured.check() == []
    assert coloured.status()["labelled"] == 5


def test_bad_calls_say_what_is_wrong(coloured, tmp_path, encoder, monkeypatch):
    """Each in our own words, before anything is encoded or written."""
    for arguments, message in [
        ({"top": 0}, "at least 1, not 0"),
        ({"templates": ["x"]}, "is no template"),
        ({"where": "width >"}, "expected a field or a value"),
        ({"modality": "smell"}, "modality is one of"),
    ]:
        with pytest.raises(UsageError, match=message):
            coloured.label(NAMES, **arguments)
    assert coloured.labels() == []
    for call in (
        lambda empty: empty.label(NAMES),
        lambda empty: empty.labels(),
        lambda empty: empty.clear_labels(),
    ):
        with pytest.raises(LibraryMissing, match="nothing is indexed"):
            call(mmsearch.open_library(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_another_encoder_is_refused(coloured, monkeypatch):
    """Row 22: vectors of two models never meet, in labels neither."""
    from conftest import FakeEncoder

    inject(monkeypatch, FakeEncoder("other", "ba" * 32))
    with pytest.raises(EncoderMismatch, match="was built with fake"):
        coloured.label(NAMES)


# -- files -------------------------------------------------------------------------------------

ODD = os.fsdecode(b"odd \xff.png")


def test_a_table_keeps_the_bytes_of_names(tmp_path):
    """Commas and quotes are quoted; a name that is not UTF-8 comes back as it was."""
    given = [
        Label(tmp_path / 'a,"b".png', Modality.IMAGE, "red, or so", 0.25),
        Label(tmp_path / ODD, Modality.IMAGE, "狗", 1 / 3),
    ]
    labels.write_csv(tmp_path / "out.csv", given)
    with open(tmp_path / "out.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "label", "relevance"],
        [str(tmp_path / 'a,"b".png'), "red, or so", "0.250000"],
        [str(tmp_path / ODD), "狗", "0.333333"],
    ]


def test_sidecars_never_overwrite(tmp_path):
    """One that is there stops everything before anything is written, unless forced."""
    mine = tmp_path / "b.png.labels.csv"
    mine.write_text("my own notes")
    given = [
        Label(tmp_path / "a.png", Modality.IMAGE, "red", 0.75),
        Label(tmp_path / "a.png", Modality.IMAGE, "blue", 0.25),
        Label(tmp_path / "b.png", Modality.IMAGE, "blue", 1.0),
    ]
    with pytest.raises(UsageError, match=r"b\.png\.labels\.csv is there already; --force"):
        labels.write_sidecars(given)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    assert labels.write_sidecars(given, force=True) == 2
    assert mine.read_text() == "label,relevance\nblue,1.000000\n"
    told = (tmp_path / "a.png.labels.csv").read_text()
    assert told == "label,relevance\nred,0.750000\nblue,0.250000\n"
    with pytest.raises(UsageError, match=r"a\.png\.labels\.csv and 1 more are there"):
        labels.write_sidecars(given)


def test_a_forced_sidecar_does_not_follow_a_link(tmp_path):
    """What the link points to is not touched."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a.png.labels.csv").symlink_to(tmp_path / "precious")
    labels.write_sidecars([Label(tmp_path / "a.png", Modality.IMAGE, "red", 1.0)], force=True)
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "a.png.labels.csv").is_symlink()


def test_sidecars_are_nothing_to_index(coloured, photos):
    """The next run finds no text, no caption and no new item in them."""
    before = coloured.status()["items"]
    assert labels.write_sidecars(coloured.label(NAMES, store=False)) == 7
    report = coloured.index(photos)
    assert (report.added, report.changed, report.skipped) == (0, 0, 7)
    assert coloured.status()["items"] == before


# -- the command line --------------------------------------------------------------------------


def test_the_command_labels_lists_writes_and_clears(coloured, photos, tmp_path):
    """Counts, rows, a table, a CSV file, sidecars; what is written elsewhere is not stored."""

    def run(*arguments):
        command = ["label", *map(str, arguments), "--index", str(coloured.folder)]
        done = CliRunner().invoke(app, command)
        return done.stdout if done.exception is None else done.exception

    assert run("--vocab", "red,green,blue") == (
        "        4  red\n        2  green\n        1  blue\n        7  files with labels\n"
    )
    rows = json.loads(run("--json"))
    assert [row["label"] for row in rows] == [one.label for one in coloured.labels()]
    assert rows[0].keys() == {"path", "modality", "label", "relevance"}
    assert [json.loads(line) for line in run("--format", "ndjson").splitlines()] == rows
    table = run("--format", "table", "--type", "audio").splitlines()
    assert table == [
        f" 1.000  red  {photos / 'low.wav'}",
        f" 0.667  green  {photos / 'mixed.wav'}",
    ]
    out = tmp_path / "labels.csv"
    wide = ("--where", "width > height")
    assert "1  files with labels" in run("--vocab", "yellow,cyan", *wide, "--out", out)
    [_, line] = out.read_text().splitlines()
    assert line.startswith(f"{photos / 'wide.png'},")
    assert json.loads(run("--json")) == rows
    assert run("--sidecars", "--type", "text").splitlines()[-1] == "        1  files with labels"
    assert (photos / "words.txt.labels.csv").exists()
    assert "--force replaces them" in str(run("--sidecars", "--type", "text"))
    assert run("--clear", "--type", "image") == "4 files cleared of labels\n"
    assert json.loads(run("--clear", "--json")) == {"cleared": 3}
    assert json.loads(run("--json")) == []
    for arguments, message in [
        (("--vocab", "cat"), "at least two labels"),
        (("--vocab", "cat,dog", "--template", "a photo"), "is no template"),
        (("--format", "paths"), "--format is one of table, json, ndjson, csv, not paths"),
    ]:
        assert isinstance(run(*arguments), UsageError)
        assert message in str(run(*arguments))


def test_every_colour_has_a_name():
    """The fake encoder's rows of the vocabulary are those that the tests expect."""
    assert [colour_row(name).tolist() for name in NAMES] == np.eye(3).tolist()
    assert set(NAMES) < set(COLOURS)
