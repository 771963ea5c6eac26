"""From the characters of a filter to its tokens, and from a mistake to an error that shows it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from mmsearch.errors import UsageError
from mmsearch.filters.tree import FIELDS, Field

_TOKEN = re.compile(
    r"""(?P<mark>[(),])
      | (?P<operator><=|>=|<>|!=|==|=|<|>)
      | (?P<quoted>'(?:[^']|'')*+'|"(?:[^"]|"")*+")
      | (?P<word>[^\s(),=<>!'"]+)""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_KEYWORDS = frozenset({"and", "or", "not", "in", "between", "like"})


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a filter, and where it begins."""

    kind: str  # mark, operator, quoted, word, keyword, end
    text: str
    at: int

    @property
    def field(self) -> Field | None:
        """The field of that name; in quotes it would be text."""
        return FIELDS.get(self.text.lower()) if self.kind == "word" else None

    @property
    def content(self) -> str:
        """What it says: without the quotes around it and those doubled within."""
        if self.kind != "quoted":
            return self.text
        quote = self.text[0]
        return self.text[1:-1].replace(quote * 2, quote)


def tokens(text: str) -> Iterator[Token]:
    """The tokens, and one that is the end. Raises UsageError for what is none."""
    at = _end_of_space(text, 0)
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a quote that is never closed" if text[at] in "'\"" else "not expected here"
            raise error_at(text, at, what)
        kind = found.lastgroup or ""
        if kind == "word" and found[0].lower() in _KEYWORDS:
            yield Token("keyword", found[0].lower(), at)
        else:
            yield Token(kind, found[0], at)
        at = _end_of_space(text, found.end())
    yield Token("end", "", at)


def _end_of_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def error_at(text: str, at: int, message: str) -> UsageError:
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
