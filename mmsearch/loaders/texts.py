"""One text file in; passages of a few hundred characters out, one after the other.

A passage is what one vector can stand for: some sentences, a short paragraph or two. Files
are read in chunks, so that one of a single endless line takes no more memory than any other.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

from mmsearch.errors import LoadError
from mmsearch.records import Reason

MAX_MEGABYTES = 16.0  # five times "War and Peace"
LONGEST = 400  # characters of a passage
_CHUNK = 1 << 16  # bytes read at a time

# What is not UTF-8 is read as UTF-8 all the same and the marks of what it could not say are
# counted: a text in Latin-1 has a few, one in another encoding or no text at all has many.
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_UNREADABLE = 0.25
_CONTROLS = {code: " " for code in (*range(32), *range(127, 160)) if code != ord("\n")}

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
# 。！？… need no space behind them, and a closing quotation mark belongs to its sentence
_SENTENCE = re.compile(r"""[.!?]["'”’»)\]]*\s+|[。！？…]["'”’»）」』]*\s*|\n[^\S\n]*\n\s*""")
_SPACE = re.compile(r"\s+")

_MARKS = (
    (re.compile(r"^\s*(```|~~~).*$", re.M), ""),  # what stands around code
    (re.compile(r"^\s*(#{1,6}|>+|[-*+])\s+", re.M), ""),  # headings, quotations, lists
    (re.compile(r"^\s*([-=*_]\s*){3,}$", re.M), ""),  # rules and underlined headings
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),  # links and pictures
    (re.compile(r"(?<!\w)([*_]{1,3}|`+)(?=\S)([^*_`\n]+)(?<=\S)\1(?!\w)"), r"\2"),  # emphasis, code
)


def passages(
    file: BinaryIO, *, markdown: bool = False, max_megabytes: float = MAX_MEGABYTES
) -> Iterator[str]:
    """The passages of a text, streamed: at most 400 characters each, on one line.

    A passage ends with a paragraph where one ends in the second half of those 400
    characters, else with a sentence that ends beyond the first quarter, else before a word,
    else wherever it must. UTF-8 and UTF-16 are told apart by
    their byte order mark; without one it is UTF-8. `markdown` takes the commonest marks out.

    Raises LoadError for what is too large, no text, or has no words, perhaps only after the
    last passage: a caller must not keep what came before that.
    """
    found = False
    for stretch in _stretches(_decoded(file, max_megabytes)):
        if passage := _plain(stretch, markdown):
            found = True
            yield passage
    if not found:
        raise LoadError(Reason.EMPTY, "there are no words in it")


def sentences(passage: str) -> list[str]:
    """The sentences of a passage, in order and without the space between them."""
    ends = [match.end() for match in _SENTENCE.finditer(passage)]
    edges = [0, *ends, len(passage)]
    found = [passage[a:b].strip() for a, b in pairwise(edges)]
    return [sentence for sentence in found if sentence]


def _decoded(file: BinaryIO, max_megabytes: float) -> Iterator[str]:
    """The text in chunks, control characters and byte order mark taken out."""
    head = file.read(_CHUNK)
    mark = next((mark for mark in _BOMS if head.startswith(mark)), b"")
    decoder = codecs.getincrementaldecoder(_BOMS.get(mark, "utf-8"))("replace")
    size, characters, unreadable = len(head), 0, 0
    chunk = head[len(mark) :]
    while True:
        text = decoder.decode(chunk, final=not chunk)
        characters += len(text)
        unreadable += text.count("\N{REPLACEMENT CHARACTER}") + text.count("\0")
        if unreadable > _UNREADABLE * characters:
            raise LoadError(
                Reason.TYPE_MISMATCH,
                f"{unreadable:,} of {characters:,} characters are none: no text, or in an "
                "encoding other than UTF-8 and UTF-16",
            )
        yield text.translate(_CONTROLS)
        if not chunk:
            return
        chunk = file.read(_CHUNK)
        size += len(chunk)
        if size > max_megabytes * 1e6:
            raise LoadError(
                Reason.TOO_LARGE,
                f"a text of more than {max_megabytes:g} MB; raise it with MMSEARCH_MAX_TEXT_MB",
            )


def _stretches(chunks: Iterator[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        held, at = held + chunk, 0
        while len(held) - at > LONGEST:
            end = at + _end(held[at : at + LONGEST])
            yield held[at:end]
            at = end
        held = held[at:]
    yield held


def _end(text: str) -> int:
    """Where in the text the first passage had better end."""
    for pattern, least in ((_PARAGRAPH, LONGEST // 2), (_SENTENCE, LONGEST // 4), (_SPACE, 1)):
        ends = [match.end() for match in pattern.finditer(text)]
        if ends and ends[-1] >= least:
            return ends[-1]
    return len(text)


def _plain(text: str, markdown: bool) -> str:
    for pattern, replacement in _MARKS if markdown else ():
        text = pattern.sub(replacement, text)
    return " ".join(text.split())
