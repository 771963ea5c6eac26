"""The nouns of a question: terms, sums of them, and what joins sums."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsearch.errors import UsageError
from mmsearch.records import Modality

NOTHING = 'nothing to look for: give some words, such as "a dog on grass"'

# A question may come from a stranger: these keep it affordable, and far from Python's stack.
MAX_TERMS = 200
MAX_DEPTH = 16  # conditions within one another
MAX_WORDS = 10_000  # characters, as of a filter: ten times as many take seconds to look for
MAX_WEIGHT = 1e6  # its square is well within single precision


@dataclass(frozen=True, slots=True)
class Term:
    """One thing to be near to (or, with a negative weight, not to be).

    `value` is a string or the Path of a file for a text; a path or a PIL picture for a
    picture; a path for a sound. `modality` is None for a path that stands among words: the
    file itself says what it is.
    """

    modality: Modality | None
    value: Any
    weight: float = 1.0

    def __hash__(self) -> int:  # a PIL picture has none
        value = self.value if isinstance(self.value, str | Path) else id(self.value)
        return hash((self.modality, value, self.weight))


class Query:
    """What is looked for: `text("dog") + 0.5 * image("pool.jpg") - text("toy")`.

    `+` and `-` make a Sum; `&`, `|` and `~` join what has to be true together, instead of
    one another, or not at all. mmsearch.fusion says what each is worth.
    """

    __slots__ = ()

    def __add__(self, other: Query) -> Query:
        if not (isinstance(self, Sum) and isinstance(other, Sum)):
            raise UsageError("conditions cannot be added up: join them with & and |, or AND and OR")
        return Sum(self.terms + other.terms)

    def __sub__(self, other: Query) -> Query:
        if isinstance(self, Sum) and isinstance(other, Sum):
            return self + -other
        return self & ~other

    def __neg__(self) -> Query:
        return -1.0 * self

    def __rmul__(self, factor: float) -> Query:
        if not isinstance(self, Sum):
            raise UsageError("a weight stands before words, pictures and sounds, not conditions")
        return Sum(tuple(replace(term, weight=factor * term.weight) for term in self.terms))

    __mul__ = __rmul__

    def __and__(self, other: Query) -> Query:
        return And(_joined(And, self, other))

    def __or__(self, other: Query) -> Query:
        return Or(_joined(Or, self, other))

    def __invert__(self) -> Query:
        return self.part if isinstance(self, Not) else Not(self)


@dataclass(frozen=True, slots=True)
class Sum(Query):
    """Terms with weights; what has a negative one is to be left out."""

    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class And(Query):
    """All of these parts at once."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Or(Query):
    """Any of these parts."""

    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Not(Query):
    """What this part does not describe; beside something to look for."""

    part: Query


def text(words: str | Path) -> Query:
    """A query for what these words describe, or those in the file of a Path.

    Raises UsageError when there are none, or too many.
    """
    if isinstance(words, str):
        words = words.strip()
        if len(words) > MAX_WORDS:
            raise UsageError(f"{len(words):,} characters to look for; {MAX_WORDS:,} is the limit")
    if not words:
        raise UsageError(NOTHING)
    return Sum((Term(Modality.TEXT, words),))


def image(source: str | os.PathLike[str] | Any) -> Query:
    """A query for what is like this picture: a path, or a PIL image."""
    return Sum((Term(Modality.IMAGE, source),))


def audio(source: str | os.PathLike[str]) -> Query:
    """A query for what is like this sound: a path. One of many windows is their mean."""
    return Sum((Term(Modality.AUDIO, source),))


def file(path: str | os.PathLike[str]) -> Query:
    """A query for what is like this file: a picture, a sound or a text. ~ is a home folder.

    Raises UsageError for a home folder that is not known, and for what no path can be.
    """
    try:
        return Sum((Term(None, Path(path).expanduser()),))
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{os.fspath(path)[:80]!r} is no path: {error}") from error


def combine(parts: list[Query]) -> Query:
    """All of these added up, or, where some are conditions, all of them at once.

    Raises UsageError when there is nothing to look for.
    """
    sums = [part for part in parts if isinstance(part, Sum)]
    terms = tuple(term for part in sums for term in part.terms)
    joined: list[Query] = [part for part in parts if not isinstance(part, Sum)]
    if terms:
        joined.insert(0, Sum(terms))
    if not joined:
        raise UsageError(NOTHING)
    return joined[0] if len(joined) == 1 else And(tuple(joined))


def terms_of(query: Query) -> list[Term]:
    """Every term of a query, from left to right."""
    match query:
        case Sum(terms):
            return list(terms)
        case And(parts) | Or(parts):
            return [term for part in parts for term in terms_of(part)]
        case Not(part):
            return terms_of(part)
    raise TypeError(f"not a query: {query!r}")


def checked(query: Query) -> Query:
    """The query itself, if it can be answered.

    Raises UsageError where nothing says what to look for, and beyond the limits.
    """
    if _depth(query) > MAX_DEPTH:
        raise UsageError(f"conditions within one another more than {MAX_DEPTH} deep")
    if (count := len(terms_of(query))) > MAX_TERMS:
        raise UsageError(f"{count:,} things to look for at once; {MAX_TERMS} is the limit")
    _check(query)
    return query


def _check(query: Query) -> None:
    match query:
        case Sum(terms):
            for term in terms:
                if not abs(term.weight) <= MAX_WEIGHT:  # nor is one that is not a number
                    raise UsageError(f"a weight is at most {MAX_WEIGHT:,.0f}, not {term.weight}")
            if not any(term.weight > 0 for term in terms):
                raise UsageError(_ONLY_WITHOUT if terms else NOTHING)
        case And(parts):
            if all(isinstance(part, Not) for part in parts):
                raise UsageError(_ONLY_WITHOUT)
            for part in parts:
                _check(part.part if isinstance(part, Not) else part)
        case Or(parts):
            for part in parts:
                _check(part)
        case Not():
            raise UsageError(_ONLY_WITHOUT)


_ONLY_WITHOUT = (
    'this says only what to leave out: say first what to look for, such as "a dog" - "a ball"'
)


def _depth(query: Query) -> int:
    """How many conditions lie within one another, looked at without recursion."""
    deepest, waiting = 0, [(query, 0)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        match node:
            case And(parts) | Or(parts):
                waiting += [(part, depth + 1) for part in parts]
            case Not(part):
                waiting.append((part, depth + 1))
    return deepest


def _joined(kind: type[And] | type[Or], left: Query, right: Query) -> tuple[Query, ...]:
    """`a & b & c` is one And of three."""
    return tuple(
        part
        for side in (left, right)
        for part in (side.parts if isinstance(side, kind) else (side,))
    )
