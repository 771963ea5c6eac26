"""ID3: the few wanted frames of a tag, for libsndfile reads it in an MP3 and not in a WAV.

M. Nilsson, ID3 tag version 2.3.0 and 2.4.0 (id3.org).
"""

from __future__ import annotations

import struct

_NAMES = {
    b"TIT2": "title", b"TPE1": "artist", b"TALB": "album", b"TCON": "genre", b"COMM": "comment",
    b"TDRC": "date", b"TYER": "date",
}  # fmt: skip
_ENCODINGS = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}


def read(tag: bytes) -> dict[str, str]:
    """The first text of each kind; what is damaged, packed or encrypted is left out."""
    found: dict[str, str] = {}
    if len(tag) < 10 or tag[:3] != b"ID3" or tag[3] not in (3, 4) or tag[5] & 0xC0:
        return found  # with a second header, or escapes within: rare, and no WAV has a need of it
    at = 10
    while at + 10 <= len(tag) and tag[at]:
        name, size, flags = struct.unpack_from(">4sIxB", tag, at)
        if tag[3] == 4:  # four times seven bits
            size = sum((size >> 8 * n & 0x7F) << 7 * n for n in range(4))
        data = tag[at + 10 : at + 10 + size]
        if name in _NAMES and data and not flags:
            found.setdefault(_NAMES[name], _text(name, data))
        at += 10 + size
    return found


def _text(name: bytes, data: bytes) -> str:
    text = data[1:] if name != b"COMM" else data[4:]  # after its language
    said = text.decode(_ENCODINGS.get(data[0], "latin-1"), "ignore")
    # a comment comes after a heading, and of several texts the first counts
    parts = said.split("\0")
    return parts[1] if name == b"COMM" and len(parts) > 1 else parts[0]
