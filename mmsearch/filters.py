"""Filters: `width > height and modified >= 2024 and path like '*/holiday/*'` as a tree.

    filter     = condition, and, or, not, ( )                     `not` binds first, `or` last
    condition  = a operator b             operators: = == != <> < <= > >=
               | a [not] like pattern     * stands for anything, ? for one character
               | a [not] in (b, c, ...)   any of them
               | a [not] between b and c  both ends belong to it

`a`, `b` and `c` are fields or values, at least one a field, and both of one kind. Keywords,
fields and units may be in capitals. `FIELDS` has the fields:

    path, name               text, byte for byte: the whole path, the last part of it
    extension, format        text in small letters: "jpg" (no dot; empty when there is none)
                             is how a file is called, "jpeg" what is in it
    modality                 image, audio, text
    orientation              landscape, portrait, square
    width, height            pixels, of the picture when it stands upright
    megapixels               width x height in millions
    size                     bytes: 500000, 500kB, 2.5 MB, 1GB (powers of 1000)
    modified, added          the date of the file; when mmsearch first saw it

Text stands in single or double quotes, which are doubled to be part of it; quotes may be left
out around text that has no spaces, commas, parentheses, quotes or operators in it and is no
keyword and no field.

A date is a span of local time: 2024, 2024-06, 2024-06-01, 2024-06-01T12:00 (or with seconds).
`= 2024` is within that year and `!= 2024` outside of it, `< 2024` before it begins and `>= 2024`
from then on, `> 2024` after it has ended and `<= 2024` until then.

What is not known (the width of a text) answers neither yes nor no, as in SQL: `width > 100`
does not find it, and `not width > 100` does not either. `or` finds it when its other side does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from mmsearch.errors import UsageError

# A filter may come from a stranger: these keep it far from the limits of Python's stack and
# of SQLite's parser (100 levels, 1000 terms), which answer with errors of their own.
MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 16  # parentheses and `not` within one another
MAX_CONDITIONS = 200  # comparisons; every value of `in` is one


class Kind(StrEnum):
    """What may be compared with what: only like with like."""

    NUMBER = "a number"
    SIZE = "a number of bytes"
    DATE = "a date"
    WORD = "a word"  # text in small letters
    PATH = "a path"  # bytes


class Operator(StrEnum):
    """How a field is compared."""

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
        Field("size", Kind.SIZE),
        Field("modified", Kind.DATE),
        Field("added", Kind.DATE),
    )
}


@dataclass(frozen=True, slots=True)
class Date:
    """A span of local time: year, perhaps month, day, hour and minute, second."""

    parts: tuple[int, ...]

    def span(self) -> tuple[int, int]:
        """Its first nanosecond since 1970, and the first after it."""
        first = datetime(*self.parts, *(1, 1)[len(self.parts) - 1 :])  # type: ignore[arg-type]
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

    Numbers and sizes are int or float, dates Date, words str in small letters, paths bytes.
    """

    field: Field
    operator: Operator
    value: Field | Value


@dataclass(frozen=True, slots=True)
class Not:
    """True where `part` is false."""

    part: Filter


@dataclass(frozen=True, slots=True)
class And:
    """True where all parts are."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True where any part is."""

    parts: tuple[Filter, ...]


Filter = Compare | Not | And | Or


def parse_filter(text: str) -> Filter:
    """The tree of a filter. `in` becomes Or, and `between` becomes And, of comparisons.

    Raises UsageError, and nothing else, with the text, a caret below the character where it
    went wrong, and what was expected there.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(
            f"the filter is {len(text):,} characters long; {MAX_LENGTH:,} is the limit"
        )
    return _Parser(text).filter()


# -- from characters to tokens ---------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<mark>[(),])
      | (?P<operator><=|>=|<>|!=|==|=|<|>)
      | (?P<quoted>'(?:[^']|'')*+'|"(?:[^"]|"")*+")
      | (?P<word>[^\s(),=<>!'"]+)""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "like"})
_SPELLINGS = {"==": Operator.EQUAL, "<>": Operator.DIFFERENT}
_MIRRORED = {
    Operator.LESS: Operator.MORE,
    Operator.MORE: Operator.LESS,
    Operator.AT_MOST: Operator.AT_LEAST,
    Operator.AT_LEAST: Operator.AT_MOST,
}

_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9}
_NUMBER = re.compile(
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(kb|mb|gb)?", re.ASCII | re.IGNORECASE
)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?)?)?", re.ASCII | re.IGNORECASE
)
_YEARS = range(1700, 2201)  # their nanoseconds are integers that a database can hold
_FORMATS = {"jpg": "jpeg", "tif": "tiff", "heic": "heif"}  # as files are called, as they are
_EXAMPLES = {
    Kind.NUMBER: "a number such as 640",
    Kind.SIZE: "a size such as 500kB, 2.5 MB or 1GB",
    Kind.DATE: "a date such as 2024, 2024-06, 2024-06-01 or 2024-06-01T12:00",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # mark, operator, quoted, word, keyword, end
    text: str
    at: int

    @property
    def field(self) -> Field | None:
        return FIELDS.get(self.text.lower()) if self.kind == "word" else None

    @property
    def content(self) -> str:
        """What it says: without the quotes around it and those doubled within."""
        if self.kind != "quoted":
            return self.text
        quote = self.text[0]
        return self.text[1:-1].replace(quote * 2, quote)


def _tokens(text: str) -> Iterator[_Token]:
    at = _end_of_space(text, 0)
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a quote that is never closed" if text[at] in "'\"" else "not expected here"
            raise _error(text, at, what)
        kind = found.lastgroup or ""
        if kind == "word" and found[0].lower() in _KEYWORDS:
            yield _Token("keyword", found[0].lower(), at)
        else:
            yield _Token(kind, found[0], at)
        at = _end_of_space(text, found.end())
    yield _Token("end", "", at)


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _error(text: str, at: int, message: str) -> UsageError:
    """The message, then the text around a position, then a caret below that position."""
    start = max(0, at - 50)
    before = ("… " if start else "") + _shown(text[start:at])
    after = _shown(text[at : at + 30]) + (" …" if at + 30 < len(text) else "")
    return UsageError(f"in the filter: {message}\n  {before}{after}\n  {' ' * _columns(before)}^")


def _shown(text: str) -> str:
    """What a terminal may safely be given, as many characters as before."""
    return "".join(char if char.isprintable() else " " for char in text)


def _columns(text: str) -> int:
    """How wide a terminal shows it: Chinese letters take two columns, accents none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


# -- from tokens to the tree -----------------------------------------------------------


class _Parser:
    """Recursive descent: a method a rule of the grammar, `or` at the top."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._position = 0
        self._depth = 0
        self._conditions = 0

    def filter(self) -> Filter:
        if self._token.kind == "end":
            raise self._expected("a condition, such as width > height")
        tree = self._or()
        if self._token.kind != "end":
            raise self._expected("and, or, or the end")
        return tree

    def _or(self) -> Filter:
        parts = [self._and()]
        while self._accept("or"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Filter:
        parts = [self._not()]
        while self._accept("and"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Filter:
        if self._accept("not"):
            with self._deeper():
                return Not(self._not())
        if self._accept("("):
            with self._deeper():
                inner = self._or()
            self._require(")", "and, or, or )")
            return inner
        return self._condition()

    def _condition(self) -> Filter:
        left = self._operand("a field, a value, not or (")
        negated = self._accept("not")
        made: Filter
        if self._accept("in"):
            made = self._in(left)
        elif self._accept("between"):
            low = self._operand("a field or a value")
            self._require("and", "and, then the upper end")
            high = self._operand("a field or a value")
            least = self._compare(left, Operator.AT_LEAST, low)
            made = And((least, self._compare(left, Operator.AT_MOST, high)))
        elif self._accept("like"):
            made = self._like(left, self._operand("a pattern such as '*/holiday/*'"))
        elif self._token.kind == "operator" and not negated:
            text = self._take().text
            right = self._operand("a field or a value")
            made = self._compare(left, _SPELLINGS.get(text) or Operator(text), right)
        else:
            operators = "" if negated else "= != < <= > >= "
            raise self._expected(f"one of {operators}in between like")
        return Not(made) if negated else made

    def _in(self, left: _Token) -> Filter:
        self._require("(", "( and a list of values")
        parts: list[Filter] = []
        while True:
            right = self._operand("a field or a value")
            parts.append(self._compare(left, Operator.EQUAL, right))
            if not self._accept(","):
                break
        self._require(")", ", or )")
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _operand(self, expected: str) -> _Token:
        if self._token.kind not in ("word", "quoted"):
            raise self._expected(expected)
        token = self._take()
        number = token.kind == "word" and _NUMBER.fullmatch(token.text)
        if number and not number[2] and self._token.text.lower() in _UNITS:
            return _Token("word", token.text + self._take().text, token.at)  # 2 MB
        return token

    # -- what is compared with what ----------------------------------------------------

    def _compare(self, left: _Token, operator: Operator, right: _Token) -> Compare:
        self._count(left)
        field, other = left.field, right.field
        if field is None:
            if other is None:
                raise self._no_field(right if left.kind == "quoted" else left)
            return Compare(other, _MIRRORED.get(operator, operator), self._value(other, left))
        if other is None:
            return Compare(field, operator, self._value(field, right))
        if field.kind is not other.kind:
            message = f"{field.name} is {field.kind} and {other.name} {other.kind}"
            if field.kind in (Kind.WORD, Kind.PATH):
                message += f"; to mean the word, write '{right.text}' in quotes"
            raise self._error(right, f"{message}: they do not compare")
        return Compare(field, operator, other)

    def _like(self, left: _Token, right: _Token) -> Compare:
        self._count(left)
        field = left.field
        if field is None:
            raise self._no_field(left)
        if field.kind not in (Kind.WORD, Kind.PATH):
            raise self._error(left, f"{field.name} is {field.kind}: like is for text")
        if right.field:
            raise self._error(right, "expected a pattern: in quotes, this is one")
        if field.kind is Kind.PATH:
            return Compare(field, Operator.LIKE, self._path(right))
        return Compare(field, Operator.LIKE, self._word(right))

    def _value(self, field: Field, token: _Token) -> Value:
        match field.kind:
            case Kind.PATH:
                return self._path(token)
            case Kind.WORD:
                word = self._word(token)
                if field.values and word not in field.values:
                    raise self._error(token, f"expected one of {', '.join(field.values)}")
                return _FORMATS.get(word, word) if field.name == "format" else word
            case Kind.DATE:
                return self._date(field, token)
            case _:
                return self._number(field, token)

    def _path(self, token: _Token) -> bytes:
        try:
            # a byte that is not UTF-8 comes from a command line as half a surrogate pair
            return token.content.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise self._error(token, "half a surrogate pair is in no path") from error

    def _word(self, token: _Token) -> str:
        word = token.content.lower()
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise self._error(token, "expected text: this is not UTF-8") from error
        return word

    def _number(self, field: Field, token: _Token) -> int | float:
        found = _NUMBER.fullmatch(token.text)  # in quotes it would be text
        if found is None or (found[2] and field.kind is not Kind.SIZE):
            raise self._unlike(field, token)
        digits, unit = found[1], _UNITS[found[2].lower()] if found[2] else None
        if len(digits) > 40 or not abs(float(digits) * (unit or 1)) < 2**63:
            raise self._error(token, "expected a smaller number")
        if unit:
            return round(float(digits) * unit)
        return int(digits) if digits.lstrip("+-").isdecimal() else float(digits)

    def _date(self, field: Field, token: _Token) -> Date:
        found = _DATE.fullmatch(token.content)
        if found is None:
            raise self._unlike(field, token)
        date = Date(tuple(int(part) for part in found.groups() if part is not None))
        if date.parts[0] not in _YEARS:
            limits = f"{_YEARS[0]} to {_YEARS[-1]}"
            raise self._error(token, f"expected a year from {limits}")
        try:
            date.span()
        except ValueError as error:
            raise self._error(token, f"there is no such date ({error})") from error
        return date

    # -- errors and steps --------------------------------------------------------------

    def _unlike(self, field: Field, token: _Token) -> UsageError:
        message = f"expected {_EXAMPLES[field.kind]}, as {field.name} is {field.kind}"
        if token.kind == "word" and token.text.isidentifier():
            message += f"; or a field: {', '.join(FIELDS)}"
        return self._error(token, message)

    def _no_field(self, token: _Token) -> UsageError:
        fields = f"the fields are {', '.join(FIELDS)}"
        if token.kind == "word" and token.text.isidentifier():
            return self._error(token, f"no field is called {token.text[:40]}; {fields}")
        return self._error(token, f"expected a field, as this is a value; {fields}")

    def _expected(self, what: str) -> UsageError:
        return self._error(self._token, f"expected {what}")

    def _error(self, token: _Token, message: str) -> UsageError:
        return _error(self._text, token.at, message)

    def _count(self, token: _Token) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise self._error(token, f"{MAX_CONDITIONS} comparisons are the limit")

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        if self._depth == MAX_DEPTH:
            before = self._tokens[self._position - 1]
            raise self._error(before, f"{MAX_DEPTH} nested parentheses and nots are the limit")
        self._depth += 1
        yield
        self._depth -= 1

    @property
    def _token(self) -> _Token:
        return self._tokens[self._position]

    def _take(self) -> _Token:
        self._position += 1  # never past the end, which is no operand, mark or keyword
        return self._tokens[self._position - 1]

    def _accept(self, text: str) -> bool:
        if self._token.kind in ("mark", "keyword") and self._token.text == text:
            self._position += 1
            return True
        return False

    def _require(self, text: str, expected: str) -> None:
        if not self._accept(text):
            raise self._expected(expected)
