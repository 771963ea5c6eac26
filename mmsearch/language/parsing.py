"""From a command line to a Query.

    query   = all OR all ...         OR: any of them
    all     = one AND one ...        AND: all at once; it may be left out before NOT
    one     = NOT one | ( query ) | sum
    sum     = phrase + phrase - phrase ...    + adds, - leaves out, 2: weighs

A phrase is the words that stand beside each other; a file as a phrase starts with ./, ../, /
or ~. AND, OR, NOT, the parentheses and the signs are arguments of their own. One argument may
hold them too if it is nothing but quoted phrases and these: '"a dog" AND NOT "a ball"'.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmsearch.errors import UsageError
from mmsearch.language.query import MAX_DEPTH, MAX_WORDS, NOTHING, And, Or, Query, Sum, file, text

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):\s*(.+)", re.DOTALL)
_FILE = re.compile(r"\.{0,2}/|~")
_MARKS = frozenset({"+", "-", "AND", "OR", "NOT", "(", ")"})

# one argument with quoted phrases in it: nothing but those, perhaps with weights, and marks
_PIECE = re.compile(r'\s*(?:(AND|OR|NOT)\b|([-+()])|((?:\d+(?:\.\d+)?:)?)"([^"]*)")\s*')


def parse(words: Sequence[str]) -> Query:
    """The query of a command line, one argument a word.

    Raises UsageError for one that names nothing or whose signs and parentheses do not fit.

    >>> parse(["horse", "+", "stripes", "-", "2:fruit"]).terms[2].weight
    -2.0
    """
    if (length := sum(map(len, words))) > MAX_WORDS:
        raise UsageError(f"{length:,} characters to look for; {MAX_WORDS:,} is the limit")
    tokens: list[tuple[str, bool]] = []  # what it says, and whether it is a mark
    for word in words:
        tokens += _split(word)
    return _Parser(tokens).query()


def said(words: str) -> Query:
    """The query of one string: what it says as it stands, or its quoted parts, joined.

    >>> said('"a dog" AND NOT "a ball"').parts[1].part.terms[0].value
    'a ball'
    """
    # one that is too long is refused by either, unread
    pieces = _split(words) if len(words) <= MAX_WORDS else []
    return text(words) if len(pieces) == 1 else parse([words])


def _split(word: str) -> list[tuple[str, bool]]:
    """An argument as tokens: itself, or the quoted phrases and marks that it consists of."""
    if word in _MARKS:
        return [(word, True)]
    tokens: list[tuple[str, bool]] = []
    at = 0
    while '"' in word and at < len(word):
        piece = _PIECE.match(word, at)
        if piece is None:
            break
        mark, at = piece[1] or piece[2], piece.end()
        tokens.append((mark, True) if mark else (piece[3] + piece[4], False))
    # words and quotes mixed are a phrase like any other
    return tokens if tokens and at == len(word) else [(word, False)]


class _Parser:
    """Recursive descent over tokens; ("", True) is the end."""

    def __init__(self, tokens: list[tuple[str, bool]]) -> None:
        self._tokens = [*tokens, ("", True)]
        self._at = 0
        self._depth = 0

    def query(self) -> Query:
        if all(mark and word in "+-" for word, mark in self._tokens):
            raise UsageError(NOTHING)
        found = self._either()
        if self._next:
            raise UsageError(f"{self._next} is not expected there")
        return found

    @property
    def _next(self) -> str:
        """The mark that comes next; empty for a phrase and at the end."""
        word, mark = self._tokens[self._at]
        return word if mark else ""

    def _take(self) -> str:
        word, _ = self._tokens[self._at]
        self._at += 1
        return word

    def _either(self) -> Query:
        parts = [self._all()]
        while self._next == "OR":
            self._take()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Query:
        parts = [self._one()]
        while self._next in ("AND", "NOT"):
            if self._next == "AND":
                self._take()
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _one(self) -> Query:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UsageError(f"parentheses and NOT within one another more than {MAX_DEPTH} deep")
        if self._next == "NOT":
            self._take()
            found: Query = ~self._one()
        elif self._next == "(":
            self._take()
            found = self._either()
            if self._next != ")":
                raise UsageError("a parenthesis is never closed")
            self._take()
        else:
            found = self._sum()
        self._depth -= 1
        return found

    def _sum(self) -> Query:
        parts: list[Query] = []
        phrase: list[str] = []
        sign = 1.0

        def close() -> None:
            nonlocal sign
            if phrase:
                parts.append(sign * _weighted(" ".join(phrase)))
                phrase.clear()
                sign = 1.0

        while self._next in ("", "+", "-") and self._at < len(self._tokens) - 1:
            word, mark = self._tokens[self._at]
            self._at += 1
            if mark:
                close()
                sign = 1.0 if word == "+" else -1.0
            elif _FILE.match(word.partition(":")[2] if _WEIGHT.match(word) else word):
                close()
                parts.append(sign * _weighted(word))
                sign = 1.0
            else:
                phrase.append(word)
        close()
        if not parts:
            raise UsageError(f"something to look for is missing before {self._next or 'the end'}")
        return Sum(tuple(term for part in parts if isinstance(part, Sum) for term in part.terms))


def _weighted(term: str) -> Query:
    weight = _WEIGHT.fullmatch(term)
    rest = weight[2] if weight else term
    made = file(rest) if _FILE.match(rest) else text(rest)
    return float(weight[1]) * made if weight else made
