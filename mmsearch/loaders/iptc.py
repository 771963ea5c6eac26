"""IPTC: what news agencies say of a picture, and the resources of Photoshop that hold it.

IPTC-NAA Information Interchange Model, version 4.2; Adobe Photoshop File Formats Specification.
"""

from __future__ import annotations

import struct

KEYWORD, DATE, TIME, HEADLINE, CAPTION = 25, 55, 60, 105, 120  # data sets of record 2

_RESOURCE = 0x0404


def resource(photoshop: bytes) -> bytes:
    """The IPTC data among Photoshop's resources; empty when there is none."""
    at = 0
    while photoshop[at : at + 4] == b"8BIM" and len(photoshop) > at + 6:
        number = int.from_bytes(photoshop[at + 4 : at + 6], "big")
        name = 1 + photoshop[at + 6]  # its length goes before it, both padded to even
        at += 6 + name + name % 2
        size = int.from_bytes(photoshop[at : at + 4], "big")
        if number == _RESOURCE:
            return photoshop[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
    return b""


def read(data: bytes) -> dict[int, list[bytes]]:
    """The texts of record 2 by their data sets, in their order."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at + 5 <= len(data) and data[at] == 0x1C:
        record, number, size = struct.unpack_from(">BBH", data, at + 1)
        at += 5
        if size & 0x8000:  # then it is the size of the size, which follows
            width = min(size & 0x7FFF, 8)
            size, at = int.from_bytes(data[at : at + width], "big"), at + width
        if record == 2:
            found.setdefault(number, []).append(data[at : at + size])
        at += size
    return found
