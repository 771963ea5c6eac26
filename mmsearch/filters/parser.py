"""From the text of a filter to its tree: recursive descent, a method a rule of the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

from mmsearch.errors import UsageError
from mmsearch.filters.tokens import Token, error_at, tokens
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
    Value,
)

# A filter may come from a stranger: these keep it far from the limits of Python's stack and
# of SQLite's parser (100 levels, 1000 terms), which answer with errors of their own.
MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 16  # parentheses and `not` within one another
MAX_CONDITIONS = 200  # comparisons; every value of `in` is one

_SPELLINGS = {"==": Operator.EQUAL, "<>": Operator.DIFFERENT}
_MIRRORED = {
    Operator.LESS: Operator.MORE,
    Operator.MORE: Operator.LESS,
    Operator.AT_MOST: Operator.AT_LEAST,
    Operator.AT_LEAST: Operator.AT_MOST,
}

_UNITS: dict[Kind, dict[str, float]] = {
    Kind.SIZE: {"kb": 10**3, "mb": 10**6, "gb": 10**9},
    Kind.DURATION: {"s": 1, "sec": 1, "min": 60, "h": 3600},
}
_KILOMETRES = {"": 1, "km": 1, "m": 0.001}
_EVERY_UNIT = {unit for units in (*_UNITS.values(), _KILOMETRES) for unit in units if unit}
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)([a-z]*)", re.ASCII | re.IGNORECASE)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?)?)?", re.ASCII | re.IGNORECASE
)
_YEARS = range(1700, 2201)  # their nanoseconds are integers that a database can hold
_FORMATS = {"jpg": "jpeg", "tif": "tiff", "heic": "heif"}  # as files are called, as they are
_EXAMPLES = {
    Kind.NUMBER: "a number such as 640",
    Kind.SIZE: "a size such as 500kB, 2.5 MB or 1GB",
    Kind.DURATION: "a length of time such as 90, 90s, 2min or 1.5h",
    Kind.DATE: "a date such as 2024, 2024-06, 2024-06-01 or 2024-06-01T12:00",
}
_NEAR = "near(latitude, longitude, kilometres)"
# What else people call a field, where no likeness of letters would tell.
_OTHERWISE = {
    "date": "taken", "time": "taken", "year": "taken", "created": "taken", "ctime": "added",
    "mtime": "modified", "type": "modality", "kind": "modality", "ext": "extension",
    "suffix": "extension", "file": "name", "folder": "path", "directory": "path",
    "length": "duration", "make": "camera", "model": "camera", "tag": "label",
    "description": "caption", "near": _NEAR, "gps": _NEAR, "place": _NEAR, "location": _NEAR,
}  # fmt: skip


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


class _Parser:
    """What is read of one filter; `filter` begins with its weakest rule, `or`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens(text))
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
        if self._token.text.lower() == "near" and self._tokens[self._position + 1].text == "(":
            return self._near()
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

    def _near(self) -> Near:
        self._count(self._take())
        self._require("(", "(")
        latitude = self._coordinate(90, "a latitude from -90 to 90")
        self._require(",", f", as in {_NEAR}")
        longitude = self._coordinate(180, "a longitude from -180 to 180")
        self._require(",", f", as in {_NEAR}")
        what = "a distance such as 10, 10km or 500m"
        token = self._operand(what)
        kilometres = self._quantity(token, _KILOMETRES)
        if kilometres is None or kilometres < 0:
            raise self._error(token, f"expected {what}")
        self._require(")", ")")
        return Near(latitude, longitude, float(kilometres))

    def _coordinate(self, most: int, what: str) -> float:
        token = self._operand(what)
        degrees = self._quantity(token, {"": 1})
        if degrees is None or not abs(degrees) <= most:
            raise self._error(token, f"expected {what}")
        return float(degrees)

    def _in(self, left: Token) -> Filter:
        self._require("(", "( and a list of values")
        parts: list[Filter] = []
        while True:
            right = self._operand("a field or a value")
            parts.append(self._compare(left, Operator.EQUAL, right))
            if not self._accept(","):
                break
        self._require(")", ", or )")
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _operand(self, expected: str) -> Token:
        if self._token.kind not in ("word", "quoted"):
            raise self._expected(expected)
        token = self._take()
        number = token.kind == "word" and _NUMBER.fullmatch(token.text)
        if number and not number[2] and self._token.text.lower() in _EVERY_UNIT:
            return Token("word", token.text + self._take().text, token.at)  # 2 MB
        return token

    # -- what is compared with what ----------------------------------------------------

    def _compare(self, left: Token, operator: Operator, right: Token) -> Filter:
        self._count(left)
        field, other = left.field, right.field
        for token, side in ((left, field), (right, other)):
            if side and side.kind is Kind.TEXTS:
                return self._any_of(side, token, operator, right if token is left else left)
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

    def _any_of(self, field: Field, at: Token, operator: Operator, value: Token) -> Filter:
        """One of the field's texts compared with a value; different from it are all, or none."""
        if operator not in (Operator.EQUAL, Operator.DIFFERENT):
            raise self._error(at, f"{field.name} is {field.kind}: it knows = != like and in")
        if value.field:
            raise self._error(value, f"expected a text; this one would be '{value.text}' in quotes")
        made = Compare(field, Operator.EQUAL, self._word(value))
        return made if operator is Operator.EQUAL else Not(made)

    def _like(self, left: Token, right: Token) -> Compare:
        self._count(left)
        field = left.field
        if field is None:
            raise self._no_field(left)
        if field.kind not in (Kind.WORD, Kind.PATH, Kind.TEXTS):
            raise self._error(left, f"{field.name} is {field.kind}: like is for text")
        if right.field:
            raise self._error(right, "expected a pattern: in quotes, this is one")
        if field.kind is Kind.PATH:
            return Compare(field, Operator.LIKE, self._path(right))
        return Compare(field, Operator.LIKE, self._word(right))

    def _value(self, field: Field, token: Token) -> Value:
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

    def _path(self, token: Token) -> bytes:
        try:
            # a byte that is not UTF-8 comes from a command line as half a surrogate pair
            return token.content.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise self._error(token, "half a surrogate pair is in no path") from error

    def _word(self, token: Token) -> str:
        word = token.content.lower()
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise self._error(token, "expected text: this is not UTF-8") from error
        return word

    def _number(self, field: Field, token: Token) -> int | float:
        found = self._quantity(token, {"": 1} | _UNITS.get(field.kind, {}))
        if found is None:
            raise self._unlike(field, token)
        return found

    def _quantity(self, token: Token, units: Mapping[str, float]) -> int | float | None:
        """A number times its unit; None for what is none, or has another unit."""
        found = _NUMBER.fullmatch(token.text)  # in quotes it would be text
        if found is None or (unit := units.get(found[2].lower())) is None:
            return None
        digits = found[1]
        if len(digits) > 40 or not abs(float(digits) * unit) < 2**63:
            raise self._error(token, "expected a smaller number")
        if digits.lstrip("+-").isdecimal():
            return int(digits) * unit
        number = float(digits) * unit
        return round(number, 6) if unit > 1 else number  # 1.1 MB is 1,100,000 bytes

    def _date(self, field: Field, token: Token) -> Date:
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

    def _unlike(self, field: Field, token: Token) -> UsageError:
        message = f"expected {_EXAMPLES[field.kind]}, as {field.name} is {field.kind}"
        if token.kind == "word" and token.text.isidentifier():
            message += f"; or a field{_nearest(token.text)}: {', '.join(FIELDS)}"
        return self._error(token, message)

    def _no_field(self, token: Token) -> UsageError:
        fields = f"the fields are {', '.join(FIELDS)}"
        if token.kind == "word" and token.text.isidentifier():
            name = f"{token.text[:40]}{_nearest(token.text)}"
            return self._error(token, f"no field is called {name}; {fields}")
        return self._error(token, f"expected a field, as this is a value; {fields}")

    def _expected(self, what: str) -> UsageError:
        return self._error(self._token, f"expected {what}")

    def _error(self, token: Token, message: str) -> UsageError:
        return error_at(self._text, token.at, message)

    def _count(self, token: Token) -> None:
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
    def _token(self) -> Token:
        return self._tokens[self._position]

    def _take(self) -> Token:
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


def _nearest(name: str) -> str:
    """The field that was probably meant, as a question; empty when none was."""
    name = name.lower()[:40]
    meant = [_OTHERWISE[name]] if name in _OTHERWISE else get_close_matches(name, FIELDS, 1)
    return f" (did you mean {meant[0]}?)" if meant else ""
