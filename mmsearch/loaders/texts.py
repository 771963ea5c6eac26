"""One text file in; passages of a few hundred characters out, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

MAX_MEGABYTES = 16.0


def passages(file: BinaryIO, *, max_megabytes: float = MAX_MEGABYTES) -> Iterator[str]:
    """The passages of a text, streamed. `file` is open at its beginning.

    Raises LoadError for whatever is wrong with it, at the latest after the last passage.
    """
    raise NotImplementedError
    yield
