"""The tree of a filter: comparisons, joined by and, or and not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum


class Kind(StrEnum):
    """What may be compared with what: only like with like."""

    NUMBER = "a number"
    SIZE = "a number of bytes"
    DURATION = "a number of seconds"
    DATE = "a date"
    WORD = "a word"  # text in small letters
    PATH = "a path"  # bytes
    TEXTS = "any of several texts"  # in small letters


class Operator(StrEnum):
    """How a field is compared. TEXTS know EQUAL and LIKE, which hold when any of them fits."""

    EQUAL = "="
    DIFFERENT = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    LIKE = "like"


@dataclass(frozen=True, slots=True)
class Field:
    """Something known of an item; `values` are all it can be, where that is a short list."""

    name: str
    kind: Kind
    values: tuple[str, ...] = ()


FIELDS = {
    field.name: field
    for field in (
        Field("path", Kind.PATH),
        Field("name", Kind.PATH),
        Field("extension", Kind.WORD),
        Field("format", Kind.WORD),
        Field("modality", Kind.WORD, ("image", "audio", "text")),
        Field("orientation", Kind.WORD, ("landscape", "portrait", "square")),
        Field("width", Kind.NUMBER),
        Field("height", Kind.NUMBER),
        Field("megapixels", Kind.NUMBER),
        Field("duration", Kind.DURATION),
        Field("size", Kind.SIZE),
        Field("taken", Kind.DATE),
        Field("modified", Kind.DATE),
        Field("added", Kind.DATE),
        Field("camera", Kind.WORD),
        Field("lens", Kind.WORD),
        Field("iso", Kind.NUMBER),
        Field("caption", Kind.TEXTS),
        Field("label", Kind.TEXTS),
    )
}


@dataclass(frozen=True, slots=True)
class Date:
    """A span of time on a calendar: year, perhaps month, day, hour and minute, second."""

    parts: tuple[int, ...]

    def span(self, zone: tzinfo | None = None) -> tuple[int, int]:
        """Its first nanosecond since 1970, and the first after it; in local time, or a zone's."""
        first = datetime(*self.parts, *(1, 1)[len(self.parts) - 1 :], tzinfo=zone)  # type: ignore[arg-type,misc]
        start = int(first.timestamp())
        match len(self.parts):
            case 1:
                end = int(first.replace(year=first.year + 1).timestamp())
            case 2:
                # the 28th and four days are in the next month, whichever this one is
                later = first.replace(day=28) + timedelta(days=4)
                end = int(later.replace(day=1).timestamp())
            case 3:
                end = int((first + timedelta(days=1)).timestamp())  # some days have 23 hours
            case count:
                end = start + (60 if count == 5 else 1)
        return start * 10**9, end * 10**9


Value = int | float | str | bytes | Date


@dataclass(frozen=True, slots=True)
class Compare:
    """A field and what it is compared with. `value` is of the field's kind.

    Numbers, sizes and durations are int or float, dates Date, words and texts str in small
    letters, paths bytes.
    """

    field: Field
    operator: Operator
    value: Value | Field


@dataclass(frozen=True, slots=True)
class Near:
    """Within so many kilometres of a place, in degrees north and east."""

    latitude: float
    longitude: float
    kilometres: float


@dataclass(frozen=True, slots=True)
class Not:
    """True where its part is false."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """True where all parts are."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where any part is."""

    parts: tuple[Filter, ...]


Filter = Compare | Near | Not | And | Or
