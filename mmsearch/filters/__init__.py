"""Filters: `width > height and taken >= 2024 and path like '*/holiday/*'` as a tree.

    filter     = condition, and, or, not, ( )                     `not` binds first, `or` last
    condition  = a operator b             operators: = == != <> < <= > >=
               | a [not] like pattern     * stands for anything, ? for one character
               | a [not] in (b, c, ...)   any of them
               | a [not] between b and c  both ends belong to it
               | near(48.85, 2.35, 10)    within 10 km of that latitude and longitude

`a`, `b` and `c` are fields or values, at least one a field, and both of one kind. Keywords,
fields and units may be in capitals. The fields (`FIELDS`) are:

    path, name               text, byte for byte: the whole path, the last part of it
    extension, format        text in small letters: "jpg" (no dot; empty when there is none)
                             is how a file is called, "jpeg" what is in it
    modality                 image, audio, text
    orientation              landscape, portrait, square
    width, height            pixels, of the picture when it stands upright
    megapixels               width x height in millions
    duration                 of the whole sound: 90, 90s, 2min, 1.5h
    size                     bytes: 500000, 500kB, 2.5 MB, 1GB (powers of 1000)
    taken                    when it was taken, as the clock there showed it; of a file that
                             does not say so, when it was modified
    modified, added          the date of the file; when mmsearch first saw it
    camera, lens             text in small letters: "nikon d90"
    iso                      how sensitive the film, or what stands in for it, was set to be
    caption                  any of the file's captions; text in small letters
    label                    any of the labels given by `mmsearch label`; text in small letters

Text stands in single or double quotes, which are doubled to be part of it; quotes may be left
out around text that has no spaces, commas, parentheses, quotes or operators in it and is no
keyword and no field.

A date is a span of local time: 2024, 2024-06, 2024-06-01, 2024-06-01T12:00 (or with seconds).
`= 2024` is within that year and `!= 2024` outside of it, `< 2024` before it begins and `>= 2024`
from then on, `> 2024` after it has ended and `<= 2024` until then. What was taken at 23:00 on New
Year's Eve, wherever that was, was taken in the old year. Compared with `modified` or `added`,
`taken` is read as local time here.

`caption` and `label` know `=`, `like` and `in`, which are true when any of them fits, and the
negations `!=`, `not like` and `not in`, which are true when none does: a file without captions is
found by `caption != 'a dog'`.

The distance of `near` is along the great circle, in kilometres or as 500m or 10km.

What is not known (the width of a text, the place of a picture) answers neither yes nor no, as in
SQL: `width > 100` does not find it, and `not width > 100` does not either. `or` finds it when its
other side does.
"""

from mmsearch.filters.parser import MAX_CONDITIONS, MAX_DEPTH, MAX_LENGTH, parse_filter
from mmsearch.filters.tree import (
    FIELDS,
    And,
    Compare,
    Date,
    Field,
    Filter,
    Kind,
    Near,
    Not,
    Operator,
    Or,
)

__all__ = [
    "FIELDS",
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "MAX_LENGTH",
    "And",
    "Compare",
    "Date",
    "Field",
    "Filter",
    "Kind",
    "Near",
    "Not",
    "Operator",
    "Or",
    "parse_filter",
]
