"""Other views of the same thing: pictures, captions and sounds, changed so that they still fit.

Every draw comes from the generator that is handed in; the same generator gives the same view.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

Random = np.random.Generator
Pixels = npt.NDArray[np.uint8]  # (height, width, 3) RGB
Wave = npt.NDArray[np.float32]  # (samples,) mono, -1 to 1


def picture(pixels: Pixels, size: int, least: float, colour: float, generator: Random) -> Pixels:
    """A random crop resized to (size, size, 3), mirrored half of the time, in other colours.

    least: the smallest share of the area that a crop keeps; its sides stay within 3:4 to 4:3.
    colour: how far brightness, contrast and saturation may go from 1, either way.
    """
    height, width = pixels.shape[:2]
    area = generator.uniform(least, 1.0)
    ratio = float(np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3))))
    w = min(width, width * float(np.sqrt(area * ratio)))
    h = min(height, height * float(np.sqrt(area / ratio)))
    left, top = generator.uniform(0, width - w), generator.uniform(0, height - h)
    box = (left, top, left + w, top + h)
    view = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC, box)
    if generator.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = enhance(view).enhance(generator.uniform(1 - colour, 1 + colour))
    return np.asarray(view)


def drop_words(caption: str, share: float, generator: Random) -> str:
    """A caption without some of its words, each left out with this probability; never empty."""
    words = caption.split()
    kept = [word for word in words if generator.random() >= share]
    return " ".join(kept or words[:1])


def sound(wave: Wave, other: Wave | None, gain: float, generator: Random) -> Wave:
    """A sound begun elsewhere, louder or softer by up to `gain` dB, `other` faintly behind it.

    The other sound is 10 to 30 dB below and does not change what the caption says; where it is
    shorter, it begins again.
    """
    out = np.roll(wave, generator.integers(len(wave)))
    if other is not None and len(other):
        level = _rms(out) / max(_rms(other), 1e-8) * _ratio(-generator.uniform(10, 30))
        out = out + level * np.resize(other, len(out))
    out = np.clip(out * _ratio(generator.uniform(-gain, gain)), -1, 1)
    return np.asarray(out, np.float32)


def masked(wave: Wave, share: float, generator: Random) -> Wave:
    """SpecAugment's masks (Park et al. 2019, arXiv 1904.08779): a silence and a missing band.

    Made on the wave rather than on one tower's spectrogram, so that they serve any audio tower.
    Each is up to `share` of the length and of the frequencies.
    """
    spectrum = np.fft.rfft(wave)
    low, high = _stretch(len(spectrum), share, generator)
    spectrum[low:high] = 0
    out = np.fft.irfft(spectrum, len(wave)).astype(np.float32)
    start, end = _stretch(len(wave), share, generator)
    out[start:end] = 0
    return out


def _stretch(length: int, share: float, generator: Random) -> tuple[int, int]:
    """Where a run of up to `share` of so many begins and ends."""
    wide = int(length * generator.uniform(0, share))
    start = int(generator.integers(length - wide + 1))
    return start, start + wide


def _rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(np.square(wave))))


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 20))
