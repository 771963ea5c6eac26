"""What was asked: words, files, pictures and sounds with weights, as one Query.

The signs are rclip's: `+` adds, `-` takes away, `2:` weighs; terms that stand beside each
other are one phrase. A file as a term starts with ./, ../, / or ~.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmsearch.errors import UsageError
from mmsearch.records import Modality

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):\s*(.+)", re.DOTALL)
_FILE = re.compile(r"\.{0,2}/|~")


@dataclass(frozen=True, slots=True)
class Term:
    """One thing to be near to (or, with a negative weight, far from).

    `value` is a string or the Path of a file for a text; a path or a PIL picture for a
    picture; a path for a sound. `modality` is None for a path that stands among words: the
    file itself says what it is.
    """

    modality: Modality | None
    value: Any
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """A weighted sum of terms: `text("dog") + 0.5 * image("pool.jpg") - text("toy")`.

    It stands for the renormalised sum of weight times unit row of its terms.
    """

    terms: tuple[Term, ...]

    @property
    def words(self) -> list[tuple[float, str]]:
        """What is said in words, each with its weight."""
        return [
            (term.weight, term.value)
            for term in self.terms
            if isinstance(term.value, str) and term.modality is Modality.TEXT
        ]

    def __add__(self, other: Query) -> Query:
        return Query(self.terms + other.terms)

    def __neg__(self) -> Query:
        return -1.0 * self

    def __sub__(self, other: Query) -> Query:
        return self + -other

    def __rmul__(self, factor: float) -> Query:
        return Query(tuple(replace(term, weight=factor * term.weight) for term in self.terms))

    __mul__ = __rmul__


def text(words: str | Path) -> Query:
    """A query for what these words describe, or those in the file of a Path.

    Raises UsageError when there are none.
    """
    if isinstance(words, str):
        words = words.strip()
    if not words:
        raise UsageError('nothing to look for: give some words, such as "a dog on grass"')
    return Query((Term(Modality.TEXT, words),))


def image(source: str | os.PathLike[str] | Any) -> Query:
    """A query for what is like this picture: a path, or a PIL image."""
    return Query((Term(Modality.IMAGE, source),))


def audio(source: str | os.PathLike[str]) -> Query:
    """A query for what is like this sound: a path. One of many windows is their mean."""
    return Query((Term(Modality.AUDIO, source),))


def file(path: str) -> Query:
    """A query for what is like this file: a picture, a sound or a text. ~ is a home folder."""
    return Query((Term(None, Path(path).expanduser()),))


def parse(words: Sequence[str]) -> Query:
    """The query of a command line, one argument a word.

    >>> parse(["horse", "+", "stripes", "-", "2:fruit"]).terms[2].weight
    -2.0
    """
    parts: list[Query] = []
    phrase: list[str] = []
    sign = 1.0

    def close() -> None:
        nonlocal sign
        if phrase:
            parts.append(sign * _weighted(" ".join(phrase), text))
            phrase.clear()
            sign = 1.0

    for word in words:
        if word in ("+", "-"):
            close()
            sign = 1.0 if word == "+" else -1.0
        elif _FILE.match(word.partition(":")[2] if _WEIGHT.match(word) else word):
            close()
            parts.append(sign * _weighted(word, file))
            sign = 1.0
        else:
            phrase.append(word)
    close()
    return combine(parts)


def combine(parts: Sequence[Query]) -> Query:
    """All of these added up. Raises UsageError when there is nothing to look for."""
    terms = tuple(term for part in parts for term in part.terms)
    if not terms:
        raise UsageError('nothing to look for: give some words, such as "a dog on grass"')
    return Query(terms)


def _weighted(term: str, make: Any) -> Query:
    weight = _WEIGHT.fullmatch(term)
    made: Query = float(weight[1]) * make(weight[2]) if weight else make(term)
    return made
