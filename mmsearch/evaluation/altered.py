"""Altered copies of one's own files: cropped, made smaller, encoded anew, quieter."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsearch.files import opened
from mmsearch.records import Modality

_SECONDS = 60.0  # of a sound that are read


def _cropped(picture: Any, place: Path) -> Path:
    width, height = picture.size
    box = (width // 10, height // 10, width - width // 10, height - height // 10)
    return _saved(picture.crop(box), place / "crop.jpg", 95)


def _halved(picture: Any, place: Path) -> Path:
    half = tuple(max(length // 2, 1) for length in picture.size)
    return _saved(picture.resize(half), place / "half.jpg", 95)


def _recompressed(picture: Any, place: Path) -> Path:
    return _saved(picture, place / "jpeg.jpg", 40)


def _saved(picture: Any, path: Path, quality: int) -> Path:
    picture.save(path, quality=quality)
    return path


def _quieter(sound: Any, place: Path) -> Path:
    return _written(sound[0] / 2, sound[1], place / "quieter.wav", "PCM_16")


def _vorbis(sound: Any, place: Path) -> Path:
    return _written(sound[0], sound[1], place / "vorbis.ogg", "VORBIS")


def _written(samples: Any, rate: int, path: Path, subtype: str) -> Path:
    import soundfile

    with soundfile.SoundFile(path, "w", rate, samples.shape[1], subtype) as file:
        for start in range(0, len(samples), rate):  # libsndfile's encoder has a small stack
            file.write(samples[start : start + rate])
    return path


# What is done to a copy.
WAYS: dict[Modality, dict[str, Callable[[Any, Path], Path]]] = {
    Modality.IMAGE: {
        "crop": _cropped,  # a tenth off every side
        "half": _halved,  # half as wide and high
        "jpeg": _recompressed,  # quality 40
    },
    Modality.AUDIO: {
        "quieter": _quieter,  # half as loud, in 16 bits
        "vorbis": _vorbis,
    },
}


def opened_copy(path: Path, kind: Modality) -> Any:
    """A picture, upright in RGB, or (samples, rate) of a sound, as `WAYS` takes them.

    Raises OSError, LoadError or ValueError for one that cannot be read any more.
    """
    with opened(os.path.realpath(os.fsencode(path))) as (file, _):
        if kind is Modality.IMAGE:
            from PIL import Image, ImageOps

            with Image.open(file) as picture:
                return ImageOps.exif_transpose(picture).convert("RGB")
        import soundfile

        with soundfile.SoundFile(file) as sound:
            return sound.read(int(_SECONDS * sound.samplerate), "float32", True), sound.samplerate
