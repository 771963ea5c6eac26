"""Pictures and sounds put into words, for an encoder that cannot read them.

Two encoders share nothing but the words that both read. What a picture is to one that has no
tower for pictures, the captions and passages say that lie nearest to it in a space that has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mmsearch.catalog import Catalog
from mmsearch.embedding import ask
from mmsearch.encoders import Encoder
from mmsearch.language import And, Not, Or, Query, Sum, Term
from mmsearch.records import Kind, Modality
from mmsearch.space import Space

NEIGHBOURS = 3  # texts that stand for a picture or a sound: their mean says what they share
_CANDIDATES = 64  # nearest vectors of texts that are looked at: several may say the same


def neighbours(catalog: Catalog, space: Space, encoder: Encoder, term: Term) -> list[str]:
    """What the captions and passages say that are nearest to a picture or a sound: a few different
    texts, nearest first; none where a library has no words.

    Raises LoadError for a bad file.
    """
    [asked] = ask([[term]], encoder)
    with catalog.snapshot():
        groups = space.groups()
        found = [
            groups[kind].nearest(asked.vector[None], _CANDIDATES)
            for kind in (Kind.TEXT, Kind.CAPTION)
            if kind in groups
        ]
        pairs = [(-s, id) for scores, ids in found for s, id in zip(scores[0], ids[0], strict=True)]
        near = [int(id) for _, id in sorted(pairs)]
        alive = {*catalog.matches(near).vectors.tolist(), *catalog.captioned(near).vectors.tolist()}
        texts = catalog.texts_of_vectors(near)
    said = dict.fromkeys(texts[id] for id in near if id in alive and id in texts)
    return list(said)[:NEIGHBOURS]


def in_words(query: Query, said: Mapping[Term, Sequence[str]]) -> Query:
    """The same query with these terms said in words, whose weights come to that of the term."""
    match query:
        case Sum(terms):
            return Sum(tuple(part for term in terms for part in _worded(term, said.get(term))))
        case And(parts):
            return And(tuple(in_words(part, said) for part in parts))
        case Or(parts):
            return Or(tuple(in_words(part, said) for part in parts))
        case Not(part):
            return Not(in_words(part, said))
    raise TypeError(f"not a query: {query!r}")


def _worded(term: Term, texts: Sequence[str] | None) -> list[Term]:
    if texts is None:
        return [term]
    weight = term.weight / len(texts)
    return [replace(term, modality=Modality.TEXT, value=text, weight=weight) for text in texts]
