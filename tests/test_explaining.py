"""What carried an answer, against encoding everything once more by hand."""

from __future__ import annotations

import wave

import numpy as np
import pytest
from conftest import FakeEncoder, colour_row, paint, unit
from PIL import Image

import mmsearch
from mmsearch.explaining import explain
from mmsearch.loaders.texts import sentences
from mmsearch.records import Hit, Modality, Share

IMAGE, AUDIO, TEXT = Modality.IMAGE, Modality.AUDIO, Modality.TEXT
RED, GREEN = colour_row("red"), colour_row("green")


def why(query, hit, row=None, vectors=(RED,)):
    """The Why of one answer."""
    rows = {} if row is None else {hit.id: row}
    (told,) = explain(query, np.stack(vectors), [hit], rows, FakeEncoder())
    assert told.path == hit.path
    return told.why


def close(shares, expected):
    """The same in order, the numbers nearly."""
    assert [share.what for share in shares] == [what for what, _ in expected]
    carried = [share.carried for share in shares]
    assert carried == pytest.approx([number for _, number in expected], abs=1e-6)


def hit_of(path, kind=TEXT, **more):
    return Hit(1, 0.5, None, path, kind, 7, **more)


# -- words ---------------------------------------------------------------------------------------


def test_a_words_share_is_what_the_score_loses_without_it(tmp_path):
    """The phrase's score with the answer's row, minus that of the phrase without the word."""
    row = unit(3, 2, 1)
    encode = FakeEncoder().encode
    shares = why(mmsearch.text("red  green wood"), hit_of(tmp_path, text="red"), row).words
    whole, *rest = encode(TEXT, ["red green wood", "green wood", "red wood", "red green"]) @ row
    close(shares, [(w, whole - r) for w, r in zip(("red", "green", "wood"), rest, strict=True)])
    assert shares[0].carried > 0.1


def test_a_phrase_of_one_word_loses_its_whole_score(tmp_path):
    """Nothing is left of it, and nothing scores 0."""
    shares = why(mmsearch.text("red"), hit_of(tmp_path, text="x"), unit(3, 4, 0)).words
    close(shares, [("red", 0.6)])


def test_words_of_every_phrase_and_of_no_picture(tmp_path):
    """Each within its own phrase, wherever that stands; pictures have no words."""
    picture = mmsearch.image(paint(tmp_path / "red.png", "red"))
    query = mmsearch.text("red green") + 0.5 * picture - mmsearch.text("blue")
    close(
        why(query, hit_of(tmp_path, text="x"), RED).words,
        [("red", np.sqrt(0.5)), ("green", np.sqrt(0.5) - 1), ("blue", 0.0)],
    )
    query = mmsearch.text("red") & ~(mmsearch.text("blue") | mmsearch.text("green"))
    shares = why(query, hit_of(tmp_path, text="x"), RED).words
    close(shares, [("red", 1.0), ("blue", 0.0), ("green", 0.0)])
    assert why(picture, hit_of(tmp_path, text="x"), RED).words == ()


def test_chinese_is_left_out_by_the_character(tmp_path):
    """There are no spaces to go by; what is left closes up."""
    told = []

    class Listening(FakeEncoder):
        def encode(self, modality, batch):
            told.extend(batch)
            return super().encode(modality, batch)

    hit = hit_of(tmp_path, text="")
    (found,) = explain(mmsearch.text("狗在 red"), RED[None], [hit], {7: RED}, Listening())
    assert told == ["狗在 red", "在 red", "狗 red", "狗在"]
    assert [share.what for share in found.why.words] == ["狗", "在", "red"]


def test_an_answer_without_a_vector_has_no_words(tmp_path):
    """Keywords found it: no word of the query is in a score it does not have."""
    assert why(mmsearch.text("red green"), hit_of(tmp_path, text="x")).words == ()


def test_only_the_first_words_of_an_endless_phrase(tmp_path):
    """A pasted page costs 65 encodings, not thousands."""
    phrase = mmsearch.text(" ".join(["red", *["word"] * 500]))
    assert len(why(phrase, hit_of(tmp_path, text="x"), RED).words) == 64


# -- pieces --------------------------------------------------------------------------------------


def test_the_sentence_that_carries_a_passage(tmp_path):
    """Each sentence left out; one alone loses the whole score."""
    passage = "red red . green house."
    shares = why(mmsearch.text("red"), hit_of(tmp_path, text=passage), RED).pieces
    whole, first, second = FakeEncoder().encode(TEXT, [passage, "green house.", "red red ."]) @ RED
    close(shares, [("red red .", whole - first), ("green house.", whole - second)])
    close(
        why(mmsearch.text("red"), hit_of(tmp_path, text="red green"), RED).pieces,
        [("red green", np.sqrt(0.5))],
    )


def test_sentences():
    """As passages are cut: with their marks, also where no space follows them."""
    assert sentences("One. Two! “Three?” four") == ["One.", "Two!", "“Three?”", "four"]
    assert sentences("狗在草地上。猫在屋里！") == ["狗在草地上。", "猫在屋里！"]
    assert sentences("no end") == ["no end"]
    assert sentences("") == []


def hum(path, *tones, rate=8000):
    """A sound of a second a tone, in hertz; 0 is silence."""
    time = np.arange(rate) / rate
    samples = np.concatenate([0.5 * np.sin(2 * np.pi * tone * time) for tone in tones])
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def test_the_second_that_carries_a_sound(tmp_path):
    """The right window is read again, and each of its seconds silenced: by hand, low is red.

    Of two seconds with a low and a middle tone alike the row is (1, 1, 0) / √2; without the
    low one it is (0, 1, 0).
    """
    path = hum(tmp_path / "hum.wav", 3000, 3000, 200, 1000)
    hit = hit_of(path, AUDIO, start=2.0, end=4.0)
    shares = why(mmsearch.text("red"), hit).pieces
    assert [share.carried for share in shares] == pytest.approx(
        [np.sqrt(0.5), np.sqrt(0.5) - 1], abs=1e-3
    )
    assert [(share.start, share.end, share.what) for share in shares] == [
        (2.0, 3.0, "2–3 s"), (3.0, 4.0, "3–4 s"),
    ]  # fmt: skip


def test_a_rest_of_a_second_and_a_short_sound(tmp_path):
    """A rest belongs to the second before it; a single second loses the whole score."""
    data = hum(tmp_path / "long.wav", 200, 1000)
    with wave.open(str(data), "rb") as sound:
        frames = sound.readframes(12_000 + 2_000)
    for name, count in (("rest.wav", 14_000), ("short.wav", 6_000)):
        with wave.open(str(tmp_path / name), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(frames[: 2 * count])
    shares = why(mmsearch.text("red"), hit_of(tmp_path / "rest.wav", AUDIO, start=0.0)).pieces
    assert [(share.start, share.end) for share in shares] == [(0.0, 1.75)]
    assert shares[0].carried == pytest.approx(0.8, abs=1e-3)  # energies of 1 and 0.75: 4 to 3
    (share,) = why(mmsearch.text("red"), hit_of(tmp_path / "short.wav", AUDIO)).pieces
    assert (share.start, share.end, share.what) == (0.0, 0.75, "0–0.75 s")
    assert share.carried == pytest.approx(1, abs=1e-3)


def test_the_ninth_that_carries_a_picture(tmp_path):
    """Painted over with the mean colour: by hand, on a picture of nine squares of one pixel."""

    class Nine(FakeEncoder):
        image_input = mmsearch.records.ImageInput(size=3)

    pixels = np.zeros((3, 3, 3), np.uint8) + np.array([0, 90, 0], np.uint8)
    pixels[0, 2] = 180, 0, 0  # top right is red: the mean is (20, 80, 0)
    Image.fromarray(pixels).save(tmp_path / "nine.png")
    hit = hit_of(tmp_path / "nine.png", IMAGE)
    (found,) = explain(mmsearch.text("red"), np.stack([RED]), [hit], {}, Nine())
    whole = unit(180, 8 * 90, 0) @ RED
    expected = [whole - unit(180 + 20, 7 * 90 + 80, 0) @ RED] * 9
    expected[2] = whole - unit(20, 8 * 90 + 80, 0) @ RED
    places = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom",
              "bottom right"]  # fmt: skip
    close(found.why.pieces, list(zip(places, expected, strict=True)))
    assert max(found.why.pieces, key=lambda share: share.carried).what == "top right"


def test_the_nearest_part_of_a_query_explains_the_pieces(tmp_path):
    """Of several vectors the one that the answer is nearest to."""
    hit = hit_of(tmp_path, text="green")
    query = mmsearch.text("red") | mmsearch.text("green")
    close(why(query, hit, GREEN, (RED, GREEN)).pieces, [("green", 1.0)])


def test_a_file_that_is_gone_or_another_one_has_no_pieces(tmp_path):
    """An explanation fails nothing: the words are still told."""
    for hit in (hit_of(tmp_path / "gone.png", IMAGE), hit_of(tmp_path / "gone.wav", AUDIO),
                hit_of(hum(tmp_path / "hum.wav", 200), AUDIO, start=4.0)):  # fmt: skip
        told = why(mmsearch.text("red"), hit, RED)
        assert (told.pieces, told.words) == ((), (Share("red", 1.0),))
