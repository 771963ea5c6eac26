"""PNG: the chunks that make the first picture, and pictures that lack rows."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from mmsearch.errors import LoadError
from mmsearch.records import Reason

_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf"})
# An interlaced PNG's passes: first column, first row, and the steps between.
_ADAM7 = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def essentials(content: bytes) -> bytes:
    """The chunks that make the first picture, their checksums verified.

    Pillow checks no checksum of picture data, and would unpack text and profiles that
    nobody asked for, up to 64 MB of them. What follows the picture data may be cut off.
    """
    view = memoryview(content)
    kept: list[bytes | memoryview] = [view[:8]]
    at, pictured = 8, False
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content) or kind == b"IEND":
            break
        if kind in _CHUNKS:
            intact = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end])
            if intact:
                kept.append(view[at:end])
            elif kind != b"eXIf":
                raise LoadError(Reason.CORRUPT, f"PNG chunk {kind.decode()} fails its checksum")
        pictured = pictured or kind == b"IDAT"
        at = end
    if not pictured:
        raise LoadError(Reason.TRUNCATED, "the file ends before its picture does")
    # The EXIF chunk may come last; Pillow looks for it where the picture begins.
    kept[2:] = sorted(kept[2:], key=lambda chunk: chunk[4:8] == b"IDAT")
    return b"".join([*kept, _END])


def check_length(picture: Image.Image, content: bytes) -> None:
    """Refuse a PNG whose data unpacks to fewer rows than its header promises.

    Pillow leaves the missing rows black. Counting means unpacking twice, so it is done
    only when the last pixel is black, or for interlaced pictures, sent in seven passes.
    """
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">2I5B", content, 16)
    last = picture.getpixel((width - 1, height - 1))
    if not interlaced and any(last if isinstance(last, tuple) else (last,)):
        return
    bits *= {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    promised = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        promised += rows * (1 + (columns * bits + 7) // 8) if columns > 0 else 0
    unpacker, at = zlib.decompressobj(), 8
    while at < len(content) and promised > 0:
        length, kind = struct.unpack_from(">I4s", content, at)
        packed = content[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        while packed and promised > 0:
            promised -= len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
        at += 12 + length
    if promised > 0:
        raise LoadError(Reason.TRUNCATED, "the picture data ends before the picture does")
