"""EXIF: the few wanted tags of a TIFF structure, and no others.

Read here because a parser of all of it can be made to copy every value of a hostile file, and
those may overlap: 65,535 tags of 10 MB each. No value over a megabyte is read, and no pointer
followed but the two to the directories of EXIF and of the place, which lead no further.

CIPA DC-008-2019, Exchangeable image file format for digital still cameras; Adobe, TIFF 6.0.
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

MAX_VALUE = 1 << 20  # bytes

Value = bytes | tuple[float, ...]  # text or raw bytes, or numbers
Tags = dict[int, Value]

LATITUDE_SIDE, LATITUDE, LONGITUDE_SIDE, LONGITUDE = 1, 2, 3, 4
DESCRIPTION, MAKE, MODEL = 0x010E, 0x010F, 0x0110
XMP, IPTC = 0x02BC, 0x83BB
ISO, OUTPUT_SENSITIVITY, EXPOSURE_INDEX = 0x8827, 0x8831, 0x8832
TAKEN, FRACTION = 0x9003, 0x9291  # DateTimeOriginal and SubSecTimeOriginal
COMMENT, LENS = 0x9286, 0xA434
WINDOWS_TITLE, WINDOWS_COMMENT, WINDOWS_KEYWORDS = 0x9C9B, 0x9C9C, 0x9C9E

_DIRECTORIES = (0x8769, 0x8825)  # the pointers to those of EXIF and of the place
_PLACE = frozenset({LATITUDE_SIDE, LATITUDE, LONGITUDE_SIDE, LONGITUDE})
_WANTED = frozenset({
    DESCRIPTION, MAKE, MODEL, XMP, IPTC, ISO, OUTPUT_SENSITIVITY, EXPOSURE_INDEX, TAKEN, FRACTION,
    COMMENT, LENS, WINDOWS_TITLE, WINDOWS_COMMENT, WINDOWS_KEYWORDS, *_DIRECTORIES,
})  # fmt: skip
_RAW = frozenset({XMP, IPTC})  # bytes, whatever type they are given out as
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}  # bytes of each type that is read


def read(file: BinaryIO) -> Tags:
    """The wanted tags; what is damaged is left out."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(_bytes_at(file, 0, 4))
    if order is None:
        return {}
    found = _directory(file, order, _number(order, _bytes_at(file, 4, 4)), _WANTED)
    for pointer, wanted in zip(_DIRECTORIES, (_WANTED, _PLACE), strict=True):
        match found.pop(pointer, None):
            case (at,):
                found |= _directory(file, order, int(at), wanted)
    return found


def text(tags: Tags, tag: int) -> bytes:
    """A tag's bytes, none where it has numbers."""
    value = tags.get(tag)
    return value if isinstance(value, bytes) else b""


def numbers(tags: Tags, tag: int) -> tuple[float, ...]:
    """A tag's numbers, none where it has bytes."""
    value = tags.get(tag)
    return value if isinstance(value, tuple) else ()


def _directory(file: BinaryIO, order: str, at: int, wanted: frozenset[int]) -> Tags:
    """The wanted tags of the directory there, (tag, type, count, value or its place) each."""
    entries = _number(order, _bytes_at(file, at, 2))
    table = _bytes_at(file, at + 2, 12 * entries)
    found: Tags = {}
    for tag, kind, count, last in struct.iter_unpack(
        order + "HHI4s", table[: len(table) // 12 * 12]
    ):
        size = _SIZES.get(kind, 0) * count
        if tag in wanted and 0 < size <= MAX_VALUE:
            data = last[:size] if size <= 4 else _bytes_at(file, _number(order, last), size)
            if len(data) == size:
                found.setdefault(tag, _value(order, 7 if tag in _RAW else kind, data))
    return found


def _value(order: str, kind: int, data: bytes) -> Value:
    match kind:
        case 3:
            return struct.unpack(f"{order}{len(data) // 2}H", data)
        case 4:
            return struct.unpack(f"{order}{len(data) // 4}I", data)
        case 5:
            pairs = struct.iter_unpack(order + "II", data)
            return tuple(above / below if below else math.nan for above, below in pairs)
        case _:
            return data


def _number(order: str, data: bytes) -> int:
    return int.from_bytes(data, "little" if order == "<" else "big")


def _bytes_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
