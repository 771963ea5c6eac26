"""What is not hostile."""

from __future__ import annotations

from typing import Any

from campaigns.poisons.building import sound
from hostile import INDEXED, Maker, encoded


def good(make: Maker, folder: str, number: int) -> None:
    """A small picture in one of the formats, now and then a text or a sound: all are indexed."""
    if number % 20 < 2:
        words = " ".join(make.choose.choices(_WORDS, k=60))
        make.put(f"{folder}/good-{number:05}.txt", f"{words}\n".encode(), INDEXED)
    elif number % 20 == 2:
        kind = _SOUNDS[number // 20 % len(_SOUNDS)]
        make.put(f"{folder}/good-{number:05}.{kind[0]}", sound(make, *kind[1:]), INDEXED)
    else:
        kind, suffix, options = _PICTURES[number % len(_PICTURES)]
        data = encoded(make.picture(), kind, **options)
        make.put(f"{folder}/good-{number:05}.{suffix}", data, INDEXED)


_WORDS = ("dog", "cat", "horse", "on", "in", "under", "red", "field", "sea", "small", "old", "boat")
_PICTURES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("JPEG", "jpg", {}), ("JPEG", "jpeg", {"progressive": True}), ("PNG", "png", {}),
    ("WEBP", "webp", {}), ("GIF", "gif", {}), ("TIFF", "tif", {"compression": "tiff_lzw"}),
    ("BMP", "bmp", {}), ("PPM", "ppm", {}), ("JPEG", "JPG", {"quality": 95}),
)  # fmt: skip
_SOUNDS = (
    ("wav", "WAV", "PCM_16"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)  # fmt: skip
