"""What SQLite cannot say, as functions of ours. Another database has its own words.

Paths are BLOBs, as file names are bytes. SQLite's GLOB and LIKE read a BLOB as UTF-8, take
what is not UTF-8 for other characters, and give `[` a meaning of its own; hence `like`. Its
small letters are those of ASCII, its sines and cosines a choice of whoever built it, and the
clocks of time zones none of its business.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache

_EARTH = 6371.0088  # km, its mean radius (IUGG, Geodetic Reference System 1980)
_EPOCH = datetime(1970, 1, 1)


def register(connection: sqlite3.Connection) -> None:
    """Make the functions known to a connection, as `mmsearch_like` and so on."""
    for function, arguments in ((like, 2), (extension, 1), (lower, 1), (moment, 1), (distance, 4)):
        name = f"mmsearch_{function.__name__}"
        connection.create_function(name, arguments, function, deterministic=True)


def like(pattern: bytes | str, text: bytes | str | None) -> bool | None:
    """Whether a text fits: * stands for anything, ? for one character or byte that is none."""
    return None if text is None else bool(_compiled(pattern)(_decoded(text)))


def extension(name: bytes) -> str:
    """What follows the last dot of a name, in small letters; a first dot is not one."""
    return os.path.splitext(name)[1][1:].decode("utf-8", "replace").lower()


def lower(text: str | None) -> str | None:
    """The text in small letters, those of any script."""
    return None if text is None else text.lower()


def moment(wall_clock: int | None) -> int | None:
    """The moment at which a clock here shows what another showed, both in nanoseconds since 1970.

    The first such moment where the clock was put back, and the one an hour later where it
    was put forward.
    """
    if wall_clock is None:
        return None
    seconds, rest = divmod(wall_clock, 10**9)
    return int((_EPOCH + timedelta(seconds=seconds)).timestamp()) * 10**9 + rest


def distance(
    north: float | None, east: float | None, other_north: float | None, other_east: float | None
) -> float | None:
    """Kilometres between two places in degrees, along the great circle (haversine formula)."""
    if north is None or east is None or other_north is None or other_east is None:
        return None
    here, there = math.radians(north), math.radians(other_north)
    half = math.sin((there - here) / 2) ** 2
    half += math.cos(here) * math.cos(there) * math.sin(math.radians(other_east - east) / 2) ** 2
    return 2 * _EARTH * math.asin(math.sqrt(min(half, 1.0)))


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
