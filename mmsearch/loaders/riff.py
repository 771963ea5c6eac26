"""RIFF: the chunks that a WAV and a WebP are made of."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_MOST = 10_000  # chunks looked at


def chunks(file: BinaryIO, wanted: frozenset[bytes], most: int) -> Iterator[tuple[bytes, bytes]]:
    """(name, data) of the wanted chunks of at most so many bytes, in their order."""
    at = 12
    for _ in range(_MOST):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        name, size = struct.unpack("<4sI", head)
        if name in wanted and size <= most:
            yield name, file.read(size)
        at += 8 + size + size % 2
