"""Views of pictures, captions and sounds: that they change, and what they leave."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmsearch.training import augment

RATE = 8000


def generator(seed=0):
    """The same draws each time."""
    return np.random.default_rng(seed)


def tone(hertz, seconds=1.0):
    """A sine at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE)).astype(
        np.float32
    )


def level(wave, hertz):
    """How much of one frequency there is."""
    return np.abs(np.fft.rfft(wave))[round(hertz * len(wave) / RATE)] / len(wave)


def test_the_same_generator_gives_the_same_view():
    """So that a run that goes on sees what it would have seen."""
    pixels = generator(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    views = [augment.picture(pixels, 56, 0.5, 0.2, generator(seed)) for seed in (3, 3, 4)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])
    assert views[0].shape == (56, 56, 3)


def test_a_crop_keeps_its_share_of_the_picture_and_is_mirrored_half_of_the_time():
    """A ramp from left to right shows which columns a crop has, and in which order."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    mirrored, widths = 0, []
    for seed in range(200):
        row = augment.picture(ramp, 64, 0.25, 0.0, generator(seed))[32, :, 0].astype(int)
        mirrored += row[0] > row[-1]
        widths.append((abs(row[-1] - row[0]) + 4) / 256)
    assert 70 < mirrored < 130
    # area at least a quarter and sides within 3:4 to 4:3: no narrower than half of root 3/4
    assert min(widths) == pytest.approx(np.sqrt(0.25 * 3 / 4), abs=0.05)
    assert max(widths) > 0.95


def test_colours_change_by_no_more_than_asked():
    """A plain grey keeps its place under contrast, and gets brighter or darker by up to a tenth."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    found = [int(augment.picture(grey, 8, 1.0, 0.1, generator(s))[0, 0, 0]) for s in range(100)]
    assert 88 <= min(found) < 95
    assert 105 < max(found) <= 112


def test_words_drop_and_never_all():
    """About the share that is asked for, in their order."""
    caption = "a brown dog runs over wet grass"
    kept = [augment.drop_words(caption, 0.3, generator(seed)).split() for seed in range(300)]
    assert np.mean([len(words) for words in kept]) == pytest.approx(7 * 0.7, abs=0.2)
    order = caption.split()
    assert all(words == [word for word in order if word in words] for words in kept)
    assert augment.drop_words(caption, 1.0, generator()) == "a"
    assert augment.drop_words(caption, 0.0, generator()) == caption


def test_a_sound_is_shifted_and_louder_or_softer():
    """Its frequency stays; its level changes by at most what is asked."""
    wave = tone(440)
    for seed in range(20):
        out = augment.sound(wave, None, 6.0, generator(seed))
        change = 20 * np.log10(level(out, 440) / level(wave, 440))
        assert abs(change) < 6.01
        assert out.dtype == np.float32
    shifted = augment.sound(wave, None, 0.0, generator())
    assert not np.array_equal(shifted, wave)
    assert np.array_equal(np.sort(shifted), np.sort(wave))


def test_another_sound_is_mixed_in_faintly():
    """10 to 30 dB below, repeated where it is shorter."""
    wave, other = tone(440), tone(1000, seconds=0.1)
    for seed in range(20):
        out = augment.sound(wave, other, 0.0, generator(seed))
        below = 20 * np.log10(level(out, 1000) / level(out, 440))
        assert -30.5 < below < -9.5
    silent = augment.sound(wave, np.zeros(10, np.float32), 0.0, generator())
    assert np.isfinite(silent).all()


def test_masks_leave_a_silence_and_a_missing_band():
    """Each up to the share; the rest of the wave stays."""
    wave = generator(5).normal(0, 0.1, RATE).astype(np.float32)
    for seed in range(20):
        out = augment.masked(wave, 0.2, generator(seed))
        silent = np.flatnonzero(out == 0)
        assert len(silent) <= 0.2 * RATE
        if len(silent):
            assert silent[-1] - silent[0] == len(silent) - 1  # one stretch
    assert np.allclose(augment.masked(wave, 0.0, generator()), wave, atol=1e-6)
    # a band alone: silence nothing by looking before it is made
    spectrum = np.abs(np.fft.rfft(augment.masked(wave, 0.2, generator(1))))
    assert (spectrum < np.median(spectrum)).any()


def test_the_curve_is_a_picture_of_the_log():
    """With nothing measured, with one direction, with two."""
    pytest.importorskip("matplotlib")
    from mmsearch.training import curve

    steps = [{"step": n, "loss": 1 / n} for n in range(1, 5)]
    found = {"text_to_image": {"recall@10": 0.5}}
    rows = [{"step": 0, "held_out": {}}, {"step": 4, "held_out": found}]
    pictures = [curve.draw(steps), curve.draw([*rows, *steps])]
    assert [Image.open(io.BytesIO(data)).size for data in pictures] == [(900, 400)] * 2
    assert pictures[0] != pictures[1]
