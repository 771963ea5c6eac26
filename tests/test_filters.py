"""Filters: the language, its errors, and what they let through, against plain Python."""

from __future__ import annotations

import fnmatch
import operator
import os
import random
import re
import sqlite3
import string
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import paint, unit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from mmsearch.catalog import Catalog, Content
from mmsearch.catalog.filters import COLUMNS
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
    Not,
    Operator,
    Or,
    parse_filter,
)
from mmsearch.records import Modality

WIDTH, HEIGHT, SIZE = FIELDS["width"], FIELDS["height"], FIELDS["size"]
PATH, NAME, FORMAT, MODIFIED = (FIELDS[name] for name in ("path", "name", "format", "modified"))
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
    st.sampled_from([0, 1, 8, 16, 640, 480, 0.307200, 12, 12.0, 1_000_000])
    | st.integers(-(2**63) + 1024, 2**63 - 1024)
    | st.floats(-1e18, 1e18)
)
patterns = st.text("ab/*?.[]\udcff海", max_size=6) | st.sampled_from(
    ["*/holiday/*", "*.jpg", "*", "?*", "/", "*/?", "[ab]*", "*\udcff*", "*\n*", "*海?.*", "*A*"]
)
names = st.text("ab/.[\udcff海'\"", max_size=6) | st.sampled_from(
    ["/top.jpg", "/p/holiday/a.jpg", "a.jpg", "\udcff.jpg", "b'\"[x].PNG"]
)
orders = st.sampled_from(list(ORDERS))


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    """A field compared with a value or with a field of its kind."""
    field = draw(st.sampled_from(list(FIELDS.values())))
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


ROWS = [
    Row(b"/top.jpg", 1),
    Row(b"/p/holiday/a.jpg", 1, modified=1_704_067_199.999),
    Row(b"/p/holiday/\xff.jpg", 2, width=480, height=640, size=999),
    Row(b"/p/holiday/\xe6\xb5\xb7\xe6\xbb\xa9.JPG", 3, width=8, height=8, size=0),
    Row(b"/p/holiday", 3, width=8, height=8),
    Row(b"/p/b'\"[x].PNG", 4, "PNG", width=4000, height=3000, size=2**40),
    Row(b"/p/A.tar.\xd0\xa4\xd0\x9e\xd0\xa2\xd0\x9e", 5, "WEBP", width=16, height=1),
    Row(b"/p/.jpg", 6, width=1, height=16, modified=0.0, added=0),
    Row(b"/p/line\nbreak.\xfe", 7, "PNG", modified=1_717_243_230.5),
    Row(b"/p/notes.txt", 8, "PLAIN", "text", None, None, 12, 1_717_243_200.0, 1_704_067_200),
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
    raw.close()
    with Catalog.open(path) as catalog:
        yield catalog


def known(field: Field, row: Row):
    """What the oracle knows of a field; None: nothing."""
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
        case other:
            return getattr(row, other)


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
    value = known(tree.field, row)
    other = known(tree.value, row) if isinstance(tree.value, Field) else tree.value
    if value is None or other is None:
        return None
    if tree.operator is Operator.LIKE:
        text, pattern = (
            each if isinstance(each, str) else each.decode("utf-8", "surrogateescape")
            for each in (value, other)
        )
        return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))
    if isinstance(other, Date):  # as a calendar reads: 2024 begins with (2024, ...)
        other = other.parts
        value = datetime.fromtimestamp(value).timetuple()[: len(other)]
    return ORDERS[tree.operator](value, other)


def kept_by(catalog: Catalog, tree: Filter) -> set[bytes]:
    """The paths that the catalog keeps; asked in both of its ways."""
    ids = catalog.vector_ids(1, tree)
    assert ids.dtype == np.int64
    assert np.all(np.diff(ids) > 0)
    everything = catalog.vector_ids(1).tolist()
    matches = catalog.matches(everything, None, tree)
    assert {match.vector_id for match in matches} == set(ids.tolist())
    paths = [os.fsencode(match.item.path) for match in matches]
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


def test_every_field_has_a_column():
    """A new field is not forgotten in the catalog."""
    assert COLUMNS.keys() == FIELDS.keys()


# -- hostile filters -------------------------------------------------------------------


def survives(catalog: Catalog, text: str) -> bool:
    """True for a filter that ran, False for one that was refused in our own words."""
    try:
        tree = parse_filter(text)
    except UsageError:
        return False
    catalog.vector_ids(1, tree)
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
        for form in ("name = {}", "path like {}", "{} > path", "extension in ({})"):
            with catalog.snapshot():
                asked.clear()
                for value in HOSTILE:
                    quoted = "'" + value.replace("'", "''") + "'"
                    catalog.vector_ids(1, parse_filter(form.format(quoted)))
                    expected = value.lower() if "extension" in form else value.encode()
                    assert expected in asked[-1][1]
            assert len(asked) == len(HOSTILE)
            (statement,) = {statement for statement, _ in asked}
            assert not re.search('DROP|ATTACH|UNION|OR 1|%|]|"', statement)
    finally:
        event.remove(catalog._connection, "before_cursor_execute", note)


def test_a_filter_only_reads(catalog):
    """SQLite's own authorizer sees nothing but reads of our tables while hostile filters run."""
    raw = catalog._connection.connection.driver_connection
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
            if field.kind in (Kind.PATH, Kind.WORD):
                for value in HOSTILE if field.kind is Kind.WORD else map(str.encode, HOSTILE):
                    kept_by(catalog, Compare(field, Operator.LIKE, value))
                    kept_by(catalog, Compare(field, Operator.EQUAL, value))
            else:
                kept_by(catalog, Compare(field, Operator.EQUAL, field))
    finally:
        raw.set_authorizer(None)
    assert refused == []
    assert tables == {"vectors", "files", "items", "folders", "contents"}
    assert functions <= {"lower", "mmsearch_like", "mmsearch_extension"}


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
    with pytest.raises(UsageError, match="no field is called taken"):
        library.query("red", where="taken >= 2024")


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
    plain = run_cli("query", "red", *index, "--format", "paths", python=spy)
    kept = run_cli(
        "query", "red", *index, "--format", "paths", "--where", "width > height", python=spy
    )
    assert len(plain.stdout.splitlines()) == 2
    assert kept.stdout.splitlines() == [os.fsencode(tmp_path / "photos" / "wide.png")]
    assert b"mmsearch.filters" in kept.stderr
    assert b"mmsearch.filters" not in plain.stderr
