"""Kinds of hostile files, more than sixty of them, each with what must become of it.

What a decoder does to itself, and what becomes of a file while it is read, is done by tests/evil
in the decoder processes; all else are real files, built by tests/hostile.py.
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hostile import (
    FAILED,
    INDEXED,
    PDF,
    SKIPPED,
    SVG,
    UNSEEN,
    ZIP,
    Maker,
    chunk,
    encoded,
    encoded_sound,
    gif_of_frames,
    grey_tiff,
    jpeg_sized,
    png,
    png_rows,
    png_sized,
    sparse,
    sparse_wav,
    tiff,
    tones,
    webp_canvas,
    zero_bomb,
)

from mmsearch.records import Reason

RATE = 16_000
Kind = Callable[[Maker, str, int], None]  # writes the n-th of its kind into a folder

KINDS: dict[str, Kind] = {}
# What runs into a limit of time or memory costs that limit, whatever mmsearch does: one of each.
COSTLY = ("evil-sleep", "evil-spin", "evil-swell")
# What is no longer what it was when it has been read: written anew for each run.
MOVING = frozenset({"evil-vanishes", "evil-is-a-link", "evil-grows", "evil-once"})


def good(make: Maker, folder: str, number: int) -> None:
    """A small picture in one of the formats, now and then a text or a sound: all are indexed."""
    if number % 20 < 2:
        words = " ".join(make.choose.choices(_WORDS, k=60))
        make.put(f"{folder}/good-{number:05}.txt", f"{words}\n".encode(), INDEXED)
    elif number % 20 == 2:
        kind = _SOUNDS[number // 20 % len(_SOUNDS)]
        make.put(f"{folder}/good-{number:05}.{kind[0]}", _sound(make, *kind[1:]), INDEXED)
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


def _sound(make: Maker, kind: str, subtype: str, rate: int = RATE, **change: float) -> bytes:
    """A sound of half a second; `last` and `times` alter its samples."""
    samples = tones(0.5, rate, seed=make.choose.randrange(1 << 30)) * change.get("times", 1.0)
    if "last" in change:
        samples[-1] = change["last"]
    return encoded_sound(samples, rate, kind, subtype)


def _files(becomes: str, **kinds: tuple[str, Callable[[Maker], bytes]]) -> None:
    """Kinds that are plain files: of each the suffix and what builds its bytes."""
    for name, (suffix, build) in kinds.items():

        def write(
            make: Maker, folder: str, number: int, *, name: str = name, suffix: str = suffix,
            build: Callable[[Maker], bytes] = build,
        ) -> None:  # fmt: skip
            path = f"{folder}/{name.replace('_', '-')}-{number}{suffix}"
            make.put(path, build(make), becomes)

        KINDS[name.replace("_", "-")] = write


def _jpeg(make: Maker) -> bytes:
    return encoded(make.picture(), "JPEG")


def _png(make: Maker) -> bytes:
    return encoded(make.picture(), "PNG")


def _gif(make: Maker) -> bytes:
    return encoded(make.picture(), "GIF")


def _cut(kind: str, **options: str) -> Callable[[Maker], bytes]:
    def build(make: Maker) -> bytes:
        data = encoded(make.picture(), kind, **options)
        return data[: make.choose.randrange(80, len(data) - 30)]

    return build


def _cut_sound(kind: str, subtype: str) -> Callable[[Maker], bytes]:
    return lambda make: _sound(make, kind, subtype)[:-99]


def _junk(magic: bytes) -> Callable[[Maker], bytes]:
    return lambda make: magic + make.choose.randbytes(make.choose.randrange(100, 3000))


# -- decoders gone wild, and what happens to a file while it is read -----------------------


def _evil(name: str) -> tuple[str, Callable[[Maker], bytes]]:
    return ".jpg", lambda make: _jpeg(make) + b"evil:" + name.encode()


_files(Reason.CRASHED, evil_segfault=_evil("segfault"), evil_abort=_evil("abort"),
       evil_exit=_evil("exit-0"), evil_lie=_evil("lie"), evil_orphan=_evil("orphan"))  # fmt: skip
_files(Reason.TIMED_OUT, evil_sleep=_evil("sleep"), evil_spin=_evil("spin"))
_files(Reason.OUT_OF_MEMORY, evil_swell=_evil("swell"))
_files(FAILED, evil_recurse=_evil("recurse"))
_files(INDEXED, evil_babble=_evil("babble"), evil_once=(".jpg", lambda make: _even(_jpeg(make))))
_files(UNSEEN, evil_vanishes=(".jpg", _jpeg))
_files(Reason.CHANGED, evil_grows=(".jpg", _jpeg), evil_is_a_link=(".jpg", _jpeg))


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


# -- empty, cut, wrongly named -------------------------------------------------------------

_files(
    Reason.EMPTY,
    empty_picture=(".png", lambda _: b""), empty_sound=(".ogg", lambda _: b""),
    empty_text=(".txt", lambda _: b""), blank_text=(".md", lambda _: b" \n\t" * 99),
    wav_without_sound=(".wav", lambda _: encoded_sound(np.zeros(0), RATE, "WAV", "PCM_16")),
)  # fmt: skip
_files(
    Reason.TRUNCATED,
    cut_jpeg=(".jpg", _cut("JPEG")), cut_png=(".png", _cut("PNG")), cut_gif=(".gif", _cut("GIF")),
    cut_webp=(".webp", _cut("WEBP")), cut_tiff=(".tif", _cut("TIFF", compression="tiff_lzw")),
    cut_wav=(".wav", _cut_sound("WAV", "PCM_16")), cut_flac=(".flac", _cut_sound("FLAC", "PCM_16")),
    cut_ogg=(".ogg", _cut_sound("OGG", "VORBIS")),
    cut_mp3=(".mp3", lambda make: _sound(make, "MP3", "MPEG_LAYER_III", 44_100)[:3000]),
    taller_jpeg=(".jpg", lambda make: jpeg_sized(_jpeg(make), 96, 144)),
    taller_png=(".png", lambda make: png_sized(_png(make), 96, 144)),
)  # fmt: skip
_files(
    Reason.TYPE_MISMATCH,
    text_as_jpeg=(".jpg", lambda _: b"I am a text.\n"), pdf_as_png=(".png", lambda _: PDF),
    svg_as_jpeg=(".jpeg", lambda _: SVG), zip_as_webp=(".webp", lambda _: ZIP),
    page_as_wav=(".wav", lambda _: b"<html>"), binary_as_text=(".txt", lambda _: bytes(range(256))),
    list_as_mp3=(".mp3", lambda _: b"#EXTM3U\nfile:///etc/passwd\n"),
)  # fmt: skip
_files(INDEXED, png_as_gif=(".gif", _png), jpeg_as_program=(".exe", _jpeg))
_files(SKIPPED, program=(".bin", lambda make: b"\x7fELF" + make.choose.randbytes(99)))

# -- bombs, absurd sizes, headers that lie ---------------------------------------------------


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
    data = bytearray(_sound(make, "FLAC", "PCM_16"))
    data[21:26] = bytes([data[21] & 0xF0 | 0x8, 0, 0, 0, 0])
    return bytes(data)


def _larger_frame(make: Maker) -> bytes:
    data = _gif(make)
    at = data.index(b",\0\0\0\0") + 5
    return data[:at] + b"\xff" * 4 + data[at + 4 :]


def _flipped(make: Maker) -> bytes:
    data = bytearray(_png(make))
    data[len(data) // 2] ^= 1
    return bytes(data)


_files(
    Reason.OVER_BUDGET,
    zero_bomb=(".png", lambda _: _zeros()), endless_flac=(".flac", _endless_flac),
    huge_jpeg=(".jpg", lambda make: jpeg_sized(_jpeg(make), 65_500, 65_500)),
    huge_png=(".png", lambda _: png(50_000, 50_000, zlib.compress(bytes(9999)))),
    huge_webp=(".webp", lambda _: webp_canvas(16_384, 16_384)),
    huge_tiff=(".tif", lambda _: grey_tiff(np.zeros((2, 2), np.uint8), height=2**31)),
    larger_frame=(".gif", _larger_frame),
    slow_wav=(".wav", lambda _: encoded_sound(tones(0.5, RATE), 8, "WAV", "PCM_16")),
)  # fmt: skip
_files(
    INDEXED,
    packed_words=(".png", _packed_words),
    many_frames=(".gif", lambda make: gif_of_frames(make.picture(24, 18), 10_000)),
    profile=(".jpg", lambda make: encoded(make.picture(), "JPEG", icc_profile=bytes(3 << 20))),
)  # fmt: skip
_files(
    Reason.CORRUPT,
    flipped_bit=(".png", _flipped), no_width=(".png", lambda _: png(0, 100, b"")),
    no_height=(".jpg", lambda make: jpeg_sized(_jpeg(make), 96, 0)),
)  # fmt: skip
_files(
    Reason.NONFINITE,
    not_a_number=(".wav", lambda make: _sound(make, "WAV", "FLOAT", last=float("nan"))),
    too_loud=(".wav", lambda make: _sound(make, "WAV", "FLOAT", last=1e30)),
)  # fmt: skip
_files(Reason.SILENT, silent=(".wav", lambda make: _sound(make, "WAV", "PCM_16", times=0.0)))
_files(
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

# -- what is no file, or may not be read -----------------------------------------------------


def _odd(kind: str) -> Callable[[Callable[[Maker, bytes], str]], None]:
    """A kind that is more than bytes: a function that makes it at a path, and says its fate."""

    def register(function: Callable[[Maker, bytes], str]) -> None:
        def write(make: Maker, folder: str, number: int) -> None:
            name = f"{folder}/{kind}-{number}.jpg".encode()
            make.expected[name] = str(function(make, make.path(name)))

        KINDS[kind] = write

    return register


@_odd("fifo")
def _fifo(_: Maker, path: bytes) -> str:
    os.mkfifo(path)
    return SKIPPED


@_odd("socket")
def _socket(_: Maker, path: bytes) -> str:
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:  # a socket's path is 107 bytes at most; that of a folder may be longer
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{os.path.basename(path).decode()}")
    finally:
        os.close(folder)
    return SKIPPED


@_odd("device")
def _device(_: Maker, path: bytes) -> str:
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))  # zeros without end
    except PermissionError:  # for root alone
        os.symlink(b"/dev/zero", path)
    return SKIPPED


for _name, _target in {
    "link": b"../../secret.jpg", "dangling-link": b"nowhere.jpg", "link-to-zeros": b"/dev/zero",
    "link-to-root": b"/", "link-up": b"..", "link-here": b".",
}.items():  # fmt: skip

    @_odd(_name)
    def _link(_: Maker, path: bytes, target: bytes = _target) -> str:
        os.symlink(target, path)
        return SKIPPED


@_odd("link-to-itself")
def _loop(_: Maker, path: bytes) -> str:
    os.symlink(os.path.basename(path), path)
    return SKIPPED


@_odd("forbidden-file")
def _forbidden(make: Maker, path: bytes) -> str:
    with open(path, "wb") as file:
        file.write(_jpeg(make))
    os.chmod(path, 0)
    return Reason.UNREADABLE


@_odd("forbidden-folder")
def _forbidden_folder(make: Maker, path: bytes) -> str:
    os.mkdir(path)
    with open(os.path.join(path, b"inside.jpg"), "wb") as file:
        file.write(_jpeg(make))
    os.chmod(path, 0)
    return Reason.UNREADABLE


# -- names -------------------------------------------------------------------------------------


def _named(pattern: bytes, becomes: str = INDEXED) -> Kind:
    def write(make: Maker, folder: str, number: int) -> None:
        above, name = os.path.split(pattern.replace(b"#", b"%d" % number))
        data = _jpeg(make) if becomes != Reason.TYPE_MISMATCH else b"no picture"
        make.put(os.path.join(folder.encode(), above, name[:255]), data, becomes)

    return write


KINDS |= {
    "name-latin-1": _named(b"caf\xe9 #.jpg"),
    "name-no-utf-8": _named(b"\xff\xfe\x80#.jpg"),
    "name-newline": _named(b"new\nline\n#.jpg"),
    "name-escape": _named(b"\x1b[31mred\x1b[0m\x07#.jpg"),
    "name-right-to-left": _named("gpj.\u202efdp#.jpg".encode()),
    "name-dash": _named(b"-rf #.jpg"),
    "name-255-bytes": _named(b"#" + b"n" * 300),
    "name-surrogate": _named(b"\xed\xa0\x80surrogate#.jpg"),
    "name-shell": _named(b"$(reboot) `id` '; DROP TABLE files; -- %s%n#.jpg"),
    "name-glob": _named(b" *?[a-z]{}~ # .jpg"),
    "name-deep": _named(b"deep/" * 200 + b"down-#.jpg"),
    "name-hidden": _named(b".hidden-#.jpg", UNSEEN),
    "name-of-bad": _named(b"bad \xfe\n\x1b[2J#.jpg", str(Reason.TYPE_MISMATCH)),
}
