"""What is asked in words, as FTS5 is asked: quoted words and phrases.

FTS5 has a language of its own, with column filters and NEAR. So everything stands in double
quotes, where FTS5 splits it at whatever is neither a letter nor a digit and looks for what is
left one after the other: IMG_2041 is a phrase of two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_MOST = 64  # phrases of one question that are looked up

_PIECES = re.compile(r'"([^"]*)"|([^\s"]+)')
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")

# Chinese and Japanese put no spaces between words, and FTS5 would take a whole sentence for
# one. So every such character is stored as a word of its own, and two in a row are asked for:
# most Chinese words have two, and all those of a sentence hardly ever stand together.
_CHARACTERS = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+)")

# What says nothing of what is looked for: in a library without captions such words are rare,
# and a name that has one of them would seem to tell much.
_EMPTY = frozenset(
    (
        "a", "an", "and", "are", "as", "at", "by", "for", "from", "her", "his", "in", "is", "it",
        "its", "of", "on", "or", "some", "that", "the", "their", "there", "this", "to", "with",
        "的", "了", "着", "在", "是", "和",
    )
)  # fmt: skip


def phrases(texts: Sequence[str]) -> list[str]:
    """The words of these texts, quoted, each once; what stands in double quotes is a phrase.

    Words such as "of" only where there is nothing else. Empty where there is no word at all.
    """
    found = {piece.casefold(): piece for text in texts for piece in _pieces(text)}
    telling = [piece for key, piece in found.items() if key not in _EMPTY]
    return [quoted(separated(piece)) for piece in (telling or list(found.values()))[:_MOST]]


def parts_of_words(texts: Sequence[str]) -> list[str]:
    """Every three characters in a row of these texts' words, quoted, as the trigram index has
    them; words of one or two characters have none.
    """
    words = (quote or word for text in texts for quote, word in _PIECES.findall(_clean(text)))
    telling = [word for word in words if word.casefold() not in _EMPTY]
    found = (word[at : at + 3] for word in telling for at in range(len(word) - 2))
    return [quoted(three) for three in list(dict.fromkeys(found))[:_MOST]]


def separated(text: str) -> str:
    """A text with spaces around every Chinese or Japanese character."""
    return _CHARACTERS.sub(lambda run: f" {' '.join(run[0])} ", _clean(text))


def quoted(text: str) -> str:
    """A text as FTS5 takes for words and nothing else."""
    return '"' + _clean(text).replace('"', '""') + '"'


def _clean(text: str) -> str:
    return text.replace("\0", " ")  # where a C string ends


def _pieces(text: str) -> Iterator[str]:
    """Quoted phrases, words, and pairs of Chinese characters, with a letter or digit at least."""
    for phrase, word in _PIECES.findall(_clean(text)):
        for run in [phrase] if phrase else _CHARACTERS.split(word):
            piece = _EDGES.sub("", run)
            if not phrase and _CHARACTERS.match(piece):
                yield from (piece[at : at + 2] for at in range(max(len(piece) - 1, 1)))
            elif piece:
                yield piece
