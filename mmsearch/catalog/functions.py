"""What SQLite cannot say of paths, as functions of ours. Another database has its own words.

Paths are BLOBs, as file names are bytes. SQLite's GLOB and LIKE read a BLOB as UTF-8, take
what is not UTF-8 for other characters, and give `[` a meaning of its own; hence `like`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache


def register(connection: sqlite3.Connection) -> None:
    """Make `mmsearch_like` and `mmsearch_extension` known to a connection."""
    connection.create_function("mmsearch_like", 2, like, deterministic=True)
    connection.create_function("mmsearch_extension", 1, extension, deterministic=True)


def like(pattern: bytes | str, text: bytes | str | None) -> bool | None:
    """Whether a text fits: * stands for anything, ? for one character or byte that is none."""
    return None if text is None else bool(_compiled(pattern)(_decoded(text)))


def extension(name: bytes | None) -> str | None:
    """What follows the last dot of a name, in small letters; a first dot is not one."""
    if name is None:
        return None
    return os.path.splitext(name)[1][1:].decode("utf-8", "replace").lower()


def _decoded(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=256)
def _compiled(pattern: bytes | str) -> Callable[[str], re.Match[str] | None]:
    first, *rest = [
        "".join("." if char == "?" else re.escape(char) for char in piece)
        for piece in _decoded(pattern).split("*")
    ]
    if not rest:
        return re.compile(first, re.DOTALL).fullmatch
    # (?>...): where a piece first fits is as good as any later place, so never come back
    *middle, last = rest
    skips = "".join(f"(?>.*?{piece})" for piece in middle if piece)
    return re.compile(f"{first}{skips}.*{last}", re.DOTALL).fullmatch
