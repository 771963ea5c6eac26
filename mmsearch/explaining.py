"""Why an answer was found: what its score loses when something is left out.

Words are left out of the query one by one (representation erasure: Li, Monroe and Jurafsky,
arXiv 1612.08220); seconds of a sound are silenced, sentences of a passage dropped and ninths
of a picture painted over with its mean colour (occlusion: Zeiler and Fergus, arXiv
1311.2901). What cannot do without its only word, second or sentence loses its whole score.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders import Encoder
from mmsearch.errors import LoadError
from mmsearch.files import opened, well_formed
from mmsearch.language import Query, terms_of
from mmsearch.records import Hit, Modality, Reason, Share, Why
from mmsearch.thumbnails import load

if TYPE_CHECKING:
    from mmsearch.records import Pixels, Samples, Vectors

# A word, or one character of a script that is written without spaces.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana and Chinese characters
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_MOST = 64  # words of a phrase that are tried
_NEAR = 0.05  # seconds by which windows may differ that were cut at two rates
_SIDE = 3  # a picture is tried in as many rows and columns
_PLACES = (
    "top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip


def explain(
    query: Query, vectors: Vectors, hits: Sequence[Hit], rows: Mapping[int, Vectors],
    encoder: Encoder,
) -> list[Hit]:  # fmt: skip
    """The same answers, each with its `why`.

    `vectors` are the (m, dim) unit rows that the query stands for, of which the one nearest
    to an answer explains its pieces; `rows` has, by the item's id, the (dim,) unit row of
    each answer. A word's share is of its own phrase's score. An answer without a row has no
    words, one whose file cannot be read any more has no pieces.
    """
    phrases = _left_out(query, encoder)
    return [
        replace(hit, why=Why(_words(phrases, rows.get(hit.id)), _pieces(hit, vectors, encoder)))
        for hit in hits
    ]


Phrases = tuple[list[str], "Vectors"]  # n words, and (n, dim) what each adds to its phrase's row


def _left_out(query: Query, encoder: Encoder) -> Phrases:
    """Every word of the query's phrases; all phrases and what is left of them go in one batch."""
    words: list[str] = []
    texts: list[str | None] = []  # None: nothing is left
    pairs: list[tuple[int, int]] = []  # where in texts the whole phrase is, and what is left
    for term in terms_of(query):
        if not isinstance(term.value, str) or term.modality is not Modality.TEXT:
            continue
        phrase = well_formed(term.value)
        first = len(texts)
        texts.append(phrase)
        for match in list(_WORD.finditer(phrase))[:_MOST]:
            words.append(match[0])
            pairs.append((first, len(texts)))
            left = (phrase[: match.start()] + phrase[match.end() :]).split()
            texts.append(" ".join(left) or None)
    found = _encoded(Modality.TEXT, texts, encoder)
    whole, rest = np.array(pairs, int).reshape(-1, 2).T
    return words, found[whole] - found[rest]


def _words(phrases: Phrases, row: Vectors | None) -> tuple[Share, ...]:
    words, added = phrases
    if row is None:
        return ()
    return tuple(Share(word, float(d)) for word, d in zip(words, added @ row, strict=True))


def _pieces(hit: Hit, vectors: Vectors, encoder: Encoder) -> tuple[Share, ...]:
    try:
        shares, variants = _PIECES[hit.modality](hit, encoder)
    except LoadError:  # it was there when it was indexed
        return ()
    found = _encoded(hit.modality, variants, encoder)  # the whole, then each left out
    vector = vectors[np.argmax(vectors @ found[0])]
    carried = (found[0] - found[1:]) @ vector
    return tuple(replace(share, carried=float(c)) for share, c in zip(shares, carried, strict=True))


def _encoded(kind: Modality, variants: Sequence[Any], encoder: Encoder) -> Vectors:
    """(n, dim) rows in one batch; where nothing is left (None) the row is zero."""
    rows = np.zeros((len(variants), encoder.dim), np.float32)
    there = [number for number, variant in enumerate(variants) if variant is not None]
    if there:
        rows[there] = encoder.encode(kind, [variants[number] for number in there])
    return rows


# Each reader gives the pieces of an answer, and the variants to encode: the whole, then the
# whole without each piece.
Pieces = tuple[list[Share], list[Any]]


def _sentences(hit: Hit, encoder: Encoder) -> Pieces:
    from mmsearch.loaders import texts

    said = texts.sentences(hit.text or "")
    without = [" ".join(said[:n] + said[n + 1 :]) or None for n in range(len(said))]
    return [Share(sentence, 0.0) for sentence in said], [hit.text or None, *without]


def _seconds(hit: Hit, encoder: Encoder) -> Pieces:
    assert encoder.audio_input is not None  # it has a tower for sounds
    samples, rate = _window(hit, encoder), encoder.audio_input.rate
    count, begin = max(len(samples) // rate, 1), hit.start or 0.0
    edges = [*range(0, count * rate, rate), len(samples)]  # a rest belongs to the last second
    shares, variants = [], [samples]
    for first, last in pairwise(edges):
        start, end = begin + first / rate, begin + last / rate
        shares.append(Share(f"{round(start, 2):g}–{round(end, 2):g} s", 0.0, start, end))
        silenced = samples.copy()
        silenced[first:last] = 0
        variants.append(silenced)
    return shares, variants if count > 1 else [samples, None]


def _window(hit: Hit, encoder: Encoder) -> Samples:
    """The window of a sound that an answer is: as this encoder cuts one, or as another did."""
    from mmsearch.loaders import sounds

    assert encoder.audio_input is not None
    begin = hit.start or 0.0
    cuts = [encoder.audio_input]
    if hit.end is not None:
        cuts.append(replace(encoder.audio_input, window=hit.end - begin))
    with opened(os.path.realpath(os.fsencode(hit.path))) as (file, _):
        for want in cuts:
            file.seek(0)
            for window in sounds.windows(file, want):
                same_end = hit.end is None or abs(window.end - hit.end) <= _NEAR
                if abs(window.start - begin) <= _NEAR and same_end:
                    return window.samples
    raise LoadError(Reason.CHANGED, "the sound is another one now")


def _cells(hit: Hit, encoder: Encoder) -> Pieces:
    pixels: Pixels = load(hit.path, encoder.image_input).pixels
    mean = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    edges = np.linspace(0, len(pixels), _SIDE + 1).astype(int)
    variants = [pixels]
    for y in range(_SIDE):
        for x in range(_SIDE):
            covered = pixels.copy()
            covered[edges[y] : edges[y + 1], edges[x] : edges[x + 1]] = mean
            variants.append(covered)
    return [Share(place, 0.0) for place in _PLACES], variants


_PIECES = {Modality.IMAGE: _cells, Modality.AUDIO: _seconds, Modality.TEXT: _sentences}
