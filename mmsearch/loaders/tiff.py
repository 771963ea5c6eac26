"""TIFF: how far its first directory reaches, and pictures that lack strips."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.errors import LoadError
from mmsearch.records import Reason

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_strips(picture: Any) -> None:
    """Refuse a TIFF that has fewer strips than its height needs: the rest stays black."""
    tags = picture.tag_v2
    height, offsets = tags[257], tags.get(273, ())
    if offsets and len(offsets) * tags.get(278, height) < height:
        raise LoadError(Reason.TRUNCATED, "fewer strips than the height of the picture needs")


def reach(content: bytes) -> int:
    """How far into the file the first directory of a classic TIFF points."""
    order = "<" if content[:2] == b"II" else ">"
    at: int = struct.unpack_from(order + "I", content.ljust(8, b"\xff"), 4)[0]
    if at + 2 > len(content):
        return at + 2
    entries: int = struct.unpack_from(order + "H", content, at)[0]
    end = at + 2 + 12 * entries
    tags: dict[int, NDArray[Any]] = {}
    for entry in range(at + 2, min(end, len(content) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHII", content, entry)
        length = count * {3: 2, 4: 4, 5: 8}.get(kind, 1)
        start = value if length > 4 else entry + 8
        end = max(end, start + length)
        if tag in (273, 279, 324, 325) and kind in (3, 4) and start + length <= len(content):
            width = order + ("u2" if kind == 3 else "u4")
            tags[tag] = np.frombuffer(content, width, count, start).astype(np.int64)
    for offsets, lengths in ((273, 279), (324, 325)):  # strips, tiles
        if offsets in tags and lengths in tags and len(tags[offsets]) == len(tags[lengths]):
            end = max(end, int((tags[offsets] + tags[lengths]).max(initial=0)))
    return end
