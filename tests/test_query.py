"""Queries over pictures, sounds and texts together: exact, and comparable between them."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
from conftest import COLOURS, FakeEncoder, colour_row, inject, paint, unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import mmsearch
from mmsearch.catalog import Catalog, Content, Part
from mmsearch.cli import app
from mmsearch.embedding import ask
from mmsearch.errors import LoadError, ModelError, UsageError
from mmsearch.language import file, parse
from mmsearch.records import Modality, Reason


def vector_of(query, encoder):
    """A sum as one vector, what is not wanted taken off it."""
    [asked] = ask([query.terms], encoder)
    return asked


MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # where fsync costs nothing
IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT


def hum(path, *tones, rate=8000, seconds=2):
    """A sound of tones one after the other, in hertz, a window of the fake encoder each."""
    time = np.arange(rate * seconds) / rate
    samples = np.concatenate([0.5 * np.sin(2 * np.pi * tone * time) for tone in tones])
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


# -- several modalities in one answer ----------------------------------------------------------


class Known(FakeEncoder):
    """The fake encoder, with the backgrounds a test gives it."""

    def __init__(self, backgrounds):
        super().__init__()
        self.backgrounds = backgrounds


def fill(folder, contents):
    """A library of contents (modality, rows, copies, gone); its items as brute force sees them.

    Back come (modality, vector id, item id, row in half precision) of what can be found.
    """
    items, vector = [], 0
    with Catalog.create(folder / "library.db") as catalog, catalog.transaction():
        space = catalog.put_space("fake", "fa" * 32, 3)
        for number, (kind, given_rows, copies, gone) in enumerate(contents):
            rows = np.stack([unit(*row) for row in given_rows])
            parts = () if kind is IMAGE else tuple(Part(n, n + 1.0) for n in range(len(rows)))
            content = Content(number.to_bytes(32), kind, "any", parts=parts)
            content_id = catalog.put_content(content, space, rows)
            for copy in range(copies):
                path = b"/p/%d-%d" % (number, copy)
                catalog.put_file(path, (1, 1, 1), content_id=content_id, modality=kind)
            if gone:
                catalog.mark_gone(catalog.files_below(b"/p/%d-0" % number))
            for part, row in enumerate(rows.astype(np.float16).astype(np.float32)):
                vector += 1
                for copy in range(1 if gone else 0, copies):
                    items.append((kind, vector, f"{number}-{copy}", part, row))
    return items


ROW = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)


@st.composite
def one_content(draw):
    kind = draw(st.sampled_from(Modality))
    rows = draw(st.lists(ROW, min_size=1, max_size=1 if kind is IMAGE else 3))
    return kind, rows, draw(st.integers(1, 2)), draw(st.integers(0, 4)) == 0


FIGURES = st.tuples(st.floats(-0.5, 0.9), st.floats(0.01, 0.5))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contents=st.lists(one_content(), min_size=1, max_size=12),
    figures=st.dictionaries(st.sampled_from(Modality), FIGURES),
    words=st.sampled_from([name for name in COLOURS if name != "black"]),
    k=st.integers(1, 12),
    only=st.none() | st.sampled_from(Modality),
)
def test_answers_are_those_of_brute_force(contents, figures, words, k, only, monkeypatch):
    """Every item scored and standardised by its modality, sorted: the k best, in order.

    With copies, gone files, long sounds, ties, and backgrounds that lack a modality.
    """
    encoder = Known({TEXT: figures})
    inject(monkeypatch, encoder)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        items = fill(Path(folder), contents)
        with mmsearch.open_library(folder) as library:
            hits = library.query(words, k, modality=only)
    items = [item for item in items if only in (None, item[0])]
    there = {kind for kind, *_ in contents if only in (None, kind)}
    background = vector_of(mmsearch.text(words), encoder).background
    if not there <= figures.keys():
        background = dict.fromkeys(Modality, (0.0, 1.0))

    def order(item):
        kind, vector, name, _, row = item
        mean, deviation = background[kind]
        return (mean - float((row * colour_row(words)).sum())) / deviation, vector, name

    expected = sorted(items, key=order)[:k]
    at = {(name, None if kind is IMAGE else float(part)): (kind, vector, name, part, row)
          for kind, vector, name, part, row in items}  # fmt: skip
    found = [at.pop((hit.path.name, hit.start)) for hit in hits]
    # the same numbers added in another order may be rounded apart, and such rows change places
    worth = [order(item)[0] for item in expected]
    assert [order(item)[0] for item in found] == pytest.approx(worth, abs=1e-4)
    for one, other in itertools.pairwise(found):
        if one[0] is other[0] and np.array_equal(one[4], other[4]):
            assert order(one) < order(other)
    scores = [float((row * colour_row(words)).sum()) for *_, row in found]
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-6)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_a_near_picture_stands_before_a_usual_text(tmp_path, monkeypatch):
    """Texts score higher with a text than pictures do, whatever they say: the gap is taken out."""
    fill(tmp_path, [(TEXT, [(1, 1, 0)], 1, False), (IMAGE, [(1, 2, 2)], 1, False)])
    gap = {TEXT: {TEXT: (0.8, 0.1), IMAGE: (0.1, 0.1)}}
    for backgrounds, first in (({}, TEXT), (gap, IMAGE)):
        inject(monkeypatch, Known(backgrounds))
        with mmsearch.open_library(tmp_path) as library:
            hits = library.query("red")
        assert hits[0].modality is first
        assert {hit.modality: hit.score for hit in hits} == pytest.approx(
            {TEXT: 2**-0.5, IMAGE: 1 / 3}, abs=1e-3
        )


# -- the background of a query -------------------------------------------------------------------

BOTH = {TEXT: {IMAGE: (0.2, 0.1), TEXT: (0.6, 0.2)}, IMAGE: {IMAGE: (0.4, 0.3)}}


def picture(tmp_path, colour):
    return mmsearch.image(paint(tmp_path / f"{colour}.png", colour))


def test_the_background_of_one_term_is_that_of_its_modality():
    """Twice the same, or half of it, changes nothing; minus turns the mean round."""
    encoder = Known(BOTH)
    red = mmsearch.text("red")
    for query in (red, 0.5 * red, red + red, 3 * red - red):
        found = vector_of(query, encoder).background
        assert found.keys() == {IMAGE, TEXT}
        assert found[IMAGE] == pytest.approx((0.2, 0.1))
        assert found[TEXT] == pytest.approx((0.6, 0.2))
    assert vector_of(-red, encoder).background[IMAGE] == pytest.approx((-0.2, 0.1))


def test_the_background_of_a_mix_by_hand(tmp_path):
    """Weighted means and, for terms at right angles, weighted variances; by the length."""
    asked = vector_of(3 * mmsearch.text("red") - 4 * picture(tmp_path, "green"), Known(BOTH))
    assert asked.vector == pytest.approx([0.6, -0.8, 0])
    mean, deviation = (3 * 0.2 - 4 * 0.4) / 5, np.hypot(3 * 0.1, 4 * 0.3) / 5
    assert asked.background == {IMAGE: pytest.approx((mean, deviation))}


def test_the_background_of_a_mix_against_drawn_items(tmp_path):
    """Items that scatter alike in all directions: the predicted figures are the measured ones."""
    items = np.random.default_rng(5).normal((0.3, 0.1, -0.2), 0.25, (200_000, 3))

    def measured(row):
        scores = items @ row
        return scores.mean(), scores.std()

    encoder = Known(
        {TEXT: {IMAGE: measured(colour_row("yellow"))}, IMAGE: {IMAGE: measured(colour_row("red"))}}
    )
    asked = vector_of(mmsearch.text("yellow") - 0.5 * picture(tmp_path, "red"), encoder)
    assert asked.background[IMAGE] == pytest.approx(measured(asked.vector), rel=0.01)


def test_a_modality_without_figures_has_no_background(tmp_path):
    """One term that knows nothing of a modality is enough; so is an encoder without any."""
    both = mmsearch.text("red") + picture(tmp_path, "red")
    assert vector_of(both, Known(BOTH)).background.keys() == {IMAGE}
    assert vector_of(mmsearch.text("red"), Known({})).background == {}


# -- what a query is made of ---------------------------------------------------------------------


def test_a_long_sound_is_the_mean_of_its_windows(encoder, tmp_path):
    """One row a sound: two windows of low tones and one of high ones, renormalised."""
    path = hum(tmp_path / "tones.wav", 200, 200, 3000)
    rows = mmsearch.embed([path, str(hum(tmp_path / "low.wav", 200))], modality="audio")
    assert rows == pytest.approx(np.stack([unit(2, 0, 1), unit(1, 0, 0)]), abs=0.02)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1])


def test_a_text_file_is_the_mean_of_its_passages(encoder, tmp_path):
    """One row a text: each passage counts the same, whatever its length."""
    path = tmp_path / "notes.txt"
    path.write_text("red " * 60 + "\n\n" + "blue " * 50 + "\n\n" + "green " * 60)
    texts = [path, "red green", tmp_path / "one.md"]
    (tmp_path / "one.md").write_text("# yellow\n")
    rows = mmsearch.embed(texts, modality="text")
    expected = [unit(1, 1, 1), colour_row("yellow"), colour_row("yellow")]
    assert rows == pytest.approx(np.stack(expected), abs=1e-6)


def test_more_parts_than_fit_into_one_batch(encoder, tmp_path):
    """A sound of seventy windows between two short ones: every row is its own input's."""
    long = hum(tmp_path / "long.wav", *[200] * 35, *[1000] * 35)
    short = hum(tmp_path / "short.wav", 3000)
    rows = mmsearch.embed([short, long, short], modality="audio")
    assert rows == pytest.approx(np.stack([unit(0, 0, 1), unit(1, 1, 0), unit(0, 0, 1)]), abs=0.02)


@pytest.mark.parametrize(
    "wrong, kind, message",
    [
        ([3], "audio", "a sound is a path, not int"),
        ([b"notes"], "text", "a text is a string, or the Path of a text file, not bytes"),
    ],
)
def test_embed_says_what_it_takes(encoder, wrong, kind, message):
    """Wrong usage is said as such."""
    with pytest.raises(UsageError, match=message):
        mmsearch.embed(wrong, modality=kind)


@pytest.mark.parametrize("kind, name", [("audio", "bad.ogg"), ("text", "bad.txt")])
def test_the_first_bad_file_is_named(encoder, tmp_path, kind, name):
    """Absent, empty, or another kind of file: the name, and a reason."""
    bad = tmp_path / name
    for data in (None, b"", bytes(range(256)) * 20):
        if data is not None:
            bad.write_bytes(data)
        with pytest.raises(LoadError, match=name) as caught:
            mmsearch.embed([bad, tmp_path / "worse"], modality=kind)
        assert isinstance(caught.value.reason, Reason)


def test_parts_that_cancel_out_are_named(encoder, tmp_path, monkeypatch):
    """A sound whose windows add up to nothing has no direction."""
    rows = iter([unit(1, 0, 0), unit(-1, 0, 0)])
    monkeypatch.setattr(encoder, "_sound", lambda samples: next(rows))
    with pytest.raises(LoadError, match=r"two\.wav: its parts cancel each other out") as caught:
        mmsearch.embed([hum(tmp_path / "two.wav", 200, 300)], modality="audio")
    assert caught.value.reason is Reason.NONFINITE


def test_a_model_without_a_tower_says_so(encoder, tmp_path, monkeypatch):
    """Nothing is read for a modality that the model does not have."""
    monkeypatch.setattr(encoder, "modalities", frozenset({IMAGE, TEXT}))
    with pytest.raises(ModelError, match="fake has no tower for audio"):
        mmsearch.embed([tmp_path / "absent.wav"], modality="audio")


def test_a_file_among_words_says_itself_what_it_is(encoder, tmp_path):
    """A sound by its bytes, whatever its name; a text by its name; else a picture."""
    hum(tmp_path / "sound.bin", 200)
    (tmp_path / "words.MD").write_text("blue")
    paint(tmp_path / "picture.png", "green")
    for name, row in (
        ("sound.bin", (1, 0, 0)),
        ("words.MD", (0, 0, 1)),
        ("picture.png", (0, 1, 0)),
    ):
        asked = vector_of(parse([str(tmp_path / name)]), encoder)
        assert asked.vector == pytest.approx(row, abs=0.02), name
    mixed = vector_of(parse(["green", "-", f"2:{tmp_path / 'sound.bin'}"]), encoder)
    assert mixed.vector == pytest.approx(unit(-2, 1, 0), abs=0.02)
    with pytest.raises(LoadError, match=r"absent\.png: No such file"):
        vector_of(file(str(tmp_path / "absent.png")), encoder)


# -- from files to answers -----------------------------------------------------------------------


@pytest.fixture
def mixed(library, photos):
    """A red picture, a sound that is low and then high, and a text of two passages."""
    photos.paint("red.png", "red")
    hum(photos / "tones.wav", 200, 3000)
    (photos / "notes.txt").write_text("red " * 60 + "\n\n" + "blue " * 50)
    report = library.index(photos)
    assert (report.added, report.failures) == (3, [])
    return library


def test_all_three_from_all_three(mixed, photos, tmp_path):
    """Words, a picture, a sound and a text file find pictures, sounds and texts alike."""
    queries = [
        mmsearch.text("red"), mmsearch.image(photos / "red.png"),
        mmsearch.audio(hum(tmp_path / "low.wav", 300)), mmsearch.text(tmp_path / "red.txt"),
    ]  # fmt: skip
    (tmp_path / "red.txt").write_text("red")
    for query in queries:
        near = [hit for hit in mixed.query(query) if hit.score > 0.9]
        assert {(hit.path.name, hit.start, hit.end) for hit in near} == {
            ("red.png", None, None), ("tones.wav", 0.0, 2.0), ("notes.txt", None, None),
        }  # fmt: skip
        for kind in Modality:
            assert {hit.modality for hit in mixed.query(query, modality=kind)} == {kind}


def test_a_passage_is_given_with_its_text(mixed):
    """What a text hit says; the other hits say nothing."""
    [first, *_] = mixed.query("blue", modality="text")
    assert first.text.split() == ["blue"] * 50
    assert {hit.text for hit in mixed.query("blue") if hit.modality is not TEXT} == {None}


def test_a_filter_over_all_modalities(mixed):
    """--where keeps what fits, of every kind."""
    names = {hit.path.name for hit in mixed.query("red", where='name != "red.png"')}
    assert names == {"tones.wav", "notes.txt"}
    assert mixed.query("red", where="width > 1", modality="audio") == []


def test_the_command_line_takes_and_tells_all_three(mixed, photos, tmp_path):
    """The table says which seconds and what a passage says; --audio and --text-file ask."""
    run, index = CliRunner(), ["--index", str(mixed.folder)]
    lines = run.invoke(app, ["query", "red", *index]).stdout.splitlines()
    told = {line.split(maxsplit=2)[2] for line in lines}
    words = "red " * 18
    assert told == {
        f"{photos / 'red.png'}",
        f"{photos / 'tones.wav'}  0:00–0:02", f"{photos / 'tones.wav'}  0:02–0:04",
        f"{photos / 'notes.txt'}  {words}…", f"{photos / 'notes.txt'}  {('blue ' * 15)[:72]}…",
    }  # fmt: skip
    low, text = hum(tmp_path / "low.wav", 300), tmp_path / "green.txt"
    text.write_text("green")
    asked = ["query", "--audio", str(low), "--text-file", str(text), "--json", *index]
    [hit] = json.loads(run.invoke(app, [*asked, "--type", "image"]).stdout)
    assert hit["score"] == pytest.approx(2**-0.5, abs=0.02)
    [first, *_] = json.loads(run.invoke(app, [*asked, "--type", "audio"]).stdout)
    assert (first["start"], first["end"], first["modality"]) == (0.0, 2.0, "audio")
    out = tmp_path / "rows.npy"
    embedded = ["embed", "--type", "audio", "--out", str(out), str(low), str(photos / "tones.wav")]
    assert run.invoke(app, embedded).exit_code == 0
    assert np.load(out) == pytest.approx(np.stack([unit(1, 0, 0), unit(1, 0, 1)]), abs=0.02)
