"""Sounds are loaded by content as the windows they promise, streamed, or refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import encoded_sound, package_environment, sparse_wav, tones, without_xing
from scipy.signal import resample_poly

from mmsearch.errors import LoadError
from mmsearch.loaders.sounds import resampled, sniff, windows
from mmsearch.records import AudioInput, Reason

WANT = AudioInput(rate=16_000, window=5.0)
FORMATS = {
    "pcm.wav": ("WAV", "PCM_16"), "eight.wav": ("WAV", "PCM_U8"), "deep.wav": ("WAV", "PCM_24"),
    "long.wav": ("WAV", "PCM_32"), "float.wav": ("WAV", "FLOAT"), "double.wav": ("WAV", "DOUBLE"),
    "ulaw.wav": ("WAV", "ULAW"), "ima.wav": ("WAV", "IMA_ADPCM"), "ms.wav": ("WAV", "MS_ADPCM"),
    "extensible.wav": ("WAVEX", "PCM_24"), "large.wav": ("RF64", "PCM_16"),
    "flac.flac": ("FLAC", "PCM_16"), "deep.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"), "opus.opus": ("OGG", "OPUS"),
    "mp3.mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip


@pytest.fixture
def load(tmp_path):
    """The windows of a file of these bytes."""

    def load(data: bytes, want: AudioInput = WANT, max_hours: float = 24.0):
        path = tmp_path / "sound"
        path.write_bytes(data)
        with open(path, "rb") as file:
            return list(windows(file, want, max_hours=max_hours))

    return load


@pytest.fixture
def refusal(load):
    """The LoadError that these bytes deserve."""

    def refusal(data: bytes, **options) -> LoadError:
        with pytest.raises(LoadError) as caught:
            load(data, **options)
        assert "\n" not in str(caught.value)
        return caught.value

    return refusal


def in_blocks(samples: np.ndarray, size: int):
    return (samples[at : at + size] for at in range(0, len(samples), size))


# -- formats -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_row_50_every_encoding_gives_the_same_sound(load, name):
    """Row 50: 8 to 64 bits, float, ADPCM and lossy: the same samples as 16 bits, nearly."""
    kind, subtype = FORMATS[name]
    stereo = tones(2.0, 48_000, channels=2)
    data = encoded_sound(stereo, 48_000, kind, subtype)
    assert sniff(data[:4096]) == {"WAVEX": "WAV", "RF64": "WAV"}.get(kind, kind)
    [window] = load(data)
    assert (window.start, window.samples.dtype) == (0.0, np.float32)
    expected = resample_poly(stereo.mean(axis=1), 1, 3)
    length = min(len(expected), len(window.samples))
    # ADPCM comes in whole blocks
    assert abs(len(window.samples) - len(expected)) < (800 if "ADPCM" in subtype else 2)
    inside = slice(400, length - 400)
    a, b = window.samples[inside], expected[inside]
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


@pytest.mark.parametrize("rate", [1000, 8000, 11_025, 44_100, 96_000, 192_000, 768_000])
def test_row_50_rates(load, rate):
    """Row 50: a sine of 200 Hz has the samples of a sine of 200 Hz, at every rate."""
    at = np.arange(rate * 2) / rate
    data = encoded_sound(np.sin(2 * np.pi * 200 * at) / 2, rate, "WAV", "FLOAT")
    [window] = load(data)
    expected = np.sin(2 * np.pi * 200 * np.arange(32_000) / 16_000) / 2
    assert len(window.samples) == 32_000
    assert np.abs(window.samples - expected)[1600:-1600].max() < 1e-4


@pytest.mark.parametrize("rate", [8, 999, 768_001, 2_000_000])
def test_row_50_rates_beyond_the_limits(refusal, rate):
    """Row 50: nobody hears 8 samples a second: refused by the header."""
    error = refusal(encoded_sound(tones(1, 8000), rate, "WAV", "PCM_16"))
    assert error.reason == Reason.OVER_BUDGET
    assert f"{rate:,} samples a second" in str(error)


def test_row_50_many_channels(load, refusal):
    """Row 50: 22 channels are averaged; 65 are over the limit."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (16_000, 22))
    [window] = load(encoded_sound(samples, 16_000, "WAV", "FLOAT"))
    assert np.allclose(window.samples, samples.mean(axis=1), atol=1e-6)
    error = refusal(encoded_sound(np.zeros((10, 65)), 16_000, "WAV", "PCM_16"))
    assert error.reason == Reason.OVER_BUDGET


@pytest.mark.parametrize(
    "head",
    [
        b"", b"\xff", b"\xff\xfb", b"\xff\xfe<\0h\0t\0m\0l\0", b"#EXTM3U\nfile:///etc/passwd\n",
        b"<!DOCTYPE html><html>", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0AVI LIST", b"ID3 tags",
        b"OggS" + bytes(24) + b"\x80theora", b"OggS" + bytes(24) + b"Speex   ", b"fLaX",
        b"\xff\xfb\x90\x44" + bytes(4000), b"FORM\0\0\0\0AIFF", b"MThd\0\0\0\6",
    ],
)  # fmt: skip
def test_row_52_other_files_are_no_sounds(refusal, head):
    """Row 52: a playlist, a page, a video: known by content, and never handed to libsndfile."""
    assert sniff(head) is None
    assert refusal(head).reason == (Reason.TYPE_MISMATCH if head else Reason.EMPTY)


def test_row_52_bombs_in_tags(load, refusal):
    """Row 52: a tag that claims 256 MB, or holds another file, does no harm."""
    mp3 = encoded_sound(tones(1, 44_100), 44_100, "MP3", "MPEG_LAYER_III")
    endless = b"ID3\4\0\0\x7f\x7f\x7f\x7f" + mp3
    assert refusal(endless).reason in (Reason.CORRUPT, Reason.TRUNCATED)
    [window] = load(b"ID3\4\0\0\0\0\x07\x76" + bytes(1014) + mp3)
    assert window.end == pytest.approx(1.0, abs=0.1)
    aiff = encoded_sound(tones(1, 44_100), 44_100, "AIFF", "PCM_16")
    assert refusal(b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + aiff).reason in (
        Reason.TYPE_MISMATCH, Reason.CORRUPT,
    )  # fmt: skip


# -- resampling --------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 44_101])
def test_sines_stay_sines(rate):
    """A sum of sines, at another rate, is the same sum: to a millionth, over every border."""
    hertz = (50.0, 440.0, 3000.0, 0.47 * min(rate, 16_000))

    def at(times):
        return sum(np.sin(2 * np.pi * f * times + n) for n, f in enumerate(hertz)) / 4

    count = rate * 11 + 77
    given = at(np.arange(count) / rate).astype(np.float32)
    out = np.concatenate(list(resampled(in_blocks(given, 10_007), rate, 16_000)))
    assert len(out) == round(count * 16_000 / rate)
    inside = slice(800, len(out) - 800)
    assert np.abs(out - at(np.arange(len(out)) / 16_000))[inside].max() < 2e-3
    slow = (
        at(np.arange(count) / rate) - np.sin(2 * np.pi * hertz[3] * np.arange(count) / rate + 3) / 4
    )
    out = np.concatenate(list(resampled(in_blocks(slow.astype(np.float32), 9999), rate, 16_000)))
    expected = (
        at(np.arange(len(out)) / 16_000)
        - np.sin(2 * np.pi * hertz[3] * np.arange(len(out)) / 16_000 + 3) / 4
    )
    assert np.abs(out - expected)[800:-800].max() < 1e-5


def test_what_the_lower_rate_cannot_hold_is_gone():
    """Nothing above 8,000 Hz folds back into what can be heard."""
    at = np.arange(44_100 * 3) / 44_100
    given = sum(np.sin(2 * np.pi * f * at) for f in (8100.0, 11_000.0, 15_500.0, 21_000.0))
    out = np.concatenate(list(resampled(in_blocks(given.astype(np.float32), 5000), 44_100, 16_000)))
    assert np.abs(out)[1600:-1600].max() < 1e-5


def test_noise_is_resampled_as_scipy_does():
    """Where both filters let through, they agree (scipy's is a Kaiser-windowed sinc)."""
    noise = np.random.default_rng(1).normal(size=44_100 * 6)
    smooth = np.convolve(noise, np.hanning(40) / 20, "same").astype(np.float32)
    out = np.concatenate(list(resampled(in_blocks(smooth, 7001), 44_100, 16_000)))
    expected = resample_poly(smooth, 160, 441, window=("kaiser", 12.0))
    assert len(out) == len(expected) == 96_000
    assert np.abs(out - expected)[800:-800].max() < 5e-3
    assert np.std(smooth) > 0.15


def test_blocks_make_no_difference():
    """However the sound comes in, the same samples come out."""
    noise = np.random.default_rng(2).normal(size=50_000).astype(np.float32)
    outs = [
        np.concatenate(list(resampled(in_blocks(noise, size), 8000, 16_000)))
        for size in (50_000, 12_345, 700)
    ]
    assert all(np.array_equal(outs[0], out) for out in outs)


def test_one_sample_is_a_sound():
    """The shortest sound of all is resampled, too."""
    for rate in (8000, 44_100, 768_000):
        out = np.concatenate(list(resampled(iter([np.ones(1, np.float32)]), rate, 16_000)))
        assert len(out) == max(round(16_000 / rate), 1)
    assert list(resampled(iter([]), 8000, 16_000)) == []


# -- windows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.25, [(0, 0.25)]),
        (5.0, [(0, 5)]),
        (5.5, [(0, 5.5)]),
        (6.0, [(0, 5), (5, 6)]),
        (10.0, [(0, 5), (5, 10)]),
        (12.25, [(0, 5), (5, 10), (10, 12.25)]),
        (10.75, [(0, 5), (5, 10.75)]),
    ],
)
def test_windows_cover_the_sound(load, seconds, expected):
    """Windows follow one another; a rest below a second stays with the one before it."""
    samples = tones(seconds, 16_000)
    found = load(encoded_sound(samples, 16_000, "WAV", "FLOAT"))
    assert [(window.start, window.end) for window in found] == expected
    for window in found:
        start, end = round(window.start * 16_000), round(window.end * 16_000)
        assert np.array_equal(window.samples, samples[start:end])


def test_the_same_file_gives_the_same_samples(load):
    """Twice loaded, not a bit differs."""
    data = encoded_sound(tones(12, 44_100), 44_100, "OGG", "VORBIS")
    first, second = load(data), load(data)
    assert len(first) == 3
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, second, strict=True))


# -- row 51: samples ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -17.0])
def test_row_51_samples_that_are_none(refusal, value):
    """Row 51: NaN, Inf and huge samples, wherever they stand, are `nonfinite`."""
    samples = tones(12, 8000)
    samples[-3] = value
    assert refusal(encoded_sound(samples, 8000, "WAV", "FLOAT")).reason == Reason.NONFINITE


@pytest.mark.parametrize("level", [0.0, 0.5, -1.0, 3e-5])
def test_row_51_silence_is_flagged(refusal, level):
    """Row 51: nothing, or a constant, or the last bit's hum: `silent`, for it resembles all."""
    samples = np.full(60_000, level)
    if level == 3e-5:
        samples *= np.random.default_rng(3).choice([-1, 1], 60_000)
    for rate in (8000, 16_000, 44_100):
        error = refusal(encoded_sound(samples, rate, "WAV", "FLOAT"))
        assert error.reason == Reason.SILENT


def test_row_51_silent_stretches_are_left_out(load):
    """Row 51: a window of silence among others is no item."""
    samples = np.concatenate([tones(5, 16_000), np.zeros(160_000), tones(5, 16_000)])
    found = load(encoded_sound(samples, 16_000, "WAV", "PCM_16"))
    assert [(window.start, window.end) for window in found] == [(0, 5), (15, 20)]


# -- rows 48 and 49: length --------------------------------------------------------------

_PEAK = """
import resource, sys
import numpy as np
from mmsearch.loaders.sounds import windows
from mmsearch.records import AudioInput
with open(sys.argv[1], "rb") as file:
    count = last = 0
    for window in windows(file, AudioInput()):
        count, last = count + 1, window.end
print(count, last, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_row_48_a_long_sound_takes_no_more_memory(tmp_path):
    """Row 48: an RF64 of ten hours and 5 GB takes no more memory than one of 10 s."""
    figures = []
    for seconds in (10, 36_000):
        path = tmp_path / f"{seconds}.wav"
        sparse_wav(path, seconds, 16_000, loud=[0, seconds - 3])
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path)],
            env=package_environment(), capture_output=True, check=True, text=True,
        )  # fmt: skip
        count, last, peak = done.stdout.split()
        assert (int(count), float(last)) == (2, seconds)
        figures.append(int(peak))
    assert path.stat().st_size > 4_600_000_000
    assert figures[1] < figures[0] + 30_000


def test_row_49_headers_that_lie(refusal, tmp_path):
    """Row 49: no samples are `empty`; more than are there, `truncated`, before any allocation."""
    empty = encoded_sound(np.zeros(0), 8000, "WAV", "PCM_16")
    assert refusal(empty).reason == Reason.EMPTY
    good = encoded_sound(tones(1, 8000), 8000, "WAV", "PCM_16")
    at = good.index(b"data") + 4
    for length in (2**31, 2**32 - 2):
        lie = good[:at] + struct.pack("<I", length) + good[at + 4 :]
        assert refusal(lie).reason == Reason.TRUNCATED
    rf64 = encoded_sound(tones(1, 8000), 8000, "RF64", "PCM_16")
    at = rf64.index(b"ds64") + 16
    lie = rf64[:at] + struct.pack("<QQ", 2**40, 2**40) + rf64[at + 16 :]
    assert refusal(lie).reason == Reason.TRUNCATED
    flac = bytearray(encoded_sound(tones(1, 8000), 8000, "FLAC", "PCM_16"))
    flac[21:26] = bytes([flac[21] | 0x0F]) + b"\xff" * 4  # 2^36 samples
    assert refusal(bytes(flac)).reason == Reason.OVER_BUDGET
    assert refusal(bytes(flac), max_hours=1e9).reason in (Reason.TRUNCATED, Reason.CORRUPT)


def test_row_49_a_stream_without_a_length_is_read_to_its_end(load):
    """A WAV written to a pipe says 2^32 - 1: its length is what is there."""
    good = encoded_sound(tones(2, 8000), 8000, "WAV", "PCM_16")
    at = good.index(b"data") + 4
    piped = b"RIFF\xff\xff\xff\xff" + good[8:at] + b"\xff" * 4 + good[at + 4 :]
    assert [(w.start, w.end) for w in load(piped)] == [(0, 2)]


def test_row_48_hours_have_a_limit(load, refusal):
    """More hours than allowed are refused by the header, and the message says what lifts it."""
    data = encoded_sound(tones(4, 8000), 8000, "WAV", "PCM_16")
    error = refusal(data, max_hours=3 / 3600)
    assert error.reason == Reason.OVER_BUDGET
    assert "MMSEARCH_MAX_HOURS" in str(error)
    assert len(load(data, max_hours=4 / 3600)) == 1


# -- truncation and damage ---------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_sound_is_refused(refusal, name):
    """Rows 49 and 52: cut at every seventh percent, a file is `truncated`, not half loaded."""
    kind, subtype = FORMATS[name]
    data = encoded_sound(tones(1.5, 48_000, channels=2), 48_000, kind, subtype)
    for percent in (*range(3, 100, 7), 99):
        error = refusal(data[: len(data) * percent // 100])
        early = kind == "MP3" and percent < 10 and error.reason == Reason.CORRUPT
        assert error.reason == Reason.TRUNCATED or early, (percent, str(error))


def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(load, refusal):
    """Nobody guesses its length from its first frame; tags before and behind are no sound."""
    data = without_xing(encoded_sound(tones(3, 44_100), 44_100, "MP3", "MPEG_LAYER_III"))
    tagged = b"ID3\4\0\0\0\0\x07\x76" + bytes(1014) + data + b"TAG" + bytes(125)
    for whole in (data, tagged):
        [window] = load(whole)
        assert window.end == pytest.approx(3, abs=0.1)
    for cut in (50, 1000, len(data) // 2):
        assert refusal(data[:-cut]).reason == Reason.TRUNCATED


def test_damaged_sounds_raise_nothing_but_load_errors(load):
    """Any damage ends in finite windows or a LoadError."""
    choose = np.random.default_rng(7)
    refused = 0
    for kind, subtype in FORMATS.values():
        data = encoded_sound(tones(0.4, 16_000), 16_000, kind, subtype)
        for _ in range(12):
            bad = bytearray(data)
            for _ in range(choose.integers(1, 12)):
                # the first bytes hold the header: half of the damage goes there
                limit = 64 if choose.random() < 0.5 else len(bad)
                bad[choose.integers(4, limit)] = choose.integers(256)
            try:
                found = load(bytes(bad), max_hours=0.01)
            except LoadError:
                refused += 1
            else:
                assert all(np.isfinite(window.samples).all() for window in found)
    assert refused > 40


def test_windows_need_not_all_be_taken(tmp_path):
    """A caller that stops early leaves the file as it is, and open."""
    path = Path(tmp_path / "a.wav")
    path.write_bytes(encoded_sound(tones(30, 8000), 8000, "WAV", "PCM_16"))
    with open(path, "rb") as file:
        assert len(list(islice(windows(file, WANT), 2))) == 2
        file.seek(0)
        assert file.read(4) == b"RIFF"
    assert soundfile.info(io.BytesIO(path.read_bytes())).frames == 240_000
