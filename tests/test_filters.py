"""Filters: the language, its errors, and what they let through, against plain Python."""

from __future__ import annotations

import fnmatch
import math
import operator
import os
import random
import re
import sqlite3
import string
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import matched, paint, unit
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import event

from mmsearch.catalog import Catalog, Content, Standing
from mmsearch.catalog.filters import COLUMNS, TEXTS
from mmsearch.catalog.functions import distance, moment
from mmsearch.errors import UsageError
from mmsearch.filters import (
    FIELDS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_LENGTH,
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
    parse_filter,
)
from mmsearch.records import Kind as Of
from mmsearch.records import Modality

WIDTH, HEIGHT, SIZE = FIELDS["width"], FIELDS["height"], FIELDS["size"]
PATH, NAME, FORMAT, MODIFIED = (FIELDS[name] for name in ("path", "name", "format", "modified"))
TAKEN, CAMERA, CAPTION, LABEL, DURATION = (
    FIELDS[name] for name in ("taken", "camera", "caption", "label", "duration")
)
# a busy machine is no failure
CALMLY = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
ORDERS = {
    Operator.EQUAL: operator.eq,
    Operator.DIFFERENT: operator.ne,
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.MORE: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


def width(order: str, value: object) -> Compare:
    return Compare(WIDTH, Operator(order), value)


# -- the language ----------------------------------------------------------------------

PARSED = {
    "width > height": width(">", HEIGHT),
    "640 < width": width(">", 640),
    "640 >= WIDTH": width("<=", 640),
    "640 == width": width("=", 640),
    "width<>-1.5e2": width("!=", -150.0),
    "size > 2.5 MB": Compare(SIZE, Operator.MORE, 2_500_000),
    "size > 1.1mb": Compare(SIZE, Operator.MORE, 1_100_000),
    "500kB <= size": Compare(SIZE, Operator.AT_LEAST, 500_000),
    "size = 1GB": Compare(SIZE, Operator.EQUAL, 10**9),
    "modified > 2024": Compare(MODIFIED, Operator.MORE, Date((2024,))),
    "2024-06 > modified": Compare(MODIFIED, Operator.LESS, Date((2024, 6))),
    "modified = '2024-06-01 12:00'": Compare(MODIFIED, Operator.EQUAL, Date((2024, 6, 1, 12, 0))),
    "modified != 2024-06-01T12:00:30": Compare(
        MODIFIED, Operator.DIFFERENT, Date((2024, 6, 1, 12, 0, 30))
    ),
    "name = 'it''s'": Compare(NAME, Operator.EQUAL, b"it's"),
    'name = "say ""hi"""': Compare(NAME, Operator.EQUAL, b'say "hi"'),
    "name = 'width'": Compare(NAME, Operator.EQUAL, b"width"),
    "name = beach.jpg": Compare(NAME, Operator.EQUAL, b"beach.jpg"),
    "name = 'a\udcff'": Compare(NAME, Operator.EQUAL, b"a\xff"),
    "path like */holiday/*": Compare(PATH, Operator.LIKE, b"*/holiday/*"),
    "path not like '*/海滩/?'": Not(Compare(PATH, Operator.LIKE, "*/海滩/?".encode())),
    "format = JPG": Compare(FORMAT, Operator.EQUAL, "jpeg"),
    "format like 'JP*'": Compare(FORMAT, Operator.LIKE, "jp*"),
    "path = name": Compare(PATH, Operator.EQUAL, NAME),
    "duration > 90": Compare(DURATION, Operator.MORE, 90),
    "duration between 90s and 2 MIN": And(
        (Compare(DURATION, Operator.AT_LEAST, 90), Compare(DURATION, Operator.AT_MOST, 120))
    ),
    "0.1h < duration": Compare(DURATION, Operator.MORE, 360),
    "taken >= modified": Compare(TAKEN, Operator.AT_LEAST, MODIFIED),
    "camera = 'Nikon D90'": Compare(CAMERA, Operator.EQUAL, "nikon d90"),
    "camera like NIKON*": Compare(CAMERA, Operator.LIKE, "nikon*"),
    "near(48.85, 2.35, 10)": Near(48.85, 2.35, 10),
    "NEAR ( -48.85 , +180, 10 km )": Near(-48.85, 180, 10),
    "not near(0,0,.5KM)": Not(Near(0, 0, 0.5)),
    "near(0, 0, 500m)": Near(0, 0, 0.5),
    "name = near": Compare(NAME, Operator.EQUAL, b"near"),
    "caption like '*Beach*'": Compare(CAPTION, Operator.LIKE, "*beach*"),
    "caption not like '*'": Not(Compare(CAPTION, Operator.LIKE, "*")),
    "'A dog' = caption": Compare(CAPTION, Operator.EQUAL, "a dog"),
    "caption != 'a dog'": Not(Compare(CAPTION, Operator.EQUAL, "a dog")),
    "label in (dog, 'caption')": Or(
        (Compare(LABEL, Operator.EQUAL, "dog"), Compare(LABEL, Operator.EQUAL, "caption"))
    ),
    "width = 1 or width = 2 and width = 3": Or(
        (width("=", 1), And((width("=", 2), width("=", 3))))
    ),
    "(width = 1 or width = 2) and width = 3": And(
        (Or((width("=", 1), width("=", 2))), width("=", 3))
    ),
    "not width = 1 and width = 2": And((Not(width("=", 1)), width("=", 2))),
    "NOT NOT (width = 1)": Not(Not(width("=", 1))),
    "width in (1, height, 3)": Or((width("=", 1), width("=", HEIGHT), width("=", 3))),
    "width NOT IN (1)": Not(width("=", 1)),
    "width between 1 and 2 and width = 3": And(
        (And((width(">=", 1), width("<=", 2))), width("=", 3))
    ),
    "5 between width and height": And((width("<=", 5), Compare(HEIGHT, Operator.AT_LEAST, 5))),
}


@pytest.mark.parametrize("text", PARSED)
def test_what_is_written_is_what_is_meant(text):
    """Each spelling gives its tree: precedence, units, quotes, spans, sides turned round."""
    assert parse_filter(text) == PARSED[text]


# A caret stands below the character where it goes wrong.
WRONG = [
    ("", "^", "expected a condition, such as width > height"),
    ("width > ", "        ^", "expected a field or a value"),
    ("width > tall", "        ^", "expected a number such as 640.* or a field: path, name"),
    ("tall > 5", "^", "no field is called tall; the fields are path, name, extension, format, "),
    ("widht > 5", "^", "no field is called widht \\(did you mean width\\?\\); the fields are path"),
    ("Date > 2024", "^", "no field is called Date \\(did you mean taken\\?\\)"),
    ("place = paris", "^", "did you mean near\\(latitude, longitude, kilometres\\)\\?"),
    ("width > hieght", "        ^", "or a field \\(did you mean height\\?\\): path, name"),
    ("duration > 2MB", "           ^", "expected a length of time such as 90, 90s, 2min or 1.5h"),
    ("duration > width", "           ^", "duration is a number of seconds and width a number:"),
    ("size > 2 min", "       ^", "expected a size such as"),
    ("taken > 12", "        ^", "expected a date such as 2024"),
    ("near(91, 0, 1)", "     ^", "expected a latitude from -90 to 90"),
    ("near(1, -180.5, 1)", "        ^", "expected a longitude from -180 to 180"),
    ("near(1, 2)", "         ^", "expected , as in near\\(latitude, longitude, kilometres\\)"),
    ("near(1, 2, 3 mi)", "             ^", "expected \\)"),
    ("near(1, 2, 3kB)", "           ^", "expected a distance such as 10, 10km or 500m"),
    ("near(1, 2, -3)", "           ^", "expected a distance such as"),
    ("near(1, 2, 3) = 5", "              ^", "expected and, or, or the end"),
    ("near(width, 2, 3)", "     ^", "expected a latitude"),
    ("near(1km, 2, 3)", "     ^", "expected a latitude"),
    ("near > 5", "^", "no field is called near"),
    ("caption > a", "^", "caption is any of several texts: it knows = != like and in"),
    ("a < caption", "    ^", "caption is any of several texts"),
    ("caption = camera", "          ^", "expected a text; .* 'camera' in quotes"),
    ("caption = caption", "          ^", "expected a text"),
    ("caption between a and b", "^", "caption is any of several texts"),
    ("5 > 3", "^", "expected a field, as this is a value; the fields are path"),
    ("'width' > 3", "          ^", "expected a field"),
    ("width = modified", "        ^", "width is a number and modified a date"),
    ("name = added", "       ^", "name is a path and added a date; .* write 'added' in quotes"),
    ("width > 2MB", "        ^", "expected a number such as 640"),
    ("width > '2'", "        ^", "expected a number such as 640"),
    ("width > 99999999999999999999", "        ^", "expected a smaller number"),
    ("width > 1e999", "        ^", "expected a smaller number"),
    ("size > 2 KiB", "         ^", "expected and, or, or the end"),
    ("modified = 5", "           ^", "expected a date such as 2024, 2024-06"),
    ("modified = 2024-13", "           ^", "there is no such date"),
    ("modified = 2023-02-29", "           ^", "there is no such date"),
    ("modified = 0001", "           ^", "expected a year from 1700 to 2200"),
    ("orientation = wide", "              ^", "expected one of landscape, portrait, square"),
    ("width like 5", "^", "width is a number: like is for text"),
    ("name like path", "          ^", "expected a pattern"),
    ("name like (", "          ^", "expected a pattern such as"),
    ("'a*' like name", "^", "expected a field"),
    ("name = '\ud800'", "       ^", "half a surrogate pair"),
    ("format = '\udcff'", "         ^", "not UTF-8"),
    ("path like 'abc", "          ^", "a quote that is never closed"),
    ("name = 'it'''s'", "              ^", "a quote that is never closed"),
    ("width ! 5", "      ^", "not expected here"),
    ("width 5", "      ^", "expected one of = != < <= > >= in between like"),
    ("width not = 5", "          ^", "expected one of in between like"),
    ("(width > 5", "          ^", "expected and, or, or \\)"),
    ("width > 5)", "         ^", "expected and, or, or the end"),
    ("width in 5", "         ^", "expected \\( and a list"),
    ("width in (5", "           ^", "expected , or \\)"),
    ("width between 1 or 2", "                ^", "expected and, then the upper end"),
    ("width > 5 and and", "              ^", "expected a field, a value, not or \\("),
    ("name = '海' ! ", "            ^", "not expected here"),
]


@pytest.mark.parametrize("text, caret, message", WRONG)
def test_errors_point_at_the_place(text, caret, message):
    """The message says what was expected; the text and a caret below it follow."""
    with pytest.raises(UsageError, match=message) as caught:
        parse_filter(text)
    _, shown, pointer = str(caught.value).split("\n")
    assert shown == "  " + "".join(char if char.isprintable() else " " for char in text)
    assert pointer == "  " + caret


def test_an_error_in_a_long_filter_shows_what_is_near():
    """Only the neighbourhood is printed, and no control character reaches the terminal."""
    text = "width > 1 and " * 50 + "name = \x1b[31m ! " + "or width > 1" * 50
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    _, shown, pointer = str(caught.value).split("\n")
    assert len(shown) < 100
    assert shown.isprintable()
    assert shown[len(pointer) - 1] == "!"


def test_limits_are_named():
    """Length, depth and number are limited, whatever the filter; just below it parses."""
    deep = "(" * MAX_DEPTH + "width > 1" + ")" * MAX_DEPTH
    many = ["width > 1"] * MAX_CONDITIONS
    parse_filter(deep)
    parse_filter(" or ".join(many))
    parse_filter("width > 1".ljust(MAX_LENGTH))
    for text, limit in [
        (f"({deep})", f"{MAX_DEPTH} nested"),
        (f"not {deep}", f"{MAX_DEPTH} nested"),
        ("not " * 2000 + "width > 1", f"{MAX_DEPTH} nested"),
        ("(" * 9000, f"{MAX_DEPTH} nested"),
        (" or ".join([*many, "width > 1"]), f"{MAX_CONDITIONS} comparisons"),
        (f"width in ({','.join('1' * (MAX_CONDITIONS + 1))})", f"{MAX_CONDITIONS} comparisons"),
        ("width > 1".ljust(MAX_LENGTH + 1), f"10,001 characters long; {MAX_LENGTH:,}"),
        ("(" * 10**6, "1,000,000 characters long"),
    ]:
        with pytest.raises(UsageError, match=limit):
            parse_filter(text)


# -- random trees ----------------------------------------------------------------------

WORDS = {
    "extension": ["jpg", "png", "", "tar", "�", "фото"],
    "format": ["jpeg", "png", "webp", "plain"],
    "camera": ["nikon d90", "apple iphone 12", "élan"],
    "lens": ["50mm f/1.8", ""],
    "caption": ["a dog on the beach", "hund", "猫", "élan", ""],
    "label": ["dog", "chien noir"],
}
moments = st.datetimes(datetime(2023, 11, 1), datetime(2024, 7, 1)) | st.sampled_from(
    [datetime(2024, 1, 1), datetime(2023, 12, 31, 23, 59, 59), datetime(2024, 6, 1, 12, 0, 30)]
)
dates = st.builds(
    lambda moment, count: Date(moment.timetuple()[:count]),
    moments,
    st.sampled_from([1, 2, 3, 5, 6]),
)
numbers = (
    st.sampled_from([0, 1, 8, 16, 200, 4.5, 60, 640, 480, 0.307200, 12, 12.0, 1_000_000])
    | st.integers(-(2**63) + 1024, 2**63 - 1024)
    | st.floats(-1e18, 1e18)
)
places = st.builds(
    Near,
    st.sampled_from([0.0, 48.85, -90.0, 90.0, 89.9, 52.5, -16.5]) | st.floats(-90, 90),
    st.sampled_from([0.0, 2.35, -180.0, 180.0, 179.9, -179.9, 13.4]) | st.floats(-180, 180),
    st.sampled_from([0.0, 0.3, 10.0, 45.0, 900.0, 10_007.0, 20_016.0]) | st.floats(0, 25_000),
)
patterns = st.text("ab/*?.[]\udcff海", max_size=6) | st.sampled_from(
    [
        "*/holiday/*",
        "*.jpg",
        "*",
        "?*",
        "/",
        "*/?",
        "[ab]*",
        "*\udcff*",
        "*\n*",
        "*海?.*",
        "*A*",
        "*dog*",
        "?",
        "É*",
        "nikon*",
    ]
)
names = st.text("ab/.[\udcff海'\"", max_size=6) | st.sampled_from(
    ["/top.jpg", "/p/holiday/a.jpg", "a.jpg", "\udcff.jpg", "b'\"[x].PNG"]
)
orders = st.sampled_from(list(ORDERS))


@st.composite
def comparisons(draw: st.DrawFn) -> Filter:
    """A field compared with a value or with a field of its kind, or a circle."""
    field = draw(st.sampled_from([*FIELDS.values(), None]))
    if field is None:
        return draw(places)
    if field.kind is Kind.TEXTS:
        if draw(st.booleans()):
            text = draw(patterns).replace("\udcff", "").lower()
            return Compare(field, Operator.LIKE, text)
        return Compare(field, Operator.EQUAL, draw(st.sampled_from(WORDS[field.name])))
    others = [other for other in FIELDS.values() if other.kind is field.kind]
    if draw(st.integers(0, 5)) == 0:
        return Compare(field, draw(orders), draw(st.sampled_from(others)))
    match field.kind:
        case Kind.PATH | Kind.WORD if draw(st.booleans()):
            text = draw(patterns)
            if field.kind is Kind.PATH:
                return Compare(field, Operator.LIKE, text.encode("utf-8", "surrogateescape"))
            return Compare(field, Operator.LIKE, text.replace("\udcff", "").lower())
        case Kind.PATH:
            value = draw(names).encode("utf-8", "surrogateescape")
        case Kind.WORD if field.values:
            value = draw(st.sampled_from(field.values))
        case Kind.WORD:
            value = draw(st.sampled_from(WORDS[field.name]) | st.text(max_size=4)).lower()
            value = {"jpg": "jpeg"}.get(value, value) if field is FORMAT else value
        case Kind.DATE:
            value = draw(dates)
        case _:
            value = draw(numbers)
    return Compare(field, draw(orders), value)


def trees(depth: int) -> st.SearchStrategy[Filter]:
    """Trees of at most this many levels above a comparison."""
    if depth == 0:
        return comparisons()
    below = trees(depth - 1)
    several = st.lists(below, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        comparisons(), below.map(Not), several.map(And), several.map(Or), comparisons()
    )


MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def printed(tree: Filter, chance: random.Random) -> str:
    """A tree as text, in one of the ways it may be written."""

    def word(text: str) -> str:
        return chance.choice([text, text.upper(), text.capitalize()])

    def inner(part: Filter, *loose: type) -> str:
        text = printed(part, chance)
        return f"({text})" if isinstance(part, loose) else text

    match tree:
        case Or(parts):
            return f" {word('or')} ".join(inner(part, Or) for part in parts)
        case And(parts):
            return f" {word('and')} ".join(inner(part, Or, And) for part in parts)
        case Not(part):
            return f"{word('not')} {inner(part, Or, And)}"
        case Near(latitude, longitude, kilometres):
            unit = chance.choice(["", "km", " KM"])
            return f"{word('near')}({latitude!r}, {longitude!r} ,{kilometres!r}{unit})"
    field, order, value = word(tree.field.name), str(tree.operator), tree.value
    other = word(value.name) if isinstance(value, Field) else literal(value, chance)
    if tree.operator is Operator.LIKE:
        return f"{field} {word('like')} {other}"
    if isinstance(value, Field) or chance.random() < 0.5:
        left, right = field, other
    else:
        left, order, right = other, MIRRORED[order], field
    order = chance.choice({"=": ["=", "=="], "!=": ["!=", "<>"]}.get(order, [order]))
    space = chance.choice(["", " ", "\n"])
    return f"{left}{space}{order}{space}{right}"


def literal(value: object, chance: random.Random) -> str:
    """A value as text: quotes where they have to be, and sometimes where they need not."""
    if isinstance(value, Date):
        year, *rest = value.parts
        text = f"{year:04}" + "".join(
            f"{sign}{part:02}" for sign, part in zip("--T::", rest, strict=False)
        )
        return chance.choice([text, f"'{text}'", f'"{text.replace("T", " ")}"'])
    if isinstance(value, int | float):
        return repr(value)
    text = value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")
    plain = text and not set(text) - set(string.ascii_lowercase + "*?/.")
    if plain and text not in {*FIELDS, "and", "or", "not", "in", "between", "like"}:
        return chance.choice([text, f"'{text}'"])
    quote = chance.choice("'\"")
    return quote + text.replace(quote, quote * 2) + quote


@CALMLY
@given(trees(3), st.randoms(use_true_random=False))
def test_a_printed_tree_parses_back(tree, chance):
    """However a tree is written, parsing gives the same tree."""
    assert parse_filter(printed(tree, chance)) == tree


# -- a small catalog and plain Python --------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One file, as the oracle sees it."""

    path: bytes
    content: int
    format: str = "JPEG"
    modality: str = "image"
    width: int | None = 640
    height: int | None = 480
    size: int = 1_000_000
    modified: float = 1_704_067_200.0  # the first second of 2024, UTC
    added: int = 1_719_000_000
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What a content says of itself, and is said of it."""

    taken: datetime | None = None
    duration: float | None = None
    camera: str | None = None
    lens: str | None = None
    iso: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    labels: tuple[str, ...] = ()


SAID = {
    1: Said(datetime(2024, 1, 1), camera="NIKON D90", lens="50mm f/1.8", iso=200,
            latitude=48.8566, longitude=2.3522, labels=("Dog", "animal")),
    2: Said(datetime(2023, 12, 31, 23, 59, 59), camera="Apple iPhone 12", iso=640,
            latitude=52.52, longitude=13.405, labels=("dog",)),
    3: Said(camera="ÉLAN", latitude=-16.5, longitude=179.95),
    4: Said(datetime(2024, 6, 1, 12, 0, 30), latitude=90.0, longitude=0.0),
    5: Said(datetime(2024, 3, 10, 2, 30), latitude=0.0, longitude=-180.0, labels=("chien noir",)),
    6: Said(datetime(1969, 12, 31, 23), lens=""),
    9: Said(latitude=-90.0, longitude=12.0),
    10: Said(datetime(2024, 1, 1, 0, 0, 0, 500_000), duration=4.5),
}  # fmt: skip
NOTHING = Said()


ROWS = [
    Row(b"/top.jpg", 1, captions=("A dog on the beach", "Hund")),
    Row(b"/p/holiday/a.jpg", 1, modified=1_704_067_199.999, captions=("猫",)),
    Row(b"/p/holiday/\xff.jpg", 2, width=480, height=640, size=999),
    Row(b"/p/holiday/\xe6\xb5\xb7\xe6\xbb\xa9.JPG", 3, width=8, height=8, size=0),
    Row(b"/p/holiday", 3, width=8, height=8),
    Row(b"/p/b'\"[x].PNG", 4, "PNG", width=4000, height=3000, size=2**40),
    Row(b"/p/A.tar.\xd0\xa4\xd0\x9e\xd0\xa2\xd0\x9e", 5, "WEBP", width=16, height=1),
    Row(b"/p/.jpg", 6, width=1, height=16, modified=0.0, added=0),
    Row(b"/p/line\nbreak.\xfe", 7, "PNG", modified=1_717_243_230.5),
    Row(
        b"/p/notes.txt",
        8,
        "PLAIN",
        "text",
        None,
        None,
        12,
        1_717_243_200.0,
        1_704_067_200,
        ("Hund", "Élan"),
    ),
    Row(b"/p/notes", 8, "PLAIN", "text", None, None, 13),
    Row(b"/p/half", 9, "GIF", "image", 640, None),
    Row(b"/a", 10, "TIFF", "audio", None, 640, modified=-1.5),
    Row(b"/p/holiday/later.png", 11, "PNG", modified=1_719_000_000.0),
]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """A catalog of ROWS, each content with one vector, and of one file that is gone."""
    path = tmp_path_factory.mktemp("filters") / "library.db"
    with Catalog.create(path) as catalog, catalog.transaction():
        space = catalog.put_space("fake", "fa" * 32, 3)
        ids = {}
        gone = Row(b"/p/gone.jpg", 99)
        for number, row in enumerate([*ROWS, gone]):
            if row.content not in ids:
                content = Content(
                    bytes([row.content]) * 32, Modality(row.modality), row.format,
                    row.width, row.height,
                )  # fmt: skip
                ids[row.content] = catalog.put_content(content, space, unit(1, 0, 0)[None])
            state = (row.size, round(row.modified * 1000) * 10**6, number + 1)
            catalog.put_file(
                row.path, state, content_id=ids[row.content], modality=Modality(row.modality)
            )
        catalog.mark_gone(catalog.files_below(gone.path))
    with sqlite3.connect(path) as raw:  # inode tells the rows apart
        raw.executemany(
            "UPDATE files SET added_at = ? WHERE inode = ?",
            [(row.added, number + 1) for number, row in enumerate(ROWS)],
        )
        say(raw)
    raw.close()
    with Catalog.open(path) as catalog:
        yield catalog


def say(raw: sqlite3.Connection) -> None:
    """Write what SAID has, and the captions, as the schema has them."""
    for number, said in SAID.items():
        taken = (
            None if said.taken is None else round(said.taken.replace(tzinfo=UTC).timestamp() * 1000)
        )
        (content,) = raw.execute(
            "UPDATE contents SET duration = ?, taken = ? * 1000000, camera = ?, lens = ?, iso = ?, "
            "latitude = ?, longitude = ? WHERE digest = ? RETURNING id",
            (said.duration, taken, said.camera, said.lens, said.iso, said.latitude,
             said.longitude, bytes([number]) * 32),
        ).fetchone()  # fmt: skip
        for label in said.labels:
            raw.execute("INSERT INTO labels VALUES (?, ?, 0.5)", (content, label))
    for number, row in enumerate(ROWS):
        for text in row.captions:
            digest = b"caption" + text.encode()
            raw.execute(
                "INSERT OR IGNORE INTO contents (digest, modality, format) "
                "VALUES (?, 'text', 'caption')", (digest,)
            )  # fmt: skip
            (content,) = raw.execute(
                "SELECT id FROM contents WHERE digest = ?", (digest,)
            ).fetchone()
            raw.execute(
                "INSERT OR IGNORE INTO parts (content_id, part, text) VALUES (?, 0, ?)",
                (content, text),
            )
            raw.execute(
                "INSERT INTO captions (file_id, content_id, source) "
                "SELECT id, ?, 'sidecar' FROM files WHERE inode = ?", (content, number + 1)
            )  # fmt: skip


def known(field: Field, row: Row):
    """What the oracle knows of a field; None: nothing. Dates are moments."""
    said = SAID.get(row.content, NOTHING)
    name = row.path.rpartition(b"/")[2]
    both = row.width is not None and row.height is not None
    match field.name:
        case "name":
            return name
        case "extension":
            stem, dot, suffix = name.decode("utf-8", "replace").rpartition(".")
            return suffix.lower() if dot and stem.strip(".") else ""
        case "format":
            return row.format.lower()
        case "orientation":
            if not both:
                return None
            return ["square", "landscape", "portrait"][
                (row.width > row.height) - (row.width < row.height)
            ]
        case "megapixels":
            return row.width * row.height / 1e6 if both else None
        case "taken":
            return row.modified if said.taken is None else said.taken.timestamp()
        case "camera" | "lens":
            text = getattr(said, field.name)
            return None if text is None else text.lower()
        case "iso" | "duration":
            return getattr(said, field.name)
        case "caption":
            return [text.lower() for text in row.captions]
        case "label":
            return [text.lower() for text in said.labels]
        case other:
            return getattr(row, other)


def kilometres(near: Near, said: Said) -> float:
    """Between two places, as the angle between two vectors of space."""
    (x, y, z), (u, v, w) = (
        (
            math.cos(math.radians(north)) * math.cos(math.radians(east)),
            math.cos(math.radians(north)) * math.sin(math.radians(east)),
            math.sin(math.radians(north)),
        )
        for north, east in ((near.latitude, near.longitude), (said.latitude, said.longitude))
    )
    cross = math.hypot(y * w - z * v, z * u - x * w, x * v - y * u)
    return 6371.0088 * math.atan2(cross, x * u + y * v + z * w)


def verdict(tree: Filter, row: Row) -> bool | None:
    """True, False or (None) unknown, in SQL's logic of three values."""
    match tree:
        case Not(part):
            inner = verdict(part, row)
            return None if inner is None else not inner
        case And(parts):
            found = {verdict(part, row) for part in parts}
            return False if False in found else None if None in found else True
        case Or(parts):
            found = {verdict(part, row) for part in parts}
            return True if True in found else None if None in found else False
    if isinstance(tree, Near):
        said = SAID.get(row.content, NOTHING)
        if said.latitude is None:
            return None
        away = kilometres(tree, said)
        assume(abs(away - tree.kilometres) > 1e-6)  # a millimetre is a matter of rounding
        return away < tree.kilometres
    value = known(tree.field, row)
    if tree.field.kind is Kind.TEXTS:
        return any(fits(text, tree) for text in value)
    other = known(tree.value, row) if isinstance(tree.value, Field) else tree.value
    if value is None or other is None:
        return None
    if isinstance(other, Date):  # as a calendar reads: 2024 begins with (2024, ...)
        other = other.parts
        taken = SAID.get(row.content, NOTHING).taken if tree.field is TAKEN else None
        value = (taken or datetime.fromtimestamp(value)).timetuple()[: len(other)]
        return ORDERS[tree.operator](value, other)
    return fits(value, replace(tree, value=other))


def fits(value: object, tree: Compare) -> bool:
    """A value that is known, compared."""
    if tree.operator is not Operator.LIKE:
        return ORDERS[tree.operator](value, tree.value)
    text, pattern = (
        each if isinstance(each, str) else each.decode("utf-8", "surrogateescape")
        for each in (value, tree.value)
    )
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def every_vector(standing: Standing) -> NDArray[np.int64]:
    """Those of all kinds; each kind has them rising."""
    kinds = [standing.vectors_of(kind) for kind in Of]
    assert all(np.all(np.diff(ids) > 0) for ids in kinds)
    return np.concatenate(kinds)


def kept_by(catalog: Catalog, tree: Filter) -> set[bytes]:
    """The paths that the catalog keeps; asked in both of its ways."""
    ids, everything = (every_vector(catalog.standing(1, one)) for one in (tree, None))
    assert ids.dtype == np.int64
    matches = matched(catalog, everything, None, tree)
    assert {vector_id for vector_id, _ in matches} == set(ids.tolist())
    paths = [os.fsencode(item.path) for _, item in matches]
    assert len(paths) == len(set(paths))
    return set(paths)


@CALMLY
@given(trees(3))
def test_the_catalog_agrees_with_plain_python(catalog, tree):
    """Any tree keeps the files that a direct reading of the rules keeps: values, spans of time,
    names that are not UTF-8, copies, and what is unknown."""
    assert kept_by(catalog, tree) == {row.path for row in ROWS if verdict(tree, row) is True}


KEPT = {
    "path like '*/holiday/*'": 4,
    "path like '/p/holiday*'": 5,
    "path = '/top.jpg'": 1,
    "name like '?.jpg'": 2,  # a.jpg, and the one byte that is not UTF-8
    "name like '??.JPG'": 1,  # two characters, six bytes
    "name like '*[x]*'": 1,  # no meaning of its own
    "name like '*.JPG'": 1,  # as it is written
    "extension = jpg": 4,
    "extension = ''": 5,  # .jpg is a name
    "width > height": 6,
    "not width > height": 4,
    "width > height or not width > height": 10,  # the other four have no width or no height
    "width = width": 11,
    "orientation = square": 2,
    "orientation != square": 8,
    "megapixels = 12": 1,
    "megapixels between 0.3 and 0.31": 5,
    "size >= 1TB": None,
    "size > 1000GB": 1,
    "modality in (text, audio)": 3,
    "format = PNG": 3,
    "modified >= added": 3,
    "taken = 2024-01-01 and iso = 200": 2,  # wherever "here" is
    "taken < 2024 and iso = 640": 1,
    "camera = 'nikon d90'": 2,
    "camera like 'é*'": 2,
    "not camera like 'é*'": 3,
    "iso between 200 and 400": 2,
    "duration < 5s": 1,
    "near(48.85, 2.35, 10)": 2,
    "near(-16.5, -179.95, 12)": 2,  # across the date line: 10.7 km
    "near(89.9, 180, 12)": 1,  # over the pole: 11.1 km
    "not near(0, 0, 20016)": 0,
    "caption = hund": 2,
    "caption like '*é*' or caption = 猫": 2,
    "caption not like '*'": 11,
    "label = dog": 3,
    "label != dog": 11,
}


@pytest.mark.parametrize("text", KEPT)
def test_counts_worked_out_by_hand(catalog, text):
    """What a person would count in ROWS."""
    if KEPT[text] is None:
        with pytest.raises(UsageError):
            parse_filter(text)
    else:
        assert len(kept_by(catalog, parse_filter(text))) == KEPT[text]


@pytest.fixture
def new_york(monkeypatch):
    """Local time with a day of 23 hours (10 March 2024) and one of 25 (3 November 2024)."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "parts, start, seconds",
    [
        ((2024,), 1_704_085_200, 366 * 86400),
        ((2024, 2), 1_706_763_600, 29 * 86400),
        ((2024, 3), 1_709_269_200, 31 * 86400 - 3600),
        ((2024, 12), 1_733_029_200, 31 * 86400),
        ((2024, 3, 10), 1_710_046_800, 23 * 3600),
        ((2024, 11, 3), 1_730_606_400, 25 * 3600),
        ((2024, 6, 1, 12, 0), 1_717_257_600, 60),
        ((2024, 3, 10, 2, 59), 1_710_057_540, 60),  # a minute that no clock showed
        ((2024, 6, 1, 12, 0, 30), 1_717_257_630, 1),
    ],
)
def test_dates_are_spans_of_local_time(new_york, parts, start, seconds):
    """From the first second to the first one after, where the clocks change, too."""
    assert Date(parts).span() == (start * 10**9, (start + seconds) * 10**9)


def test_taken_is_told_by_the_clock_where_it_was(new_york, catalog):
    """Half past two in the night of March when the clocks here skip it is found by that time, and
    as a moment is half past three. Where it is not known, the clock here tells `modified`."""
    top, berlin, pole, skipped, line = (
        ROWS[number].path for number in (0, 2, 5, 6, 8)
    )  # fmt: skip
    for text, paths in {
        "taken = 2024-03-10T02:30": {skipped},
        "taken between 2024-03-10T02:29:58 and 2024-03-10T02:30:01": {skipped},
        "taken = 2024-06-01T08:00:30": {line},
        "taken = 2024-06-01T12:00:30": {pole},
        "modified = 2024-06-01T08:00:30": {line},
        "taken = 2023-12-31T23:59:59": {berlin},
        # the first second of 2024 in London; midnight here is five hours later
        "taken > modified and modified = 2023-12-31T19:00": {top, berlin, pole, skipped},
    }.items():
        assert kept_by(catalog, parse_filter(text)) == paths, text
    half_past = round(datetime(2024, 3, 10, 2, 30, tzinfo=UTC).timestamp()) * 10**9
    assert moment(half_past + 7) == 1_710_055_800 * 10**9 + 7  # 07:30 UTC
    assert moment(None) is None


@pytest.mark.parametrize(
    "here, there, expected",
    [
        ((0, 0), (0, 1), 111.195),  # a degree of the equator
        ((60, 10), (60, 11), 55.597),  # and of a parallel half as long
        ((0, 179.5), (0, -179.5), 111.195),
        ((89.5, 0), (89.5, 180), 111.195),
        ((90, 12), (90, -70), 0.0),
        ((-90, 0), (90, 0), 20_015.115),
        ((0, 0), (0, 180), 20_015.115),
        ((48.8566, 2.3522), (51.5074, -0.1278), 343.556),  # Paris and London
    ],
)
def test_distances(here, there, expected):
    """Along the great circle of a sphere of 6,371.0088 km, over poles and the date line."""
    assert distance(*here, *there) == pytest.approx(expected, abs=1e-3)
    assert distance(*there, *here) == pytest.approx(expected, abs=1e-3)
    assert distance(None, 0, 0, 0) is None


def test_every_field_has_a_column():
    """A new field is not forgotten in the catalog."""
    assert COLUMNS.keys() | TEXTS.keys() == FIELDS.keys()


# -- hostile filters -------------------------------------------------------------------


def survives(catalog: Catalog, text: str) -> bool:
    """True for a filter that ran, False for one that was refused in our own words."""
    try:
        tree = parse_filter(text)
    except UsageError:
        return False
    catalog.standing(1, tree)
    return True


@settings(CALMLY, max_examples=500)
@given(
    st.text(st.characters(), max_size=60)
    | st.lists(
        st.sampled_from(
            [*FIELDS, "and", "or", "not", "in", "between", "like", "(", ")", ",", "=", "<", ">=",
             "2024", "5", "2 MB", "'*'", "'", '"', "--", ";", "NULL", "\x00", "\ud800", "٣", "1e9"]
        ),
        max_size=12,
    ).map(" ".join)
)  # fmt: skip
def test_any_text_is_answered_or_refused(catalog, text):
    """Nothing but UsageError comes out of the parser, and nothing at all out of SQL."""
    survives(catalog, text)


def test_mutated_filters_are_answered_or_refused(catalog):
    """Three thousand valid filters with characters cut, doubled, swapped and put in."""
    chance = random.Random(69)
    seeds = [*PARSED, *(text for text in KEPT if KEPT[text])]
    alphabet = string.printable + "海\x00\udcff\ud800é٣∞\u202e"
    ran = 0
    for _ in range(3000):
        text = list(" or ".join(chance.sample(seeds, chance.choice([1, 1, 1, 2]))))
        for _ in range(chance.choice([1, 1, 1, 3])):
            at = chance.randrange(len(text) + 1)
            match chance.randrange(4):
                case 0:
                    text[at : at + chance.choice([1, 1, 5])] = []
                case 1:
                    text.insert(at, chance.choice(alphabet))
                case 2:
                    text[at:at] = text[at : at + 6]
                case 3:
                    text[at : at + 1] = [chance.choice(alphabet)]
        ran += survives(catalog, "".join(text))
    assert 300 < ran < 2700  # both kinds were tried


def test_the_largest_filters_run(catalog):
    """What the limits allow, SQLite allows as well: its parser and its stack are smaller."""
    head, tail = "", ""
    for level in range(MAX_DEPTH):
        head += f"modified = 2024 {'or' if level % 2 else 'and'} ("
        tail += ")"
    largest = [
        head + "orientation != square" + tail,
        "not (width > 1 and " * (MAX_DEPTH // 2) + "height > 1" + ")" * (MAX_DEPTH // 2),
        "not " * MAX_DEPTH + "path like '*x*'",
        " and ".join(["orientation = orientation and modified != 2024"] * (MAX_CONDITIONS // 2)),
        f"name not in ({','.join(['abc'] * MAX_CONDITIONS)})",
        f"path like '{'*a' * 4900}'",
        f"path like '{'?' * 9900}'",
    ]
    for text in largest:
        kept_by(catalog, parse_filter(text))


def test_a_pattern_cannot_be_made_slow(tmp_path):
    """Many stars over a long name that almost fits: no backtracking without end."""
    pattern = b"*" + b"a*" * 2000 + b"b"
    with Catalog.create(tmp_path / "library.db") as catalog, catalog.transaction():
        space = catalog.put_space("fake", "fa" * 32, 3)
        content = Content(bytes(32), Modality.IMAGE, "PNG", 1, 1)
        id = catalog.put_content(content, space, unit(1, 0, 0)[None])
        catalog.put_file(b"/" + b"a" * 4000, (1, 1, 1), content_id=id)
    with Catalog.open(tmp_path / "library.db") as catalog:
        begun = time.perf_counter()
        assert kept_by(catalog, Compare(PATH, Operator.LIKE, pattern)) == set()
        assert time.perf_counter() - begun < 5


HOSTILE = [
    "'; DROP TABLE files; --", "' OR 1=1 --", "\"; ATTACH 'x' AS y; --", "x' UNION SELECT 1 --",
    "files.name", "]]", '""', "%s", ":param_1", "?1", "\x00", "\\",
]  # fmt: skip


def test_values_are_only_ever_parameters(catalog):
    """The statement is the same whatever the value, which arrives unchanged as a parameter."""
    asked = []

    def note(_, cursor, statement, parameters, *rest):
        asked.append(
            (statement, [bytes(p) if isinstance(p, memoryview) else p for p in parameters])
        )

    event.listen(catalog._connection, "before_cursor_execute", note)
    try:
        forms = ("name = {}", "path like {}", "{} > path", "extension in ({})")
        for form in (*forms, "caption like {}", "{} = label", "camera != {}"):
            with catalog.snapshot():
                asked.clear()
                for value in HOSTILE:
                    quoted = "'" + value.replace("'", "''") + "'"
                    catalog.standing(1, parse_filter(form.format(quoted)))
                    of_paths = "name" in form or "path" in form
                    expected = value.encode() if of_paths else value.lower()
                    assert expected in asked[-1][1]
            assert len(asked) == 2 * len(HOSTILE)  # of items, and of captions
            statements = {statement for statement, _ in asked}
            assert len(statements) == 2
            for statement in statements:
                assert not re.search("DROP|ATTACH|UNION SELECT 1|OR 1|%|]", statement)
    finally:
        event.remove(catalog._connection, "before_cursor_execute", note)


def test_a_filter_only_reads(catalog):
    """SQLite's own authorizer sees nothing but reads of our tables while hostile filters run."""
    raw = catalog._connection.connection.driver_connection
    raw.execute("SELECT value FROM json_each('[]')").close()  # declared once, as a table
    allowed = {
        sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION,
        sqlite3.SQLITE_TRANSACTION,
    }  # fmt: skip
    refused, tables, functions = [], set(), set()

    def authorize(action, first, second, *_):
        if action == sqlite3.SQLITE_READ:
            tables.add(first)
        if action == sqlite3.SQLITE_FUNCTION:
            functions.add(second)
        if action not in allowed:
            refused.append((action, first, second))
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    raw.set_authorizer(authorize)
    try:
        for field in FIELDS.values():
            if field.kind in (Kind.PATH, Kind.WORD, Kind.TEXTS):
                for value in map(str.encode, HOSTILE) if field.kind is Kind.PATH else HOSTILE:
                    kept_by(catalog, Compare(field, Operator.LIKE, value))
                    kept_by(catalog, Compare(field, Operator.EQUAL, value))
            else:
                kept_by(catalog, Compare(field, Operator.EQUAL, field))
        kept_by(catalog, Near(1, 2, 3))
    finally:
        raw.set_authorizer(None)
    assert refused == []
    assert tables - {"json_each"} == {
        "vectors", "files", "items", "folders", "contents", "captions", "parts", "labels",
    }  # fmt: skip
    assert functions <= {
        "lower", "coalesce", "mmsearch_like", "mmsearch_extension", "mmsearch_lower",
        "mmsearch_moment", "mmsearch_distance",
    }  # fmt: skip


# -- from the library and the command line ---------------------------------------------


@pytest.fixture
def many(library, photos):
    """Forty pictures of different colours; the n-th is n + 1 pixels wide and 20 high."""
    chance = np.random.default_rng(69)
    for n in range(40):
        path = photos.paint(
            f"{('even', 'odd')[n % 2]}/{n}.png",
            tuple(chance.integers(1, 255, 3).tolist()),
            (n + 1, 20),
        )
        os.utime(path, (0, datetime(2000 + n, 7, 1).timestamp()))
    library.index(photos)
    return library


@pytest.mark.parametrize(
    "where, keep",
    [
        ("width < 1", lambda n: False),
        ("width = 33", lambda n: n == 32),
        ("path like '*/even/?.png'", lambda n: n in {0, 2, 4, 6, 8}),
        ("modified >= 2030 and orientation = landscape", lambda n: n >= 30),
        ("path like '*/odd/*'", lambda n: n % 2 == 1),
        ("not (name = 7.png or modified = 2009)", lambda n: n not in {7, 9}),
        ("format = png", lambda n: True),
    ],
)
def test_a_filter_chooses_first_and_k_counts_after(many, where, keep):
    """The k nearest of those that fit, whatever k and however few fit: never a filter over the
    first k of all."""
    everything = many.query("red", 1000)
    assert len(everything) == 40
    expected = [(hit.path, hit.score) for hit in everything if keep(int(hit.path.stem))]
    for k in (1, 3, 10, 1000):
        hits = many.query("red", k, where=where)
        assert [(hit.path, hit.score) for hit in hits] == expected[:k]
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert many.query("red", k, where=where, modality="image") == hits
        assert many.query("red", k, where=where, modality="text") == []


def test_what_files_say_of_themselves_is_asked(library, photos):
    """From the file through the catalog: EXIF of a picture; of a sound its tags and its length,
    the silence at its end too; and what says nothing was taken when it was modified."""
    exif = Image.Exif()
    exif.update({271: "NIKON CORPORATION", 272: "NIKON D90", 270: "A dog on the beach"})
    exif.get_ifd(0x8769).update({36867: "2019:12:31 23:30:00", 34855: 400})
    exif.get_ifd(0x8825).update({1: "S", 2: (16.0, 30.0, 0.0), 3: "W", 4: (179.0, 57.0, 0.0)})
    Image.new("RGB", (9, 9), "red").save(photos / "dog.jpg", exif=exif)
    os.utime(photos.paint("plain.png", "blue"), (0, datetime(2021, 5, 5).timestamp()))
    samples = np.zeros(16000 * 12, np.float32)
    samples[:16000] = np.sin(np.arange(16000) / 5)
    with soundfile.SoundFile(photos / "bark.flac", "w", 16000, 1) as sound:
        sound.title, sound.date = "A dog barks", "2020"
        sound.write(samples)
    library.index(photos)
    for where, names in {
        "taken = 2019": {"dog.jpg"},
        "taken < 2020": {"dog.jpg"},
        "taken = 2020-01-01": {"bark.flac"},
        "taken = 2021-05-05 and taken = modified": {"plain.png"},
        "camera = 'nikon d90' and iso = 400": {"dog.jpg"},
        "near(-16.5, 180, 6km)": {"dog.jpg"},
        "not near(-16.5, 180, 6km)": set(),
        "duration = 12s": {"bark.flac"},
        "caption like '*dog*'": {"dog.jpg", "bark.flac"},
        "caption != 'a dog barks'": {"dog.jpg", "plain.png"},
    }.items():
        found = library.query("red", 10, where=where, all=True)
        assert {hit.path.name for hit in found} == names, where


def test_copies_are_judged_by_their_own_paths(library, photos):
    """Of a picture under several paths those are found that fit; a file that is gone is not."""
    for name in ("holiday/a.png", "work/a.png", "work/b.png"):
        photos.paint(name, "red")
    photos.paint("holiday/c.png", "orange")
    report = library.index(photos)
    assert (report.added, report.copied) == (2, 2)

    def found(where: str, k: int = 10) -> list[str]:
        hits = library.query("red", k, where=where)
        return [str(hit.path.relative_to(photos.folder)) for hit in hits]

    assert found("path like '*/holiday/*'") == ["holiday/a.png", "holiday/c.png"]
    assert found("path not like '*/holiday/*'") == ["work/a.png", "work/b.png"]
    assert found("path not like '*/holiday/*'", 1) == ["work/a.png"]
    (photos / "work/a.png").unlink()
    library.index(photos)
    assert found("name in (a.png, b.png)") == ["holiday/a.png", "work/b.png"]


def test_names_that_are_not_utf_8(library, photos):
    """A byte that is no character is found by itself and by a question mark."""
    photos.paint("red.png", "red")
    odd = Path(os.fsdecode(os.fsencode(photos.folder) + b"/r\xff.png"))
    (photos / "red.png").rename(odd)
    library.index(photos)
    for where in ("name = 'r\udcff.png'", "name like 'r?.png'", "path like '*\udcff*'"):
        assert [hit.path for hit in library.query("red", where=where)] == [odd]


def test_a_wrong_filter_is_said_before_anything_is_done(library):
    """The filter is read first: no library, no model needed to learn of a slip."""
    with pytest.raises(UsageError, match="no field is called token"):
        library.query("red", where="token >= 2024")


def test_the_command_line_points_at_the_mistake(run_cli):
    """Exit code 2, the text and the caret on stderr, nothing on stdout."""
    done = run_cli("query", "a dog", "--where", "width > tall")
    assert (done.returncode, done.stdout) == (2, b"")
    head, *rest = done.stderr.decode().splitlines()
    assert head.startswith("mmsearch: in the filter: expected a number")
    assert rest == ["  width > tall", "          ^"]


def test_the_command_line_filters(run_cli, tmp_path):
    """`--where` keeps what fits; without it, the parser is not even imported."""
    paint(tmp_path / "photos" / "wide.png", "red", (16, 8))
    paint(tmp_path / "photos" / "tall.png", "red", (8, 16))
    index = ("--index", tmp_path / "index")
    assert run_cli("index", tmp_path / "photos", *index).returncode == 0
    spy = ("-X", "importtime")
    plain = run_cli("query", "red", "--all", *index, "--format", "paths", python=spy)
    kept = run_cli(
        "query", "red", "--all", *index, "--format", "paths", "--where", "width > height",
        python=spy,
    )  # fmt: skip
    assert len(plain.stdout.splitlines()) == 2
    assert kept.stdout.splitlines() == [os.fsencode(tmp_path / "photos" / "wide.png")]
    assert b"mmsearch.filters" in kept.stderr
    assert b"mmsearch.filters" not in plain.stderr
