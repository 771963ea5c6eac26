"""Pictures and sounds good and hostile, and a folder full of them.

`make_hostile_folder` writes a few hundred files of every kind that the rows 27 and 29 to
53 of the list of faults name, and tells what must become of each. The builders below it
are for tests that need a single file.
"""

from __future__ import annotations

import base64
import codecs
import ctypes
import importlib.util
import io
import os
import random
import socket
import struct
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageDraw, features

import mmsearch
from mmsearch.encoders import open_encoder
from mmsearch.records import Modality, Reason

# What must become of a file; any other value is the Reason code it must be named with.
INDEXED = "indexed"
SKIPPED = "skipped"  # counted, not named
FAILED = "failed"  # named, with whichever failure fits
UNSEEN = "unseen"  # not even counted

EVIL = Path(__file__).with_name("evil")  # in PYTHONPATH: codecs that misbehave

HAS_AVIF = features.check("avif")
HAS_HEIF = importlib.util.find_spec("pi_heif") is not None

# A 64 x 48 gradient with a red rectangle, encoded by libheif (pi-heif cannot write).
HEIC = base64.b64decode(
    b"AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAX1tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    b"ACJpbG9jAAAAAERAAAEAAQAAAAABoQABAAAAAAAAARIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    b"AAAAAAABAAAA/WlwcnAAAADdaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    b"AAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5j"
    b"bHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAMAAAAAEAAAAAAAAAAv////AAAAACAAAAEHBp"
    b"eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAARptZGF0AAABDigBrwngIzm/jHeGJ9uQPxgs3Lc3+d8FiAfNjdeP"
    b"gNAOk5HxkfP+yZm3zaT2LvsrCzjZDe7IkZV+pY3eWjKVS4rrOQAnNeVXiIxwLdncYEPupO7FhbRlUcXwPLZt5YS/TrE9JMYSVn7V"
    b"G4R9CO1HzKHFheSgnS3sGS4jzQnKwMaHzjQzYlMW9j1ZrvNuMJspxzQiWLDx3IMxC3i8/KDeyEuIQWB7Rqukn9kAw/KWGMRU9F5h"
    b"xolkP+6nsPkeobLfgfuGyCVAgNQ+odpm+XXg36nsfuMwoQWEULQJyE328C/O/hbTT05Xh37Y9Z8zFaMYb9moOqnyP8EV4p0HhjCS"
    b"166KC5GCnmEFXuk0LxF/8A=="
)


def photo(width: int = 160, height: int = 120, seed: int = 0) -> Image.Image:
    """Something like a photo: soft colours, a few shapes, a little noise."""
    draw_from = np.random.default_rng(seed)
    soft = draw_from.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    picture = Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        x, y = draw_from.uniform(0, 0.7, 2) * (width, height)
        w, h = draw_from.uniform(0.15, 0.4, 2) * (width, height)
        colour = tuple(int(c) for c in draw_from.integers(0, 256, 3))
        shape((x, y, x + w, y + h), fill=colour)
    noise = draw_from.integers(-6, 7, (height, width, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    """The bytes of a file of the Pillow format `name`."""
    file = io.BytesIO()
    picture.save(file, name, **options)
    return file.getvalue()


def see_through(picture: Image.Image) -> Image.Image:
    """The same picture with an alpha channel that fades to the right."""
    picture = picture.convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").rotate(90).resize(picture.size))
    return picture


def files_of_each_format(picture: Image.Image) -> dict[str, bytes]:
    """The same picture in every format and compression that can be written here."""
    grey, pal = picture.convert("L"), picture.quantize(64)
    found = {
        "baseline.jpg": encoded(picture, "JPEG"),
        "progressive.jpg": encoded(picture, "JPEG", progressive=True),
        "restart.jpg": encoded(picture, "JPEG", restart_marker_blocks=4),
        "grey.jpg": encoded(grey, "JPEG"),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", quality=95),
        "rgb.png": encoded(picture, "PNG"),
        "small-chunks.png": rechunked(encoded(picture, "PNG"), 1000),
        "palette.png": encoded(pal, "PNG"),
        "sixteen-bit.png": encoded(wide(grey), "PNG"),
        "one-bit.png": encoded(picture.convert("1"), "PNG"),
        "interlaced.png": interlaced_png(picture),
        "lossy.webp": encoded(picture, "WEBP"),
        "lossless.webp": encoded(picture, "WEBP", lossless=True),
        "alpha.webp": encoded(see_through(picture), "WEBP"),
        "plain.gif": encoded(picture, "GIF"),
        "rgb.bmp": encoded(picture, "BMP"),
        "palette.bmp": encoded(pal, "BMP"),
        "run-length.bmp": rle8_bmp(grey),
        "raw.tif": encoded(picture, "TIFF"),
        "lzw.tif": encoded(picture, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encoded(picture, "TIFF", compression="jpeg"),
        "packbits.tif": encoded(picture, "TIFF", compression="packbits"),
        "fax.tif": encoded(picture.convert("1"), "TIFF", compression="group4"),
        "colour.ppm": encoded(picture, "PPM"),
        "grey.pgm": encoded(grey, "PPM"),
        "deep.pgm": encoded(wide(grey), "PPM"),
        "bits.pbm": encoded(picture.convert("1"), "PPM"),
    }
    if HAS_AVIF:
        found["still.avif"] = encoded(picture, "AVIF", speed=10)
    if HAS_HEIF:
        found["still.heic"] = HEIC
    return found


def tones(seconds: float, rate: int, channels: int = 0, seed: int = 0) -> np.ndarray[Any, Any]:
    """Something like a sound: float32 tones that swell, a little noise; (n,) or (n, channels)."""
    draw_from = np.random.default_rng(seed)
    at = np.arange(round(seconds * rate)) / rate
    mixed = 0.004 * draw_from.normal(size=at.size)
    for hertz in draw_from.uniform(80, min(rate / 2, 6000) * 0.8, 4):
        mixed += 0.1 * np.sin(2 * np.pi * hertz * at) * (1 + np.sin(6 * at + hertz)) / 2
    mixed = mixed.astype(np.float32)
    return np.stack([mixed * (1 - n / 9) for n in range(channels)], axis=1) if channels else mixed


def encoded_sound(samples: np.ndarray[Any, Any], rate: int, kind: str, subtype: str) -> bytes:
    """The bytes of a sound file of libsndfile's format `kind`."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def sparse_wav(path: os.PathLike[str], seconds: int, rate: int, loud: Iterable[int]) -> None:
    """An RF64 of 64-bit floats that takes a few blocks of the disk: silent but for seconds."""
    size = seconds * rate * 8
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, size + 72, size, size, 0)
    head += b"fmt " + struct.pack("<IHHIIHH", 16, 3, 1, rate, rate * 8, 8, 64)
    head += b"data\xff\xff\xff\xff"
    with open(path, "wb") as file:
        file.write(head)
        for start in loud:
            file.seek(len(head) + start * rate * 8)
            file.write(tones(1, rate).astype("<f8").tobytes())
        file.truncate(len(head) + size)


def without_xing(mp3: bytes) -> bytes:
    """The same MP3 of 44,100 hertz without its first frame, which counts the others."""
    kilobits = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[(mp3[2] >> 4) - 1]
    return mp3[144_000 * kilobits // 44_100 + (mp3[2] >> 1 & 1) :]


# -- builders of what no library would write ---------------------------------------------


def wide(grey: Image.Image) -> Image.Image:
    """An 8-bit greyscale picture over the full range of 16 bits."""
    return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 2,
    interlaced: int = 0, before: bytes = b"", after: bytes = b"",
) -> bytes:  # fmt: skip
    """A PNG of this header, compressed data, and chunks before and after it."""
    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, interlaced)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + before + chunk(b"IDAT", data) + after + chunk(b"IEND")


def png_rows(picture: Image.Image) -> bytes:
    """The raw rows of an RGB PNG, unfiltered."""
    return b"".join(b"\0" + row.tobytes() for row in np.asarray(picture.convert("RGB")))


def interlaced_rows(picture: Image.Image) -> bytes:
    """The raw rows of an RGB PNG in the seven passes of Adam7."""
    array = np.asarray(picture.convert("RGB"))
    return b"".join(
        b"\0" + row.tobytes()
        for x, y, dx, dy in (
            (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
            (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
        )
        for row in array[y::dy, x::dx]
        if row.size
    )  # fmt: skip


def interlaced_png(picture: Image.Image) -> bytes:
    """An RGB PNG that browsers could show coarsely at first."""
    return png(*picture.size, zlib.compress(interlaced_rows(picture)), interlaced=1)


def rechunked(data: bytes, size: int) -> bytes:
    """The same PNG with its picture data in many small chunks."""
    start = data.index(b"IDAT") - 4
    end = data.index(b"IEND") - 4
    packed, at = b"", start
    while at < end:
        (length,) = struct.unpack_from(">I", data, at)
        packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    pieces = (packed[at : at + size] for at in range(0, len(packed), size))
    return data[:start] + b"".join(chunk(b"IDAT", piece) for piece in pieces) + data[end:]


def rle8_bmp(grey: Image.Image) -> bytes:
    """A run-length encoded BMP, every run one pixel long."""
    array = np.asarray(grey)[::-1]
    rows = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in array)
    pixels = rows + b"\0\1"
    palette = b"".join(bytes((value, value, value, 0)) for value in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, *grey.size, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + palette + pixels


def tiff(
    tags: Iterable[tuple[int, int, int, bytes]], pixels: bytes = b"", *, order: str = "<"
) -> bytes:
    """A classic TIFF: pixels at byte 8, then one directory of (tag, type, count, value).

    A value of more than four bytes is put behind the directory.
    """
    tags = sorted(tags)
    start = 8 + len(pixels)
    tail = b""
    after = start + 2 + 12 * len(tags) + 4
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        directory += struct.pack(order + "HHI", tag, kind, count)
        if len(value) > 4:
            directory += struct.pack(order + "I", after + len(tail))
            tail += value
        else:
            directory += value.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", start) + pixels + directory + bytes(4) + tail


def grey_tiff(
    array: np.ndarray[Any, Any], *, more: Iterable[tuple[int, int, int, bytes]] = (),
    height: int | None = None,
) -> bytes:  # fmt: skip
    """An uncompressed greyscale TIFF of any number type; `height` may lie."""
    rows, columns = array.shape
    pixels = array.tobytes()
    sample = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]

    def number(tag: int, value: int) -> tuple[int, int, int, bytes]:
        return tag, 4, 1, struct.pack("<I", value)

    return tiff(
        [
            number(256, columns), number(257, height or rows), number(258, array.itemsize * 8),
            number(259, 1), number(262, 1), number(273, 8), number(277, 1), number(278, rows),
            number(279, len(pixels)), number(339, sample), *more,
        ],
        pixels,
    )  # fmt: skip


def exif_bytes(orientation: int, order: str = "<") -> bytes:
    """An EXIF block that says nothing but the orientation."""
    value = struct.pack(order + "H", orientation)
    return b"Exif\0\0" + tiff([(0x0112, 3, 1, value)], order=order)


def jpeg_sized(data: bytes, width: int, height: int) -> bytes:
    """The same JPEG with other dimensions in its header."""
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def png_sized(data: bytes, width: int, height: int) -> bytes:
    """The same PNG with other dimensions in its header, the checksum put right."""
    header = chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29])
    return data[:8] + header + data[33:]


def gif_of_frames(picture: Image.Image, frames: int) -> bytes:
    """An animated GIF that shows the same picture `frames` times."""
    data = encoded(picture, "GIF")
    start = data.index(b",\0\0\0\0")
    return data[:start] + data[start:-1] * frames + b";"


def webp_canvas(width: int, height: int, rest: bytes = b"") -> bytes:
    """An extended WebP header of this canvas."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sides + rest
    return b"RIFF" + struct.pack("<I", len(body)) + body


def zero_bomb(width: int, height: int) -> bytes:
    """A real PNG of nothing but zeros: 169 megapixels in 164 kB."""
    packer = zlib.compressobj(1)
    row = bytes(1 + width)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    return png(width, height, packed, colour=0)


SVG = (
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    b'<script>alert(1)</script><image href="file:///etc/passwd"/></svg>\n'
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file showpage\n"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
WMF = b"\xd7\xcd\xc6\x9a" + bytes(18) + struct.pack("<HHHIHIH", 1, 9, 0x300, 12, 0, 3, 0)
FITS = b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800)
ZIP = b"PK\x05\x06" + bytes(18)


# -- the folder --------------------------------------------------------------------------


def make_hostile_folder(folder: str | bytes, seed: int) -> dict[bytes, str]:
    """Fill an empty folder; returns what must become of each file, by its relative path.

    The value is INDEXED, SKIPPED, FAILED, UNSEEN or a Reason code. An unreadable file and
    folder are among them unless everything is readable, as it is for root.
    """
    maker = Maker(os.fsencode(folder), random.Random(seed))
    for part in (
        _formats, _strange_but_good, _names, _twins, _dates, _other_types, _texts, _sounds,
        _hidden, _wrong_names, _truncated, _over_budget, _lies, _junk, _not_regular, _forbidden,
    ):  # fmt: skip
        part(maker)
    return maker.expected


class Maker:
    """Writes files below a root and remembers what is expected of them."""

    def __init__(self, root: bytes, choose: random.Random) -> None:
        self.root = root
        self.choose = choose
        self.expected: dict[bytes, str] = {}
        self.hears = Modality.AUDIO in open_encoder("builtin").modalities
        self._seeds = iter(range(choose.randrange(10**6), 10**9))

    def picture(self, width: int = 96, height: int = 72) -> Image.Image:
        """A photo that no other file shows."""
        return photo(width, height, next(self._seeds))

    def path(self, name: str | bytes) -> bytes:
        """Where a name is on the disk, its folder made."""
        path = os.path.join(self.root, os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def put(self, name: str | bytes, data: bytes, becomes: str) -> bytes:
        """Write one file."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data)
        self.expected[os.fsencode(name)] = str(becomes)
        return path

    def jpeg(self, name: str | bytes, becomes: str = INDEXED) -> bytes:
        """Write a good photo under this name."""
        return self.put(name, encoded(self.picture(), "JPEG"), becomes)


def _formats(make: Maker) -> None:
    for name, data in files_of_each_format(make.picture()).items():
        make.put(f"formats/{name}", data, INDEXED)
    if not HAS_HEIF:
        make.put("formats/still.heic", HEIC, SKIPPED)
    for number in range(20):
        make.jpeg(f"photos/{number:03}.jpg")


def _strange_but_good(make: Maker) -> None:
    """Rows 41 to 45: odd pictures that are pictures all the same."""
    picture, others = make.picture(), [make.picture() for _ in range(40)]
    many = {"save_all": True, "append_images": others}
    packed = zlib.compress(bytes(1 << 24), 9) * 4
    bomb = chunk(b"zTXt", b"a\0\0" + packed) + chunk(b"iCCP", b"a\0\0" + packed)
    bomb += chunk(b"iTXt", b"a\0\1\0\0\0" + packed)
    grey = np.asarray(make.picture().convert("L"))
    text = b"a long story " * 100_000
    for name, data in {
        "ten-thousand-frames.gif": gif_of_frames(make.picture(24, 18), 10_000),
        "animated.png": encoded(make.picture(), "PNG", **many),
        "animated.webp": encoded(make.picture(), "WEBP", **many),
        "pages.tif": encoded(make.picture(), "TIFF", **many),
        "two-in-one.jpg": encoded(make.picture(), "MPO", **many),
        "bombs-before.png": png(96, 72, zlib.compress(png_rows(picture)), before=bomb),
        "bombs-after.png": png(96, 72, zlib.compress(png_rows(make.picture())), after=bomb),
        "huge-profile.jpg": encoded(make.picture(), "JPEG", icc_profile=bytes(3 << 20)),
        "huge-profile.png": encoded(make.picture(), "PNG", icc_profile=bytes(3 << 20)),
        "huge-tag.tif": grey_tiff(grey, more=[(270, 2, len(text), text)]),
        "float.tif": grey_tiff(np.asarray(make.picture().convert("L")).astype(np.float32) / 255),
        "signed.tif": grey_tiff(np.asarray(make.picture().convert("L")).astype(np.int32) - 99),
        "not-a-number.tif": grey_tiff(np.full((40, 50), np.nan, np.float32)),
        "la.png": encoded(make.picture().convert("LA"), "PNG"),
        "rgba.png": encoded(see_through(make.picture()), "PNG"),
        "palette-and-alpha.png": encoded(make.picture().quantize(64), "PNG", transparency=7),
        "one-pixel.png": encoded(make.picture(1, 1), "PNG"),
        "one-pixel.gif": encoded(make.picture(1, 1), "GIF"),
        "tall.png": encoded(make.picture(1, 30_000), "PNG"),
        "wide.jpg": encoded(make.picture(30_000, 1), "JPEG"),
        "all-black.png": encoded(Image.new("RGB", (90, 70)), "PNG"),
        "all-grey.jpg": encoded(Image.new("RGB", (90, 70), (128, 128, 128)), "JPEG"),
        "no-end.png": encoded(make.picture(), "PNG")[:-12],
        "junk-behind.jpg": encoded(make.picture(), "JPEG") + bytes(5000) + b"junk" * 500,
    }.items():
        make.put(f"strange/{name}", data, INDEXED)
    for orientation in range(10):
        data = encoded(make.picture(), "JPEG", exif=exif_bytes(orientation))
        make.put(f"strange/turned-{orientation}.jpg", data, INDEXED)
    for number, exif in enumerate(
        (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 60_000, exif_bytes(6)[:-9])
    ):
        data = encoded(make.picture(), "JPEG", exif=exif)
        make.put(f"strange/bad-exif-{number}.jpg", data, INDEXED)


def _names(make: Maker) -> None:
    """Rows 32 and 33: a name is any bytes but NUL and slash."""
    for name in (
        b"caf\xe9 latin-1.jpg", b"\xff\xfe\x80.jpg", b"new\nline.jpg", b"\x1b[31mred\x1b[0m.jpg",
        b"tab\tand\rreturn.jpg", b"\x01\x02\x7f.jpg", b"'quote'.jpg", b'"quotes".jpg',
        b"back\\slash.jpg",
        b"-rf", b"--help.jpg", b" space .jpg", b"*?[a-z]{}.jpg", b"$(reboot).jpg",
        b"%s%n%x.jpg", b"'; DROP TABLE files; --.jpg", b"<script>alert(1)</script>.jpg", b"~.jpg",
        b"x.jpg.", b"con.jpg", b"a.b.c.JPG", b"no suffix at all",
        "gpj.\u202efdp.jpg".encode(), "zero\u200bwidth.jpg".encode(), "\u732b\u72d7.jpg".encode(),
        "\U0001f408.jpg".encode(), "e\u0301.jpg".encode(), "\u00e9.jpg".encode(),
        b"\xed\xa0\x80surrogate.jpg", b"n" * 251 + b".jpg", b"\xf0\x9f\x90\x88" * 62 + b".jpg",
    ):  # fmt: skip
        make.jpeg(b"names/" + name)
    make.jpeg(b"names/folder \xff\n\x1b/in a strange folder.jpg")
    make.jpeg("names/" + "deep/" * 200 + "down.jpg")
    for name in (
        b"bad \xff.jpg",
        b"bad \xfe.jpg",
        b"bad\n\x1b[2J.jpg",
        "bad \u202egpj.jpg".encode(),
    ):
        make.put(b"names/" + name, b"no picture", Reason.TYPE_MISMATCH)


def _twins(make: Maker) -> None:
    """Row 36: hard links, copies, and names that differ in case alone."""
    first = make.jpeg("twins/one.jpg")
    for name in ("twins/hard-link.jpg", "twins/below/hard-link-too.jpg"):
        os.link(first, make.path(name))
        make.expected[name.encode()] = INDEXED
    with open(first, "rb") as file:
        data = file.read()
    for name in ("copy.jpg", "COPY.JPG", "copy.JPG", "copy named as a text.txt"):
        make.put(f"twins/{name}", data, INDEXED)
    make.jpeg("twins/ONE.jpg")
    bad = make.put("twins/bad.jpg", data[:500], Reason.TRUNCATED)
    os.link(bad, make.path("twins/bad-link.jpg"))
    make.expected[b"twins/bad-link.jpg"] = str(Reason.TRUNCATED)


def _dates(make: Maker) -> None:
    """Row 27: dates before 1970, at 0, and far ahead."""
    for name, seconds in {"zero": 0, "negative": -2_000_000_000, "future": 15_000_000_000}.items():
        path = make.jpeg(f"dates/{name}.jpg")
        os.utime(path, (seconds, seconds))


def _other_types(make: Maker) -> None:
    """Row 44: what is none of the three and does not say it were is counted and left."""
    for name, data in {
        "empty": b"", "page.html": b"<html><body>no</body></html>", "drawing.svg": SVG,
        "drawing.eps": EPS, "paper.pdf": PDF, "old.wmf": WMF, "stars.fits": FITS, "pack.zip": ZIP,
        "film.mp4": b"\0\0\0\x18ftypmp42" + bytes(40), "program": b"\x7fELF" + bytes(99),
        "camera.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "icon.ico": b"\0\0\1\0" + bytes(99),
        "photoshop.psd": b"8BPS\0\1" + bytes(99), "list.csv": b"P6,1,2\nP5,3,4\n",
        ".jpg.d/notes": b"hidden", "random.bin": bytes(range(256)),
    }.items():  # fmt: skip
        make.put(f"other/{name}", data, UNSEEN if name.startswith(".") else SKIPPED)
    film = b"OggS\0\2" + bytes(22) + b"\x80theora" + bytes(99)
    make.put("other/film.ogv", film, SKIPPED)
    sparse(make.path("other/disk.img"), b"")
    make.expected[b"other/disk.img"] = SKIPPED


def _texts(make: Maker) -> None:
    """Row 53: a text is what says so in its name and has words; nothing else is asked of it."""
    for name, data, becomes in (
        ("notes.txt", b"BM is not always a bitmap, nor P6 a pixmap.\n", INDEXED),
        ("notes.jpg.txt", b"a text", INDEXED),
        ("marked.md", codecs.BOM_UTF8 + b"# A heading\n\n*some* words", INDEXED),
        ("wide.txt", codecs.BOM_UTF16_LE + "wide words".encode("utf-16-le"), INDEXED),
        ("latin.txt", "V\u00f6gel im Gr\u00fcnen, die singen".encode("latin-1"), INDEXED),
        ("nuls.txt", b"a few\0words and more of them", INDEXED),
        ("plain.txt", b"words " * 20, INDEXED),
        ("empty.txt", b"", Reason.EMPTY),
        ("blank.md", b" \n\n\t\n" * 99, Reason.EMPTY),
        ("binary.txt", bytes(range(256)) * 20, Reason.TYPE_MISMATCH),
        ("unmarked.txt", "wide words".encode("utf-16-le"), Reason.TYPE_MISMATCH),
    ):
        make.put(f"texts/{name}", data, becomes)
    sparse(make.path("texts/sparse.txt"), b"words")
    make.expected[b"texts/sparse.txt"] = str(Reason.TOO_LARGE)


def _sounds(make: Maker) -> None:
    """Rows 48 to 52, where the model has a tower for sounds; else they are skipped."""
    sound = tones(0.5, 44_100, 2)
    wav, flac = (encoded_sound(sound, 44_100, kind, "PCM_16") for kind in ("WAV", "FLAC"))
    ogg = encoded_sound(sound, 44_100, "OGG", "VORBIS")
    mp3 = encoded_sound(sound, 44_100, "MP3", "MPEG_LAYER_III")
    loud, odd = sound.copy(), sound.copy()
    loud[-1], odd[-1] = 1e30, np.nan
    for name, data, becomes in (
        ("good.wav", wav, INDEXED), ("good.flac", flac, INDEXED), ("good.ogg", ogg, INDEXED),
        ("good.mp3", mp3, INDEXED),
        ("cut.wav", wav[:-99], Reason.TRUNCATED), ("cut.flac", flac[:-99], Reason.TRUNCATED),
        ("cut.ogg", ogg[:-99], Reason.TRUNCATED), ("cut.mp3", mp3[:5000], Reason.TRUNCATED),
        ("loud.wav", encoded_sound(loud, 44_100, "WAV", "FLOAT"), Reason.NONFINITE),
        ("odd.wav", encoded_sound(odd, 44_100, "WAV", "FLOAT"), Reason.NONFINITE),
        ("slow.wav", encoded_sound(sound, 8, "WAV", "PCM_16"), Reason.OVER_BUDGET),
        ("silent.wav", encoded_sound(sound * 0, 44_100, "WAV", "PCM_16"), Reason.SILENT),
        ("none.wav", encoded_sound(sound[:0], 44_100, "WAV", "PCM_16"), Reason.EMPTY),
        ("empty.ogg", b"", Reason.EMPTY), ("page.wav", b"<html>", Reason.TYPE_MISMATCH),
        ("list.mp3", b"#EXTM3U\nfile:///etc/passwd\n", Reason.TYPE_MISMATCH),
        ("song.mp3", b"ID3\4" + bytes(60), FAILED),
        ("sound.wav", b"RIFF\x24\0\0\0WAVEfmt " + bytes(24), FAILED),
        ("junk.flac", b"fLaC" + make.choose.randbytes(3000), FAILED),
        ("junk.ogg", ogg[:200] + make.choose.randbytes(3000), FAILED),
    ):  # fmt: skip
        make.put(f"sounds/{name}", data, becomes if make.hears else SKIPPED)
    sparse(make.path("sounds/sparse.flac"), flac)
    make.expected[b"sounds/sparse.flac"] = str(Reason.TOO_LARGE) if make.hears else SKIPPED


def _hidden(make: Maker) -> None:
    """Hidden names and machines' folders are not even counted."""
    for name in (
        ".hidden.jpg", "._resource-fork.jpg", ".trash/photo.jpg", ".git/photo.jpg",
        "@eaDir/thumb.jpg", "node_modules/pkg/logo.jpg", "below/.hidden.jpg",
        "below/@eaDir/x/y.jpg",
    ):  # fmt: skip
        make.jpeg(f"hidden/{name}", UNSEEN)
    make.put("hidden/.broken.jpg", b"broken", UNSEEN)
    make.jpeg("hidden/seen.jpg")


def _wrong_names(make: Maker) -> None:
    """Row 35: content decides, and a picture's suffix on anything else is an error."""
    for suffix in ("jpg", "JPEG", "png", "webp", "gif", "bmp", "tif", "avif", "heic", "ppm"):
        make.put(f"wrong/empty.{suffix}", b"", Reason.EMPTY)
        make.put(f"wrong/text.{suffix}", b"I am a text.\n", Reason.TYPE_MISMATCH)
    for number, data in enumerate((SVG, EPS, PDF, WMF, FITS, ZIP, bytes(5000), b"\xff\xd8", b"B")):
        suffix = ("jpg", "png", "webp")[number % 3]
        make.put(f"wrong/other-{number}.{suffix}", data, Reason.TYPE_MISMATCH)
    make.put("wrong/png.jpg", encoded(make.picture(), "PNG"), INDEXED)
    make.put("wrong/webp.gif", encoded(make.picture(), "WEBP"), INDEXED)
    make.put("wrong/gif.png", encoded(make.picture(), "GIF"), INDEXED)
    for name in ("jpeg.txt", "jpeg.pdf", "jpeg", "jpeg.exe", "jpeg.svg"):
        make.jpeg(f"wrong/{name}")


def _truncated(make: Maker) -> None:
    """Row 39: cut anywhere, in any format."""
    for name, data in files_of_each_format(make.picture()).items():
        stem, suffix = name.split(".")
        for _ in range(2):
            length = make.choose.randrange(80, len(data) - 30)
            cut = f"truncated/{stem}-{length}.{suffix}"
            make.put(cut, data[:length], Reason.TRUNCATED)
    large = encoded(make.picture(900, 700), "JPEG", progressive=True)
    make.put("truncated/large.jpg", large[: len(large) // 2], Reason.TRUNCATED)


def _over_budget(make: Maker) -> None:
    """Rows 38 and 40: refused by what the header or the file system says."""
    jpeg, gif = encoded(make.picture(), "JPEG"), encoded(make.picture(), "GIF")
    progressive = encoded(make.picture(), "JPEG", progressive=True)
    bmp = encoded(make.picture(), "BMP")
    for name, data in {
        "bomb.png": zero_bomb(13_000, 13_000),
        "50k.png": png(50_000, 50_000, zlib.compress(bytes(1 << 20))),
        "long.png": png(1_000_000, 90, zlib.compress(bytes(1 << 20))),
        "64k.jpg": jpeg_sized(jpeg, 65_500, 65_500),
        "progressive.jpg": jpeg_sized(progressive, 30_000, 30_000),
        "screen.gif": gif[:6] + b"\xff" * 4 + gif[10:],
        "canvas.webp": webp_canvas(16_384, 16_384),
        "70k.bmp": bmp[:18] + struct.pack("<ii", 70_000, 70_000) + bmp[26:],
        "100k.ppm": b"P6 100000 100000 255\n" + bytes(500),
        "strips.tif": grey_tiff(np.zeros((2, 2), np.uint8), height=2**31),
    }.items():
        make.put(f"large/{name}", data, Reason.OVER_BUDGET)
    sparse(make.path("large/sparse.jpg"), jpeg)
    make.expected[b"large/sparse.jpg"] = str(Reason.TOO_LARGE)


def _lies(make: Maker) -> None:
    """Rows 41 and 45: headers that promise what does not come, or nothing."""
    jpeg, image = encoded(make.picture(), "JPEG"), encoded(make.picture(), "PNG")
    gif, bmp = encoded(make.picture(), "GIF"), encoded(make.picture(), "BMP")
    frame = gif.index(b",\0\0\0\0") + 5
    flipped = bytearray(image)
    flipped[len(image) // 2] ^= 1
    grey = np.asarray(make.picture().convert("L"))
    for name, data, becomes in (
        ("taller.jpg", jpeg_sized(jpeg, 96, 144), Reason.TRUNCATED),
        ("taller.png", png_sized(image, 96, 144), Reason.TRUNCATED),
        ("taller.tif", grey_tiff(grey, height=144), Reason.TRUNCATED),
        ("ended.jpg", jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9", Reason.TRUNCATED),
        ("larger-frame.gif", gif[:frame] + b"\xff" * 4 + gif[frame + 4 :], Reason.OVER_BUDGET),
        ("flipped-bit.png", bytes(flipped), Reason.CORRUPT),
        ("0xn.png", png(0, 100, b""), Reason.CORRUPT),
        ("nx0.png", png(100, 0, b""), Reason.CORRUPT),
        ("0xn.jpg", jpeg_sized(jpeg, 96, 0), Reason.CORRUPT),
        ("0xn.ppm", b"P6 0 100 255\n", Reason.CORRUPT),
        ("0xn.bmp", bmp[:18] + bytes(8) + bmp[26:], Reason.CORRUPT),
        ("0xn.gif", b"GIF89a" + bytes(7) + b";", Reason.CORRUPT),
        ("no-pixels.tif", tiff([]), FAILED),
        ("endless-tag.tif", tiff([(256, 4, 2**32 - 1, b"\xff" * 4)]), FAILED),
        ("loop.tif", b"II*\0\x08\0\0\0" + bytes(2) + struct.pack("<I", 8), FAILED),
    ):
        make.put(f"lies/{name}", data, becomes)


def _junk(make: Maker) -> None:
    """Random bytes behind each magic: named, with whichever code fits."""
    for name, magic in {
        "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0", "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "gif": b"GIF89a", "bmp": b"BM" + bytes(12) + b"\x28\0\0\0", "tif": b"II*\0\x08\0\0\0",
        "webp": b"RIFF\xff\xff\0\0WEBPVP8 ", "ppm": b"P6 90 90 255 ", "tiff": b"MM\0+\0\x08\0\0",
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf",
    }.items():  # fmt: skip
        for number in range(3):
            data = magic + make.choose.randbytes(make.choose.randrange(100, 3000))
            make.put(f"junk/{number}.{name}", data, FAILED)


def _not_regular(make: Maker) -> None:
    """Rows 29 and 30: links are not followed, and what is no file is not opened."""
    outside = make.root + b"-outside"
    os.makedirs(outside, exist_ok=True)
    with open(os.path.join(outside, b"secret.jpg"), "wb") as file:
        file.write(encoded(make.picture(), "JPEG"))
    inside = make.jpeg("links/target.jpg")
    for name, target in {
        "to-file.jpg": inside, "to-zero.jpg": b"/dev/zero", "broken.jpg": b"nowhere.jpg",
        "to-itself.jpg": b"to-itself.jpg", "out.jpg": os.path.join(outside, b"secret.jpg"),
        "out": outside, "up": b"..", "loop": b".", "root": b"/", "to-fifo.jpg": b"fifo.jpg",
    }.items():  # fmt: skip
        os.symlink(target, make.path(f"links/{name}"))
        make.expected[f"links/{name}".encode()] = SKIPPED
    os.mkfifo(make.path("links/fifo.jpg"))
    make.expected[b"links/fifo.jpg"] = SKIPPED
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(os.path.dirname(make.path("links/socket.jpg")), os.O_RDONLY)
        try:  # a socket's path is 107 bytes at most; a temporary folder's may be longer
            listener.bind(f"/proc/self/fd/{here}/socket.jpg")
            make.expected[b"links/socket.jpg"] = SKIPPED
        except OSError:  # no /proc, no socket
            pass
        finally:
            os.close(here)


def _forbidden(make: Maker) -> None:
    """Row 31: a file and a folder that may not be read, unless everything may, as for root."""
    path = make.jpeg("forbidden/file.jpg")
    os.chmod(path, 0)
    try:
        with open(path, "rb"):
            return
    except PermissionError:
        make.expected[b"forbidden/file.jpg"] = str(Reason.UNREADABLE)
    make.jpeg("forbidden/folder/inside.jpg", UNSEEN)
    os.chmod(make.path("forbidden/folder"), 0)
    make.expected[b"forbidden/folder"] = str(Reason.UNREADABLE)


def sparse(path: bytes, head: bytes) -> None:
    """A file of a terabyte that takes a few blocks of the disk, or of 8 GB where it must."""
    for size in (1 << 40, 1 << 33):
        try:
            with open(path, "wb") as file:
                file.write(head)
                file.truncate(size)
            return
        except OSError:
            continue
    raise OSError(f"no sparse files here: {path!r}")


# -- running the program -----------------------------------------------------------------


def as_a_person() -> None:
    """For a program about to start: give up that root may read anything."""
    if os.geteuid() == 0 and sys.platform == "linux":
        drop_from_bounding_set, override, read_search = 24, 1, 2
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def exact_path(row: dict[str, str]) -> bytes:
    """The path in a row of the program's JSON, to the byte."""
    coded = row.get("path_bytes")
    return base64.b64decode(coded) if coded else row["path"].encode()


def package_environment() -> dict[str, str]:
    """The environment with this checkout's package first to be imported."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(mmsearch.__file__)))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
