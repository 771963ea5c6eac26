"""What goes through pipes and sockets: frames of JSON with raw bytes behind, and numbers."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

NUMBER = struct.Struct("<i")  # a pid, or a status as os.waitpid gives it
_FRAME = struct.Struct("<II")  # bytes of JSON, bytes of data
_LARGEST = 1 << 26  # bytes of JSON or of data; a worker that claims more talks nonsense


def send(pipe: IO[bytes], head: dict[str, Any], data: bytes | memoryview = b"") -> None:
    """Write one frame."""
    text = json.dumps(head).encode("ascii")
    pipe.write(_FRAME.pack(len(text), len(data)) + text)
    if data:
        pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """One frame. Raises EOFError when the other side is gone, ValueError when it lies."""
    sizes = _exactly(pipe, _FRAME.size)
    text_size, data_size = _FRAME.unpack(sizes)
    if max(text_size, data_size) > _LARGEST:
        raise ValueError("no frame is this large")
    return json.loads(_exactly(pipe, text_size)), _exactly(pipe, data_size)


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
