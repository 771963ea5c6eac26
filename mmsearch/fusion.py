"""What an item is worth to a query: sums, fusions and conditions over standardised scores.

Every value is in standard deviations above what unrelated items score, so that the values of
words, pictures and sounds compare. A *leaf* is what becomes one vector: a tuple of terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from mmsearch.language import And, Not, Or, Query, Sum, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float32]  # (n,) one an item, in standard deviations; -inf: excluded

Leaf = tuple[Term, ...]


class Fusion(StrEnum):
    """How the terms of a sum become one value, with z their standardised scores.

    SUM: the z of one vector, the renormalised weighted sum of the terms' unit rows. It finds
    what lies between them: composition, as of a picture and words that change it.

    MEAN: the weighted mean of the terms' z. As SUM where terms are of one modality; of terms
    of several, none outweighs the others for the spread of its scores.

    PRODUCT: the weighted geometric mean of the terms' z, 0 where one of them is at or below
    its background: every term has to be met, and one that is met twice over does not make up
    for another.

    MAX: the highest of the terms' z, each times its weight over the highest weight: what any
    term describes well.
    """

    SUM = "sum"
    MEAN = "mean"
    PRODUCT = "product"
    MAX = "max"


def leaves(query: Query, fusion: Fusion = Fusion.SUM, *, subtract: bool = False) -> list[Leaf]:
    """What has to be encoded and scored to know what an item is worth, each once."""
    match query:
        case Sum(terms):
            found = _wanted(terms, fusion, subtract) + _unwanted(terms, subtract)
        case And(parts) | Or(parts):
            found = [leaf for part in parts for leaf in leaves(part, fusion, subtract=subtract)]
        case Not(part):
            found = leaves(part, fusion, subtract=subtract)
    return list(dict.fromkeys(found))


def wanted(query: Query, fusion: Fusion = Fusion.SUM, *, subtract: bool = False) -> list[Leaf]:
    """The leaves of what is looked for, without those of what is not."""
    match query:
        case Sum(terms):
            return _wanted(terms, fusion, subtract)
        case And(parts) | Or(parts):
            return [leaf for part in parts for leaf in wanted(part, fusion, subtract=subtract)]
    return []


def worth(
    query: Query,
    z: Mapping[Leaf, Values],
    fusion: Fusion = Fusion.SUM,
    *,
    subtract: bool = False,
    exclude: bool = True,
) -> Values:
    """(n,) what each item is worth, from its (n,) standardised scores with every leaf.

    AND is the minimum and OR the maximum of their parts (Zadeh, Fuzzy Sets, 1965). What is
    not wanted excludes (-inf): an item goes when the unwanted describes it better than the
    wanted, times the unwanted term's weight. With `subtract` unwanted terms are part of the
    sum's vector instead, with their negative weights. Without `exclude` nothing is left out.
    """
    value: Values
    match query:
        case Sum(terms):
            mine = _wanted(terms, fusion, subtract)
            weights = [1.0] if len(mine) == 1 else [leaf[0].weight for leaf in mine]
            value = _fused([z[leaf] for leaf in mine], np.array(weights, np.float32), fusion)
            unwanted = [] if subtract or not exclude else [t for t in terms if t.weight < 0]
            for term in unwanted:
                value = _without(value, np.float32(-term.weight) * z[_alone(term)])
            return value
        case And(parts):
            found = [
                worth(part, z, fusion, subtract=subtract, exclude=exclude) for part in _plain(parts)
            ]
            value = np.minimum.reduce(found)
            for part in parts:
                if exclude and isinstance(part, Not):
                    value = _without(value, worth(part.part, z, fusion, subtract=subtract))
            return value
        case Or(parts):
            found = [worth(part, z, fusion, subtract=subtract, exclude=exclude) for part in parts]
            value = np.maximum.reduce(found)
            return value
    raise TypeError(f"{type(query).__name__} has no worth of its own")


def _plain(parts: tuple[Query, ...]) -> list[Query]:
    return [part for part in parts if not isinstance(part, Not)]


def _wanted(terms: tuple[Term, ...], fusion: Fusion, subtract: bool) -> list[Leaf]:
    if subtract:
        return [terms]
    mine = tuple(term for term in terms if term.weight > 0)
    return [mine] if fusion is Fusion.SUM else [(term,) for term in mine]


def _unwanted(terms: tuple[Term, ...], subtract: bool) -> list[Leaf]:
    return [] if subtract else [_alone(term) for term in terms if term.weight < 0]


def _alone(term: Term) -> Leaf:
    """What is not wanted, as the leaf that it is scored by."""
    return (replace(term, weight=1.0),)


def _without(value: Values, unwanted: Values) -> Values:
    return np.where(unwanted > value, np.float32(-np.inf), value)


def _fused(z: list[Values], weights: Values, fusion: Fusion) -> Values:
    if len(z) == 1:
        return z[0]
    of_terms, shares = np.stack(z), (weights / weights.sum())[:, None]
    value: Values
    match fusion:
        case Fusion.PRODUCT:
            value = np.prod(np.maximum(of_terms, 0) ** shares, axis=0)
        case Fusion.MAX:
            value = (of_terms * (weights / weights.max())[:, None]).max(axis=0)
        case _:
            value = (of_terms * shares).sum(axis=0)
    return value
