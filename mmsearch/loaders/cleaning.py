"""Texts and dates that strangers wrote into files, made fit to keep."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from mmsearch.records import Caption

_LONGEST = 8192  # characters of a caption
_MOST = 16  # captions of a file
_EXAMINED = 1 << 16  # bytes, or characters, of a text that are looked at

# What cameras and programs write where a description would be.
_NO_CAPTION = re.compile(
    r"""\W* (?: (?:olympus|minolta|konica\ minolta|kodak|vivitar|samsung)?\ ?digital\ camera
      | sony\ dsc | minolta\ dsc | exif.jpeg.picture | samsung(?:\ camera\ pictures)? | dcim.*
      | oplus_\d+ | (?:created|made)\ (?:with|by|in|using)\ .* | lead\ technologies.*
      | image(?:\ title|\ description)? | untitled | default | none | null ) \W*""",
    re.VERBOSE | re.IGNORECASE,
)

# 2024:06:01 12:30:45 (EXIF), 2024-06-01T12:30:45.5+02:00 (XMP), 20240601 123045 (IPTC), 1997 (ID3)
_DATE = re.compile(
    r"""(\d{4}) (?: [:/.-]?(\d\d) (?: [:/.-]?(\d\d)
        (?: [T\ ]+(\d\d) :?(\d\d) (?: :?(\d\d) (?: \.(\d{1,9}) )? )? )? )? )?
        \s* (?: Z | [+-]\d\d:?\d\d )?""",
    re.VERBOSE | re.ASCII,
)
_YEARS = range(1700, 2201)  # as in filters: what nanoseconds in 64 bits can hold


def clean(text: bytes | str) -> str:
    """On one line, without control characters; what is not UTF-8 is Windows' Latin.

    Bytes end at a NUL. What is too long is cut.
    """
    said = text[:_EXAMINED] if isinstance(text, str) else _decoded(text[:_EXAMINED])
    said = said.replace("\ufffd", " ")  # what stands for a letter that somebody could not read
    words = "".join(char if char.isprintable() else " " for char in said).split()
    return " ".join(words)[:_LONGEST].strip()


def _decoded(data: bytes) -> str:
    text = data.partition(b"\0")[0]
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.start >= _EXAMINED - 4  # within a letter
        return text.decode("utf-8" if cut else "cp1252", "ignore")


def captions(said: Iterable[tuple[str, bytes | str]]) -> tuple[Caption, ...]:
    """Of (source, text) pairs those that say something, each text once."""
    found: dict[str, Caption] = {}
    for source, text in said:
        cleaned = clean(text)
        if any(map(str.isalpha, cleaned)) and not _NO_CAPTION.fullmatch(cleaned):
            found.setdefault(cleaned.casefold(), Caption(source, cleaned))
    return tuple(found.values())[:_MOST]


def wall_clock(text: bytes | str) -> int | None:
    """A date as its clock showed it, in nanoseconds since 1970 as if that clock showed UTC.

    Of a year, a month or a day it is the first moment; 00 stands for a month or day unknown.
    """
    found = _DATE.fullmatch(clean(text))
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    if year not in _YEARS:
        return None
    try:
        moment = datetime(year, month or 1, day or 1, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    fraction = (found[7] or "").ljust(9, "0")
    return int(moment.timestamp()) * 10**9 + int(fraction)
