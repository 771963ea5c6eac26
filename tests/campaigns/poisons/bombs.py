"""Bombs, absurd sizes, headers that lie."""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Callable

import numpy as np
from campaigns.poisons import building
from campaigns.poisons.building import RATE, Kind, files, gif, jpeg, sound
from hostile import (
    FAILED,
    INDEXED,
    Maker,
    chunk,
    encoded,
    encoded_sound,
    gif_of_frames,
    grey_tiff,
    jpeg_sized,
    png,
    png_rows,
    sparse,
    sparse_wav,
    tiff,
    tones,
    webp_canvas,
    zero_bomb,
)

from mmsearch.records import Reason


def _junk(magic: bytes) -> Callable[[Maker], bytes]:
    return lambda make: magic + make.choose.randbytes(make.choose.randrange(100, 3000))


@functools.cache
def _zeros() -> bytes:
    return zero_bomb(13_000, 13_000)


def _packed_words(make: Maker) -> bytes:
    """Texts of 64 megabytes before a good picture."""
    packed = zlib.compress(bytes(1 << 24), 9) * 4
    bomb = chunk(b"zTXt", b"a\0\0" + packed) + chunk(b"iTXt", b"a\0\1\0\0\0" + packed)
    return png(96, 72, zlib.compress(png_rows(make.picture())), before=bomb)


def _endless_flac(make: Maker) -> bytes:
    """A FLAC whose header promises 2^35 samples: 24 days."""
    data = bytearray(sound(make, "FLAC", "PCM_16"))
    data[21:26] = bytes([data[21] & 0xF0 | 0x8, 0, 0, 0, 0])
    return bytes(data)


def _larger_frame(make: Maker) -> bytes:
    data = gif(make)
    at = data.index(b",\0\0\0\0") + 5
    return data[:at] + b"\xff" * 4 + data[at + 4 :]


def _flipped(make: Maker) -> bytes:
    data = bytearray(building.png(make))
    data[len(data) // 2] ^= 1
    return bytes(data)


KINDS = files(
    Reason.OVER_BUDGET,
    zero_bomb=(".png", lambda _: _zeros()), endless_flac=(".flac", _endless_flac),
    huge_jpeg=(".jpg", lambda make: jpeg_sized(jpeg(make), 65_500, 65_500)),
    huge_png=(".png", lambda _: png(50_000, 50_000, zlib.compress(bytes(9999)))),
    huge_webp=(".webp", lambda _: webp_canvas(16_384, 16_384)),
    huge_tiff=(".tif", lambda _: grey_tiff(np.zeros((2, 2), np.uint8), height=2**31)),
    larger_frame=(".gif", _larger_frame),
    slow_wav=(".wav", lambda _: encoded_sound(tones(0.5, RATE), 8, "WAV", "PCM_16")),
)  # fmt: skip
KINDS |= files(
    INDEXED,
    packed_words=(".png", _packed_words),
    many_frames=(".gif", lambda make: gif_of_frames(make.picture(24, 18), 10_000)),
    profile=(".jpg", lambda make: encoded(make.picture(), "JPEG", icc_profile=bytes(3 << 20))),
)  # fmt: skip
KINDS |= files(
    Reason.CORRUPT,
    flipped_bit=(".png", _flipped), no_width=(".png", lambda _: png(0, 100, b"")),
    no_height=(".jpg", lambda make: jpeg_sized(jpeg(make), 96, 0)),
)  # fmt: skip
KINDS |= files(
    Reason.NONFINITE,
    not_a_number=(".wav", lambda make: sound(make, "WAV", "FLOAT", last=float("nan"))),
    too_loud=(".wav", lambda make: sound(make, "WAV", "FLOAT", last=1e30)),
)  # fmt: skip
KINDS |= files(Reason.SILENT, silent=(".wav", lambda make: sound(make, "WAV", "PCM_16", times=0.0)))
KINDS |= files(
    FAILED,
    loop_tiff=(".tif", lambda _: b"II*\0\x08\0\0\0\0\0" + struct.pack("<I", 8)),
    endless_tag=(".tif", lambda _: tiff([(256, 4, 2**32 - 1, b"\xff" * 4)])),
    junk_jpeg=(".jpg", _junk(b"\xff\xd8\xff\xe0\0\x10JFIF\0")),
    junk_png=(".png", _junk(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")),
    junk_webp=(".webp", _junk(b"RIFF\xff\xff\0\0WEBPVP8 ")), junk_flac=(".flac", _junk(b"fLaC")),
)  # fmt: skip


def _sparse(suffix: str, head: bytes) -> Kind:
    def write(make: Maker, folder: str, number: int) -> None:
        name = f"{folder}/sparse-{number}{suffix}"
        sparse(make.path(name), head)
        make.expected[name.encode()] = str(Reason.TOO_LARGE)

    return write


def _hours(make: Maker, folder: str, number: int) -> None:
    name = f"{folder}/hundred-hours-{number}.wav"
    sparse_wav(os.fsdecode(make.path(name)), 360_000, 8000, [0])
    make.expected[name.encode()] = str(Reason.OVER_BUDGET)


KINDS |= {
    "sparse-picture": _sparse(".jpg", b"\xff\xd8\xff\xe0\0\x10JFIF\0"),
    "sparse-text": _sparse(".txt", b"words"),
    "sparse-sound": _sparse(".flac", b"fLaC"),
    "hundred-hours": _hours,
}
