"""Where a picture's file keeps EXIF, IPTC, XMP and texts: the blocks, not yet read.

Only AVIF and HEIF are opened by their decoders, which find them in boxes within boxes; in any
other file the way to a block is short. No more than a megabyte of each is read.
"""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from mmsearch.loaders import exif, iptc, riff
from mmsearch.loaders.formats import plugin

_MOST = 1 << 20  # bytes of a block
_STEPS = 100_000  # segments or chunks that are passed on the way
_EXIF_HEAD = b"Exif\0\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP_HEAD = b"Photoshop 3.0\0"


@dataclass(slots=True)
class Blocks:
    """What was found; empty where nothing was. `texts` are a PNG's, by keyword."""

    exif: exif.Tags = field(default_factory=dict)
    iptc: bytes = b""
    xmp: bytes = b""
    texts: dict[str, bytes] = field(default_factory=dict)


def find(file: BinaryIO, format: str) -> Blocks:
    """The blocks of a picture; what is damaged is left out."""
    match format:
        case "JPEG":
            return _jpeg(file)
        case "PNG":
            return _png(file)
        case "TIFF":
            return _tiff(file)
        case "WEBP":
            return _webp(file)
        case "AVIF" | "HEIF":
            return _decoded(file, format)
        case _:
            return Blocks()


def _exif(data: bytes) -> exif.Tags:
    return exif.read(io.BytesIO(data.removeprefix(_EXIF_HEAD)))


def _tiff(file: BinaryIO) -> Blocks:
    tags = exif.read(file)
    return Blocks(tags, exif.text(tags, exif.IPTC), exif.text(tags, exif.XMP))


def _jpeg(file: BinaryIO) -> Blocks:
    found, photoshop, at = Blocks(), b"", 2
    for _ in range(_STEPS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
            break  # the picture begins, or all is over
        if head[1] == 0xFF:  # padding
            at += 1
            continue
        size = max(int.from_bytes(head[2:], "big"), 2)
        body = file.read(size - 2) if head[1] in (0xE1, 0xED) else b""
        if body.startswith(_EXIF_HEAD):
            found.exif = found.exif or _exif(body)
        elif body.startswith(_XMP_HEAD):
            found.xmp = found.xmp or body.removeprefix(_XMP_HEAD)
        elif body.startswith(_PHOTOSHOP_HEAD) and len(photoshop) < _MOST:
            photoshop += body.removeprefix(_PHOTOSHOP_HEAD)  # one block in several segments
        at += 2 + size
    found.iptc = iptc.resource(photoshop)
    return found


def _png(file: BinaryIO) -> Blocks:
    found, at = Blocks(), 8
    for _ in range(_STEPS):
        file.seek(at)
        head = file.read(8)
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or kind == b"IEND":
            break
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and size <= _MOST:
            data = file.read(size)
            if kind == b"eXIf":
                found.exif = _exif(data)
            elif len(found.texts) < 100:
                keyword, _, rest = data.partition(b"\0")
                found.texts.setdefault(keyword.decode("latin-1"), _png_text(kind, rest))
        at += 12 + size
    found.xmp = found.texts.pop("XML:com.adobe.xmp", b"")
    return found


def _png_text(kind: bytes, data: bytes) -> bytes:
    """What follows the keyword in a chunk of text, unpacked."""
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        data = data[1:]  # after the method
    elif kind == b"iTXt":
        packed = data[:1] == b"\1"
        *_, data = data[2:].split(b"\0", 2)  # after the language and the translated keyword
    if packed:
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(data, _MOST)
        return b""
    return data


def _webp(file: BinaryIO) -> Blocks:
    found = Blocks()
    for name, data in riff.chunks(file, frozenset({b"EXIF", b"XMP "}), _MOST):
        if name == b"EXIF":
            found.exif = _exif(data)
        else:
            found.xmp = data
    return found


def _decoded(file: BinaryIO, format: str) -> Blocks:
    """What the decoder found when it opened the file; the picture is not decoded."""
    try:
        file.seek(0)
        with plugin(format)(file) as picture:
            found = {name: picture.info.get(name) or b"" for name in ("exif", "xmp")}
    except Exception:  # its decoders raise whatever they like
        return Blocks()
    return Blocks(_exif(found["exif"]), xmp=found["xmp"])
