"""Empty, cut, wrongly named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from campaigns.poisons.building import RATE, files, jpeg, png, sound
from hostile import (
    INDEXED,
    PDF,
    SKIPPED,
    SVG,
    ZIP,
    Maker,
    encoded,
    encoded_sound,
    jpeg_sized,
    png_sized,
)

from mmsearch.records import Reason


def _cut(kind: str, **options: str) -> Callable[[Maker], bytes]:
    def build(make: Maker) -> bytes:
        data = encoded(make.picture(), kind, **options)
        return data[: make.choose.randrange(80, len(data) - 30)]

    return build


def _cut_sound(kind: str, subtype: str) -> Callable[[Maker], bytes]:
    return lambda make: sound(make, kind, subtype)[:-99]


KINDS = files(
    Reason.EMPTY,
    empty_picture=(".png", lambda _: b""), empty_sound=(".ogg", lambda _: b""),
    empty_text=(".txt", lambda _: b""), blank_text=(".md", lambda _: b" \n\t" * 99),
    wav_without_sound=(".wav", lambda _: encoded_sound(np.zeros(0), RATE, "WAV", "PCM_16")),
)  # fmt: skip
KINDS |= files(
    Reason.TRUNCATED,
    cut_jpeg=(".jpg", _cut("JPEG")), cut_png=(".png", _cut("PNG")), cut_gif=(".gif", _cut("GIF")),
    cut_webp=(".webp", _cut("WEBP")), cut_tiff=(".tif", _cut("TIFF", compression="tiff_lzw")),
    cut_wav=(".wav", _cut_sound("WAV", "PCM_16")), cut_flac=(".flac", _cut_sound("FLAC", "PCM_16")),
    cut_ogg=(".ogg", _cut_sound("OGG", "VORBIS")),
    cut_mp3=(".mp3", lambda make: sound(make, "MP3", "MPEG_LAYER_III", 44_100)[:3000]),
    taller_jpeg=(".jpg", lambda make: jpeg_sized(jpeg(make), 96, 144)),
    taller_png=(".png", lambda make: png_sized(png(make), 96, 144)),
)  # fmt: skip
KINDS |= files(
    Reason.TYPE_MISMATCH,
    text_as_jpeg=(".jpg", lambda _: b"I am a text.\n"), pdf_as_png=(".png", lambda _: PDF),
    svg_as_jpeg=(".jpeg", lambda _: SVG), zip_as_webp=(".webp", lambda _: ZIP),
    page_as_wav=(".wav", lambda _: b"<html>"), binary_as_text=(".txt", lambda _: bytes(range(256))),
    list_as_mp3=(".mp3", lambda _: b"#EXTM3U\nfile:///etc/passwd\n"),
)  # fmt: skip
KINDS |= files(INDEXED, png_as_gif=(".gif", png), jpeg_as_program=(".exe", jpeg))
KINDS |= files(SKIPPED, program=(".bin", lambda make: b"\x7fELF" + make.choose.randbytes(99)))
